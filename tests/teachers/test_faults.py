"""What goes wrong at a service, over real sockets: what the adapters make of it, and the language that says it."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from typing import Any

import pytest
from PIL import Image

from cxr_max.answers import status_of
from cxr_max.records import Reply, Sampling
from cxr_max.teachers.base import Teacher, TeacherError, Wire
from cxr_max.teachers.roster import connect
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.acting import ERRORS, duration
from cxr_max.teachers.simulator.faults import (
    ERROR_REPLIES,
    KINDS,
    Faults,
    Kind,
    Limit,
    Rule,
    Script,
    Served,
)
from cxr_max.teachers.wire import reply_or_error
from tests.teachers.scripted import spec

WIRES: list[Wire] = ["openai", "anthropic", "gemini"]
PERSONA = {
    "openai": "sim-gpt-5-nano",
    "anthropic": "sim-claude-sonnet-4",
    "gemini": "sim-gemini-2.5-flash-lite",
}
PATH = {"openai": "/openai/v1", "anthropic": "/anthropic", "gemini": "/gemini"}
STALLED_S = 0.3

every_wire = pytest.mark.parametrize("wire", WIRES)


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (40, 30), 90).save(stream, "JPEG")
    return stream.getvalue()


JPEG = picture()


def simulator(faults: Faults | None = None, clock: Callable[[], float] | None = None) -> Simulator:
    # With this seed no persona refuses what is asked here.
    running = Simulator(seed=6, faults=faults, **({"clock": clock} if clock else {}))
    running.learn(sha256(JPEG).hexdigest(), Truth(None))
    return running


def asking(
    running: Simulator, wire: Wire, work: Callable[[Teacher], Awaitable[Any]], timeout_s: float = 60.0
) -> Any:
    """Do something with the real adapter of a wire, connected to the simulator."""

    async def run() -> Any:
        endpoint = running.address + PATH[wire]
        one = spec(wire, endpoint, model=PERSONA[wire], sampling=Sampling(), timeout_s=timeout_s)
        teacher = connect(one, "any")
        try:
            return await work(teacher)
        finally:
            await teacher.close()

    return asyncio.run(run())


async def outcome(teacher: Teacher, key: str) -> Reply | TeacherError:
    try:
        return await teacher.ask([JPEG], "Say what there is. End with ANSWER.", key)
    except TeacherError as error:
        return error


def outcomes(running: Simulator, wire: Wire, keys: Iterable[str], timeout_s: float = 60.0) -> list[Any]:
    async def work(teacher: Teacher) -> list[Any]:
        return [await outcome(teacher, key) for key in keys]

    result: list[Any] = asking(running, wire, work, timeout_s)
    return result


@pytest.fixture(scope="module", params=WIRES)
def seen(request: pytest.FixtureRequest) -> tuple[Wire, dict[str, Any]]:
    """What the wire's adapter makes of every fault: the n-th request meets the n-th kind."""
    wire: Wire = request.param
    patient: list[Kind] = [kind for kind in KINDS if kind != "stalled"]
    rules = [Rule(kind, first=n, last=n, delay_s=0.01) for n, kind in enumerate(patient, 1)]
    with simulator(Faults(*rules)) as running:
        found = dict(zip(patient, outcomes(running, wire, patient), strict=True))
        assert running.served[PERSONA[wire]].received == dict.fromkeys(patient, 1), "one request is one request"
    with simulator(Faults(Rule("stalled"))) as running:
        (found["stalled"],) = outcomes(running, wire, ["stalled"], STALLED_S)
    return wire, found


@pytest.mark.parametrize(
    ("fault", "kind", "retried", "fatal"),
    [
        ("rate_limit", "rate_limit", True, False),
        ("server_error", "server", True, False),
        ("bad_gateway", "server", True, False),
        ("unavailable", "server", True, False),
        ("overloaded", "server", True, False),
        ("no_model", "model", False, True),
        ("revoked", "auth", False, True),
        ("forbidden", "auth", False, True),
        ("exhausted", "quota", False, True),
        ("refused_input", "bad_request", False, False),
        ("reset", "transport", True, False),
        ("reset_midway", "transport", True, False),
        ("truncated", "transport", True, False),
        ("stalled", "timeout", True, False),
        ("half_json", "bad_reply", True, False),
        ("not_json", "bad_reply", True, False),
        ("other_shape", "bad_reply", True, False),
    ],
)
def test_every_error_is_known_for_what_it_is(
    seen: tuple[Wire, dict[str, Any]], fault: str, kind: str, retried: bool, fatal: bool
) -> None:
    error = seen[1][fault]
    assert isinstance(error, TeacherError), error
    assert (error.kind, error.retried, error.fatal) == (kind, retried, fatal), str(error)


@pytest.mark.parametrize(
    ("fault", "ended", "status"),
    [
        ("slow", "stop", "ok"),
        ("empty", "stop", "unparsed"),
        ("filtered", "filtered", "filtered"),
        ("cut", "length", "truncated"),
        ("refused", "refused", "refused"),
        ("new_version", "stop", "ok"),
    ],
)
def test_every_odd_reply_is_a_reply(
    seen: tuple[Wire, dict[str, Any]], fault: str, ended: str, status: str
) -> None:
    wire, found = seen
    reply = found[fault]
    assert isinstance(reply, Reply), reply
    if (fault, wire) == ("refused", "gemini"):
        ended = "stop"  # there, a refusal of the model's own is prose
    assert reply.ended == ended
    assert status_of(reply.text, reply.ended, structured_answer=True) == status
    assert bool(reply.text) == (fault not in {"empty", "filtered"} and (fault, wire) != ("refused", "anthropic"))


def test_a_new_version_is_reported(seen: tuple[Wire, dict[str, Any]]) -> None:
    wire, found = seen
    assert found["slow"].model_reported == PERSONA[wire]
    assert found["new_version"].model_reported == f"{PERSONA[wire]}-next"


def test_nothing_is_left_out(seen: tuple[Wire, dict[str, Any]]) -> None:
    assert set(seen[1]) == set(KINDS)


@every_wire
def test_a_slow_reply_is_the_reply(wire: Wire) -> None:
    with simulator() as quiet, simulator(Faults(Rule("slow", delay_s=0.01))) as slow:
        assert outcomes(quiet, wire, ["k"]) == outcomes(slow, wire, ["k"])


@every_wire
def test_what_a_429_asks_for_is_heard(wire: Wire) -> None:
    rules = [Rule("rate_limit", last=1, retry_after_s=7), Rule("rate_limit")]
    with simulator(Faults(*rules)) as running:
        said, silent = outcomes(running, wire, "ab")
    assert (said.retry_after_s, silent.retry_after_s) == (7.0, None)


def test_every_wire_has_its_own_words_for_every_error() -> None:
    for wire in WIRES:
        assert set(ERRORS[wire]) - {"filtered"} == set(ERROR_REPLIES) - {"bad_gateway"}
    assert len({json.dumps(ERRORS[wire]["exhausted"]["body"]) for wire in WIRES}) == 3


# What services have been seen to say, beyond the three wires' own documentation.
RECORDED: list[tuple[int, str, str]] = [
    (429, '{"error":{"code":"1113","message":"余额不足或无可用资源包,请充值。"}}', "quota"),
    (429, '{"error":{"code":"1302","message":"您当前使用该API的并发数过高"}}', "rate_limit"),
    (400, '{"error":{"code":"1211","message":"模型不存在，请检查模型代码。"}}', "model"),
    (400, '{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***"}', "auth"),
    (429, '{"error":"Your team has used all available credits or reached its monthly spending limit."}', "quota"),
    (403, '{"error":"Your team has used all available credits or reached its monthly spending limit."}', "quota"),
    (429, '{"error":{"message":"You exceeded your current quota, please check your plan and billing details. For'
     ' details, see: https://help.aliyun.com/zh/model-studio/error-code#token-limit","code":"insufficient_quota"}}',
     "rate_limit"),
    (429, '{"error":{"message":"Requests rate limit exceeded","code":"limit_requests"}}', "rate_limit"),
    (400, '{"error":{"message":"Access denied","code":"Arrearage"}}', "quota"),
    (403, '{"error":{"message":"organization exceeded current quota, please check your plan and billing details",'
     '"type":"exceeded_current_quota_error"}}', "quota"),
    (429, '{"error":{"message":"The engine is currently overloaded","type":"engine_overloaded_error"}}',
     "rate_limit"),
    (429, '{"error":{"message":"Your account request reached max request, please try again after 1 seconds",'
     '"type":"rate_limit_reached_error"}}', "rate_limit"),
    (429, '{"error":{"message":"No credits","type":"insufficient_quota","code":"credit_balance_exhausted"}}',
     "quota"),
    (429, '{"error":{"message":"Limit","code":"organization_spend_limit_exceeded"}}', "quota"),
    (429, '{"error":{"message":"Limit","code":"organization_usage_limit_exceeded"}}', "quota"),
    (429, '{"error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}}',
     "quota"),
    (400, '{"error":{"message":"You have reached your specified API usage limits. You will regain access on"}}',
     "quota"),
    (402, '{"error":{"type":"billing_error","message":"no"}}', "quota"),
    (429, '{"error":{"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your'
     ' plan and billing details. Please retry in 20.04466179s."}}', "rate_limit"),
    (429, '{"error":{"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your'
     ' plan and billing details."}}', "quota"),
    (429, '{"error":{"status":"RESOURCE_EXHAUSTED","message":"Your prepayment credits are depleted."}}', "quota"),
    (429, '{"error":{"status":"RESOURCE_EXHAUSTED","message":"Resource has been exhausted (e.g. check quota)."}}',
     "rate_limit"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind"), RECORDED)
def test_what_services_were_seen_to_say(status: int, body: str, kind: str) -> None:
    with pytest.raises(TeacherError) as caught:
        reply_or_error(status, body, {})
    assert caught.value.kind == kind


# The language.


def hits(faults: Faults, keys: Iterable[str], persona: str = "p", clock: Callable[[], float] = lambda: 0.0) -> str:
    """Whom the rules hit: the first letter of the kind, or a dot."""
    script, served, said = Script(faults, clock), Served(), []
    for key in keys:
        served.received[key] += 1
        rule = script.rule(persona, key, served)
        said.append(rule.kind[0] if rule else ".")
    return "".join(said)


def test_once_then_fine_and_always() -> None:
    assert hits(Faults(Rule("reset", times=1)), "aabab") == "r.r.."
    assert hits(Faults(Rule("reset", times=2)), "aaab") == "rr.r"
    assert hits(Faults(Rule("reset")), "aab") == "rrr"


def test_from_the_nth_request_on() -> None:
    assert hits(Faults(Rule("revoked", first=3)), "abab") == "..rr"
    assert hits(Faults(Rule("revoked", first=2, last=3)), "abab") == ".rr."


def test_one_persona_only() -> None:
    faults = Faults(Rule("reset", persona="p"))
    assert (hits(faults, "ab"), hits(faults, "ab", persona="q")) == ("rr", "..")


def test_the_first_rule_that_applies_wins() -> None:
    assert hits(Faults(Rule("slow", last=1), Rule("reset", last=2)), "abc") == "sr."


def test_a_window_of_time() -> None:
    times = iter([100.0, 100.0, 104.9, 105.0, 109.9, 110.0])  # the start, then one look per request
    assert hits(Faults(Rule("reset", window_s=(5, 10))), "abcde", clock=lambda: next(times)) == "..rr."


def test_a_share_is_of_the_keys_whatever_their_order() -> None:
    keys = [f"key {n}" for n in range(2000)]
    faults = Faults(Rule("reset", share=0.3), seed=5)
    struck = dict(zip(keys, hits(faults, keys), strict=True))
    assert 0.3 * 2000 - 80 < sum(hit == "r" for hit in struck.values()) < 0.3 * 2000 + 80  # 3.9 sigma
    backwards = dict(zip(keys[::-1], hits(faults, keys[::-1]), strict=True))
    assert struck == backwards
    assert struck != dict(zip(keys, hits(Faults(Rule("reset", share=0.3), seed=6), keys), strict=True))
    twice = hits(faults, [key for key in keys for _ in range(2)])
    assert all(twice[n] == twice[n + 1] for n in range(0, 4000, 2)), "the same request, the same fate"


def test_a_share_drawn_each_time_lets_a_repeated_request_pass() -> None:
    keys = [f"key {n}" for n in range(500) for _ in range(6)]
    struck = hits(Faults(Rule("reset", share=0.3, each_time=True)), keys)
    fates = [struck[n : n + 6] for n in range(0, len(struck), 6)]
    assert 0.3 * 3000 - 100 < struck.count("r") < 0.3 * 3000 + 100  # 4 sigma
    assert fates.count("rrrrrr") <= 3  # 0.7 in a thousand each
    assert sum("r" in fate for fate in fates) > 400  # 88 in a hundred


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"times": 0}])
def test_a_rule_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        Rule("reset", **wrong)


# The limit.


@every_wire
def test_a_limit_answers_429_beyond_it_and_refills(wire: Wire) -> None:
    now = 0.0
    limit = Limit(requests_per_minute=60, burst_s=3)
    with simulator(Faults(limits=(limit,)), lambda: now) as running:

        async def work(teacher: Teacher) -> list[Any]:
            nonlocal now
            first = [await outcome(teacher, f"a{n}") for n in range(5)]
            now = 2.0
            return first + [await outcome(teacher, f"b{n}") for n in range(3)]

        found = asking(running, wire, work)
        served = running.served[PERSONA[wire]]
    kinds = [one.kind if isinstance(one, TeacherError) else "ok" for one in found]
    assert kinds == ["ok"] * 3 + ["rate_limit"] * 2 + ["ok"] * 2 + ["rate_limit"]
    assert {one.retry_after_s for one in found if isinstance(one, TeacherError)} == {1.0}
    assert (served.requests, served.answered.total(), served.faults["rate_limit"]) == (8, 5, 3)
    assert (served.in_flight, served.most_in_flight) == (0, 1)


def test_a_limit_of_tokens_counts_what_the_reply_says() -> None:
    with simulator() as quiet:
        (one,) = outcomes(quiet, "openai", ["k"])
    limit = Limit(tokens_per_minute=2 * (one.input_tokens + one.output_tokens), retry_after=False)
    with simulator(Faults(limits=(limit,)), lambda: 0.0) as running:
        first, second, third = outcomes(running, "openai", ["k"] * 3)
    assert first.text == second.text == one.text
    assert third.kind == "rate_limit" and third.retry_after_s is None


def test_every_persona_has_its_own_limit() -> None:
    with simulator(Faults(limits=(Limit(requests_per_minute=1),)), lambda: 0.0) as running:
        found = [outcomes(running, wire, "ab") for wire in WIRES]
    assert all(isinstance(one, Reply) and isinstance(two, TeacherError) for one, two in found)


def test_what_is_left_is_in_the_headers_that_each_service_documents() -> None:
    from urllib.request import Request, urlopen

    from tests.teachers.test_simulator_server import KEY_HEADERS, PATHS, body_of

    limit = Limit(requests_per_minute=120, tokens_per_minute=600_000)
    with simulator(Faults(limits=(limit,)), lambda: 0.0) as running:
        headers: dict[str, dict[str, str]] = {}
        for wire in WIRES:
            url = running.address + PATHS[wire].format(model=PERSONA[wire])
            sent = json.dumps(body_of(PERSONA[wire], wire, JPEG)).encode()
            content = {"Content-Type": "application/json"}
            with urlopen(Request(url, sent, {**content, **KEY_HEADERS[wire]})) as response:
                headers[wire] = {name.lower(): value for name, value in response.headers.items()}
    said = headers["openai"]
    assert said["x-ratelimit-limit-requests"] == "120" and said["x-ratelimit-remaining-requests"] == "119"
    assert said["x-ratelimit-reset-requests"] == "500ms"
    assert 590_000 < int(said["x-ratelimit-remaining-tokens"]) < 600_000
    said = headers["anthropic"]
    assert said["anthropic-ratelimit-requests-remaining"] == "119"
    assert said["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert not any("ratelimit" in name for name in headers["gemini"])


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.0, "0ms"), (0.0081, "9ms"), (1, "1s"), (1.5, "1.5s"), (59.9, "59.9s"), (360, "6m0s"), (61.2, "1m1.2s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_what_was_served_is_counted_by_key() -> None:
    with simulator(Faults(Rule("reset", times=1, share=1))) as running:
        outcomes(running, "openai", "aabb")
        served = running.served[PERSONA["openai"]]
        assert served.received == {"a": 2, "b": 2} and served.answered == {"a": 1, "b": 1}
        assert served.faults == {"reset": 2}


def test_a_script_without_rules_changes_nothing() -> None:
    with simulator() as plain, simulator(Faults()) as scripted:
        for wire in WIRES:
            assert outcomes(plain, wire, "ab") == outcomes(scripted, wire, "ab")
        assert not plain.served, "who scripts nothing pays for no counting"
        assert {name: one.answered for name, one in scripted.served.items()} == {
            PERSONA[wire]: {"a": 1, "b": 1} for wire in WIRES
        }
