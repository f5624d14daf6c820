"""The house rules that a reader relies on: who may import whom, and nothing imported bare."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["base", "core", "student", "teachers", "builders", "eval", "lab", "cli"]
BASE = {"cxr_max", "cxr_max.records", "cxr_max.findings", "cxr_max.errors"}
SDKS = {
    sdk: {f"teachers/{name}.py", f"teachers/batch/{name}.py"}
    for sdk, name in (("openai", "openai"), ("anthropic", "anthropic"), ("google", "gemini"))
}
HEAVY = {"torch", "transformers", "peft", "accelerate"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its import name; the links inside cxr_max/ are not walked twice."""
    for folder in ("cxr_max", "teachers", "builders", "eval", "data_cards"):
        prefix = [] if folder == "cxr_max" else ["cxr_max"]
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[0] == "cxr_max" and parts[1] in {"teachers", "builders", "eval", "data_cards"}:
                continue
            yield ".".join(prefix + parts).removesuffix(".__init__"), path


def layer(module: str) -> str:
    parts = module.split(".")
    if module in BASE:
        return "base"
    if module == "cxr_max.__main__":
        return "cli"
    return parts[1] if parts[1] in LAYERS else "core"


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ALL = dict(modules())


def resolve(name: str) -> str | None:
    """The module of the package that an imported name means."""
    while name and name not in ALL:
        name = name.rpartition(".")[0]
    return name or None


def test_the_walk_sees_the_package() -> None:
    assert {"cxr_max.records", "cxr_max.teachers.asking", "cxr_max.builders.build", "cxr_max.cli"} <= set(ALL)


@pytest.mark.parametrize("module", sorted(ALL))
def test_a_module_imports_only_what_stands_to_its_left(module: str) -> None:
    own = LAYERS.index(layer(module))
    for name in imported(ALL[module]):
        target = resolve(name)
        if target and target != "cxr_max":
            assert LAYERS.index(layer(target)) <= own, f"{module} imports {target}"


@pytest.mark.parametrize("path", sorted(p for p in ROOT.rglob("*.py") if ".venv" not in p.parts), ids=str)
def test_nothing_is_imported_bare(path: Path) -> None:
    for name in imported(path):
        assert name.split(".")[0] not in {"teachers", "builders", "eval", "data_cards"}, f"{path} imports {name}"


@pytest.mark.parametrize("module", sorted(ALL))
def test_sdks_and_torch_stay_where_they_belong(module: str) -> None:
    path = ALL[module].relative_to(ROOT).as_posix()
    for name in imported(ALL[module]):
        top = name.split(".")[0]
        assert top not in SDKS or path in SDKS[top], f"{module} imports {name}"
        assert top not in HEAVY or layer(module) == "student", f"{module} imports {name}"


def test_the_simulator_imports_no_builder() -> None:
    for module, path in ALL.items():
        if module.startswith("cxr_max.teachers.simulator"):
            assert not any(name.startswith("cxr_max.builders") for name in imported(path))


def test_the_base_needs_the_standard_library_only() -> None:
    import sys

    for module in BASE:
        for name in imported(ALL[module]):
            assert name.split(".")[0] in {*sys.stdlib_module_names, "cxr_max"}
