"""No option, variable, recipe or roster opens the gate, and there is no way round it in the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cxr_max import prompts
from cxr_max.builders.sources.registry import open_source
from cxr_max.cli import app
from cxr_max.data_use import Gate
from cxr_max.errors import DataUseError, RequestError
from cxr_max.records import Study
from tests.gate.listening import HOST, images_opened, listening, mapped
from tests.gate.test_table import KEY, ran
from tests.mimic_fixture import write_mimic
from tests.test_architecture import ALL, ROOT, imported

ELSEWHERE = re.compile(r"os\.environ(?:\.get\(|\[)([^\])]*)|getenv\(([^)]*)")
SETTINGS = ("CXR_MAX_CACHE_GB", "XDG_CACHE_HOME", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Every variable that the package reads, but for keys."""
READS = {
    "cxr_max.image_cache": {"_LIMIT", '"XDG_CACHE_HOME"'},
    "cxr_max.student.processes": {'f"ACCELERATE_USE_{name}"'},
    "cxr_max.cli.teachers": {"spec.key"},
    "cxr_max.teachers.check": {"spec.key"},
    "cxr_max.teachers.roster": {"spec.key"},
}
TALKING = {
    "aiohttp",
    "anthropic",
    "google",
    "grpc",
    "http",
    "httpx",
    "httpx2",
    "openai",
    "requests",
    "urllib3",
    "websockets",
}
TALKERS = re.compile(
    r"cxr_max\.teachers\.(openai|anthropic|gemini|batch\.\w+|simulator(\.\w+)*)|cxr_max\.builders\.push"
)
"""Publishing sends texts, and has a rule of its own: ``check_outlet``."""


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimic(tmp_path_factory.mktemp("mimic"))[1]


def remote(folder: Path, port: int, more: str = "") -> str:
    path = folder / "roster.toml"
    path.write_text(f'[mine]\nprovider = "vllm"\nmodel = "m"\nendpoint = "http://{HOST}:{port}"\n{KEY}{more}')
    return str(path)


def build_options() -> set[str]:
    group = typer.main.get_command(app)
    command = group.commands["build"]  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def test_no_option_changes_a_refusal(mimic: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('views = "study"\nsamples = 3\n')
    (tmp_path / "subjects.csv").write_text("subject_id\n1\n")
    values: dict[str, list[str]] = {
        "--prompt": ["rationale"], "--studies": ["1"], "--samples": ["2"], "--split": ["test"],
        "--views": ["study"], "--image-sets": ["1"], "--seed": ["1"],
        "--exclude-subjects": [str(tmp_path / "subjects.csv")],
        "--rendering": ["mimic_jpg"], "--labels": [str(mimic)], "--recipe": [str(tmp_path / "recipe.toml")],
        "--concurrency": ["2"], "--max-cost-usd": ["0"], "--batch": [], "--json": [],
        "--source": [f"mimic-cxr-jpg:{mimic}"], "--teachers": ["mine,sim-grok-4"],
        "--out": [str(tmp_path / "other")],
        "--attestation": [str(tmp_path / "absent.toml")], "--dry-run": [],
    }  # fmt: skip
    assert build_options() == {*values, "--roster"}, "a new option: say here what it does to a refusal"
    with mapped(), listening() as service, images_opened(mimic) as opened:
        base = [
            "build",
            "--source",
            f"mimic-cxr-jpg:{mimic}",
            "--teachers",
            "mine",
            "--out",
            str(tmp_path / "out"),
        ]
        base += ["--roster", remote(tmp_path, service.port)]
        for option, given in values.items():
            if option == "--dry-run":
                continue
            code, said = ran([*base, option, *given])
            assert code == 2 and said, option
            assert opened == [] and service.silent
        code, _ = ran([*base, "--dry-run"])
        assert code == 0 and service.silent, "it says what would be asked, and asks nobody"


def test_no_variable_changes_a_refusal(mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mapped(), listening() as service, images_opened(mimic) as opened:
        base = [
            "build",
            "--source",
            f"mimic-cxr-jpg:{mimic}",
            "--teachers",
            "mine",
            "--out",
            str(tmp_path / "out"),
        ]
        base += ["--roster", remote(tmp_path, service.port)]
        local = f"http://127.0.0.1:{service.port}"
        others = (
            "OPENAI_BASE_URL",
            "HTTP_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "CXR_MAX_ATTESTATION",
            "CXR_MAX_DATA_USE",
        )
        for name in (*SETTINGS, *others, "GATE_KEY"):
            for value in ("1", "true", local):
                monkeypatch.setenv(name, value)
                code, said = ran(base)
                assert code == 2 and "24 September 2025" in said, name
            monkeypatch.delenv(name)
        assert opened == [] and service.silent


def test_these_are_all_the_variables_that_are_read() -> None:
    found: dict[str, set[str]] = {}
    for module, path in ALL.items():
        for match in ELSEWHERE.finditer(path.read_text("utf-8")):
            found.setdefault(module, set()).add((match[1] or match[2]).split(",")[0])
    assert found == READS, "a new variable: say in SETTINGS and READS what it is"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('place = "local"\n', "declared local"),
        ('data_use = "open"\n', "data_use"),
        ("attested = true\n", "attested"),
        ('place = "here"\n', "place"),
        ('provider = "simulated"\n', "roster"),
    ],
)
def test_no_roster_opens_the_gate(mimic: Path, tmp_path: Path, more: str, message: str) -> None:
    with mapped(), listening() as service:
        roster = remote(tmp_path, service.port, more)
        source = f"mimic-cxr-jpg:{mimic}"
        arguments = [
            "build",
            "--source",
            source,
            "--teachers",
            "mine",
            "--out",
            str(tmp_path / "o"),
            "--roster",
            roster,
        ]
        code, said = ran(arguments)
        assert code == 2 and message in said and service.silent


def test_no_recipe_opens_the_gate(mimic: Path, tmp_path: Path) -> None:
    for line in ('data_use = "open"', 'gate = "off"', 'place = "local"', "attested = true"):
        (tmp_path / "recipe.toml").write_text(line + "\n")
        arguments = ["build", "--source", f"mimic-cxr-jpg:{mimic}", "--recipe", str(tmp_path / "recipe.toml")]
        code, said = ran([*arguments, "--teachers", "gpt-5-nano", "--out", str(tmp_path / "out")])
        assert code == 2 and "option" in said


@pytest.mark.parametrize("data_use", ["Open", "credentialed", "", None, "restricted", "unknown"])
def test_what_is_in_no_class_is_credentialed(data_use: Any) -> None:
    gate = Gate("imported", data_use)
    with pytest.raises(DataUseError):
        gate.check("mine", f"https://{HOST}/v1", "remote")
    with pytest.raises(DataUseError):
        gate.check_batch("mine", f"https://{HOST}/v1", "remote")


# Folders.


def folder_of(root: Path, *names: str) -> str:
    table = ["file,licence"]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")
        table.append(f"{name},CC0")
    (root / "manifest.csv").write_text("\n".join(table) + "\n")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("name", "data_use"),
    [
        ("a.jpg", "open"),
        ("0f3c1b2a.jpg", "open"),
        ("patient00001/study1/view1_frontal.jpg", "open"),
        ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg", "credentialed"),
        ("mine/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.dcm", "credentialed"),
        ("files/p10/p10000032/s50414267/one.jpg", "credentialed"),
        ("p10/p10000032/s50414267/one.jpg", "credentialed"),
    ],
)
def test_a_licence_column_does_not_open_mimic(tmp_path: Path, name: str, data_use: str) -> None:
    source = open_source(folder_of(tmp_path, "b.jpg", name), workspace=tmp_path)
    assert source.info.data_use == data_use
    assert any("named as MIMIC-CXR's" in warning for warning in source.warnings) == (data_use != "open")


def test_links_to_mimic_are_mimic(tmp_path: Path) -> None:
    original = tmp_path / "data" / "p10" / "p10000032" / "s50414267" / "one.jpg"
    original.parent.mkdir(parents=True)
    original.write_bytes(b"not opened")
    for name in ("linked", "below"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "x.jpg").symlink_to(original)
    (tmp_path / "below" / "sub").symlink_to(original.parent, target_is_directory=True)
    (tmp_path / "linked" / "manifest.csv").write_text("file,licence\nx.jpg,CC0\n")
    (tmp_path / "below" / "manifest.csv").write_text("file,licence\nsub/one.jpg,CC0\n")
    for name in ("linked", "below"):
        assert open_source(f"folder:{tmp_path / name}", workspace=tmp_path).info.data_use == "credentialed"


@pytest.mark.parametrize(
    "words", ["The PhysioNet Credentialed Health Data License", "PhysioNet Restricted Health Data"]
)
def test_a_folder_below_physionets_licence_is_credentialed(tmp_path: Path, words: str) -> None:
    (tmp_path / "LICENSE.txt").write_text(f"{words}\nVersion 1.5.0\n")
    below = tmp_path / "images" / "a" / "b"
    (tmp_path / "link").symlink_to(below, target_is_directory=True)
    for spec in (folder_of(below, "x.jpg"), f"folder:{tmp_path / 'link'}"):
        assert open_source(spec, workspace=tmp_path).info.data_use == "credentialed"


def test_an_ordinary_licence_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("Apache License\nVersion 2.0\n")
    assert open_source(folder_of(tmp_path, "x.jpg"), workspace=tmp_path).info.data_use == "open"


def test_images_may_not_be_stricter_than_their_release_says(tmp_path: Path) -> None:
    from cxr_max.builders.pixels import open_pixels
    from tests.builders.test_build import built

    images = tmp_path / "images"
    folder_of(images, "x.jpg")
    from PIL import Image

    Image.new("L", (64, 64), 90).save(images / "x.jpg")
    built(f"folder:{images}", tmp_path / "run", "sim-grok-4", views="study")
    (images / "manifest.csv").write_text("file,licence\nx.jpg,internal\n")
    with pytest.raises(RequestError, match=r"are open, and those of .* are credentialed"):
        open_pixels(tmp_path / "run" / "release")


# Reports.


@pytest.mark.parametrize("name", prompts.names())
def test_a_report_is_in_no_prompt_that_does_not_give_it(name: str) -> None:
    prompt = prompts.load(name)
    assert prompt.given != "report", "the first prompt to give a report: show here that the gate is asked"
    marker = "a unique sentence of the report"
    study = Study("s", "p", "mimic-cxr", None, (), None, {"Edema": 1}, None, {"note": marker}, report=marker)
    assert marker not in (prompt.fill(study) or "")
    if prompt.given == "nothing":
        assert "Edema" not in (prompt.fill(study) or "").replace(prompt.text, "")


# The code.


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, len(node.args) + len(node.keywords)


def test_adapters_are_asked_in_the_one_loop_and_about_a_generated_picture_only() -> None:
    """``Teacher.ask`` takes images, a prompt and a key: who calls anything like that is listed here."""
    asking = {
        module for module, path in ALL.items()
        for name, given in calls(ast.parse(path.read_text("utf-8"))) if name == "ask" and given == 3
    }  # fmt: skip
    assert asking == {"cxr_max.teachers.asking", "cxr_max.teachers.check"}


def test_batches_are_submitted_by_the_one_loop_only() -> None:
    """Threads have a submit of their own, so these are known by who is told to."""
    submitting = {
        module for module, path in ALL.items() if re.search(r"\bservice\.(submit|line)\b", path.read_text("utf-8"))
    }  # fmt: skip
    assert submitting == {"cxr_max.builders.batch_asking", "cxr_max.builders.batch_desk"}


def test_only_adapters_and_the_simulator_talk_to_anybody() -> None:
    talking = {module for module, path in ALL.items() if {name.split(".")[0] for name in imported(path)} & TALKING}
    assert {module for module in talking if not TALKERS.fullmatch(module)} == set()


def test_both_loops_ask_the_gate_and_nobody_makes_an_open_one() -> None:
    for module in ("cxr_max.teachers.asking", "cxr_max.builders.batch_asking"):
        assert "admit(self.gate.check" in ALL[module].read_text("utf-8")
    for module, path in ALL.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Gate":
                constants = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
                assert not constants & {"open", "registration"}, f"{module} lets everything pass"


def test_the_walk_sees_the_package() -> None:
    assert "cxr_max.builders.sheet" in ALL and (ROOT / "docs" / "data-use.md").is_file()
