"""One sentence -> the findings it mentions, each with its state and side.

ConText's idea (Harkema et al. 2009): a trigger reaches forward or backward to the findings within its scope, which
ends at a conjunction, a new statement or the sentence's end. Triggers are taken from left to right in one pass.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from cxr_max.findings import State
from cxr_max.labeler.lexicon import Lexicon, Match
from cxr_max.labeler.reading import Mention, Reading
from cxr_max.labeler.text import Sentence

_NEW: Final = frozenset({"a", "an", "mild", "moderate", "severe"})
"""After a comma: no item of a denied list begins so."""
_SUBJECT: Final = frozenset({"the", "a", "there", "an", "both"})
"""After a conjunction: a new subject follows."""
NEAR: Final = 8
"""Words between a quality and the structure it is said of."""


def read(sentence: Sentence, lexicon: Lexicon, about: Sequence[Match] = ()) -> Reading:
    """Read one sentence.

    Args:
        about: The structures of the heading it stands under: "Heart: enlarged".
    """
    return _Reader(sentence, lexicon, about).read()


class _Reader:
    """The state of the one pass over a sentence's phrases."""

    def __init__(self, sentence: Sentence, lexicon: Lexicon, about: Sequence[Match]) -> None:
        self.words = sentence.words
        self.lexicon = lexicon
        self.out = Reading()
        self.part = 0
        self.following: Match | None = None
        """The phrase behind the one being read."""
        self.generic: set[int] = set()
        """The parts that speak of no picture."""
        self.stated: set[int] = set()
        """The parts that say "there is"."""
        self.clear_scope()
        self.group: list[Mention] = []
        self.dangling: tuple[Match, State] | None = None
        """A forward trigger that has met nothing yet: at its scope's end it reaches back instead."""
        self.about = [match._replace(first=0, last=0) for match in about]
        """Structures of the heading, until the sentence names one itself."""
        self.late: tuple[Match, bool, bool] | None = None
        """A quality that is said of the heading's structures unless a structure follows it."""
        self.structures: list[Match] = []
        self.named: list[Mention] = []
        """The last group that was not empty: what "it" stands for."""
        self.quality: Match | None = None
        self.quality_state = (False, False)

    def clear_scope(self) -> None:
        self.denied = -1
        """Where the negation in force ends, or -1."""
        self.denied_next = -1
        self.doubted = -1
        self.silent = False
        self.last_doubt_named = True
        self.unable = False

    def read(self) -> Reading:
        matches = list(self.lexicon.matches(self.words))
        for index, match in enumerate(matches, start=1):
            self.following = matches[index] if index < len(matches) else None
            getattr(self, "on_" + match.meaning.kind)(match)
        self.finish()
        return self.out

    def settle_dangling(self) -> None:
        """Let a trigger that nothing follows reach back: "Effusion, suspected." """
        if self.dangling is not None and self.group:
            match, state = self.dangling
            if 0 <= match.first - self.group[-1].last <= 2:
                for mention in self.group:
                    mention.state = state
        self.dangling = None

    def finish(self) -> None:
        self.settle_dangling()
        if self.late is not None:
            for one in self.about:
                self.qualify(one, *self.late)
        out = self.out
        for mention in out.mentions:
            if mention.part in self.generic:
                mention.void = True
        out.generic = bool(self.generic)
        self.reconsider()
        out.mentions = [mention for mention in out.mentions if not (mention.sign and mention.state == 0)]

    def reconsider(self) -> None:
        """ "The heart looks large, raising the question of cardiomegaly": the doubt is about the whole."""
        doubted = {mention.finding: mention.first for mention in self.out.mentions if mention.state == -1}
        for mention in self.out.mentions:
            if mention.derived and mention.state == 1 and mention.first < doubted.get(mention.finding, 0):
                mention.state = -1

    # ---- what is named ----

    def on_term(self, match: Match) -> None:
        if self.denied >= 0 and self.starts_anew(match.first):
            self.denied = -1
        state = self.state_at(match.first)
        if match.meaning.hint and state == 1:
            state = -1
        self.settle_list(match.first)
        void = self.silent or self.of_bone(match)
        for finding in match.meaning.findings:
            mention = Mention(finding, state, match.first, match.last, self.part, match.meaning.sign, void=void)
            mention.hint = match.meaning.hint
            self.out.mentions.append(mention)
            self.group.append(mention)
        if match.first == 1 and self.words[0] == "in" and self.words[match.last : match.last + 1] == [","]:
            self.generic.add(self.part)  # "In pneumonia, ..."
        self.denied_next = -1
        self.dangling = None
        self.last_doubt_named = True

    def starts_anew(self, first: int) -> bool:
        """Whether a denied list has ended: "there is no effusion, a nodule is seen"."""
        before = self.words[max(self.denied, first - 4) : first]
        return any(one == "," and two in _NEW for one, two in pairwise(before))

    def of_bone(self, match: Match) -> bool:
        """Whether a lesion or mass is one of a bone."""
        if match.meaning.findings != ("Lung Lesion",) or match.meaning.hint or match.last - match.first > 1:
            return False
        if self.words[match.first][:6] not in {"lesion", "mass", "masses", "metast"}:
            return False
        near = self.words[max(0, match.first - 4) : match.last + NEAR]
        return any(word in self.lexicon.words["bone"] for word in near)

    def settle_list(self, first: int) -> None:
        """Start a new list of findings unless only a list's words lie between the last one and this one."""
        if self.group:
            words = self.lexicon.words
            between = self.words[self.group[-1].last : first]
            if len(between) > NEAR or any(w in words["list_end"] or w in words["verb"] for w in between):
                self.group = []

    def state_at(self, first: int) -> State:
        if self.denied_next >= 0 and first - self.denied_next <= NEAR:
            return 0
        if self.denied >= 0:
            return 0
        return -1 if self.doubted >= 0 else 1

    def on_structure(self, match: Match) -> None:
        quality = self.quality
        if quality is not None and match.first - quality.last <= NEAR and self.adjacent(quality.last, match.first):
            self.about, self.late = [], None
            self.qualify(match, quality, *self.quality_state)
            return
        self.quality = None
        self.about, self.late = [], None
        self.out.structures.append(match)
        self.structures.append(match)

    def adjacent(self, first: int, last: int) -> bool:
        """Whether no verb parts a quality from the structure behind it."""
        return not any(word in self.lexicon.words["verb"] for word in self.words[first:last])

    def describes_term(self, match: Match) -> bool:
        """Whether a quality is the adjective of a finding: "the heart border is lost in a large effusion"."""
        after = self.following
        if after is None or after.meaning.kind != "term":
            return False
        between = self.words[match.last : after.first]
        return "," not in between and "and" not in between and self.adjacent(match.last, after.first)

    def on_quality(self, match: Match) -> None:
        if self.describes_term(match):
            return
        if self.about and not self.structures:
            self.late = (match, *self.triggers())
        verb = self.verb_before(match)
        near = [one for one in self.structures if one.meaning.name in match.meaning.states]
        if near and (verb or match.first - near[-1].last <= NEAR):
            denied, doubted = self.triggers_since(near[0].first) if verb else self.triggers()
            for one in near:
                self.qualify(one, match, denied, doubted)
            if verb and self.denied < near[0].first:
                self.denied = -1
            self.structures = []
        else:
            self.quality, self.quality_state = match, self.triggers()
        self.denied_next = -1
        self.dangling = None
        self.last_doubt_named = True

    def verb_before(self, match: Match) -> bool:
        if not self.structures:
            return False
        between = self.words[self.structures[-1].last : match.first]
        return any(word in self.lexicon.words["verb"] for word in between)

    def triggers(self) -> tuple[bool, bool]:
        return self.denied >= 0 or self.denied_next >= 0, self.doubted >= 0

    def triggers_since(self, first: int) -> tuple[bool, bool]:
        """Those between a subject and what is said of it, or right before the subject."""
        denied = self.denied >= first or self.denied_next >= first
        before = "," not in self.words[self.doubted : first] if 0 <= self.doubted < first else False
        return denied, self.doubted >= first or before

    def qualify(self, structure: Match, quality: Match, denied: bool, doubted: bool) -> None:
        name = structure.meaning.name
        state = quality.meaning.states.get(name)
        if state is None:
            return
        if denied:
            if state == 0:
                return
            state = 0
        elif doubted:
            if name == "study" or state == 0:
                return
            state = -1
        first, last = min(structure.first, quality.first), max(structure.last, quality.last)
        normal = quality.meaning.states[name] == 0
        findings = self.lexicon.clears[name] if normal else self.lexicon.makes[name]
        self.out.calm = self.out.calm or normal
        for finding in findings:
            if finding == "No Finding":
                self.out.normal = self.out.normal or not self.silent
                continue
            mention = Mention(finding, state, first, last, self.part, derived=True, void=self.silent)
            self.out.mentions.append(mention)
            self.group = [mention]

    def on_abnormality(self, match: Match) -> None:
        if self.denied >= 0 and not self.silent:
            if self.structures and self.structures[-1].meaning.name == "bones":
                self.clear_bones(match)
            elif match.last - match.first > 1 or not self.structures:
                self.out.normal = True

    def clear_bones(self, match: Match) -> None:
        first = self.structures.pop().first
        self.out.mentions.append(Mention("Fracture", 0, first, match.last, self.part))

    def on_other(self, match: Match) -> None:
        if self.denied < 0 and not self.silent:
            self.out.other = True

    def on_ignored(self, match: Match) -> None:
        pass

    # ---- what sets the state ----

    def on_negates(self, match: Match) -> None:
        self.settle_dangling()
        self.dangling = (match, 0)
        self.denied, self.doubted = match.last, -1
        self.quality = None
        self.out.leading = self.out.leading or match.first == 0

    def on_negates_next(self, match: Match) -> None:
        self.denied_next = match.last

    def on_negated(self, match: Match) -> None:
        self.out.leading = self.out.leading or match.first == 0
        for mention in self.group:
            mention.state = 0
        self.after_statement(match)

    def after_statement(self, match: Match) -> None:
        following = self.words[match.last : match.last + 1]
        if following != ["or"]:
            self.denied = self.doubted = -1
        self.group = []

    def on_change(self, match: Match) -> None:
        pass

    def on_adds(self, match: Match) -> None:
        """ "No consolidation with a small effusion": the negation has had its object."""
        if self.denied >= 0 and any(mention.first >= self.denied for mention in self.group):
            self.denied = -1
            self.group = []

    def on_doubts(self, match: Match) -> None:
        self.out.doubtful = True
        if self.denied >= 0 and match.first and self.words[match.first - 1] in {",", "which"}:
            self.denied = -1
        if self.denied < 0:
            self.dangling = (match, -1)
            self.doubted = match.last
            self.last_doubt_named = False

    def on_doubted(self, match: Match) -> None:
        self.out.doubtful = True
        for mention in self.group:
            mention.state = -1
        self.after_statement(match)

    def on_either(self, match: Match) -> None:
        if self.denied >= 0:
            return
        for mention in self.group:
            mention.state = -1
        self.doubted = match.last

    def on_artefact(self, match: Match) -> None:
        if self.doubted >= 0 and not self.last_doubt_named:
            for mention in self.group:
                mention.state = -1

    def on_silences(self, match: Match) -> None:
        self.silent = True

    def on_breaks(self, match: Match) -> None:
        self.settle_dangling()
        self.clear_scope()
        self.part += 1
        self.out.cuts.append(match.first)
        self.named = self.group or self.named
        following = self.words[match.last] if match.last < len(self.words) else ""
        self.group = self.named if following in self.lexicon.words["pronoun"] else []
        if following in _SUBJECT:
            self.structures = []
        self.quality = None

    def on_begins(self, match: Match) -> None:
        self.denied = self.denied_next = -1
        if match.first and self.words[match.first - 1] in {",", "and"}:
            self.doubted = -1
        self.stated.add(self.part)
        self.group = []

    def on_supports(self, match: Match) -> None:
        if match.first and self.words[match.first - 1] in {",", "which"}:
            self.denied = -1

    def on_seen(self, match: Match) -> None:
        if self.group and self.denied >= 0:
            self.after_statement(match)

    def on_defines(self, match: Match) -> None:
        if self.part not in self.stated and not self.sided() and (self.group or not self.out.mentions):
            self.generic.add(self.part)

    def sided(self) -> bool:
        sides = self.lexicon.sides
        return any(sides.get(word) in ("left", "right") for word in self.words)

    def on_supposes(self, match: Match) -> None:
        self.generic.add(self.part)

    def on_supposes_not(self, match: Match) -> None:
        pass

    def on_unable(self, match: Match) -> None:
        self.unable = True

    def on_task(self, match: Match) -> None:
        self.out.refuses = self.out.refuses or (self.unable and not self.out.mentions)

    def on_willing(self, match: Match) -> None:
        self.out.willing = True
