"""Every number of the robustness task by a plain loop; what teachers do to the vote by voting again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from cxr_max.eval.bootstrap import estimate
from cxr_max.eval.scored import Scored
from cxr_max.eval.tasks.robustness import groups_of, liar, robustness
from cxr_max.findings import FINDINGS, State
from tests.eval.data import (
    FAILED,
    REFUSED,
    Key,
    Said,
    World,
    balanced_by_hand,
    by_key,
    check_score,
    close,
    common_by_hand,
    count_by_hand,
    counts,
    decided,
    mean_of,
    mean_of_decided,
    next_patient,
    positive,
    random_said,
    random_world,
    row,
    suite,
    value_of,
)
from tests.eval.test_votes import by_vote

FEW = 160
SETTINGS: dict[str, Any] = {"image_sets": FEW, "corruptions": ["noise", "device"], "severities": [3, 5]}
CONDITIONS = ("noise-3", "noise-5", "device-3", "device-5")
SUITE = suite(robustness=SETTINGS)


def found(world: World, **changes: object) -> dict[Key, Scored]:
    return by_key(robustness(world.data, suite(robustness={**SETTINGS, **changes})))


@cache
def world() -> World:
    about = random_world(21)
    return replace(about, said={**about.said, "device-5": random_said(Random(22), about.rows, right=0.4)})


@cache
def scores() -> dict[Key, Scored]:
    return found(world())


def few() -> World:
    return world().take(range(FEW))


def unpainted(condition: str) -> list[str]:
    return (
        [name for name in FINDINGS if name != "Support Devices"]
        if condition.startswith("device")
        else list(FINDINGS)
    )


# Worse pictures.


def pairs(about: World, said: Sequence[Said], name: str) -> list[tuple[bool, Said]]:
    kept = decided(about.rows, name)
    return [
        (positive(ref, name), one) for ref, one, use in zip(about.rows, said, kept, strict=True) if use and one.ok
    ]


def by_scikit(metric: str, known: list[tuple[bool, Said]], name: str) -> float:
    truth = [there for there, _ in known]
    if metric == "auroc":
        return float(roc_auc_score(truth, [{1: 1.0, -1: 0.5}.get(one.state(name), 0.0) for _, one in known]))
    score = accuracy_score if metric == "accuracy" else f1_score
    return float(score(truth, [one.state(name) == 1 for _, one in known]))


@pytest.mark.parametrize("condition", ["original", *CONDITIONS])
def test_numbers_under_each_condition(condition: str) -> None:
    about, said = few(), few().said[condition]
    common = [name for name in common_by_hand(about.rows) if name in unpainted(condition)]
    for metric in ("accuracy", "f1", "auroc"):
        values: dict[str, float | None] = {
            name: by_scikit(metric, pairs(about, said, name), name) for name in common
        }
        assert close(value_of(scores()[metric, None, condition, None]), mean_of(values, common)), metric
    balanced = {name: balanced_by_hand(about.rows, said, name, [True] * FEW)[0] for name in common}
    scored = scores()["balanced_accuracy", None, condition, None]
    assert close(value_of(scored), mean_of(balanced, common))
    each = [count_by_hand(said, decided(about.rows, name)) for name in common]
    assert counts(scored) == tuple(map(sum, zip(*each, strict=True)))
    replies = [one for one in said if one.status != "failed"]
    rate = scores()["refusal_rate", None, condition, None]
    assert close(value_of(rate), sum(not one.ok for one in replies) / len(replies))
    assert counts(rate) == count_by_hand(said, [True] * FEW)


def losses(about: World, condition: str) -> tuple[float | None, float | None]:
    """Mean loss over findings, and the mean of what there was to lose, on image sets answered both ways."""
    before, after = about.said["original"], about.said[condition]
    both = [one.ok and two.ok for one, two in zip(before, after, strict=True)]
    names = [name for name in common_by_hand(about.rows) if name in unpainted(condition)]
    own = {name: balanced_by_hand(about.rows, before, name, both)[0] for name in names}
    worse = {name: balanced_by_hand(about.rows, after, name, both)[0] for name in names}
    gaps = {name: None if own[name] is None else own[name] - worse[name] for name in names}
    return mean_of(gaps, names), mean_of(own, names)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_losses_are_paired(condition: str) -> None:
    loss, base = losses(few(), condition)
    assert loss is not None and base is not None and base > 0.6
    assert close(value_of(scores()["loss", None, condition, None]), loss)
    assert close(value_of(scores()["relative_degradation", None, condition, None]), loss / (base - 0.5))


@pytest.mark.parametrize("severity", [3, 5])
def test_mean_losses_are_over_corruptions(severity: int) -> None:
    values = [losses(few(), f"{name}-{severity}")[0] for name in ("noise", "device")]
    expected = sum(value for value in values if value is not None) / 2
    assert close(value_of(scores()["mean_loss", None, f"severity {severity}", None]), expected)


def test_the_same_answers_lose_nothing() -> None:
    about = few()
    same = about.saying(**dict.fromkeys(("original", *CONDITIONS), about.said["original"]))
    known = found(same)
    for condition in CONDITIONS:
        assert value_of(known["loss", None, condition, None]) == 0
        assert value_of(known["relative_degradation", None, condition, None]) == 0


def test_a_corruption_that_fails_for_want_of_a_connection_costs_nothing() -> None:
    """Whoever is answered only half as often under noise is compared on that half."""
    about = few()
    original = about.said["original"]
    half = [one if index % 2 else FAILED for index, one in enumerate(original)]
    known = found(about.saying(**dict.fromkeys(CONDITIONS, half), original=original))
    assert value_of(known["loss", None, "noise-3", None]) == 0


def coin(rows: Sequence[Any], flip: bool = False) -> list[Said]:
    return [Said({name: (1 if (one.findings[name] == 1) != flip else 0) for name in FINDINGS}) for one in rows]


def test_relative_degradation_by_hand() -> None:
    """From right to a guess everything is lost; from a guess nothing can be."""
    rows = [row(k, k, dict.fromkeys(FINDINGS, k % 2)) for k in range(80)]
    right, guess = coin(rows), [Said(dict.fromkeys(FINDINGS, 1))] * 80
    known = found(World(rows, {"original": right, "noise-3": guess, "noise-5": coin(rows, flip=True)}))
    assert value_of(known["loss", None, "noise-3", None]) == 0.5
    assert value_of(known["relative_degradation", None, "noise-3", None]) == 1
    assert value_of(known["relative_degradation", None, "noise-5", None]) == 2
    known = found(World(rows, {"original": guess, "noise-3": guess}))
    scored = known["relative_degradation", None, "noise-3", None]
    assert scored.drawn.measured.reason == "it does hardly better than chance on the pictures as they are"


def test_a_relative_degradation_beyond_its_bounds_has_an_interval_without_nan() -> None:
    """From 0.555 to 0: 10.1 times of what there was, where the bounds are 10."""
    rows = [row(k, k, dict.fromkeys(FINDINGS, k % 2)) for k in range(200)]
    barely = [
        one if k < 111 else other
        for k, (one, other) in enumerate(zip(coin(rows), coin(rows, flip=True), strict=True))
    ]
    world_ = World(rows, {"original": barely, "noise-3": coin(rows, flip=True)})
    for scored in found(world_, image_sets=200).values():
        check_score(scored.score("m", "d", "robustness", SUITE))


def test_what_a_corruption_paints_is_left_out_of_it() -> None:
    about = few()
    changed = [
        replace(one, findings={**one.findings, "Support Devices": 1}) if one.ok else one
        for one in about.said["device-3"]
    ]
    known = found(about.saying(**{**{k.replace("-", "_"): v for k, v in about.said.items()}, "device_3": changed}))
    for metric in ("loss", "balanced_accuracy", "f1", "auroc", "relative_degradation"):
        key: Key = (metric, None, "device-3", None)
        assert close(value_of(known[key]), value_of(scores()[key]))


def test_the_image_gain_is_that_of_the_consistency_task() -> None:
    from cxr_max.eval.tasks.consistency import consistency

    other = by_key(consistency(world().data, suite(consistency={})))
    key: Key = ("image_gain", None, None, None)
    assert close(value_of(scores()[key]), value_of(other[key]))


# For whom.

MEMBERS = {
    "view PA": lambda one: one.view == "PA", "view AP": lambda one: one.view == "AP",
    "sex F": lambda one: one.sex == "F", "sex M": lambda one: one.sex == "M",
    "age 0 to 39": lambda one: one.age is not None and one.age < 40,
    "age 40 to 64": lambda one: one.age is not None and 40 <= one.age < 65,
    "age 65 and over": lambda one: one.age is not None and one.age >= 65,
}  # fmt: skip


def test_groups_by_hand() -> None:
    about = world()
    groups = groups_of(about.data, [65, 40])
    assert set(groups) == set(MEMBERS), "an unknown view, sex or age is no group"
    for group, members in groups.items():
        assert members.tolist() == [MEMBERS[group](one) for one in about.rows]


def test_the_worst_group_is_the_worst_that_can_be_trusted() -> None:
    about, common = world(), common_by_hand(world().rows)
    values: dict[str, float | None] = {}
    for group, member in MEMBERS.items():
        among = [member(one) for one in about.rows]
        each = {n: balanced_by_hand(about.rows, about.said["original"], n, among)[0] for n in common}
        values[group] = mean_of(each, common)
        assert close(value_of(scores()["balanced_accuracy", None, None, group]), values[group])
    trusted = [g for g in MEMBERS if estimate(scores()["balanced_accuracy", None, None, g].drawn).trusted]
    assert trusted
    worst = min(trusted, key=lambda group: values[group] or 0.0)
    (group,) = (key[3] for key in scores() if key[0] == "worst_group")
    scored = scores()["worst_group", None, None, group]
    assert group == worst and close(value_of(scored), values[worst])
    assert not estimate(scored.drawn).trusted and "lowest of several" in (scored.drawn.caveat or "")


def test_a_group_that_is_worse_is_found() -> None:
    """Right about women, guessing about men."""
    rows = [row(k, k, dict.fromkeys(FINDINGS, k // 2 % 2), sex="FM"[k % 2]) for k in range(160)]
    said = [one if ref.sex == "F" else Said() for ref, one in zip(rows, coin(rows), strict=True)]
    known = found(World(rows, {"original": said}))
    assert value_of(known["worst_group", None, None, "sex M"]) == 0.5
    assert value_of(known["balanced_accuracy", None, None, "sex F"]) == 1


def test_no_group_has_a_reason() -> None:
    rows = [row(k, k % 4, view="unknown") for k in range(20)]
    known = found(World(rows, {"original": [Said()] * 20}))
    reason = known["worst_group", None, None, None].drawn.measured.reason
    assert reason == "no group has an interval that can be trusted"


# Worse teachers.

Verdicts = list[dict[str, State | None]]


def verdicts_of(teachers: Mapping[str, Sequence[Said]]) -> Verdicts:
    return [by_vote(replies) for replies in zip(*teachers.values(), strict=True)]


def lies(about: World) -> list[Said]:
    return [
        Said({n: 0 if positive(ref, n) else 1 for n in FINDINGS} if ref.findings is not None else {})
        for ref in about.rows
    ]


def changes(about: World, teachers: Mapping[str, Sequence[Said]]) -> dict[str, Verdicts]:
    partner = next_patient(about.rows)
    made = {}
    for name, said in teachers.items():
        rest = {other: rows for other, rows in teachers.items() if other != name}
        made[f"without {name}"] = verdicts_of(rest)
        made[f"{name} answers about other patients"] = verdicts_of({**rest, name: [said[k] for k in partner]})
        made[f"{name} claims the opposite of the truth"] = verdicts_of({**rest, name: lies(about)})
    return made


def moved(before: Verdicts, after: Verdicts, about: World, name: str) -> tuple[float | None, set[str]]:
    known = [
        (ref.subject_id, one[name] != two[name])
        for ref, one, two in zip(about.rows, before, after, strict=True)
        if one[name] is not None or two[name] is not None
    ]
    return (sum(m for _, m in known) / len(known) if known else None), {who for who, _ in known}


@pytest.mark.parametrize("member", [False, True])
def test_worse_teachers_by_voting_again(member: bool) -> None:
    about = replace(random_world(23, n=120, patients=60, teachers=3), member=member)
    teachers = {**about.peers, **({"the model": about.said["original"]} if member else {})}
    known, before = found(about), verdicts_of(teachers)
    common = common_by_hand(about.rows)

    def accuracy(verdicts: Verdicts) -> float | None:
        said = [Said(verdict) for verdict in verdicts]
        return mean_of({n: balanced_by_hand(about.rows, said, n, [True] * 120)[0] for n in common}, common)

    assert close(value_of(known["vote_accuracy", None, "all teachers", None]), accuracy(before))
    after = changes(about, teachers)
    assert len(after) == 3 * len(teachers)
    for condition, verdicts in after.items():
        assert close(value_of(known["vote_accuracy", None, condition, None]), accuracy(verdicts)), condition
        each = {name: moved(before, verdicts, about, name) for name in FINDINGS}
        assert close(value_of(known["verdicts_moved", None, condition, None]), mean_of_decided(each)), condition
    assert {key[2] for key in known if key[0] == "vote_accuracy"} == {"all teachers", *after}


def test_two_teachers_have_no_vote_to_spoil() -> None:
    about = replace(world(), peers=dict(list(world().peers.items())[:2]))
    assert not {"vote_accuracy", "verdicts_moved"} & {key[0] for key in found(about)}
    assert "vote_accuracy" in {key[0] for key in found(replace(about, member=True))}


def test_the_liar_is_always_wrong() -> None:
    about = world()
    said = liar(about.data)
    for index, ref in enumerate(about.rows):
        for place, name in enumerate(FINDINGS):
            if ref.findings is not None and ref.findings[name] != -1:
                assert (said.states[index, place] == 3) != positive(ref, name)


# Degenerate worlds.


def degenerate() -> dict[str, World]:
    about = random_world(24, n=40, patients=15, teachers=3)
    return {
        "one class": replace(
            about, rows=[replace(one, findings=dict.fromkeys(FINDINGS, 0)) for one in about.rows]
        ),
        "all refused": about.saying(**{name: [REFUSED] * 40 for name in about.said}),
        "all failed": about.saying(**{name: [FAILED] * 40 for name in about.said}),
        "corrupted failed": about.saying(original=about.said["original"], noise_3=[FAILED] * 40),
        "peers refused": replace(about, peers={name: [REFUSED] * 40 for name in "abc"}),
        "no peers": replace(about, peers={}),
        "nothing asked": about.saying(),
        "nothing labelled": replace(about, rows=[row(k, k, labelled=False) for k in range(40)]),
        "one patient": replace(about, rows=[replace(one, subject_id="p") for one in about.rows]),
        "one image set": about.take([0]),
    }


@pytest.mark.parametrize("name", degenerate())
def test_a_degenerate_world_has_reasons_and_no_nan(name: str) -> None:
    for scored in robustness(degenerate()[name].data, SUITE):
        check_score(scored.score("m", "d", "robustness", SUITE))


@pytest.mark.parametrize("lists", [{"corruptions": []}, {"severities": []}, {"age_bands": []}])
def test_empty_settings_have_no_numbers_and_no_error(lists: dict[str, list[int]]) -> None:
    for scored in found(world(), **lists).values():
        check_score(scored.score("m", "d", "robustness", SUITE))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 8), st.integers(0, 4))
def test_every_score_is_whole_in_small_worlds(seed: int, n: int, patients: int, teachers: int) -> None:
    for scored in robustness(random_world(seed, n, patients, teachers=teachers).data, SUITE):
        check_score(scored.score("m", "d", "robustness", SUITE))


def test_intervals_hold_their_values() -> None:
    for scored in scores().values():
        check_score(scored.score("m", "d", "robustness", SUITE))
