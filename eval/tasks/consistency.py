"""Whether a model says the same when it should, and something else when it should.

Agreement alone means little: whoever never looks at the picture agrees with itself. So the picture's worth to the
answers stands beside it (``image_gain``, ``blank_accuracy``), and every answer falls into one of four quadrants:
consistent or not, by uses the picture or not.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from cxr_max.drift.states import Codes
from cxr_max.eval.answers import FAILED, Answers, Data
from cxr_max.eval.bootstrap import macro, minus
from cxr_max.eval.conditions import BLANK, MIRROR, ORIGINAL, parse
from cxr_max.eval.metrics import agreement, classification
from cxr_max.eval.metrics.measured import Additive, Bools, Floats, Ints, ratio
from cxr_max.eval.reference import SIDE_ORDER, Reference
from cxr_max.eval.scored import EVERY, Counted, Part, Ruler, Scored, claim_part, count, mean_over, per_finding
from cxr_max.eval.suite import Suite
from cxr_max.eval.votes import verdicts
from cxr_max.findings import FINDINGS, LATERAL

LATERAL_PLACES: Final = tuple(FINDINGS.index(name) for name in FINDINGS if name in LATERAL)
_LEVELS: Final = 4
"""Not mentioned, absent, uncertain, present."""
_MIRRORED: Final = np.array([SIDE_ORDER.index(side) for side in (None, "right", "left", "bilateral")])
"""By side code: what it becomes when left and right are exchanged."""
_NO_TEACHERS: Final = "the release has no other teacher"
_QUADRANTS: Final = {
    "consistent_uses": (True, True),
    "consistent_ignores": (True, False),
    "inconsistent_uses": (False, True),
    "inconsistent_ignores": (False, False),
}


def consistency(everything: Data, suite: Suite) -> Iterator[Scored]:
    """All scores of the task."""
    assert suite.consistency is not None
    test = everything.of_split(suite.split)
    whole = Ruler.of(test.reference, suite)
    yield from _with_teachers(test, whole)
    yield from _reasoning(test, whole)
    partner = other_patient(test.reference)
    yield from image_gain(test, partner, whole)
    few = test.first(suite.consistency.image_sets)
    ruler = Ruler.of(few.reference, suite)
    yield from _repeated(few, ruler)
    if suite.consistency.mirror:
        yield from per_finding("mirror_consistency", ruler, partial(_mirror, few), places=LATERAL_PLACES)
    if suite.consistency.blank:
        yield from on_blank(few, ruler)
    theirs = about_others(test.under(ORIGINAL), partner).take(np.arange(len(few.reference)))
    for name, kind in _QUADRANTS.items():
        yield from per_finding(f"quadrant_{name}", ruler, partial(_quadrant, few, theirs, kind))


def other_patient(reference: Reference) -> Ints:
    """(n,): for each image set the next one, in the order of the hashes, of another patient; itself if there is
    none."""
    n = len(reference)
    found = np.arange(n)
    for index in range(n):
        for step in range(1, n):
            if reference.subjects[(index + step) % n] != reference.subjects[index]:
                found[index] = (index + step) % n
                break
    return found


def about_others(answers: Answers, partner: Ints) -> Answers:
    """The answers about the partners' pictures; none where there is no other patient."""
    theirs = answers.take(partner)
    theirs.status[partner == np.arange(len(partner))] = FAILED
    return theirs


# With the other teachers.


def _with_teachers(data: Data, ruler: Ruler) -> Iterator[Scored]:
    answers, peers = data.under(ORIGINAL), data.peers
    yield from _alpha(answers, list(peers.values()), ruler)
    for teacher, theirs in peers.items():
        make = partial(_same_state, answers, theirs.states)
        yield from per_finding("peer_agreement", ruler, make, condition=teacher, each=False)
    voted = verdicts(list(peers.values())) if peers else None
    yield from per_finding("consensus_agreement", ruler, partial(_same_state, answers, voted))
    make_sides = partial(_same_side, answers, list(peers.values()))
    yield from per_finding("side_agreement", ruler, make_sides, places=LATERAL_PLACES)


def _alpha(answers: Answers, peers: list[Answers], ruler: Ruler) -> Iterator[Scored]:
    """Krippendorff's alpha of the model and one teacher, averaged over teachers."""
    found = []
    for place in EVERY:
        parts = [_alpha_with(answers, peer, place) for peer in peers] or [_no_teachers(answers, place)]
        found.append((place, parts[0], macro(ruler.draw_all(parts))))
    for place, part, drawn in found:
        yield Scored("alpha", FINDINGS[place], None, None, drawn, part.counted)
    yield mean_over("alpha", found, None)


def _alpha_with(answers: Answers, peer: Answers, place: int) -> Part:
    states = np.stack([answers.states[:, place], peer.states[:, place]], axis=1).astype(np.int64)
    metric = agreement.krippendorff_alpha(states - 1, states > 0, levels=_LEVELS - 1)
    return Part(metric, np.arange(len(answers)), _mentions(answers, place))


def _no_teachers(answers: Answers, place: int) -> Part:
    return Part(_NO_TEACHERS, np.empty(0, np.int64), _mentions(answers, place))


def _same_state(answers: Answers, theirs: Codes | None, place: int) -> Part:
    if theirs is None:
        return _no_teachers(answers, place)
    both = (answers.states[:, place] > 0) & (theirs[:, place] > 0)
    same = answers.states[:, place] == theirs[:, place]
    return _share_of(both, same, answers)


def _same_side(answers: Answers, peers: list[Answers], place: int) -> Part:
    ours = answers.sides[:, place]
    both = [(ours > 0) & (peer.sides[:, place] > 0) for peer in peers]
    same = [pair & (ours == peer.sides[:, place]) for pair, peer in zip(both, peers, strict=True)]
    if not peers:
        return _no_teachers(answers, place)
    columns = np.stack([np.sum(same, axis=0), np.sum(both, axis=0)], axis=1).astype(np.float64)
    metric = Additive(columns, _ratio_of_sums, "no finding was given a side by both", (columns[:, 1] > 0,))
    return Part(metric, np.arange(len(answers)), _mentions(answers, place))


# With its own text.


def _reasoning(data: Data, ruler: Ruler) -> Iterator[Scored]:
    yield from per_finding("reasoning_agreement", ruler, partial(_supported, data.under(ORIGINAL)))


def _supported(answers: Answers, place: int) -> Part:
    mentioned = answers.compared & (answers.states[:, place] > 0)
    if answers.ok.any() and not answers.compared.any():
        return Part("there are no texts to compare with", np.empty(0, np.int64), _mentions(answers, place))
    return _share_of(mentioned, ~answers.contradicted[:, place], answers)


# With itself.


def _repeated(data: Data, ruler: Ruler) -> Iterator[Scored]:
    original = data.under(ORIGINAL)
    samples, paraphrases = repeats(data, "sample"), repeats(data, "paraphrase")
    yield from per_finding("self_consistency", ruler, partial(_self_consistency, original, samples))
    yield from per_finding("flip_rate", ruler, partial(_flips, original, paraphrases))


def repeats(data: Data, kind: str) -> list[Answers]:
    """The answers to the same question, sampled again or in other words."""
    return [answers for name, answers in data.answers.items() if parse(name).kind == kind]


def _self_consistency(original: Answers, samples: list[Answers], place: int) -> Part:
    drawn = [original, *samples]
    states, said = _columns(drawn, place)
    metric = agreement.self_consistency(states, said, levels=_LEVELS)
    return Part(
        metric if samples else "one sample was drawn", np.arange(len(original)), _mentions(original, place)
    )


def _flips(original: Answers, paraphrases: list[Answers], place: int) -> Part:
    if not paraphrases:
        return Part("no paraphrase was asked", np.empty(0, np.int64), _mentions(original, place))
    states, said = _columns(paraphrases, place)
    metric = agreement.flip_rate(original.states[:, place].astype(np.int64), original.ok, states, said)
    return Part(metric, np.arange(len(original)), _mentions(original, place))


def _columns(several: list[Answers], place: int) -> tuple[Ints, Bools]:
    """(n, raters) states, and whether each was answered: saying nothing of a finding is saying something here."""
    states = np.stack([one.states[:, place] for one in several], axis=1).astype(np.int64)
    return states, np.stack([one.ok for one in several], axis=1)


def _mirror(data: Data, place: int) -> Part:
    original, mirrored = data.under(ORIGINAL), data.under(MIRROR)
    ours, theirs = original.sides[:, place], mirrored.sides[:, place]
    return _share_of((ours > 0) & (theirs > 0), _MIRRORED[ours] == theirs, original)


# With the picture.


def image_gain(data: Data, partner: Ints, ruler: Ruler) -> Iterator[Scored]:
    """Balanced accuracy of the answers, less that of the partners' answers; on image sets where both answered.

    Args:
        partner: (n,) as ``other_patient`` gives it.
    """
    own = data.under(ORIGINAL)
    theirs = about_others(own, partner)
    among = own.ok & theirs.ok
    balanced = classification.balanced_accuracy
    found = [ruler.drawn(partial(claim_part, balanced, data, answers, among=among)) for answers in (own, theirs)]
    gains = [
        (place, part, minus(ours, others)) for (place, part, ours), (_, _, others) in zip(*found, strict=True)
    ]
    for place, part, gain in gains:
        yield Scored("image_gain", FINDINGS[place], None, None, gain, part.counted)
    yield mean_over("image_gain", gains, data.reference.common)


def on_blank(data: Data, ruler: Ruler) -> Iterator[Scored]:
    """Balanced accuracy of the answers about blank pictures."""
    blank = data.under(BLANK)
    make = partial(claim_part, classification.balanced_accuracy, data, blank)
    yield from per_finding("blank_accuracy", ruler, make, common=data.reference.common)


def _quadrant(data: Data, theirs: Answers, kind: tuple[bool, bool], place: int) -> Part:
    """Of what the original mentions, the answers that fall into one quadrant.

    An answer counts where it was repeated at least once, and where a blank or another's picture was answered.
    """
    original = data.under(ORIGINAL)
    again = [*repeats(data, "sample"), *repeats(data, "paraphrase")]
    changed, tested = _unlike(original, [data.under(BLANK), theirs], place)
    flipped, repeated = _unlike(original, again, place)
    among = (original.states[:, place] > 0) & tested & repeated
    if not again:
        return Part("nothing was asked twice", np.empty(0, np.int64), _mentions(original, place))
    consistent, uses = kind
    return _share_of(among, (flipped != consistent) & (changed == uses), original)


def _unlike(original: Answers, others: list[Answers], place: int) -> tuple[Bools, Bools]:
    """(n,) each: some answered other says something else; some other was answered."""
    differs = np.zeros(len(original), dtype=np.bool_)
    answered = differs.copy()
    for other in others:
        answered |= other.ok
        differs |= other.ok & (other.states[:, place] != original.states[:, place])
    return differs, answered


def _share_of(among: Bools, right: Bools, answers: Answers) -> Part:
    """Of the image sets in ``among``, those that are right."""
    rows = np.flatnonzero(among)
    metric = classification.sensitivity(np.ones(len(rows), dtype=np.bool_), right[rows])
    everybody = np.ones(len(answers), dtype=np.bool_)
    whole = count(answers, everybody)
    return Part(metric if len(rows) else _NOTHING, rows, Counted(len(rows), whole.refused, whole.failed))


_NOTHING: Final = "there is nothing to compare: no image set has both answers"


def _mentions(answers: Answers, place: int) -> Counted:
    whole = count(answers, np.ones(len(answers), dtype=np.bool_))
    return Counted(int((answers.states[:, place] > 0).sum()), whole.refused, whole.failed)


def _ratio_of_sums(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])
