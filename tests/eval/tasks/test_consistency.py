"""Every number of the consistency task against a plain loop over the raw rows, or the library krippendorff."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from random import Random

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.eval.reference import Reference
from cxr_max.eval.scored import Scored
from cxr_max.eval.tasks.consistency import LATERAL_PLACES, consistency, other_patient
from cxr_max.findings import FINDINGS, LATERAL, SIDES
from tests.eval.data import (
    FAILED,
    REFUSED,
    Key,
    Said,
    Valued,
    World,
    balanced_by_hand,
    by_key,
    check_score,
    close,
    common_by_hand,
    count_by_hand,
    counts,
    mean_of,
    mean_of_decided,
    next_patient,
    random_rows,
    random_said,
    random_world,
    row,
    suite,
    value_of,
)
from tests.eval.test_votes import by_vote

FEW = 150
SUITE = suite(consistency={"image_sets": FEW})
SIDED = [name for name in FINDINGS if name in LATERAL]
AGAIN = ("sample-1", "sample-2", "paraphrase-brief", "paraphrase-list")
Hand = Callable[[World, str], Valued]


def found(world: World, **consistency_settings: object) -> dict[Key, Scored]:
    wanted = {"image_sets": FEW, **consistency_settings}
    using = suite(consistency=wanted)
    return by_key(consistency(world.data.only(using.wanted()), using))


@cache
def world() -> World:
    return random_world(11)


@cache
def scores() -> dict[Key, Scored]:
    return found(world())


def few() -> World:
    return world().take(range(FEW))


def check(metric: str, expected: dict[str, Valued], known: dict[Key, Scored] | None = None) -> None:
    """Per finding, with the patients that decide it; and the mean over the findings that enough decide."""
    among = scores() if known is None else known
    for name, (value, who) in expected.items():
        scored = among[metric, name, None, None]
        assert close(value_of(scored), value), (metric, name, value_of(scored), value)
        assert value is None or scored.drawn.patients == len(who), (metric, name)
    assert close(value_of(among[metric, None, None, None]), mean_of_decided(expected)), metric


def share(pairs: Sequence[tuple[str, bool]]) -> Valued:
    """Of (patient, right)."""
    return (sum(right for _, right in pairs) / len(pairs) if pairs else None), {who for who, _ in pairs}


def mentions(said: Sequence[Said], name: str) -> int:
    return sum(one.state(name) is not None for one in said)


# With the other teachers.


def alpha(about: World, name: str) -> Valued:
    """The mean over teachers of the alpha of two; the teacher that shares the fewest patients decides."""
    pairs = [alpha_with(about, teacher, name) for teacher in about.peers.values()]
    known = [(value, who) for value, who in pairs if value is not None]
    if not known:
        return None, set()
    return sum(value for value, _ in known) / len(known), min((who for _, who in known), key=len)


def alpha_with(about: World, teacher: Sequence[Said], name: str) -> Valued:
    codes = {0: 0.0, -1: 1.0, 1: 2.0}
    table = [
        [np.nan if (state := one.state(name)) is None else codes[state] for one in said]
        for said in (about.said["original"], teacher)
    ]
    both = [index for index in range(len(about.rows)) if not np.isnan([table[0][index], table[1][index]]).any()]
    who = {about.rows[index].subject_id for index in both}
    if len({rater[index] for rater in table for index in both}) < 2:
        return None, who
    value = krippendorff.alpha(table, level_of_measurement="nominal", value_domain=sorted(codes.values()))
    return float(value), who


@pytest.mark.parametrize("teachers", [1, 2, 4])
def test_alpha_is_the_librarys(teachers: int) -> None:
    about = replace(world(), peers=dict(list(world().peers.items())[:teachers]))
    known = found(about)
    check("alpha", {name: alpha(about, name) for name in FINDINGS}, known)
    for name in FINDINGS:
        refused, failed = count_by_hand(about.said["original"], [True] * len(about.rows))[1:]
        expected = mentions(about.said["original"], name), refused, failed
        assert counts(known["alpha", name, None, None]) == expected


def test_agreement_with_each_teacher() -> None:
    about = world()
    for teacher, theirs in about.peers.items():
        values = {
            name: share([
                (ref.subject_id, ours.state(name) == other.state(name))
                for ref, ours, other in zip(about.rows, about.said["original"], theirs, strict=True)
                if ours.state(name) is not None and other.state(name) is not None
            ])
            for name in FINDINGS
        }  # fmt: skip
        assert close(value_of(scores()["peer_agreement", None, teacher, None]), mean_of_decided(values))
    assert not any(key[0] == "peer_agreement" and key[1] for key in scores())


def consensus_agreement(about: World, name: str) -> Valued:
    """With the release's own vote of the others."""
    votes = [by_vote(replies) for replies in zip(*about.peers.values(), strict=True)]
    return share([
        (ref.subject_id, ours.state(name) == verdict[name])
        for ref, ours, verdict in zip(about.rows, about.said["original"], votes, strict=True)
        if ours.state(name) is not None and verdict[name] is not None
    ])  # fmt: skip


def test_agreement_with_the_vote_of_the_others() -> None:
    check("consensus_agreement", {name: consensus_agreement(world(), name) for name in FINDINGS})


def test_agreement_on_sides() -> None:
    about = world()
    expected: dict[str, Valued] = {}
    for name in SIDED:
        pairs = [
            (ref.subject_id, ours.side(name) == theirs[index].side(name))
            for theirs in about.peers.values()
            for index, (ref, ours) in enumerate(zip(about.rows, about.said["original"], strict=True))
            if ours.side(name) is not None and theirs[index].side(name) is not None
        ]
        expected[name] = share(pairs)
    check("side_agreement", expected)


# With its own text, and with itself.


def test_answers_that_the_text_does_not_contradict() -> None:
    expected = {
        name: share([
            (ref.subject_id, name not in (one.contradictions or ()))
            for ref, one in zip(world().rows, world().said["original"], strict=True)
            if one.contradictions is not None and one.state(name) is not None
        ])
        for name in FINDINGS
    }  # fmt: skip
    check("reasoning_agreement", expected)
    assert all(value is not None and value < 1 for value, _ in expected.values())


def test_self_consistency() -> None:
    """Of all pairs of samples of one image set; saying nothing of a finding is saying something."""
    about = few()
    drawn = [about.said[name] for name in ("original", "sample-1", "sample-2")]
    expected = {
        name: share([
            (ref.subject_id, one.state(name) == two.state(name))
            for ref, *samples in zip(about.rows, *drawn, strict=True)
            for one, two in combinations(samples, 2)
            if one.ok and two.ok
        ])
        for name in FINDINGS
    }  # fmt: skip
    check("self_consistency", expected)


def test_flips() -> None:
    about = few()
    expected = {
        name: share([
            (ref.subject_id, ours.state(name) != other.state(name))
            for paraphrase in ("paraphrase-brief", "paraphrase-list")
            for ref, ours, other in zip(about.rows, about.said["original"], about.said[paraphrase], strict=True)
            if ours.ok and other.ok
        ])
        for name in FINDINGS
    }  # fmt: skip
    check("flip_rate", expected)


def test_sides_follow_the_mirror() -> None:
    about = few()
    turned = {"left": "right", "right": "left", "bilateral": "bilateral"}
    expected = {
        name: share([
            (ref.subject_id, turned[ours.side(name)] == theirs.side(name))
            for ref, ours, theirs in zip(about.rows, about.said["original"], about.said["mirror"], strict=True)
            if ours.side(name) and theirs.side(name)
        ])
        for name in SIDED
    }  # fmt: skip
    check("mirror_consistency", expected)


@pytest.mark.parametrize(
    ("turn", "value"),
    [(lambda side: side, 1 / 3), ({"left": "right", "right": "left", "bilateral": "bilateral"}.get, 1.0)],
)
def test_a_model_that_does_and_one_that_does_not_follow_the_mirror(
    turn: Callable[[str], str], value: float
) -> None:
    rows = [row(k, k) for k in range(60)]
    sides = [SIDES[k % 3] for k in range(60)]
    said = [Said({"Pneumothorax": 1}, sides={"Pneumothorax": side}) for side in sides]
    turned = [Said({"Pneumothorax": 1}, sides={"Pneumothorax": turn(side)}) for side in sides]
    known = found(World(rows, {"original": said, "mirror": turned}), image_sets=200)
    assert close(value_of(known["mirror_consistency", "Pneumothorax", None, None]), value)
    assert tuple(FINDINGS[place] for place in LATERAL_PLACES) == tuple(SIDED)


# With the picture.


def gain(about: World, name: str, partner: Sequence[int]) -> Valued:
    own = about.said["original"]
    theirs = [own[index] for index in partner]
    among = [
        one.ok and other.ok and partner[index] != index
        for index, (one, other) in enumerate(zip(own, theirs, strict=True))
    ]
    (ours, who), (others, _) = (balanced_by_hand(about.rows, said, name, among) for said in (own, theirs))
    return (None if ours is None or others is None else ours - others), who


def test_image_gain() -> None:
    about = world()
    expected = {name: gain(about, name, next_patient(about.rows)) for name in FINDINGS}
    for name, (value, who) in expected.items():
        scored = scores()["image_gain", name, None, None]
        assert close(value_of(scored), value) and scored.drawn.patients == len(who)
    values = {name: value for name, (value, _) in expected.items()}
    common = common_by_hand(about.rows)
    assert close(value_of(scores()["image_gain", None, None, None]), mean_of(values, common))


def test_accuracy_on_blank_pictures() -> None:
    about = few()
    values = {name: balanced_by_hand(about.rows, about.said["blank"], name, [True] * FEW)[0] for name in FINDINGS}
    for name, value in values.items():
        assert close(value_of(scores()["blank_accuracy", name, None, None]), value)
    assert close(
        value_of(scores()["blank_accuracy", None, None, None]), mean_of(values, common_by_hand(about.rows))
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_the_other_picture_is_another_patients(patients: list[int]) -> None:
    rows = tuple(row(number, patient) for number, patient in enumerate(patients))
    partner = other_patient(Reference(rows)).tolist()
    assert partner == next_patient(rows)
    for index, other in enumerate(partner):
        alone = len(set(patients)) == 1
        assert (other == index) == alone and (alone or patients[other] != patients[index])


QUADRANTS = {
    "consistent_uses": (True, True), "consistent_ignores": (True, False),
    "inconsistent_uses": (False, True), "inconsistent_ignores": (False, False),
}  # fmt: skip


def quadrant(about: World, others: Sequence[Said], kind: tuple[bool, bool], name: str) -> Valued:
    pairs = []
    for index, (ref, original) in enumerate(zip(about.rows, about.said["original"], strict=True)):
        again = [about.said[c][index] for c in AGAIN if c in about.said and about.said[c][index].ok]
        changed = [one for one in (about.said["blank"][index], others[index]) if one.ok]
        if original.state(name) is None or not again or not changed:
            continue
        consistent = all(one.state(name) == original.state(name) for one in again)
        uses = any(one.state(name) != original.state(name) for one in changed)
        pairs.append((ref.subject_id, (consistent, uses) == kind))
    return share(pairs)


def test_quadrants() -> None:
    others = [world().said["original"][index] for index in next_patient(world().rows)][:FEW]
    for kind, wanted in QUADRANTS.items():
        check(f"quadrant_{kind}", {name: quadrant(few(), others, wanted, name) for name in FINDINGS})


def shares(known: dict[Key, Scored], name: str | None) -> list[float | None]:
    return [value_of(known[f"quadrant_{kind}", name, None, None]) for kind in QUADRANTS]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(2, 10))
def test_the_four_shares_add_up(seed: int, n: int, patients: int) -> None:
    known = found(random_world(seed, n, patients, teachers=1), image_sets=n)
    for name in (*FINDINGS, None):
        parts = shares(known, name)
        assert all(part is None for part in parts) or abs(sum(filter(None, parts)) - 1) < 1e-9


@pytest.mark.parametrize("kind", QUADRANTS)
def test_each_quadrant_has_its_model(kind: str) -> None:
    consistent, uses = QUADRANTS[kind]
    rows = [row(k, k) for k in range(40)]
    said = [Said({"Edema": k % 2}) for k in range(40)]
    always = [Said({"Edema": 1})] * 40
    original = said if uses else always
    again = original if consistent else [Said({"Edema": -1})] * 40
    blank = [Said()] * 40 if uses else always
    known = found(World(rows, {"original": original, "sample-1": again, "blank": blank}))
    assert shares(known, "Edema") == [float(name == kind) for name in QUADRANTS]


def test_settings_are_kept() -> None:
    """Only the first image sets count where a limit is set, and what is not asked has no number."""
    about = world()
    assert counts(scores()["blank_accuracy", "Edema", None, None])[0] < FEW
    known = found(about, mirror=False, blank=False, image_sets=40)
    assert not {key[0] for key in known} & {"mirror_consistency", "blank_accuracy"}
    short = found(about.take(range(40)), image_sets=40)
    for metric in ("self_consistency", "flip_rate"):
        assert close(value_of(known[metric, None, None, None]), value_of(short[metric, None, None, None]))


@pytest.mark.parametrize("settings", [{"samples": 1}, {"paraphrases": ["brief"]}, {"blank": False}], ids=str)
def test_only_what_the_suite_asks_for_counts(settings: dict[str, object]) -> None:
    """A submission, a release or another suite may hold more."""
    left_out = {"samples": "sample-2", "paraphrases": "paraphrase-list", "blank": "blank"}[next(iter(settings))]
    about = world()
    less = replace(about, said={name: said for name, said in about.said.items() if name != left_out})
    more, expected = found(about, **settings), found(less, **settings)
    assert more.keys() == expected.keys()
    for key, one in more.items():
        assert close(value_of(one), value_of(expected[key])), key


# Degenerate worlds.


def degenerate() -> dict[str, World]:
    about = random_world(12, n=40, patients=15, teachers=3)
    chance = Random(13)
    same = [row(k, k, dict.fromkeys(FINDINGS, 0)) for k in range(20)]
    absent = [Said(dict.fromkeys(FINDINGS, 0))] * 20
    return {
        "one class": World(
            same, {"original": absent, "sample-1": absent, "blank": absent}, {"a": absent, "b": absent}
        ),
        "all refused": about.saying(**{name: [REFUSED] * 40 for name in about.said}),
        "all failed": about.saying(**{name: [FAILED] * 40 for name in about.said}),
        "peers refused": replace(about, peers={"a": [REFUSED] * 40, "b": [FAILED] * 40}),
        "no peers": replace(about, peers={}),
        "no repeats": about.saying(original=about.said["original"], blank=about.said["blank"]),
        "original only": about.saying(original=about.said["original"]),
        "nothing asked": about.saying(),
        "nothing labelled": replace(about, rows=[row(k, k, labelled=False) for k in range(40)]),
        "one patient": replace(about, rows=[replace(one, subject_id="p") for one in about.rows]),
        "one image set": about.take([0]),
        "no text": about.saying(original=[replace(one, contradictions=None) for one in about.said["original"]]),
        "nothing mentioned": about.saying(**{name: [Said()] * 40 for name in about.said}),
        "no sides": about.saying(original=[replace(one, sides={}) for one in about.said["original"]]),
        "random": World(rows := random_rows(chance, 8, 3), {"original": random_said(chance, rows)}),
    }


@pytest.mark.parametrize("name", degenerate())
def test_a_degenerate_world_has_reasons_and_no_nan(name: str) -> None:
    for scored in consistency(degenerate()[name].data, SUITE):
        check_score(scored.score("m", "d", "consistency", SUITE))


def test_the_reasons_by_hand() -> None:
    reasons = {
        ("no peers", "alpha"): "the release has no other teacher",
        ("no peers", "consensus_agreement"): "the release has no other teacher",
        ("no repeats", "self_consistency"): "one sample was drawn",
        ("no repeats", "flip_rate"): "no paraphrase was asked",
        ("no repeats", "quadrant_consistent_uses"): "nothing was asked twice",
        ("no text", "reasoning_agreement"): "there are no texts to compare with",
        ("nothing mentioned", "consensus_agreement"): "there is nothing to compare: no image set has both answers",
        ("one patient", "image_gain"): "there is no row to score",
        ("one class", "alpha"): "all ratings are the same, or no unit was rated twice",
        ("one class", "image_gain"): "references of one kind only",
    }
    worlds = degenerate()
    for (name, metric), reason in reasons.items():
        assert found(worlds[name])[metric, "Edema", None, None].drawn.measured.reason == reason, (name, metric)


def test_one_patient_without_a_blank_picture_shows_nothing_about_the_picture() -> None:
    """Nothing was compared with the answers: they neither use nor ignore the picture."""
    world_ = degenerate()["one patient"]
    known = found(world_.saying(original=world_.said["original"], sample_1=world_.said["sample-1"]))
    assert shares(known, "Edema") == [None] * 4


def test_intervals_hold_their_values() -> None:
    for scored in scores().values():
        check_score(scored.score("m", "d", "consistency", SUITE))
