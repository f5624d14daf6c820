"""Judgements: cheats are not praised, honest models are, and what cannot be known is not shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest

from cxr_max.eval.board import Flag
from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.eval.flags import ROBUST, UNSEEN, USES, flags, robust, unseen, uses_the_image
from cxr_max.eval.scoring import score_all, tasks_of
from cxr_max.eval.suite import Suite
from cxr_max.findings import FINDINGS
from cxr_max.progression import CHANGES, COMPARED
from cxr_max.records import Score
from tests.eval.data import FAILED, REFUSED, Said, World, check_score, random_world, row, scores_of, suite
from tests.eval.test_votes import by_vote

PATIENTS, IMAGE_SETS = 120, 240
CONDITIONS = ("original", "sample-1", "paraphrase-brief", "blank", "mirror", "noise-3", "blur-3")
CONSISTENCY: dict[str, Any] = {"image_sets": IMAGE_SETS, "samples": 1, "paraphrases": ["brief"]}
ROBUSTNESS: dict[str, Any] = {"image_sets": IMAGE_SETS, "corruptions": ["noise", "blur"], "severities": [3]}
BOTH = suite(400, consistency=CONSISTENCY, robustness=ROBUSTNESS)
NO_LEAK = {"leaked": 0, "studies": 240, "images": 240, "training_images": 900}
Model = Callable[[Random], Mapping[str, Sequence[Said]]]


@cache
def about() -> World:
    """Two image sets a patient, every finding in three of ten; four teachers that are mostly right."""
    chance = Random(41)
    rows = [
        row(k, k % PATIENTS, {name: int(chance.random() < 0.3) for name in FINDINGS}) for k in range(IMAGE_SETS)
    ]
    bare = World(rows, {})
    return replace(bare, peers={f"t{number}": guesses(bare, chance, 0.85) for number in range(4)})


def guesses(world: World, chance: Random, right: float) -> list[Said]:
    """Each state of the reference with this probability, and otherwise the opposite."""
    return [
        Said(
            {
                name: state if chance.random() < right else 1 - (state or 0)
                for name, state in (one.findings or {}).items()
            }
        )
        for one in world.rows
    ]


def shaken(said: Sequence[Said], chance: Random, often: float) -> list[Said]:
    """The same with a few answers turned round."""
    return [
        replace(
            one,
            findings={n: 1 - s if s in (0, 1) and chance.random() < often else s for n, s in one.findings.items()},
        )
        for one in said
    ]


ABSENT = [Said(dict.fromkeys(FINDINGS, 0))] * IMAGE_SETS


def honest(chance: Random, *, right: float = 0.9, lost: float = 0.01) -> dict[str, list[Said]]:
    """Sees most, says nearly the same again, nothing about blank pictures, and a little less on worse ones."""
    original = guesses(about(), chance, right)
    again = {name: shaken(original, chance, 0.03) for name in ("sample-1", "paraphrase-brief", "mirror")}
    worse = {name: shaken(original, chance, lost) for name in ("noise-3", "blur-3")}
    return {"original": original, **again, **worse, "blank": ABSENT}


def constant(chance: Random) -> dict[str, list[Said]]:
    """The commonest answer, whatever it is shown."""
    return dict.fromkeys(CONDITIONS, ABSENT)


def dice(chance: Random) -> dict[str, list[Said]]:
    """New answers every time, as often present as it should be."""
    return {
        name: [Said({n: int(chance.random() < 0.3) for n in FINDINGS}) for _ in range(IMAGE_SETS)]
        for name in CONDITIONS
    }


def stubborn_dice(chance: Random) -> dict[str, list[Said]]:
    """Thrown once for each image set."""
    return dict.fromkeys(CONDITIONS, dice(chance)["original"])


def oracle(chance: Random) -> dict[str, list[Said]]:
    """Knows the answers without looking: right about blank pictures too."""
    return dict.fromkeys(CONDITIONS, guesses(about(), chance, 0.95))


def copier(chance: Random) -> dict[str, list[Said]]:
    """What the teachers say together, whatever the picture."""
    votes = [Said(by_vote(replies)) for replies in zip(*about().peers.values(), strict=True)]
    return dict.fromkeys(CONDITIONS, votes)


def fragile(chance: Random) -> dict[str, list[Said]]:
    """Good until the picture gets worse."""
    return honest(chance, lost=0.2)


def scored(said: Mapping[str, Sequence[Said]], using: Suite = BOTH) -> list[Score]:
    return scores_of(score_all(replace(about(), said=said).data, using), using)


@cache
def judged(model: Model) -> tuple[list[Score], dict[str, Flag]]:
    scores = scored(model(Random(42)))
    return scores, {flag.name: flag for flag in flags(scores, BOTH, NO_LEAK)}


def mean(scores: Sequence[Score], metric: str, condition: str | None = None) -> Score:
    """Of everybody; two tasks may have it, and then say the same."""
    (one,) = {
        replace(score, task="")
        for score in scores
        if (score.metric, score.condition, score.finding, score.group) == (metric, condition, None, None)
    }
    return one


@pytest.mark.parametrize("model", [constant, dice, stubborn_dice])
def test_who_ignores_the_picture_does_not_use_it_and_is_not_robust(model: Model) -> None:
    scores, verdicts = judged(model)
    assert verdicts[USES].verdict == "no", verdicts[USES]
    assert verdicts[ROBUST].verdict != "yes"
    gain = mean(scores, "image_gain")
    assert gain.trusted and gain.low is not None and gain.high is not None and gain.low <= 0 <= gain.high


def test_a_blind_model_is_seldom_taken_for_a_seeing_one() -> None:
    """One interval in forty lies above 0 by chance."""
    using = suite(200, robustness={**ROBUSTNESS, "corruptions": [], "age_bands": []})
    bare = replace(about(), peers={})
    mistaken = 0
    for seed in range(20):
        said = {"original": stubborn_dice(Random(seed))["original"]}
        scores = scores_of(score_all(replace(bare, said=said).data, using), using)
        mistaken += uses_the_image(scores).verdict == "yes"
    assert mistaken <= 2


def test_who_is_right_about_blank_pictures_does_not_use_the_picture() -> None:
    scores, verdicts = judged(oracle)
    assert verdicts[USES].verdict == "no" and "blank" in verdicts[USES].reason
    assert verdicts[ROBUST].verdict == "not shown" and "use the image" in verdicts[ROBUST].reason
    assert (mean(scores, "image_gain").low or 0) > 0, "its answers are about the right patient"


def test_a_copier_agrees_best_with_the_vote_and_is_not_robust() -> None:
    scores, verdicts = judged(copier)
    agreement = mean(scores, "consensus_agreement")
    assert agreement.value == 1
    for other in (honest, constant, dice, oracle):
        assert (mean(judged(other)[0], "consensus_agreement").value or 0) < 1
    assert mean(scores, "self_consistency").value == 1 and mean(scores, "flip_rate").value == 0
    assert mean(scores, "mean_loss", "severity 3").value == 0
    assert verdicts[USES].verdict == "no" and verdicts[ROBUST].verdict != "yes"
    assert mean(scores, "quadrant_consistent_uses").value is not None


@pytest.mark.parametrize("model", [copier, oracle])
def test_nor_is_it_robust_where_the_suites_are_judged_apart(model: Model) -> None:
    """As ``cxr-max eval`` judges its default suites: robustness alone asks about no blank picture."""
    using = suite(400, robustness=ROBUSTNESS)
    chance = Random(47)
    said = {name: shaken(rows, chance, 0.005) for name, rows in model(chance).items()}
    flag = robust(scored(said, using), 0.05)
    assert flag.verdict != "yes", flag


def test_who_loses_nothing_at_all_is_robust() -> None:
    """Not one answer changes under noise: that is no worse than one answer in a hundred."""
    said = honest(Random(42))
    scores = scored({**said, "noise-3": said["original"], "blur-3": said["original"]})
    flag = robust(scores, 0.05)
    assert flag.verdict == "yes", flag


def test_an_honest_model_uses_the_picture_and_is_robust() -> None:
    scores, verdicts = judged(honest)
    assert verdicts[USES].verdict == "yes" and verdicts[ROBUST].verdict == "yes", verdicts
    uses, ignores = (mean(scores, f"quadrant_consistent_{kind}").value for kind in ("uses", "ignores"))
    assert uses is not None and ignores is not None and uses > ignores
    loss = mean(scores, "mean_loss", "severity 3")
    assert loss.high is not None and loss.high <= 0.05 and f"{loss.high:.3f}" in verdicts[ROBUST].reason


def test_a_model_that_refuses_blank_pictures_is_honest_too() -> None:
    said = {**honest(Random(43)), "blank": [REFUSED] * IMAGE_SETS}
    scores = scored(said)
    assert uses_the_image(scores).verdict == "yes" and robust(scores, 0.05).verdict == "yes"


def test_a_fragile_model_uses_the_picture_and_is_not_robust() -> None:
    _, verdicts = judged(fragile)
    assert verdicts[USES].verdict == "yes" and verdicts[ROBUST].verdict == "no"


def test_the_largest_loss_is_the_suites() -> None:
    scores, _ = judged(fragile)
    assert robust(scores, 0.05).verdict == "no" and robust(scores, 0.5).verdict == "yes"


def test_what_was_not_asked_is_not_shown() -> None:
    said = honest(Random(44))
    scores = scored({"original": said["original"]})
    assert robust(scores, 0.05).verdict == "not shown"
    for name in ("noise-3", "blur-3"):
        scores = scored({**said, **dict.fromkeys(("noise-3", "blur-3"), [FAILED] * IMAGE_SETS), "blank": ABSENT})
        assert robust(scores, 0.05).verdict == "not shown", name


@pytest.mark.parametrize("left_out", [("blank",), ("blank", "mirror", "noise-3", "blur-3")])
def test_a_submission_without_blank_pictures_does_not_show_that_it_looks(left_out: tuple[str, ...]) -> None:
    """The suite asks about them: whoever knows the answers by the study's number would leave just these out."""
    said = {name: rows for name, rows in oracle(Random(48)).items() if name not in left_out}
    flag = uses_the_image(scored(said))
    assert flag.verdict != "yes", flag


def test_who_refuses_what_is_hard_is_not_robust() -> None:
    """Under noise it answers two pictures in five, and there as well as ever."""
    said = honest(Random(45))
    picky = {
        name: [one if k % 5 < 2 else REFUSED for k, one in enumerate(said[name])] for name in ("noise-3", "blur-3")
    }
    scores = scored({**said, **picky})
    assert mean(scores, "refusal_rate", "noise-3").value == 0.6
    flag = robust(scores, 0.05)
    assert flag.verdict != "yes", flag


def test_too_few_patients_show_nothing() -> None:
    small = replace(about(), said=honest(Random(46))).take([k for k in range(IMAGE_SETS) if k % PATIENTS < 8])
    scores = scores_of(score_all(small.data, BOTH), BOTH)
    verdicts = {flag.name: flag.verdict for flag in flags(scores, BOTH, NO_LEAK)}
    assert verdicts == {USES: "not shown", ROBUST: "not shown", UNSEEN: "yes"}


def test_no_score_shows_nothing() -> None:
    assert uses_the_image([]).verdict == robust([], 0.05).verdict == "not shown"
    assert "not measured" in uses_the_image([]).reason


def test_leaks() -> None:
    assert unseen(NO_LEAK).verdict == "yes"
    leaked = unseen({**NO_LEAK, "leaked": 3})
    assert leaked.verdict == "no" and leaked.reason.startswith("3 of 240 studies")
    assert unseen({}).verdict == "not shown"


@pytest.mark.parametrize("empty", [{"training_images": 0}, {"images": 0, "studies": 0}])
def test_where_nothing_was_compared_nothing_is_shown(empty: dict[str, int]) -> None:
    assert unseen({**NO_LEAK, **empty}).verdict == "not shown"


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        ({"consistency": {}}, [USES, UNSEEN]),
        ({"robustness": {}}, [ROBUST, UNSEEN]),
        ({"generalization": {}}, [UNSEEN]),
        ({"consistency": {}, "robustness": {}, "report": {}}, [USES, ROBUST, UNSEEN]),
    ],
)
def test_each_task_has_its_flags(tasks: dict[str, Any], names: list[str]) -> None:
    using = suite(**tasks)
    assert [flag.name for flag in flags([], using, NO_LEAK)] == names
    assert tasks_of(using) == tuple(tasks)


def test_every_judgement_is_one_sentence_from_whole_scores() -> None:
    for model in (honest, constant, dice, oracle, copier, fragile):
        scores, verdicts = judged(model)
        for score in scores:
            check_score(score)
        for flag in verdicts.values():
            assert flag.reason and "\n" not in flag.reason and "None" not in flag.reason


def test_every_number_is_defined_and_every_definition_has_its_number() -> None:
    world = random_world(49, n=80, patients=40, member=True)
    changed = [dict.fromkeys(COMPARED, change) for change in CHANGES]
    world = replace(
        world,
        rows=[
            replace(one, report="The lungs are clear.", progression=changed[place % 3])
            for place, one in enumerate(world.rows)
        ],
    )
    data = replace(world.data, answers={**world.data.answers, "report": world.data.under("original")})
    data = replace(
        data, reports=["The heart is large."] * 80, changes=[changed[place // 2 % 3] for place in range(80)]
    )
    everything = suite(
        consistency={}, robustness=ROBUSTNESS, generalization={}, report={}, progression={}, presence_top1={}
    )
    scores = scores_of(score_all(data, everything), everything)
    assert {one.metric for one in scores} == set(DEFINITIONS)
    for one in scores:
        low, high = DEFINITIONS[one.metric].bounds
        assert one.value is None or low <= one.value <= high, one
        assert one.low is None or one.high is None or low <= one.low <= one.high <= high, one


def test_scores_of_no_image_set_of_the_split_are_none() -> None:
    using = suite(consistency={}, split="validation")
    assert not list(score_all(replace(about(), said=honest(Random(1))).data, using))
