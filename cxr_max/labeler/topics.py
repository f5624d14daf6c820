"""Headings, labelled lines and tables: "Fracture: not seen", "❌ Edema", "## Atelectasis" and what follows it.

A heading is a question, not a finding: what is said below it answers. Where that names the finding, it speaks for
itself; where it does not ("Atelectasis: streaks at the left base"), its first telling sentence decides.

Where a prompt gave the finding away, a heading is an echo, and so is every sentence that names the finding without
saying where it is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cxr_max.findings import State
from cxr_max.labeler.lexicon import Lexicon
from cxr_max.labeler.reading import Mention, Reading
from cxr_max.labeler.sides import loose_side
from cxr_max.labeler.text import Sentence

TELLING = 3
"""Words that a sentence without a name needs to say something."""


@dataclass(slots=True)
class _Topic:
    heads: list[Mention]
    titled: bool
    answered: bool = False
    """A sentence of it has named the finding, or decided its state."""
    silent: bool = True
    """Nothing has followed the heading yet."""
    said: list[Mention] = field(default_factory=list)


class Topics:
    """Follows the headings of one text; ``hear`` takes its sentences in order."""

    def __init__(self, words: Lexicon, given: frozenset[str]) -> None:
        self.words = words
        self.given = given
        self.now: _Topic | None = None

    def hear(self, sentence: Sentence, reading: Reading) -> list[Mention]:
        """The mentions that the sentence makes by standing where it does. Echoes in it are made void."""
        self._mark(sentence, reading)
        if self.given:
            self._silence_echoes(sentence, reading)
        done: list[Mention] = []
        if (sentence.head and sentence.titled) or (sentence.opens and not self._goes_on(sentence)):
            done = self.close()
        if sentence.head and self._is_name(sentence, reading):
            done = done or self.close()
            self.now = _Topic(reading.mentions, sentence.titled)
            reading.mentions = []
            self._answer_mark(sentence)
        elif self.now is not None:
            self._answer(sentence, reading)
        return done

    def close(self) -> list[Mention]:
        """End the topic; what it has said, or its bare heading."""
        topic, self.now = self.now, None
        if topic is None:
            return []
        if topic.silent and not self.given:
            return topic.heads
        return topic.said

    def _goes_on(self, sentence: Sentence) -> bool:
        return self.now is not None and (self.now.titled or self.now.silent) and not sentence.head

    def _mark(self, sentence: Sentence, reading: Reading) -> None:
        """A check mark right before a finding, or right behind it, is its state."""
        if sentence.mark is None:
            return
        first = min((mention.first for mention in reading.mentions), default=None)
        if first is None or any(word not in self.words.words["filler"] for word in sentence.words[:first]):
            return
        for mention in reading.mentions:
            if mention.first == first:
                mention.state = _state(sentence.mark)

    def _silence_echoes(self, sentence: Sentence, reading: Reading) -> None:
        located = self._located(sentence.words)
        for mention in reading.mentions:
            if mention.finding in self.given and mention.state == 1 and not located:
                mention.void = True

    def _located(self, words: Sequence[str]) -> bool:
        places, sides = self.words.words["location"], self.words.sides
        return any(word in places or word in sides for word in words)

    def _is_name(self, sentence: Sentence, reading: Reading) -> bool:
        """Whether a heading is the name of one or more findings, and nothing else but a heading's words."""
        if not reading.mentions:
            return False
        named = {at for mention in reading.mentions for at in range(mention.first, mention.last)}
        classes = self.words.words
        rest = (word for at, word in enumerate(sentence.words) if at not in named)
        return all(
            word in classes["filler"] or word in classes["heading"] or word in self.words.sides or word.isdigit()
            for word in rest
        )

    def _answer_mark(self, sentence: Sentence) -> None:
        if sentence.mark is not None and self.now is not None:
            self._say(_state(sentence.mark), None, sentence)

    def _answer(self, sentence: Sentence, reading: Reading) -> None:
        topic = self.now
        assert topic is not None
        topic.silent = False
        names = {mention.finding for mention in topic.heads}
        spoken = [mention for mention in reading.mentions if mention.finding in names and not mention.void]
        for mention in spoken:
            if mention.hint and mention.state == -1 and not reading.doubtful and not topic.answered:
                mention.state = 1  # what only hints elsewhere affirms below its own heading
        topic.answered = topic.answered or bool(spoken)
        state = None if topic.answered else self._verdict(sentence, reading)
        if state is not None:
            self._say(state, sentence, sentence)
        elif topic.said and topic.said[0].side is None:
            self._lend(sentence)

    def _lend(self, sentence: Sentence) -> None:
        """A mark has decided; the words behind it say where."""
        assert self.now is not None
        for mention in self.now.said:
            mention.side = loose_side(sentence.words, self.words)

    def _say(self, state: State, where: Sentence | None, sentence: Sentence) -> None:
        assert self.now is not None
        side = loose_side(where.words, self.words) if where is not None else None
        self.now.answered = True
        for head in self.now.heads:
            self.now.said.append(
                Mention(head.finding, state, 0, 0, side=side or head.side, start=head.start, end=head.end)
            )

    def _verdict(self, sentence: Sentence, reading: Reading) -> State | None:
        """The state that a sentence gives to the heading above it."""
        words = sentence.words
        if sentence.mark is not None:
            return _state(sentence.mark)
        if reading.generic or not words:
            return None
        if reading.leading or (reading.calm and loose_side(words, self.words) is None):
            return 0
        if words[0] in self.words.words["yes"]:
            return 1
        if reading.doubtful:
            return -1
        if len(words) < TELLING or (self.given and not self._located(words)):
            return None
        return 1


def _state(mark: int) -> State:
    return 1 if mark > 0 else 0 if mark == 0 else -1
