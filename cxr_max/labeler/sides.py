"""Which side a finding lies on: every side word of a sentence belongs to one finding, or to none."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from cxr_max.findings import Side
from cxr_max.labeler.lexicon import Lexicon
from cxr_max.labeler.reading import Mention, Reading

ADJECTIVES: Final = 4
"""Words that may stand between a side and the finding it describes: "left lower lobe airspace"."""
LISTING: Final = frozenset({",", "and", "or"})


def give_sides(reading: Reading, words: Sequence[str], lexicon: Lexicon) -> None:
    """Give each mention of a sentence the sides that no other finding or device owns."""
    if not reading.mentions:
        return
    mentions = sorted(reading.mentions, key=lambda mention: mention.first)
    ends = lexicon.words["side_end"] | lexicon.words["verb"]
    trailing: set[int] = set()
    for place, side in _placed(words, lexicon):
        part = bisect_right(reading.cuts, place)
        owner = _owner(place, [mention for mention in mentions if mention.part == part], words, ends)
        if owner is not None:
            if place >= owner.last:
                trailing.add(owner.first)
            for mention in mentions:
                if mention.first == owner.first and mention.last == owner.last:
                    mention.side = joined(mention.side, side)
    _lend_back(mentions, words, ends, trailing)
    _lend(mentions, words)


def loose_side(words: Sequence[str], lexicon: Lexicon) -> Side | None:
    """All sides of a sentence that names no finding."""
    found: Side | None = None
    for _, side in _placed(words, lexicon):
        found = joined(found, side)
    return found


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


def _owner(place: int, mentions: Sequence[Mention], words: Sequence[str], ends: frozenset[str]) -> Mention | None:
    """Whose side it is: of the mention around or right behind it, else of the last one before it."""
    before: Mention | None = None
    for mention in mentions:
        if mention.first <= place < mention.last:
            return mention
        if mention.last <= place:
            before = mention
        elif mention.first > place:
            gap = words[place + 1 : mention.first]
            near = len(gap) <= ADJECTIVES and not any(word in ends for word in gap)
            return mention if near or before is None else before
    return before


def _lend_back(
    mentions: Sequence[Mention], words: Sequence[str], ends: frozenset[str], trailing: set[int]
) -> None:
    """ "Consolidation and atelectasis at the left base": what stands behind a list is said of all of it."""
    for index in range(len(mentions) - 1, 0, -1):
        mention, earlier = mentions[index], mentions[index - 1]
        listed = not any(word in ends - LISTING for word in words[earlier.last : mention.first])
        if mention.first in trailing and listed and earlier.side is None and earlier.part == mention.part:
            earlier.side = mention.side
            trailing.add(earlier.first)


def _lend(mentions: Sequence[Mention], words: Sequence[str]) -> None:
    """Evidence lends its side to what it is evidence of, and "bilateral" reaches the second of a pair.

    In a list with commas every item has its own: "left effusion, pneumonia and a right nodule".
    """
    for last, mention in pairwise(mentions):
        gap = words[last.last : mention.first]
        paired = "," not in gap or any(word not in LISTING for word in gap)
        shared = mention.part == last.part and "Support Devices" not in (last.finding, mention.finding)
        if mention.side is None and shared and paired:
            mention.side = last.side


def joined(one: Side | None, other: Side | None) -> Side | None:
    """Left and right make bilateral."""
    if one is None or one == other:
        return other
    return one if other is None else "bilateral"
