"""Every fault on every wire format, through the sending loop and a real ledger: each request ends once, with a
reply or with a named failure, and nothing is sent that can never succeed."""

import asyncio
import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cxr_max.data_use import Gate
from cxr_max.ledger import Ledger
from cxr_max.records import Question, Sampling
from cxr_max.teachers import asking as asking_module
from cxr_max.teachers.asking import ATTEMPTS, Asking, Batch, Picture
from cxr_max.teachers.base import TeacherSpec, Wire
from cxr_max.teachers.pacing import Clock
from cxr_max.teachers.roster import connect
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.faults import KINDS, Faults, Kind, Rule
from tests.background import run as build
from tests.teachers.scripted import spec

TEACHERS: dict[str, tuple[Wire, str, str]] = {
    "a": ("openai", "sim-gpt-5-nano", "/openai/v1"),
    "b": ("anthropic", "sim-claude-sonnet-4", "/anthropic"),
    "c": ("gemini", "sim-gemini-2.5-flash-lite", "/gemini"),
    "well": ("openai", "sim-grok-4", "/openai/v1"),
}
SICK = ("a", "b", "c")
CONCURRENCY = 8
WELL = 24
"""Questions to the teacher at which nothing goes wrong."""
FEW, MANY = 24, 2000
SPEED = 1000.0
"""How much faster than the wall's the loop's clock runs, so that pauses of seconds last milliseconds."""
STALLED_S = {FEW: 1.0, MANY: 4.0}
"""After how many real seconds a stalled reply is given up: a busy machine must answer the others by then."""

PASSING: dict[Kind, str] = {
    "rate_limit": "rate_limit", "server_error": "server", "bad_gateway": "server", "unavailable": "server",
    "overloaded": "server", "reset": "transport", "reset_midway": "transport", "truncated": "transport",
    "stalled": "timeout", "half_json": "bad_reply", "not_json": "bad_reply", "other_shape": "bad_reply",
}  # fmt: skip
"""What may pass when asked again, and the failure's name where it does not."""
FATAL: dict[Kind, str] = {"no_model": "model", "revoked": "auth", "forbidden": "auth", "exhausted": "quota"}
ODD: tuple[Kind, ...] = ("slow", "empty", "filtered", "cut", "refused", "new_version")
HOPELESS: tuple[Kind, ...] = ("refused_input",)

PROBES = 13
"""At most so many within ``PATIENCE_S``."""

numbers = pytest.mark.parametrize(
    "number",
    [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)


class Fast(Clock):
    """The loop's clock, running ahead."""

    def now(self) -> float:
        return super().now() * SPEED

    def deadline(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        return super().deadline(None if seconds is None else seconds / SPEED)


class Log:
    """What the loop told."""

    def __init__(self) -> None:
        self.answered_by: Counter[str] = Counter()
        self.failed_at: Counter[str] = Counter()
        self.stopped_at: Counter[str] = Counter()
        self.warnings: list[str] = []

    def answered(self, teacher: str, status: str, cost_usd: float | None) -> None:
        self.answered_by[teacher] += 1

    def failed(self, teacher: str, message: str) -> None:
        self.failed_at[teacher] += 1

    def stopped(self, teacher: str, message: str) -> None:
        self.stopped_at[teacher] += 1

    def warned(self, message: str) -> None:
        self.warnings.append(message)


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (40, 30), 90).save(stream, "JPEG")
    return stream.getvalue()


JPEG = picture()


def key_of(teacher: str, study: int) -> str:
    return f"{teacher}/{study}"


def question(one: TeacherSpec, study: int) -> Question:
    return Question(
        study_id=f"s{study}", subject_id="p", source="t", split=None, image_ids=("i",), source_sha256=("f",),
        rendering="as_is-1@1024", teacher=one.name, provider=one.provider, model=one.model,
        prompt_name="diagnose", prompt_version="1", prompt_sha256="t", prompt_given="nothing",
        structured_answer=True, sampling=one.sampling, sample_index=0, request_sha256=key_of(one.name, study),
    )  # fmt: skip


def specs(simulator: Simulator, timeout_s: float | None) -> list[TeacherSpec]:
    return [
        spec(
            wire, simulator.address + path, name=name, model=persona, concurrency=CONCURRENCY,
            sampling=Sampling(), timeout_s=timeout_s,
        )
        for name, (wire, persona, path) in TEACHERS.items()
    ]  # fmt: skip


def batches(asked: list[TeacherSpec], number: int, done: set[str]) -> Iterator[Batch]:
    """Every question that has no reply yet, as the planner hands them out."""
    for study in range(number):
        questions = [question(one, study) for one in asked if one.name != "well" or study < WELL]
        open_ = tuple((each, "What is there? ANSWER") for each in questions if each.request_sha256 not in done)
        if open_:
            yield Batch((Picture(JPEG, sha256(JPEG).hexdigest()),), open_)


def ask(ledger: Ledger, simulator: Simulator, number: int, timeout_s: float | None = None) -> Log:
    """One run of the loop over all that is open."""
    simulator.learn(sha256(JPEG).hexdigest(), Truth(None))
    log = Log()

    async def go() -> None:
        asked = specs(simulator, timeout_s)
        ledger.plan([question(one, n) for one in asked for n in range(WELL if one.name == "well" else number)])
        loop = Asking(
            teachers=[connect(one, "any") for one in asked],
            gate=Gate("t", "open"),
            ledger=ledger,
            watch=log,
            keys=(),
            stop=asyncio.Event(),
            clock=Fast(),
        )
        await loop.run(batches(asked, number, ledger.answered()))

    asyncio.run(go())
    return log


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of an hour is a second at this speed, and there are a hundred tests."""
    monkeypatch.setattr(asking_module, "PATIENCE_S", 200.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def sick(kind: Kind, **when: Any) -> list[Rule]:
    """The same rule at every teacher that is to suffer."""
    return [Rule(kind, persona=TEACHERS[name][1], **when) for name in SICK]


def received(simulator: Simulator, teacher: str) -> Counter[str]:
    return simulator.served[TEACHERS[teacher][1]].received


def answered(simulator: Simulator, teacher: str) -> Counter[str]:
    return simulator.served[TEACHERS[teacher][1]].answered


def keys_in(ledger: Ledger, teacher: str) -> set[str]:
    return {key for key in ledger.answered() if key.startswith(f"{teacher}/")}


def check_once(ledger: Ledger, simulator: Simulator, log: Log) -> None:
    """What was sent whole is in the ledger, once, and was told once; the teacher that is well has finished."""
    for name in TEACHERS:
        kept = keys_in(ledger, name)
        assert answered(simulator, name) == dict.fromkeys(kept, 1), f"{name}: lost, or sent twice"
        assert log.answered_by[name] == len(kept)
    assert len(keys_in(ledger, "well")) == WELL == received(simulator, "well").total()
    assert len(list(ledger.rows())) == len(ledger.answered())


def check_second_run(ledger: Ledger, number: int) -> None:
    """The same command again, with nothing wrong, asks for what is missing and for nothing else."""
    before = ledger.answered()
    with Simulator(seed=6, faults=Faults()) as simulator:
        ask(ledger, simulator, number)
        again = {key for name in TEACHERS for key in received(simulator, name)}
    wanted = {key_of(name, n) for name in SICK for n in range(number)} | {key_of("well", n) for n in range(WELL)}
    assert again == wanted - before
    assert ledger.answered() == wanted and ledger.failures() == []


def test_every_kind_is_in_the_matrix() -> None:
    assert sorted([*PASSING, *FATAL, *ODD, *HOPELESS]) == sorted(KINDS)


@numbers
@pytest.mark.parametrize("kind", [*PASSING, "rate_limit with Retry-After"])
def test_what_passes_is_asked_again_until_it_does(ledger: Ledger, kind: Kind, number: int) -> None:
    stalled = kind == "stalled"
    when: dict[str, Any] = {"share": (0.1 if number == FEW else 0.02) if stalled else 0.4, "times": 2}
    if kind not in PASSING:
        kind, when["retry_after_s"] = "rate_limit", 2
    with Simulator(seed=6, faults=Faults(*sick(kind, **when))) as simulator:
        log = ask(ledger, simulator, number, STALLED_S[number] * SPEED if stalled else None)
        check_once(ledger, simulator, log)
        for name in SICK:
            assert len(keys_in(ledger, name)) == number
            assert set(received(simulator, name).values()) == {1, 3}
    assert ledger.failures() == [] and not log.failed_at and not log.stopped_at


@numbers
@pytest.mark.parametrize("kind", [kind for kind in PASSING if kind != "rate_limit"])
def test_what_never_passes_is_a_named_failure(ledger: Ledger, kind: Kind, number: int) -> None:
    timeout_s = STALLED_S[number] * SPEED if kind == "stalled" else None
    share = 0.02 if kind == "stalled" and number == MANY else 0.1
    with Simulator(seed=6, faults=Faults(*sick(kind, share=share))) as simulator:
        log = ask(ledger, simulator, number, timeout_s)
        check_once(ledger, simulator, log)
        failures = {failure.request_sha256: failure for failure in ledger.failures()}
        for name in SICK:
            failed = {key for key in failures if key.startswith(f"{name}/")}
            assert failed and failed | keys_in(ledger, name) == set(received(simulator, name))
            assert not failed & keys_in(ledger, name)
            assert log.failed_at[name] == len(failed)
            assert all(received(simulator, name)[key] <= ATTEMPTS + PROBES for key in failed)
    assert {failure.kind for failure in failures.values()} == {PASSING[kind]}
    assert all(failure.message for failure in failures.values())
    check_second_run(ledger, number)


@numbers
@pytest.mark.parametrize("kind", ["rate_limit", "unavailable", "reset"])
def test_a_service_that_goes_down_for_good_is_given_up(
    ledger: Ledger, kind: Kind, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What waits for it may fill all the memory there is, and must not keep the rest waiting for ever.
    monkeypatch.setattr(asking_module, "LOOK_AHEAD", 16)
    good = number // 3
    with Simulator(seed=6, faults=Faults(*sick(kind, first=good + 1))) as simulator:
        log = ask(ledger, simulator, number)
        check_once(ledger, simulator, log)
        failed = {failure.request_sha256 for failure in ledger.failures()}
        for name in SICK:
            assert len(keys_in(ledger, name)) == good
            in_vain = set(received(simulator, name)) - keys_in(ledger, name)
            assert in_vain == {key for key in failed if key.startswith(f"{name}/")}, "what was sent has a name"
            assert received(simulator, name).total() <= good + CONCURRENCY * ATTEMPTS + PROBES
    assert log.stopped_at == dict.fromkeys(SICK, 1)
    check_second_run(ledger, number)


@numbers
@pytest.mark.parametrize("kind", FATAL)
def test_what_can_never_succeed_stops_its_teacher_at_once(ledger: Ledger, kind: Kind, number: int) -> None:
    good = number // 3
    with Simulator(seed=6, faults=Faults(*sick(kind, first=good + 1))) as simulator:
        log = ask(ledger, simulator, number)
        check_once(ledger, simulator, log)
        for name in SICK:
            assert len(keys_in(ledger, name)) == good
            assert set(received(simulator, name).values()) == {1}, "nothing is tried twice"
            assert received(simulator, name).total() <= good + CONCURRENCY, "only what was in flight"
    assert log.stopped_at == dict.fromkeys(SICK, 1)
    assert {failure.kind for failure in ledger.failures()} == {FATAL[kind]}
    check_second_run(ledger, number)


@numbers
@pytest.mark.parametrize("kind", HOPELESS)
def test_a_request_that_cannot_succeed_is_sent_once(ledger: Ledger, kind: Kind, number: int) -> None:
    with Simulator(seed=6, faults=Faults(*sick(kind, share=0.2))) as simulator:
        log = ask(ledger, simulator, number)
        check_once(ledger, simulator, log)
        failed = {failure.request_sha256 for failure in ledger.failures()}
        for name in SICK:
            assert received(simulator, name) == dict.fromkeys([key_of(name, n) for n in range(number)], 1)
            assert 0 < log.failed_at[name] == sum(key.startswith(f"{name}/") for key in failed)
            assert len(keys_in(ledger, name)) + log.failed_at[name] == number
    assert not log.stopped_at and {failure.kind for failure in ledger.failures()} == {"bad_request"}


@numbers
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_reply_is_kept_and_never_bought_twice(ledger: Ledger, kind: Kind, number: int) -> None:
    with Simulator(seed=6, faults=Faults(*sick(kind, share=0.5, delay_s=0.05))) as simulator:
        log = ask(ledger, simulator, number)
        check_once(ledger, simulator, log)
        for name in SICK:
            assert received(simulator, name) == dict.fromkeys([key_of(name, n) for n in range(number)], 1)
    assert ledger.failures() == [] and not log.stopped_at
    replies = [row.reply for _, row in ledger.rows()]
    count: Callable[[str], int] = lambda ended: sum(reply.ended == ended for reply in replies)  # noqa: E731
    if kind in {"filtered", "cut"}:
        assert count("filtered" if kind == "filtered" else "length") > number / 2
    if kind == "empty":
        assert sum(not reply.text for reply in replies) > number / 2
    if kind == "new_version":
        assert sum((reply.model_reported or "").endswith("-next") for reply in replies) > number / 2


def test_a_build_goes_on_without_the_teacher_whose_key_is_revoked_and_ends_with_3(tmp_path: Path) -> None:
    from itertools import islice

    from cxr_max.builders.sources.registry import open_source
    from cxr_max.radiograph import encode

    studies = 12
    revoked = Rule("revoked", persona=TEACHERS["b"][1], first=5)
    with Simulator(seed=6, faults=Faults(revoked)) as simulator:
        source = open_source("phantom", workspace=tmp_path / "truth", labels=None)
        for study in islice(source.studies(), studies):
            for image in study.radiographs:
                simulator.learn(encode(image.path, "mimic_jpg").sha256, Truth(study.reference_findings))
        roster = tmp_path / "roster.toml"
        tables = [
            f'[{name}]\nprovider = "{wire}"\nmodel = "{persona}"\nendpoint = "{simulator.address}{path}"\n'
            "concurrency = 2\nprice = { input = 1.0, output = 2.0 }\n"
            for name, (wire, persona, path) in TEACHERS.items()
        ]
        roster.write_text("\n".join(tables))
        arguments = ["--source", "phantom", "--studies", studies, "--roster", roster, "--out", tmp_path / "r"]
        code, result, said = build(*arguments, "--teachers", ",".join(TEACHERS))
        assert code == 3, said
        assert "Traceback" not in said and "invalid x-api-key" in said
        assert [len(answered(simulator, name)) for name in TEACHERS] == [studies, 4, studies, studies]
        assert received(simulator, "b").total() <= 6
    assert (result["trajectories"], result["failed"]) == (3 * studies + 4, studies - 4)
