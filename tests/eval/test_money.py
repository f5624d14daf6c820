"""``cxr-max eval --max-cost-usd``: what the build bought is free."""

from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from cxr_max.builders.build import BuildRequest, build
from cxr_max.errors import RequestError
from cxr_max.eval.run import EvalRequest, prepare
from tests.background import TEXT, background, committed
from tests.builders.test_build import Quiet
from tests.eval.data import QUESTIONS, TEACHERS, TINY, Watch, evaluated, release, request_of
from tests.teachers.scripted import Scripted, body

REPLY_USD = 7 * 10_000 / 1e6
"""7 tokens out, at the price below."""
MOST_USD = 2048 * 10_000 / 1e6
"""As many as max_tokens allows."""


async def reply(_request: web.Request) -> web.StreamResponse:
    return body("openai", TEXT)


def priced(folder: Path, server: Scripted, price: str = "price = { input = 0, output = 10000 }") -> Path:
    path = folder / "roster.toml"
    table = f'[mine]\nprovider = "openai"\nmodel = "m"\nendpoint = "{server.address}/v1"\nconcurrency = 4\n'
    path.write_text(table + price)
    return path


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def asked(request: EvalRequest) -> Watch:
    watch = Watch()
    with evaluated(request) as made:
        made.ask(watch)
    return watch


def test_an_evaluation_stops_before_the_limit_and_goes_on_when_it_is_raised(
    run: Path, tmp_path: Path, tiny: Path
) -> None:
    with background(reply) as server:
        request = request_of(
            run, tmp_path / "e", tiny, teacher="mine", roster=priced(tmp_path, server),
            max_cost_usd=MOST_USD + 4.5 * REPLY_USD,
        )  # fmt: skip
        first = asked(request)
        assert first.sent == 5 == len(committed(tmp_path / "e"))
        assert "raise it and run the same command again" in " ".join(first.warnings)
        assert asked(request).sent == 0, "what was spent before counts"
        rest = asked(replace(request, max_cost_usd=1000.0))
        assert 5 + rest.sent == len(server.headers) >= QUESTIONS - 10 and not rest.warnings


def test_what_the_build_of_the_release_bought_does_not_count(tmp_path: Path, tiny: Path) -> None:
    with background(reply) as server:
        teachers = priced(tmp_path, server)
        build(BuildRequest("phantom", "mine", tmp_path / "r", studies=40, roster=teachers), Quiet())
        bought = len(server.headers)
        limit = MOST_USD + 2.5 * REPLY_USD
        assert bought * REPLY_USD > 1
        request = request_of(
            tmp_path / "r", tmp_path / "e", tiny, teacher="mine", roster=teachers, max_cost_usd=limit
        )
        for _ in range(2):
            asked(request)
            assert len(server.headers) == bought + 3


@pytest.mark.parametrize(
    ("price", "limit", "words"),
    [
        ("", 5.0, "price of mine is unknown"),
        ("price = { input = 1, output = 1 }", -1.0, "0 or more"),
        ("price = { input = 1, output = 1 }", float("nan"), "0 or more"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused_before_anything_is_sent(
    run: Path, tmp_path: Path, tiny: Path, price: str, limit: float, words: str
) -> None:
    with background(reply) as server:
        teachers = priced(tmp_path, server, price)
        request = request_of(run, tmp_path / "e", tiny, teacher="mine", roster=teachers, max_cost_usd=limit)
        with pytest.raises(RequestError, match=words):
            prepare(request)
        assert server.headers == [] and not (tmp_path / "e").exists()


def test_a_limit_for_stored_rows_is_a_mistake_and_personas_are_free(run: Path, tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(RequestError, match="--max-cost-usd is for a --teacher that is asked"):
        prepare(request_of(run, tmp_path / "e", tiny, teacher=TEACHERS[0], stored=True, max_cost_usd=5.0))
    assert asked(request_of(run, tmp_path / "e", tiny, teacher=TEACHERS[0], max_cost_usd=0.0)).sent > 0
