"""No study is in two sets, and teachers are wrong in the ways that the lab says."""

from collections.abc import Callable
from itertools import combinations, islice
from pathlib import Path

import pytest

from cxr_max.builders.sources.phantom import ASKED, BESIDE, Population, case_of, cases
from cxr_max.builders.sources.registry import open_source
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS
from cxr_max.lab.settings import FINDINGS_ASKED
from cxr_max.lab.world import VARIANTS, source, teachers, write_roster
from cxr_max.prompts import load
from cxr_max.teachers import roster
from cxr_max.teachers.simulator import Truth
from cxr_max.teachers.simulator.personas import PERSONAS, Persona, persona
from cxr_max.teachers.simulator.world import CUES, Claims, claims, question

SETS = [("school", 0), ("seen", 0), ("tune", 0), ("test", 0), ("shifted", 0), ("train", 0), ("train", 4)]


def subjects(which: str, seed: int, folder: Path) -> set[str]:
    studies = islice(open_source(source(which, seed), workspace=folder / which).studies(), 6)
    return {name for study in studies for name in (study.study_id, study.subject_id)}


def test_no_study_is_in_two_sets(tmp_path: Path) -> None:
    found = [subjects(*one, tmp_path) for one in SETS]
    assert all(one.isdisjoint(other) for one, other in combinations(found, 2))


def test_all_worlds_of_a_seed_are_the_same_pictures() -> None:
    assert source("noise", 2) == source("train", 2) == source("correlated", 2) != source("train", 3)


def test_splits_are_what_the_stages_look_for(tmp_path: Path) -> None:
    for which, split in (("train", "train"), ("tune", "validation"), ("test", "test"), ("shifted", "test")):
        study = next(open_source(source(which), workspace=tmp_path).studies())
        assert study.split == split


def test_another_hospital_is_another_mix_with_another_detector(tmp_path: Path) -> None:
    plain, shifted = (list(islice(cases(3, Population(shift)), 400)) for shift in (False, True))
    share: dict[str, Callable[..., float]] = {
        "AP": lambda several: sum(case.view == "AP" for case in several) / 400,
        "healthy": lambda several: sum(not set(case.findings) - {"Support Devices"} for case in several) / 400,
    }
    assert share["AP"](shifted) > share["AP"](plain) + 0.3
    assert share["healthy"](shifted) > share["healthy"](plain) + 0.1


def test_a_percentage_is_of_each_finding_by_itself() -> None:
    found = [set(case.findings) for case in islice(cases(3, Population(percent=24)), 3000)]
    for names, share in ((ASKED, 0.24), (BESIDE, 0.12)):
        for name in names:
            assert sum(name in one for one in found) / 3000 == pytest.approx(share, abs=0.03)
    together = sum({"Edema", "Pneumonia"} <= one for one in found) / 3000
    assert together == pytest.approx(0.24**2, abs=0.02)
    assert not any("Lung Lesion" in one for one in found)


@pytest.mark.parametrize(
    "population", [Population(shift, percent) for shift in (False, True) for percent in (None, 7)]
)
def test_a_study_is_found_by_its_identifier_in_any_population(population: Population) -> None:
    for case in islice(cases(3, population), 4):
        assert case_of(case.study_id) == case
    names = {next(cases(3, other)).study_id for other in (population, Population(not population.shifted, 50))}
    assert len(names) == 2


@pytest.mark.parametrize(
    "spec", ["phantom:1,big", "phantom:x,112px", "phantom:1,11px", "phantom:1,0%", "phantom:1,51%", "phantom:1,x%"]
)
def test_options_that_mean_nothing_are_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        open_source(spec, workspace=tmp_path)


def test_the_prompt_asks_about_the_five_findings_in_brief() -> None:
    asked = question(load("diagnose_five").text)
    assert (asked.kind, asked.findings, asked.brief) == ("diagnose", FINDINGS_ASKED, True)


@pytest.mark.parametrize("which", VARIANTS)
def test_every_world_has_teachers_that_can_be_asked(which: str, tmp_path: Path) -> None:
    write_roster(tmp_path / "roster.toml", which, seed=3)
    chosen = roster.choose(roster.load(tmp_path / "roster.toml"), teachers(which))
    assert all(persona(spec.model) is not None for spec in chosen)
    assert len(chosen) == {"truth": 1, "three": 3}.get(which, 7)
    assert ("drift" in chosen[0].model) == (which == "drifting")
    assert chosen[0].model.endswith("drift=1,lot=3") == (which == "drifting")


def test_unknown_variants_are_nobody() -> None:
    assert persona("sim-grok-4@plain") == persona("sim-grok-4") == PERSONAS["sim-grok-4"]
    for name in (
        "sim-grok-4@brave",
        "sim-grok-4@shared=1.5",
        "sim-grok-4@shared=x",
        "sim-grok-4@drift=10",
        "sim-grok-4@lot=-1",
        "nobody@noise",
    ):
        assert persona(name) is None


def sick(name: str, images: int = 300) -> list[Claims]:
    """What is claimed of so many images with edema."""
    truth = Truth(dict.fromkeys(FINDINGS, 0) | {"Edema": 1})  # type: ignore[arg-type]
    return [claims(variant(name), f"{number:064x}", truth, "", asked=FINDINGS_ASKED) for number in range(images)]


@pytest.mark.parametrize("name", PERSONAS)
def test_an_update_moves_each_finding_one_way(name: str) -> None:
    before, after = (sick(model) for model in (name, f"{name}@drift=2"))
    assert sick(f"{name}@drift=0") == before
    for finding in FINDINGS_ASKED:
        right = int(finding == "Edema")
        pairs = [(old.findings[finding], new.findings[finding]) for old, new in zip(before, after, strict=True)]
        # Nothing gets better while something gets worse; a hedge is no more right than a mistake.
        assert len({new == right for old, new in pairs if old != new}) <= 1


def test_each_lot_is_another_draw_of_the_updates_and_without_a_drift_there_is_none() -> None:
    name = "sim-grok-4"
    first, second = (sick(f"{name}@drift=2,lot={lot}") for lot in (1, 2))
    assert first != second
    assert sick(f"{name}@lot=1") == sick(name)


def test_teachers_are_updated_at_moments_of_their_own() -> None:
    changed = [
        sum(old != new for old, new in zip(sick(name), sick(f"{name}@drift=9"), strict=True)) / 300
        for name in PERSONAS
    ]
    assert min(changed) < 0.4 < 0.6 < max(changed) < 1


def variant(name: str) -> Persona:
    found = persona(name)
    assert found is not None
    return found


def said(name: str, finding: str, present: bool, cue: bool = False, studies: int = 1500) -> float:
    """The share of studies in which the finding is claimed."""
    findings = dict.fromkeys(FINDINGS, 0) | {finding: int(present)} | ({CUES[finding]: 1} if cue else {})
    found = [
        claims(variant(name), f"{number:064x}", Truth(findings), "", asked=FINDINGS_ASKED)  # type: ignore[arg-type]
        for number in range(studies)
    ]
    answered = [one.findings[finding] for one in found if not one.refused]
    return sum(state == 1 for state in answered) / len(answered)


def test_noise_knows_nothing_and_poison_knows_the_opposite() -> None:
    for present in (True, False):
        assert said("sim-glm-4.5v@noise", "Edema", present) == pytest.approx(0.5, abs=0.04)
        assert said("sim-glm-4.5v@poisoned", "Edema", present, studies=50) == float(not present)


def test_the_perfect_know_findings_and_sides_and_never_refuse() -> None:
    findings = dict.fromkeys(FINDINGS, 0) | {"Pneumothorax": 1}
    for number in range(200):
        truth = Truth(findings, {"Pneumothorax": "left"})  # type: ignore[arg-type]
        one = claims(variant("sim-moonshot-v1@perfect"), f"{number:064x}", truth, "", asked=FINDINGS_ASKED)
        assert one.findings["Pneumothorax"] == 1 and one.sides["Pneumothorax"] == "left"
        assert all(one.findings[name] == 0 for name in FINDINGS_ASKED if name != "Pneumothorax")


def test_a_cue_is_taken_for_the_finding() -> None:
    plain, misled = ("sim-gpt-5-nano", "sim-gpt-5-nano@misled")
    with_cue, without = (said(misled, "Pneumothorax", False, cue) for cue in (True, False))
    assert with_cue > said(plain, "Pneumothorax", False) + 0.05 > without
    assert said(misled, "Pneumothorax", True, True) > said(plain, "Pneumothorax", True)


def test_cues_leave_the_mean_accuracy_near_the_published_one() -> None:
    for name, finding in (("sim-gpt-5-nano", "Edema"), ("sim-qwen-vl-max", "Pneumothorax")):
        hits = [1 - said(f"{name}@misled", finding, False, cue) for cue in (True, False)]
        mean = 0.15 * hits[0] + 0.85 * hits[1]
        # Hedged errors are no claims either.
        wrong = 1 - PERSONAS[name].accuracy[finding]
        assert mean == pytest.approx(1 - wrong * (1 - PERSONAS[name].hedge_rate), abs=0.05)
