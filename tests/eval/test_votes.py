"""The vote over arrays is the vote of the release, to the last finding."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.consensus import vote
from cxr_max.drift.states import decode
from cxr_max.eval.votes import QUORUM, verdicts
from cxr_max.findings import FINDINGS, State
from cxr_max.records import PREDICTION_STATUSES, STATUSES, Status
from tests.eval.data import STATES, Said, answers
from tests.test_consensus import trajectory

NORMAL = "No Finding"


def voted(teachers: Sequence[Sequence[Said]]) -> list[dict[str, State | None]]:
    return [decode(codes) for codes in verdicts([answers(rows) for rows in teachers])]


def by_vote(replies: Sequence[Said]) -> dict[str, State | None]:
    """One image set by ``consensus.vote``; a failed reply is no trajectory."""
    rows = [
        trajectory(f"t{number}", dict(one.findings) if one.ok else None, status=_status(one))
        for number, one in enumerate(replies)
        if one.status != "failed"
    ]
    return dict(vote(rows).findings) if rows else dict.fromkeys(FINDINGS)


def _status(one: Said) -> Status:
    return next(status for status in STATUSES if status == one.status)


# A reply mentions nothing, little, or everything: No Finding hangs on who is silent.
SILENT = st.just(dict.fromkeys(FINDINGS))
NORMALS = st.fixed_dictionaries(
    {name: st.sampled_from((None, 0)) for name in FINDINGS} | {NORMAL: st.sampled_from(STATES)}
)
LITTLE = st.dictionaries(st.sampled_from(FINDINGS), st.sampled_from(STATES), max_size=3)
ANYTHING = st.fixed_dictionaries(dict.fromkeys(FINDINGS, st.sampled_from(STATES)))
REPLIES = st.builds(
    Said,
    findings=st.one_of(SILENT, NORMALS, LITTLE, ANYTHING),
    status=st.sampled_from(("ok", "ok", "ok", *PREDICTION_STATUSES)),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6).flatmap(lambda m: st.lists(st.tuples(*[REPLIES] * m), min_size=1, max_size=4)))
def test_it_is_the_vote_of_the_release(image_sets: list[tuple[Said, ...]]) -> None:
    teachers = list(zip(*image_sets, strict=True))
    assert voted(teachers) == [by_vote(replies) for replies in image_sets]


@pytest.mark.parametrize("teachers", [2, 3, 4, 7])
def test_it_is_the_vote_of_the_release_where_most_is_normal(teachers: int) -> None:
    """No Finding is rare in what hypothesis draws, and common here."""
    chance = Random(teachers)
    image_sets = [
        [
            Said(
                {name: chance.choices(STATES, (8, 8, 0.3, 0.3))[0] for name in FINDINGS}
                | {NORMAL: chance.choice((1, None))}
            )
            for _ in range(teachers)
        ]
        for _ in range(300)
    ]
    expected = [by_vote(replies) for replies in image_sets]
    normal = sum(verdict[NORMAL] == 1 for verdict in expected)
    assert 10 < normal < 290, "the cases must be of both kinds"
    assert voted(list(zip(*image_sets, strict=True))) == expected


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([1, 1, 0], 1),
        ([0, 0, 1], 0),
        ([1, 0], -1),
        ([1, -1], -1),
        ([1, None], None),
        ([-1, -1], -1),
        ([1, 1, -1, 0], -1),
    ],
)
def test_the_vote_by_hand(states: list[State | None], verdict: State | None) -> None:
    assert voted([[Said({"Edema": state})] for state in states])[0]["Edema"] == verdict


def test_a_claim_without_a_quorum_is_not_normal() -> None:
    normal = Said({NORMAL: 1, "Edema": 0})
    assert voted([[normal], [normal]])[0][NORMAL] == 1
    assert voted([[normal], [normal], [Said({"Fracture": -1})]])[0][NORMAL] is None
    assert voted([[normal], [normal], [Said({"Support Devices": 1})]])[0][NORMAL] == 1
    assert QUORUM == 2


def test_many_teachers_do_not_overflow_their_counts() -> None:
    assert voted([[Said({"Edema": 1})]] * 200)[0]["Edema"] == 1
