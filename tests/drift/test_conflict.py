"""Conflict with a consensus and profile against a report, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.drift import Profile, Relation, conflict, profile
from cxr_max.drift.conflict import says
from cxr_max.findings import FINDINGS, Findings, Side, Sides, State, blank, blank_sides
from cxr_max.records import Consensus
from tests.builders.test_consensus import said

EFFUSION, EDEMA, PNEUMONIA, FRACTURE = "Pleural Effusion", "Edema", "Pneumonia", "Fracture"


def consensus(findings: Findings, sides: Sides | None = None) -> Consensus:
    return Consensus(
        study_id="s",
        image_sha256=("i",),
        prompt_sha256="p",
        findings={**blank(), **findings},
        sides={**blank_sides(), **(sides or {})},
        support={},
        abstained=(),
        method="by hand",
        text=None,
    )


@pytest.mark.parametrize(
    ("state", "agreed", "relation"),
    [
        (1, 1, "agree"),
        (0, 0, "agree"),
        (-1, -1, "agree"),
        (1, 0, "contradict"),
        (0, 1, "contradict"),
        (-1, 1, "hedged"),
        (1, -1, "hedged"),
        (-1, 0, "hedged"),
        (0, -1, "hedged"),
        (1, None, "unsupported"),
        (-1, None, "unsupported"),
        (0, None, None),
        (None, 1, "missed"),
        (None, 0, None),
        (None, -1, None),
        (None, None, None),
    ],
)
def test_every_pair_of_states(state: State | None, agreed: State | None, relation: Relation | None) -> None:
    found = conflict({EDEMA: state}, None, consensus({EDEMA: agreed}))
    assert found.relations[EDEMA] == relation
    assert set(found.relations) == set(FINDINGS)
    assert says(said("a", Edema=state), consensus({EDEMA: agreed})) == (relation in {"agree", None})


@pytest.mark.parametrize(
    ("finding", "state", "side", "agreed_side", "relation"),
    [
        (EFFUSION, 1, "left", "right", "side"),
        (EFFUSION, 1, "left", "bilateral", "side"),
        (EFFUSION, -1, "left", "right", "side"),
        (EFFUSION, 1, "left", "left", "agree"),
        (EFFUSION, 1, None, "left", "agree"),
        (EFFUSION, 1, "left", None, "agree"),
        (EFFUSION, 0, "left", "right", "contradict"),
        (EDEMA, 1, "left", "right", "agree"),
    ],
)
def test_sides(
    finding: str, state: State, side: Side | None, agreed_side: Side | None, relation: Relation
) -> None:
    agreed = consensus({finding: 1}, {finding: agreed_side})
    assert conflict({finding: state}, {finding: side}, agreed).relations[finding] == relation
    claims = {finding.replace(" ", "_"): (state, side)}
    assert says(said("a", **claims), agreed) == (relation == "agree")


def test_who_takes_no_part_says_nothing() -> None:
    """Not even where silence would do."""
    agreed = consensus({EDEMA: 0})
    assert says(said("a"), agreed) and not says(said("a", status="truncated"), agreed)


def test_the_score_by_hand() -> None:
    ours: dict[str, State | None] = {EFFUSION: 1, EDEMA: 0, PNEUMONIA: -1, FRACTURE: 1, "Cardiomegaly": 1}
    theirs: dict[str, State | None] = {EFFUSION: 1, EDEMA: 1, PNEUMONIA: 1, "Cardiomegaly": 1, "Lung Lesion": 1}
    found = conflict(ours, {EFFUSION: "left"}, consensus(theirs, {EFFUSION: "right"}))
    assert found.relations[FRACTURE] == "unsupported"
    assert found.relations["Lung Lesion"] == "missed"
    assert (found.score, found.compared) == (0.5, 4)


def test_nothing_comparable_has_no_score() -> None:
    found = conflict({EDEMA: 1}, None, consensus({EFFUSION: 1}))
    assert (found.score, found.compared) == (None, 0)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="each is 1, 0, -1 or None"):
        conflict({EDEMA: 2}, None, consensus({EDEMA: 1}))  # type: ignore[dict-item]


readings = st.fixed_dictionaries({name: st.sampled_from([1, 0, -1, None]) for name in FINDINGS})
sidings = st.fixed_dictionaries({name: st.sampled_from(["left", "right", "bilateral", None]) for name in FINDINGS})


@given(readings, sidings, readings, sidings)
def test_conflict_is_a_share_and_symmetric(ours: Findings, left: Sides, theirs: Findings, right: Sides) -> None:
    one = conflict(ours, left, consensus(theirs, right))
    other = conflict(theirs, right, consensus(ours, left))
    assert (one.score, one.compared) == (other.score, other.compared)
    assert one.score is None if one.compared == 0 else 0 <= (one.score or 0) <= 1


@given(readings, sidings)
def test_no_conflict_with_oneself(findings: Findings, sides: Sides) -> None:
    assert conflict(findings, sides, consensus(findings, sides)).score in (0, None)


@pytest.mark.parametrize(
    ("claimed", "reported", "expected"),
    [
        ({EFFUSION: 1, EDEMA: 1}, {EFFUSION: 1, PNEUMONIA: 1, FRACTURE: 1}, Profile(0.5, 1 / 3, 0.25)),
        ({EFFUSION: 1}, {EFFUSION: 1}, Profile(1.0, 1.0, 1.0)),
        ({EFFUSION: 1}, {EDEMA: 1}, Profile(0.0, 0.0, 0.0)),
        ({EFFUSION: 0}, {EDEMA: 1}, Profile(None, 0.0, 0.0)),
        ({EFFUSION: 1}, {EDEMA: 0}, Profile(0.0, None, 0.0)),
        ({}, {}, Profile(None, None, None)),
        ({EFFUSION: 1, EDEMA: 1}, {EFFUSION: 1, EDEMA: -1}, Profile(1.0, 1.0, 1.0)),
        ({EFFUSION: -1, EDEMA: 1}, {EFFUSION: 1, EDEMA: 1}, Profile(1.0, 0.5, 0.5)),
        ({"No Finding": 1}, {"No Finding": 1}, Profile(1.0, 1.0, 1.0)),
    ],
)
def test_profiles_by_hand(claimed: Findings, reported: Findings, expected: Profile) -> None:
    assert profile(claimed, reported) == expected


@given(readings, readings)
def test_similarity_is_never_above_precision_or_recall(claimed: Findings, reported: Findings) -> None:
    found = profile(claimed, reported)
    for share in (found.precision, found.recall):
        assert share is None or (found.similarity is not None and 0 <= found.similarity <= share <= 1)
