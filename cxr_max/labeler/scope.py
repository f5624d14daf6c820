"""One sentence -> the findings it mentions, each with its state and side.

ConText's idea (Harkema et al. 2009): a trigger reaches forward or backward to the findings within its scope, which
ends at a conjunction, a new statement or the sentence's end. Triggers are taken from left to right in one pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cxr_max.findings import Side, State
from cxr_max.labeler.lexicon import Lexicon, Match
from cxr_max.labeler.text import Sentence

NEAR: Final = 8
"""Words between a quality and the structure it is said of."""


@dataclass(slots=True)
class Mention:
    """A finding spoken of: the words ``first`` to ``last - 1`` of its sentence."""

    finding: str
    state: State
    first: int
    last: int
    part: int = 0
    """Which of the sentence's parts, as its conjunctions divide it."""
    sign: bool = False
    void: bool = False
    """Spoken of, but nothing is said of this picture."""
    side: Side | None = None
    start: int = 0
    end: int = 0
    """The place in the text."""


@dataclass(slots=True)
class Reading:
    """What one sentence says."""

    mentions: list[Mention] = field(default_factory=list)
    normal: bool = False
    """It calls the study normal, or denies any acute abnormality."""
    other: bool = False
    """It names an abnormality outside the 14."""
    negative: bool = False
    """A negation or a normal quality stands in it."""
    leading: bool = False
    """A negation opens it."""
    doubtful: bool = False
    generic: bool = False
    """It defines a disease, or supposes."""
    devices: list[int] = field(default_factory=list)
    kinds: frozenset[str] = frozenset()


def read(sentence: Sentence, lexicon: Lexicon) -> Reading:
    """Read one sentence."""
    return _Reader(sentence, lexicon).read()


class _Reader:
    """The state of the one pass over a sentence's phrases."""

    def __init__(self, sentence: Sentence, lexicon: Lexicon) -> None:
        self.words = sentence.words
        self.lexicon = lexicon
        self.out = Reading()
        self.part = 0
        self.generic: set[int] = set()
        self.clear_scope()
        self.group: list[Mention] = []
        self.structures: list[Match] = []
        self.quality: Match | None = None
        self.quality_state = (False, False)

    def clear_scope(self) -> None:
        self.denied = -1
        """Where the negation in force ends, or -1."""
        self.denied_next = -1
        self.doubted = -1
        self.silent = False
        self.last_doubt_named = True

    def read(self) -> Reading:
        matches = list(self.lexicon.matches(self.words))
        kinds = set()
        for match in matches:
            kinds.add(match.meaning.kind)
            getattr(self, "on_" + match.meaning.kind)(match)
        self.finish(matches, kinds)
        return self.out

    def finish(self, matches: Sequence[Match], kinds: set[str]) -> None:
        out = self.out
        out.kinds = frozenset(kinds)
        for mention in out.mentions:
            if mention.part in self.generic:
                mention.void = True
        out.generic = bool(self.generic)
        out.mentions = [mention for mention in out.mentions if not (mention.sign and mention.state == 0)]

    # ---- what is named ----

    def on_term(self, match: Match) -> None:
        state = self.state_at(match.first)
        self.settle_list(match.first)
        for finding in match.meaning.findings:
            mention = Mention(finding, state, match.first, match.last, self.part, match.meaning.sign, self.silent)
            self.out.mentions.append(mention)
            self.group.append(mention)
        self.denied_next = -1
        self.last_doubt_named = True

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
            self.qualify(match, quality, *self.quality_state)
            return
        self.quality = None
        self.structures.append(match)

    def adjacent(self, first: int, last: int) -> bool:
        """Whether no verb parts a quality from the structure behind it."""
        return not any(word in self.lexicon.words["verb"] for word in self.words[first:last])

    def on_quality(self, match: Match) -> None:
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
        findings = self.lexicon.clears[name] if state == 0 else self.lexicon.makes[name]
        if state == 0:
            self.out.negative = True
        for finding in findings:
            if finding == "No Finding":
                self.out.normal = self.out.normal or not self.silent
                continue
            mention = Mention(finding, state, first, last, self.part, void=self.silent)
            self.out.mentions.append(mention)
            self.group = [mention]

    def on_abnormality(self, match: Match) -> None:
        if self.denied >= 0 and not self.silent:
            if len(self.structures) and self.structures[-1].meaning.name == "bones":
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
        self.denied, self.doubted = match.last, -1
        self.structures = []
        self.quality = None
        self.out.negative = True
        self.out.leading = self.out.leading or match.first == 0

    def on_negates_next(self, match: Match) -> None:
        self.denied_next = match.last
        self.out.negative = True

    def on_negated(self, match: Match) -> None:
        self.out.negative = True
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

    def on_doubts(self, match: Match) -> None:
        self.out.doubtful = True
        if self.denied < 0:
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
        self.clear_scope()
        self.part += 1
        self.group, self.structures, self.quality = [], [], None

    def on_begins(self, match: Match) -> None:
        self.denied = self.denied_next = -1
        self.group = []

    def on_supports(self, match: Match) -> None:
        if match.first and self.words[match.first - 1] in {",", "which"}:
            self.denied = -1

    def on_seen(self, match: Match) -> None:
        if self.group and self.denied >= 0:
            self.after_statement(match)

    def on_defines(self, match: Match) -> None:
        if not self.sided() and (self.group or not self.out.mentions):
            self.generic.add(self.part)

    def sided(self) -> bool:
        sides = self.lexicon.sides
        return any(sides.get(word) in ("left", "right") for word in self.words)

    def on_supposes(self, match: Match) -> None:
        self.generic.add(self.part)

    def on_supposes_not(self, match: Match) -> None:
        pass

    def on_unable(self, match: Match) -> None:
        pass

    on_task = on_willing = on_unable


def sides_of(reading: Reading, sentence: Sentence, lexicon: Lexicon) -> None:
    """Give each mention of the sentence its side: the nearest that no other finding or device owns."""
    mentions = sorted(reading.mentions, key=lambda mention: mention.first)
    if not mentions:
        return
    for place, side in _placed(sentence.words, lexicon):
        owner = _owner(place, mentions, sentence.words)
        if owner is not None:
            for mention in mentions:
                if mention.first == owner.first and mention.last == owner.last:
                    mention.side = joined(mention.side, side)
    _lend(mentions, sentence.words)


def _placed(words: Sequence[str], lexicon: Lexicon) -> Iterator[tuple[int, Side]]:
    """The side words that tell where something lies."""
    sides, classes = lexicon.sides, lexicon.words
    for at, word in enumerate(words):
        side = sides.get(word)
        if side is None:
            continue
        after = words[at + 1] if at + 1 < len(words) else ""
        before = words[max(0, at - 3) : at]
        if after in classes["owner"] or any(near in classes["direction"] for near in before):
            continue
        if side != "bilateral" and (
            after in classes["greater"] or any(near in classes["greater"] for near in before)
        ):
            continue
        yield at, side


def _owner(place: int, mentions: Sequence[Mention], words: Sequence[str]) -> Mention | None:
    """Whose side it is: of the mention around or right behind it, else of the last one before it."""
    before: Mention | None = None
    for mention in mentions:
        if mention.first <= place < mention.last:
            return mention
        if mention.last <= place:
            before = mention
        elif mention.first > place:
            gap = words[place + 1 : mention.first]
            if _modifies(gap) or before is None:
                return mention
            break
    return before


def _modifies(gap: Sequence[str]) -> bool:
    """Whether a side with these words behind it is an adjective of what follows them."""
    return len(gap) <= 4 and not any(word in _PARTS for word in gap)


_PARTS: Final = frozenset({",", "and", "or", "with", "is", "are", "may", "could", "lung", "base", "side"})


def _lend(mentions: Sequence[Mention], words: Sequence[str]) -> None:
    """A list shares its side: "bilateral effusions and atelectasis"; evidence lends its own."""
    for last, mention in zip(mentions, mentions[1:], strict=False):
        if (
            mention.side is None
            and last.side is not None
            and mention.part == last.part
            and last.finding != "Support Devices"
        ):
            mention.side = last.side


def joined(one: Side | None, other: Side | None) -> Side | None:
    """Left and right make bilateral."""
    if one is None or one == other:
        return other
    return one if other is None else "bilateral"
