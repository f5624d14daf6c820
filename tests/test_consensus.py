"""The vote by hand and by its properties."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.consensus import Tie, Weights, shares, vote
from cxr_max.findings import FINDINGS, STATES, Side, State, blank, blank_sides
from cxr_max.records import Consensus, Sampling, Status, Trajectory

EFFUSION, EDEMA, NORMAL = "Pleural Effusion", "Edema", "No Finding"
RANK: Mapping[State | None, int] = {0: 0, -1: 1, 1: 2}


def trajectory(
    teacher: str,
    findings: Mapping[str, State | None] | None = None,
    sides: Mapping[str, Side | None] | None = None,
    *,
    status: Status = "ok",
    sample: int = 0,
    study: str = "s1",
) -> Trajectory:
    """One reply of a teacher about one study."""
    return Trajectory(
        trajectory_id=f"{study}/{teacher}/{sample}",
        study_id=study,
        subject_id=study,
        source="test",
        split=None,
        image_ids=(study,),
        source_sha256=(study,),
        image_sha256=(study,),
        rendering="none",
        teacher=teacher,
        provider="simulated",
        model=teacher,
        model_reported=None,
        prompt_name="diagnose",
        prompt_version="1",
        prompt_sha256="p",
        prompt_given="nothing",
        sampling=Sampling(),
        sample_index=sample,
        status=status,
        finish_reason=None,
        text="",
        reasoning=None,
        findings=None if findings is None else {**blank(), **findings},
        sides=None if sides is None else {**blank_sides(), **sides},
        labeler=None,
        contradictions=(),
        input_tokens=None,
        output_tokens=None,
        cost_usd=None,
        latency_s=0.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        request_sha256=f"{study}/{teacher}/{sample}",
    )


def voted(states: Sequence[State | None], finding: str = EFFUSION) -> list[Trajectory]:
    """One teacher per state."""
    return [trajectory(f"t{index}", {finding: state}) for index, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "verdict", "support"),
    [
        ([1, 1, 0], 1, (2, 3)),
        ([0, 0, 1], 0, (2, 3)),
        ([1, 0], -1, (0, 2)),
        ([1, 1, 0, 0], -1, (0, 4)),
        ([1, 1, -1, 0], -1, (1, 4)),
        ([1, 1, 1, -1, 0], 1, (3, 5)),
        ([-1, -1, 1], -1, (2, 3)),
        ([-1, 0, 0], 0, (2, 3)),
        ([1, None, None], None, (0, 1)),
        ([1, 1, None, None, None], 1, (2, 2)),
        ([None, None, None], None, (0, 0)),
    ],
)
def test_the_vote_by_hand(states: list[State | None], verdict: State | None, support: tuple[float, int]) -> None:
    consensus = vote(voted(states))
    assert consensus.findings[EFFUSION] == verdict
    assert consensus.support[EFFUSION] == support
    assert set(consensus.findings) == set(consensus.sides) == set(consensus.support) == set(FINDINGS)


@pytest.mark.parametrize(
    ("states", "verdict"), [([1, 0], 0), ([0, -1], 0), ([1, -1], -1), ([1, 1, 0, -1, 0], -1), ([1, 1, 0], 1)]
)
def test_a_tie_may_mean_absent(states: list[State | None], verdict: State) -> None:
    assert vote(voted(states), tie="absent").findings[EFFUSION] == verdict


def test_a_quorum_is_of_voters_on_the_finding() -> None:
    assert vote(voted([1, 1, None, None]), quorum=3).findings[EFFUSION] is None
    assert vote(voted([1]), quorum=1).findings[EFFUSION] == 1


def test_samples_of_a_teacher_share_one_vote() -> None:
    said: list[State] = [1, 1, 1, 1, 0]
    chatty = [trajectory("a", {EFFUSION: state}, sample=i) for i, state in enumerate(said)]
    others = [trajectory("b", {EFFUSION: 0}), trajectory("c", {EFFUSION: 0})]
    consensus = vote([*chatty, *others])
    assert consensus.findings[EFFUSION] == 0
    assert consensus.support[EFFUSION] == (2.2, 3)
    assert shares(chatty, EFFUSION) == {"a": {1: Fraction(4, 5), 0: Fraction(1, 5)}}


def test_thirds_that_add_up_to_a_half_are_a_tie() -> None:
    states: dict[str, list[State]] = {"a": [1, 1, 0], "b": [1, 0, 0]}
    rows = [trajectory(u, {EFFUSION: s}, sample=i) for u, said in states.items() for i, s in enumerate(said)]
    assert vote(rows).findings[EFFUSION] == -1
    assert vote(rows, tie="absent").findings[EFFUSION] == 0


@pytest.mark.parametrize("status", ["refused", "truncated", "filtered", "unparsed"])
def test_who_did_not_answer_abstains_wholly(status: Status) -> None:
    out = trajectory("out", {EFFUSION: 1}, status=status)
    consensus = vote([*voted([1, 0, 0]), out, trajectory("unread")])
    assert consensus.findings[EFFUSION] == 0
    assert consensus.abstained == ("out", "unread")
    answered_once = trajectory("out", {EFFUSION: 1}, sample=1)
    assert vote([*voted([1, 0, 0]), out, answered_once]).abstained == ()


def test_all_refused_is_a_consensus_of_nothing() -> None:
    consensus = vote([trajectory("a", status="refused"), trajectory("b", status="refused")])
    assert set(consensus.findings.values()) == {None}
    assert consensus.abstained == ("a", "b")
    assert (consensus.study_id, consensus.image_sha256, consensus.prompt_sha256) == ("s1", ("s1",), "p")


@pytest.mark.parametrize(
    ("claims", "side"),
    [
        ([(1, "left"), (1, "left"), (1, "right")], "left"),
        ([(1, "left"), (1, "right")], None),
        ([(1, "bilateral"), (1, "bilateral"), (1, "left")], "bilateral"),
        ([(1, "left"), (1, "bilateral"), (1, "right")], None),
        ([(1, "left"), (-1, "left"), (1, None)], "left"),
        ([(1, "left"), (1, None), (1, None)], None),
        ([(1, "left"), (1, "left"), (0, "right"), (0, "right"), (1, None)], "left"),
        ([(0, "left"), (0, "left"), (1, "left")], None),
    ],
)
def test_sides_by_hand(claims: list[tuple[State, Side | None]], side: Side | None) -> None:
    rows = [trajectory(f"t{i}", {EFFUSION: state}, {EFFUSION: said}) for i, (state, said) in enumerate(claims)]
    assert vote(rows).sides[EFFUSION] == side


def test_a_side_without_meaning_is_not_voted() -> None:
    rows = [trajectory(u, {EDEMA: 1}, {EDEMA: "left"}) for u in "ab"]
    assert vote(rows).sides[EDEMA] is None


CLEAR: dict[str, State | None] = {**dict.fromkeys(FINDINGS, 0), NORMAL: 1}


@pytest.mark.parametrize(
    ("teachers", "verdict"),
    [
        ([CLEAR, CLEAR], 1),
        ([{NORMAL: 1}, {NORMAL: 1}], 1),
        ([{NORMAL: 1}, {EDEMA: 0}], 1),
        ([{EDEMA: 0}, {EDEMA: 0}], None),
        ([{NORMAL: 1}, {}], None),
        ([CLEAR, CLEAR, {EDEMA: 1}], 1),
        ([CLEAR, {**CLEAR, EDEMA: 1}], None),
        ([{NORMAL: 1}, {NORMAL: 1}, {EDEMA: 1}], None),
        ([{**CLEAR, "Support Devices": 1}, {**CLEAR, "Support Devices": 1}], 1),
        ([{NORMAL: 0, EDEMA: 1}, {NORMAL: 0, EDEMA: 1}], None),
    ],
)
def test_no_finding_follows_from_the_others(
    teachers: list[dict[str, State | None]], verdict: State | None
) -> None:
    consensus = vote([trajectory(f"t{i}", findings) for i, findings in enumerate(teachers)])
    assert consensus.findings[NORMAL] == verdict


def test_weights_outvote_numbers() -> None:
    rows = voted([1, 0, 0])
    assert vote(rows, weights={"t0": 3.0, "t1": 1.0, "t2": 1.0}).findings[EFFUSION] == 1
    assert vote(rows, weights={"t0": 2.0, "t1": 1.0, "t2": 1.0}).findings[EFFUSION] == -1
    by_finding: Weights = {"t0": {EFFUSION: 3.0, EDEMA: 0.0}, "t1": 1.0, "t2": 1.0}
    assert vote(rows, weights=by_finding).findings[EFFUSION] == 1
    silenced = vote(rows, weights={"t0": 0.0, "t1": 1.0, "t2": 1.0})
    assert (silenced.findings[EFFUSION], silenced.support[EFFUSION]) == (0, (2.0, 2))
    assert silenced.method.endswith("weighted")


@pytest.mark.parametrize("weights", [{"t0": 1.0}, {"t0": -1.0, "t1": 1.0}, {"t0": float("nan"), "t1": 1.0}])
def test_bad_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        vote(voted([1, 0]), weights=weights)


def test_what_is_no_one_question_is_refused() -> None:
    rows = voted([1, 0])
    another = [replace(rows[1], image_sha256=("x",)), replace(rows[1], study_id="x")]
    for others in ([], [rows[0], another[0]], [rows[0], another[1]]):
        with pytest.raises(ValueError, match="group the trajectories"):
            vote(others)
    with pytest.raises(ValueError, match="quorum"):
        vote(rows, quorum=0)
    with pytest.raises(ValueError, match="tie"):
        vote(rows, tie="present")  # type: ignore[arg-type]


states = st.sampled_from([1, 0, -1, None])
said_sides = st.sampled_from(["left", "right", "bilateral", None])
readings = st.lists(
    st.builds(
        trajectory,
        st.sampled_from("abcd"),
        st.fixed_dictionaries({EFFUSION: states, EDEMA: states, NORMAL: states}),
        st.fixed_dictionaries({EFFUSION: said_sides}),
        status=st.sampled_from(["ok", "ok", "ok", "refused"]),
    ),
    min_size=1,
    max_size=7,
)
weightings = st.fixed_dictionaries({u: st.floats(0, 5) for u in "abcd"}) | st.none()


@given(readings, weightings, st.randoms())
def test_order_does_not_matter(rows: list[Trajectory], weights: dict[str, float] | None, random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert vote(rows, weights=weights) == vote(shuffled, weights=weights)


def test_order_does_not_matter_in_any_order() -> None:
    rows = [
        trajectory("a", {EFFUSION: 1}, {EFFUSION: "left"}),
        trajectory("b", {EFFUSION: -1}, {EFFUSION: "right"}),
    ]
    rows += [trajectory("c", {EFFUSION: 1}, {EFFUSION: "right"}), trajectory("d", status="refused")]
    assert len({repr(vote(order)) for order in permutations(rows)}) == 1


@given(
    st.lists(st.sampled_from([0, -1, 1]), min_size=2, max_size=8),
    st.data(),
    st.sampled_from(["uncertain", "absent"]),
)
def test_a_vote_moved_up_never_moves_the_verdict_down(states: list[State], data: st.DataObject, tie: Tie) -> None:
    weights = {f"t{i}": data.draw(st.floats(0.1, 4)) for i in range(len(states))}
    moved = data.draw(st.integers(0, len(states) - 1))
    higher = list(states)
    higher[moved] = data.draw(st.sampled_from([s for s in STATES.values() if RANK[s] >= RANK[states[moved]]]))
    before, after = (vote(voted(s), tie=tie, weights=weights).findings[EFFUSION] for s in (states, higher))
    assert RANK[after] >= RANK[before]


@given(st.lists(st.sampled_from([0, -1, 1]), min_size=2, max_size=8))
def test_one_more_present_voter_never_moves_the_verdict_down(states: list[State]) -> None:
    assert RANK[vote(voted([*states, 1])).findings[EFFUSION]] >= RANK[vote(voted(states)).findings[EFFUSION]]


@given(readings)
def test_equal_weights_are_no_weights(rows: list[Trajectory]) -> None:
    plain, weighted = vote(rows), vote(rows, weights=dict.fromkeys("abcd", 0.7))
    assert replace(weighted, method=plain.method) == plain


@given(readings)
def test_what_a_consensus_always_is(rows: list[Trajectory]) -> None:
    consensus: Consensus = vote(rows)
    for name in FINDINGS:
        votes, voters = consensus.support[name]
        assert 0 <= votes <= voters <= 4
        assert consensus.findings[name] is None or name == NORMAL or voters >= 2
        assert consensus.sides[name] is None or consensus.findings[name] in (1, -1)
    assert consensus.findings[NORMAL] in (1, None)
