"""``--max-cost-usd``: a build stops before it has cost more, and goes on when the limit is raised."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.build import BuildRequest, BuildResult, build
from cxr_max.errors import RequestError
from tests.background import TEXT, background, keys_received
from tests.builders.test_build import Quiet
from tests.teachers.scripted import Scripted, body

REPLY_USD = 7 * 10_000 / 1e6
"""7 tokens out, at the price below."""
MOST_USD = 2048 * 10_000 / 1e6
"""As many as max_tokens allows."""
STUDIES = 20


async def reply(_: Any) -> Any:
    return body("openai", TEXT)


async def untold(_: Any) -> Any:
    return body("openai", TEXT, usage=None)


def roster(folder: Path, server: Scripted, price: str = "price = { input = 0, output = 10000 }") -> Path:
    path = folder / "roster.toml"
    path.write_text(
        f'[a]\nprovider = "openai"\nmodel = "m"\nendpoint = "{server.address}/v1"\nconcurrency = 4\n{price}\n'
    )
    return path


def built(folder: Path, server: Scripted, **options: Any) -> tuple[BuildResult, Quiet]:
    watch = Quiet()
    request = BuildRequest(
        source="phantom", teachers="a", out=folder / "r", studies=STUDIES, roster=roster(folder, server), **options
    )
    return build(request, watch), watch


def spent(folder: Path) -> float:
    with closing(sqlite3.connect(folder / "r" / "ledger.sqlite")) as db:
        return float(db.execute("SELECT TOTAL(cost_usd) FROM replies").fetchone()[0])


def test_a_build_stops_before_the_limit_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    """Each of the first ones may cost $20.48, and costs $0.07."""
    with background(reply) as server:
        limit = 21.0
        first, watch = built(tmp_path, server, max_cost_usd=limit)
        assert not first.complete and 0 < first.requests_sent < STUDIES
        assert first.cost_usd == pytest.approx(first.requests_sent * REPLY_USD)
        assert spent(tmp_path) <= limit and first.trajectories == first.requests_sent
        told = [warning for warning in watch.warnings if "--max-cost-usd 21 is spent" in warning]
        assert len(told) == 1 and "raise it and run the same command again" in told[0]

        again, _ = built(tmp_path, server, max_cost_usd=limit)
        assert (again.requests_sent, again.replies_reused) == (0, first.requests_sent)
        rest, watch = built(tmp_path, server, max_cost_usd=100.0)
        assert rest.complete and rest.trajectories == STUDIES and "--max-cost-usd" not in str(watch.warnings)
        assert len(set(keys_received(server))) == len(server.headers) == STUDIES, "nothing was bought twice"


def test_waiting_for_the_replies_in_flight_spends_all_but_one_request(tmp_path: Path) -> None:
    with background(reply) as server:
        result, _ = built(tmp_path, server, max_cost_usd=MOST_USD + 9.5 * REPLY_USD)
        assert result.requests_sent == 10 and spent(tmp_path) == pytest.approx(10 * REPLY_USD)


def test_replies_that_do_not_say_what_they_took_count_as_the_most(tmp_path: Path) -> None:
    with background(untold) as server:
        result, watch = built(tmp_path, server, max_cost_usd=3.5 * MOST_USD)
        assert result.requests_sent == 3 and not result.complete and result.cost_usd is None
        _, watch = built(tmp_path, server, max_cost_usd=3.5 * MOST_USD)
        assert "3 earlier replies have no known cost" in watch.warnings[0]


def test_a_limit_of_nothing_sends_nothing(tmp_path: Path) -> None:
    with background(reply) as server:
        result, _ = built(tmp_path, server, max_cost_usd=0.0)
        assert result.requests_sent == 0 and not result.complete and server.headers == []


def test_an_unknown_price_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with background(reply) as server:
        request = BuildRequest(
            source="phantom",
            teachers="a",
            out=tmp_path / "r",
            roster=roster(tmp_path, server, ""),
            max_cost_usd=5.0,
        )
        with pytest.raises(RequestError, match="price of a is unknown"):
            build(request, Quiet())
        assert server.headers == [] and not (tmp_path / "r").exists()


def test_personas_are_free_under_any_limit(tmp_path: Path) -> None:
    request = BuildRequest(
        source="phantom", teachers="sim-grok-4", out=tmp_path / "r", studies=2, max_cost_usd=0.0
    )
    assert build(request, Quiet()).complete


def test_the_prices_that_were_paid_stand_in_the_manifest(tmp_path: Path) -> None:
    def manifest() -> Any:
        return json.loads((tmp_path / "r" / "release" / "manifest.json").read_text())["settings"]["prices"]

    first = {"input": 0.0, "output": 10_000.0, "cached_input": None, "source": "roster"}
    with background(reply) as server:
        built(tmp_path, server, max_cost_usd=21.0)
        assert manifest() == {"a": [first]}
        roster(tmp_path, server, "price = { input = 1, output = 2 }")
        request = BuildRequest(
            source="phantom", teachers="a", out=tmp_path / "r", studies=STUDIES, roster=tmp_path / "roster.toml"
        )
        build(request, Quiet())
        both = {"a": [first, {**first, "input": 1.0, "output": 2.0}]}
        assert manifest() == both
        roster(tmp_path, server, "price = { input = 3, output = 3 }")
        build(request, Quiet())
        assert manifest() == both, "nothing was bought at the third price"


def test_personas_pay_no_price(tmp_path: Path) -> None:
    result = build(BuildRequest(source="phantom", teachers="simulated", out=tmp_path / "r", studies=1), Quiet())
    assert json.loads((Path(result.release) / "manifest.json").read_text())["settings"]["prices"] == {}
    assert not (tmp_path / "r" / "prices.json").exists()


def test_a_damaged_file_of_prices_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    with background(reply) as server:
        built(tmp_path, server, max_cost_usd=21.0)
        sent = len(server.headers)
        (tmp_path / "r" / "prices.json").write_text("[")
        with pytest.raises(RequestError, match=r"prices.json is damaged: remove it"):
            built(tmp_path, server, max_cost_usd=100.0)
        assert len(server.headers) == sent
