"""The vote by hand and by its properties, and the label-free weights against known answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.consensus import WEIGHT_BOUNDS, Estimate, Tie, dawid_skene, log_odds, reliability, shares, vote
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
    chatty = [trajectory("a", {EFFUSION: state}, sample=i) for i, state in enumerate([1, 1, 1, 1, 0])]
    others = [trajectory("b", {EFFUSION: 0}), trajectory("c", {EFFUSION: 0})]
    consensus = vote([*chatty, *others])
    assert consensus.findings[EFFUSION] == 0
    assert consensus.support[EFFUSION] == (pytest.approx(2.2), 3)
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
    by_finding = {"t0": {EFFUSION: 3.0, EDEMA: 0.0}, "t1": 1.0, "t2": 1.0}
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
    rows = [trajectory(u, {EFFUSION: s}, {EFFUSION: d}) for u, s, d in [("a", 1, "left"), ("b", -1, "right")]]
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


def drawn(
    seed: int, accuracy: Sequence[float], items: int = 400, prevalence: float = 0.4, answered: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (n,), and the present and absent votes (n, m) of independent raters."""
    rng = np.random.default_rng(seed)
    truth = rng.random(items) < prevalence
    calls = truth[:, None] ^ (rng.random((items, len(accuracy))) > np.array(accuracy))
    asked = rng.random(calls.shape) < answered
    return truth, (calls & asked).astype(float), (~calls & asked).astype(float)


def test_unanimous_raters_are_believed() -> None:
    truth, present, absent = drawn(0, [1.0] * 4, items=50)
    estimate = dawid_skene(present, absent)
    assert estimate.converged
    assert ((estimate.posterior > 0.5) == truth).all()
    assert estimate.sensitivity == pytest.approx(np.full(4, (truth.sum() + 2) / (truth.sum() + 3)), abs=1e-4)
    assert estimate.prevalence == pytest.approx((truth.sum() + 1) / 52, abs=1e-4)


def test_error_rates_are_recovered_without_truth() -> None:
    accuracy = [0.95, 0.9, 0.8, 0.7, 0.6]
    _, present, absent = drawn(1, accuracy, items=6000)
    estimate = dawid_skene(present, absent)
    assert estimate.sensitivity == pytest.approx(accuracy, abs=0.03)
    assert estimate.specificity == pytest.approx(accuracy, abs=0.03)
    assert estimate.prevalence == pytest.approx(0.4, abs=0.03)
    assert log_odds(estimate) == pytest.approx(np.log(np.array(accuracy) / (1 - np.array(accuracy))), abs=0.35)


def test_the_estimate_does_not_depend_on_order() -> None:
    _, present, absent = drawn(2, [0.9, 0.8, 0.7, 0.6], answered=0.8)
    one = dawid_skene(present, absent)
    rows = np.random.default_rng(0).permutation(len(present))
    other = dawid_skene(present[rows][:, ::-1], absent[rows][:, ::-1])
    assert other.posterior == pytest.approx(one.posterior[rows], abs=1e-6)
    assert other.sensitivity[::-1] == pytest.approx(one.sensitivity, abs=1e-6)


def test_a_silent_rater_changes_nothing_for_the_others() -> None:
    _, present, absent = drawn(3, [0.9, 0.8, 0.7])
    silent = np.zeros((len(present), 1))
    one = dawid_skene(present, absent)
    other = dawid_skene(np.hstack([present, silent]), np.hstack([absent, silent]))
    assert other.posterior == pytest.approx(one.posterior)
    assert other.sensitivity[-1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("answered", [1.0, 0.7])
def test_against_crowd_kit(answered: float) -> None:
    aggregation = pytest.importorskip("crowdkit.aggregation")
    pandas = pytest.importorskip("pandas")
    _, present, absent = drawn(4, [0.9, 0.85, 0.75, 0.7, 0.6], answered=answered)
    cast = [(n, m, int(present[n, m])) for n, m in np.argwhere(present + absent > 0)]
    theirs = aggregation.DawidSkene(n_iter=2000, tol=1e-13)
    theirs.fit(pandas.DataFrame(cast, columns=["task", "worker", "label"]))
    ours = dawid_skene(present, absent, right=0, wrong=0, uniform=0)
    reference = theirs.probas_[1].reindex(range(len(present))).to_numpy()
    voted_on = ~np.isnan(reference)
    assert ours.posterior[voted_on] == pytest.approx(reference[voted_on], abs=1e-4)
    assert ours.sensitivity == pytest.approx([theirs.errors_.loc[(m, 1), 1] for m in range(5)], abs=1e-4)
    assert ours.specificity == pytest.approx([theirs.errors_.loc[(m, 0), 0] for m in range(5)], abs=1e-4)


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        (np.ones((3, 2)), np.ones((3, 2))),
        (-np.ones((3, 2)), np.zeros((3, 2))),
        (np.full((3, 2), np.nan), np.zeros((3, 2))),
        (np.zeros((3, 2)), np.zeros((2, 2))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
    ],
)
def test_votes_that_are_none_are_refused(present: np.ndarray, absent: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"vote|Votes"):
        dawid_skene(present, absent)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 5), st.floats(0, 1))
def test_estimates_are_probabilities(seed: int, items: int, raters: int, answered: float) -> None:
    _, present, absent = drawn(seed, [0.7] * raters, items=items, answered=answered)
    estimate = dawid_skene(present, absent)
    for values in (estimate.posterior, estimate.sensitivity, estimate.specificity):
        assert ((values >= 0) & (values <= 1)).all()
    assert ((log_odds(estimate) >= WEIGHT_BOUNDS[0]) & (log_odds(estimate) <= WEIGHT_BOUNDS[1])).all()


def groups(seed: int, accuracy: Sequence[float], studies: int) -> tuple[np.ndarray, list[list[Trajectory]]]:
    truth, present, _ = drawn(seed, accuracy, items=studies)
    rows = [
        [trajectory(f"t{m}", {EFFUSION: 1 if call else 0}, study=str(n)) for m, call in enumerate(calls)]
        for n, calls in enumerate(present)
    ]
    return truth, rows


def test_weights_rank_teachers_and_help_the_vote() -> None:
    truth, rows = groups(5, [0.95, 0.9, 0.6, 0.6, 0.6], 300)
    trust = reliability(rows)
    worth = [trust.weights[f"t{m}"][EFFUSION] for m in range(5)]
    assert min(worth[:2]) > max(worth[2:])
    assert isinstance(trust.estimates[EFFUSION], Estimate)
    plain = [vote(group).findings[EFFUSION] == t for group, t in zip(rows, truth, strict=True)]
    weighted = [
        vote(group, weights=trust.weights).findings[EFFUSION] == t for group, t in zip(rows, truth, strict=True)
    ]
    assert np.mean(weighted) > np.mean(plain)


def test_too_little_falls_back_to_equal_weights_and_says_so() -> None:
    _, rows = groups(6, [0.9, 0.8, 0.7], 29)
    trust = reliability(rows)
    assert trust.fallbacks[EFFUSION] == "29 image sets with two voters, fewer than 30"
    assert trust.fallbacks[EDEMA].startswith("0 image sets")
    assert {worth for weights in trust.weights.values() for worth in weights.values()} == {1.0}
    assert not trust.estimates
    _, pairs = groups(6, [0.9, 0.8], 60)
    assert reliability(pairs).fallbacks[EFFUSION] == "2 teachers vote, fewer than 3"


def test_no_convergence_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_max.consensus.MAX_ITERATIONS", 2)
    _, rows = groups(7, [0.8, 0.7, 0.6], 60)
    assert reliability(rows).fallbacks[EFFUSION] == "no convergence in 2 iterations"


def test_uncertain_votes_and_samples_in_the_weights() -> None:
    rows = [
        [trajectory(u, {EFFUSION: 1 if n % 2 else 0}, study=str(n)) for u in "abc"]
        + [trajectory("d", {EFFUSION: -1}, study=str(n))]
        + [trajectory("e", {EFFUSION: 1}, study=str(n)), trajectory("e", {EFFUSION: 0}, study=str(n), sample=1)]
        for n in range(40)
    ]
    estimate = reliability(rows).estimates[EFFUSION]
    assert estimate.sensitivity[:3].min() > 0.9
    assert estimate.sensitivity[3] == pytest.approx(2 / 3)
    assert estimate.sensitivity[4] == pytest.approx((10 + 2) / (20 + 3), abs=1e-3)


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to estimate"):
        reliability([])
    with pytest.raises(ValueError, match="group the trajectories"):
        reliability([[]])
