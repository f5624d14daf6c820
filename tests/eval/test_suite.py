"""A suite's hash is what a number depends on, and a wrong suite is one sentence."""

import json
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cxr_max.errors import RequestError
from cxr_max.eval import suite as module
from cxr_max.eval.conditions import parse
from cxr_max.eval.suite import DEFAULT, Suite, parse_suite, read_suites, shipped

FULL: dict[str, Any] = {
    "name": "mine", "version": 2, "prompt": "diagnose", "split": "test", "seed": 3, "resamples": 300,
    "consistency": {"image_sets": 10, "samples": 1, "paraphrases": ["brief"], "mirror": True, "blank": True},
    "robustness": {"image_sets": 5, "corruptions": ["noise", "blur"], "severities": [1, 3], "age_bands": [40],
                   "largest_loss": 0.1},
    "generalization": {"specificity": 0.9, "threshold": "youden"},
    "report": {"image_sets": 7}, "progression": {}, "presence_top1": {},
}  # fmt: skip
OTHER: dict[str, Any] = {
    "name": "other", "version": 3, "prompt": "rationale", "split": "validation", "seed": 4, "resamples": 301,
    "consistency.image_sets": 11, "consistency.samples": 2, "consistency.paraphrases": ["list"],
    "consistency.mirror": False, "consistency.blank": False, "robustness.image_sets": 6,
    "robustness.corruptions": ["noise"], "robustness.severities": [1], "robustness.age_bands": [41],
    "robustness.blank": False, "robustness.largest_loss": 0.2, "generalization.specificity": 0.8,
    "generalization.threshold": "f1",
    "report.image_sets": 8, "consistency": None, "robustness": None, "generalization": None, "report": None,
    "progression": None, "presence_top1": None,
}  # fmt: skip


def toml(said: dict[str, Any]) -> str:
    """Only what suites hold: plain keys, then tables of plain keys."""
    plain = [f"{name} = {json.dumps(value)}" for name, value in said.items() if not isinstance(value, dict)]
    for name, table in said.items():
        if isinstance(table, dict):
            plain += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(plain)


def of(said: dict[str, Any]) -> Suite:
    return parse_suite(toml(said), "mine.toml")


def changed(place: str, value: Any) -> dict[str, Any]:
    said = deepcopy(FULL)
    *tables, name = place.split(".")
    target = said
    for table in tables:
        target = target[table]
    if value is None:
        del target[name]
    else:
        target[name] = value
    return said


def test_every_setting_is_changed_below() -> None:
    said = Suite.model_validate(FULL).model_dump()
    places = {
        *(name for name in said),
        *(f"{name}.{key}" for name, table in said.items() if isinstance(table, dict) for key in table),
    }
    assert places == set(OTHER)


@pytest.mark.parametrize("place", OTHER)
def test_every_setting_changes_the_hash(place: str) -> None:
    assert of(changed(place, OTHER[place])).sha256 != of(FULL).sha256


def test_hashes_of_all_these_differ() -> None:
    hashes = [of(FULL).sha256, *(of(changed(place, value)).sha256 for place, value in OTHER.items())]
    assert len(set(hashes)) == len(hashes) and all(len(one) == 64 for one in hashes)


def test_the_order_of_keys_and_defaults_written_out_change_nothing() -> None:
    backwards = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(FULL.items())
    }
    assert of(backwards).sha256 == of(FULL).sha256
    short = {"name": "a", "version": 1, "consistency": {}}
    written = Suite.model_validate(short).model_dump(exclude_none=True)
    assert of(written).sha256 == of(short).sha256


@pytest.mark.parametrize("name", ["DEFINITIONS_VERSION", "CORRUPTIONS_VERSION"])
def test_versions_change_the_hash(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = of(FULL).sha256
    monkeypatch.setattr(module, name, "another")
    assert of(FULL).sha256 != before


def test_what_is_asked_by_hand() -> None:
    assert of(FULL).wanted() == {
        "original": None, "sample-1": 10, "paraphrase-brief": 10, "mirror": 10, "blank": 10,
        "noise-1": 5, "noise-3": 5, "blur-1": 5, "blur-3": 5, "report": 7,
    }  # fmt: skip
    assert of({"name": "g", "version": 1, "generalization": {}}).wanted() == {"original": None}


@pytest.mark.parametrize("name", shipped())
def test_shipped_suites_are_good(name: str) -> None:
    (suite,) = read_suites(name)
    assert suite.name == name and suite.split == "test" and suite.title == f"{name} {suite.version}"
    assert all(str(parse(condition)) == condition for condition in suite.wanted())


def test_the_default_names_three_suites() -> None:
    assert [suite.name for suite in read_suites(DEFAULT)] == DEFAULT.split(",")
    assert read_suites(" quick , generalization,") == read_suites("quick,generalization")


def test_the_wheel_holds_every_suite() -> None:
    """They lie in a folder that is no package, so that the settings of setuptools must name them."""
    root = Path(__file__).resolve().parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    packed = settings["tool"]["setuptools"]["package-data"].get("cxr_max.eval", [])
    assert any(pattern.startswith("suites/") for pattern in packed), packed


def test_what_scoring_imports_is_asked_of_pip() -> None:
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = " ".join([*project["dependencies"], *project["optional-dependencies"]["eval"]])
    assert "scipy" in wanted and "sacrebleu" in wanted


BAD: list[tuple[dict[str, Any], str]] = [
    ({**FULL, "tasks": []}, "tasks"),
    ({**FULL, "hallucination": {}}, "hallucination"),
    (changed("consistency.imagesets", 3), r"consistency\.imagesets"),
    (changed("consistency.image_sets", 0), r"consistency\.image_sets"),
    (changed("consistency.image_sets", "9"), r"consistency\.image_sets"),
    (changed("consistency.samples", -1), r"consistency\.samples"),
    (changed("consistency.paraphrases", ["long"]), "no paraphrase 'long'"),
    (changed("robustness.corruptions", ["fog"]), "no corruption 'fog'"),
    (changed("robustness.severities", [0]), "severities are 1 to 5"),
    (changed("robustness.severities", [3, 6]), "severities are 1 to 5"),
    (changed("robustness.largest_loss", 1.0), r"robustness\.largest_loss"),
    (changed("generalization.specificity", 1.0), r"generalization\.specificity"),
    (changed("generalization.threshold", "best"), r"generalization\.threshold"),
    (changed("split", "dev"), "split"),
    (changed("resamples", 99), "resamples"),
    (changed("version", 0), "version"),
    (changed("version", None), "version"),
    (changed("name", None), "name"),
    (changed("name", ""), "name"),
    ({"name": "empty", "version": 1}, "has no task"),
]


@pytest.mark.parametrize(("said", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_suite_is_one_sentence(said: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        of(said)
    assert str(refused.value).startswith("The suite mine.toml ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["A", "Ä", "1a", "a b", "a/b", "../x", "a\n"],
)
def test_a_name_that_no_file_or_table_could_bear_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="name"):
        of({**FULL, "name": name})


def test_what_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    for content in (b"name = ", b"\xff\xfe", b"[consistency"):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"s\.toml is no TOML") as refused:
            read_suites(str(path))
        assert "\n" not in str(refused.value)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(toml(FULL))
    assert read_suites(str(path)) == (Suite.model_validate(FULL),)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("", "No suite is named: choose from consistency"),
        (" , ", "No suite is named"),
        ("robusness", "There is no suite 'robusness': choose from consistency"),
        ("quick.toml", "There is no suite 'quick.toml'"),
        ("../suites/quick", "There is no suite"),
        ("quick,quick", "have one name"),
        ("quick,consistency,quick", "have one name"),
    ],
)
def test_what_is_no_suite_is_one_sentence(wanted: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        read_suites(wanted)
    assert "\n" not in str(refused.value)


def test_two_suites_of_one_name_or_two_splits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(toml({**FULL, "name": "quick"}))
    with pytest.raises(RequestError, match="have one name"):
        read_suites(f"quick,{path}")
    path.write_text(toml({**FULL, "split": "validation"}))
    with pytest.raises(RequestError, match="different prompts or splits"):
        read_suites(f"quick,{path}")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("robustness.severities", [3, 3]),
        ("robustness.corruptions", ["noise", "noise"]),
        ("consistency.paraphrases", ["brief", "brief"]),
    ],
)
def test_nothing_is_asked_for_twice(place: str, value: Any) -> None:
    """Twice in a mean is a weight that nobody sees."""
    with pytest.raises(RequestError):
        of(changed(place, value))
