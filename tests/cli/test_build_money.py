"""Money on the command line: a forecast that sends nothing, a limit that holds, and their exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.background import TEXT, background, run
from tests.cli.test_cli import call
from tests.teachers.scripted import Scripted, body


async def reply(_: Any) -> Any:
    return body("openai", TEXT)


def arguments(folder: Path, server: Scripted, price: str) -> list[str]:
    roster = folder / "roster.toml"
    roster.write_text(
        f'[a]\nprovider = "openai"\nmodel = "m"\nendpoint = "{server.address}/v1"\nconcurrency = 4\n{price}\n'
    )
    asked = ["--source", "phantom", "--studies", 6, "--teachers", "a", "--roster", roster, "--out", folder / "r"]
    return list(map(str, asked))


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with background(reply) as server:
        asked = arguments(tmp_path, server, "price = { input = 2, output = 10 }")
        code, printed, said = call(capsys, monkeypatch, "build", *asked, "--dry-run")
        assert (code, said) == (0, "") and printed.startswith("Nothing was sent.\n")
        assert printed.splitlines()[2].split()[:3] == ["a", "6", "0"] and "up to $" in printed.splitlines()[3]
        code, printed, _ = call(capsys, monkeypatch, "build", *asked, "--dry-run", "--json")
        data = json.loads(printed)
        assert (code, data["requests"], data["unpriced"], data["spent_usd"]) == (0, 6, [], 0.0)
        assert data["teachers"][0]["price"] == {
            "input": 2.0,
            "output": 10.0,
            "cached_input": None,
            "source": "roster",
        }
        assert server.headers == [] and not (tmp_path / "r").exists()


def test_a_dry_run_of_a_wrong_request_is_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, printed, said = call(
        capsys,
        monkeypatch,
        "build",
        "--source",
        "phantom",
        "--teachers",
        "gtp-5",
        "--out",
        tmp_path / "r",
        "--dry-run",
    )
    assert code == 2 and printed == "" and "no teacher 'gtp-5'" in said


def test_a_limit_ends_a_build_with_exit_3_and_one_clear_sentence(tmp_path: Path) -> None:
    """Each request may cost $20.48 and costs $0.07."""
    with background(reply) as server:
        asked = arguments(tmp_path, server, "price = { input = 0, output = 10000 }")
        code, result, said = run(*asked, "--max-cost-usd", 20.6)
        assert code == 3 and result["requests_sent"] == 2 and result["cost_usd"] == pytest.approx(0.14)
        assert said.count("--max-cost-usd 20.6") == 1 and "Traceback" not in said
        assert (
            "$0.14 of --max-cost-usd 20.6 is spent" in said and "raise it and run the same command again" in said
        )
        code, result, _ = run(*asked, "--max-cost-usd", 30)
        assert (code, result["requests_sent"], result["replies_reused"]) == (0, 4, 2)


@pytest.mark.parametrize(
    ("price", "limit", "message"),
    [
        ("", "5", "price of a is unknown, so --max-cost-usd cannot be kept"),
        ("price = { input = 1, output = 1 }", "-1", "--max-cost-usd"),
        ("price = { input = 1, output = 1 }", "nan", "--max-cost-usd"),
        ("price = { input = 1, output = 1 }", "much", "--max-cost-usd"),
        ("price = { input = inf, output = 1 }", "5", "price.input"),
        ("price = { input = 1 }", "5", "price.output"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_exit_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    price: str,
    limit: str,
    message: str,
) -> None:
    with background(reply) as server:
        asked = [*arguments(tmp_path, server, price), "--max-cost-usd", limit]
        code, printed, said = call(capsys, monkeypatch, "build", *asked)
        assert code == 2 and printed == "" and message in said and said.count("\n") == 1
        assert server.headers == [] and not (tmp_path / "r").exists()


def test_a_recipe_may_hold_the_limit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "k")
    recipe = tmp_path / "mine.toml"
    for limit, message in (("1", "price of qwen-vl-max is unknown"), ("nan", "give US dollars")):
        recipe.write_text(
            f'source = "phantom"\nteachers = "qwen-vl-max"\nout = "{tmp_path}/r"\nmax_cost_usd = {limit}\n'
        )
        code, _, said = call(capsys, monkeypatch, "build", "--recipe", recipe)
        assert code == 2 and message in said
