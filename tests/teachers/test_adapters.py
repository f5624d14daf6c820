"""The three wire formats over real sockets: what is sent, what is read, and what every error means."""

import asyncio
import base64
import json
from typing import Any

import pytest
from aiohttp import web

from cxr_max.records import Limits, Reply
from cxr_max.teachers.base import TeacherError, Wire
from tests.teachers.scripted import JPEG, asked, body, error, reset

WIRES: list[Wire] = ["openai", "anthropic", "gemini"]
every_wire = pytest.mark.parametrize("wire", WIRES)


def ask(wire: Wire, *answers: Any, images: int = 1) -> tuple[Reply, dict[str, Any], dict[str, str]]:
    async def run() -> tuple[Reply, dict[str, Any], dict[str, str]]:
        async with asked(wire, *answers) as (teacher, server):
            reply = await teacher.ask(
                [JPEG + bytes([i]) for i in range(images)], "What is there?", "key-of-request"
            )
            assert len(server.received) == 1, "one request is one request"
            return reply, server.received[0], server.headers[0]

    return asyncio.run(run())


def fail(wire: Wire, *answers: Any) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        ask(wire, *answers)
    return caught.value


@every_wire
def test_a_reply(wire: Wire) -> None:
    reply, _, headers = ask(wire, body(wire))
    assert (reply.text, reply.ended, reply.model_reported) == ("I see a heart.", "stop", "m-1-2025")
    assert (reply.input_tokens, reply.output_tokens) == (100, 7)
    assert json.loads(reply.raw)
    assert headers["idempotency-key"] == "key-of-request"


@every_wire
def test_images_come_first_in_order_and_whole(wire: Wire) -> None:
    _, sent, _ = ask(wire, body(wire), images=3)
    pictures = {
        "openai": lambda: [
            part["image_url"]["url"].partition(",")[2] for part in sent["messages"][0]["content"][:3]
        ],
        "anthropic": lambda: [part["source"]["data"] for part in sent["messages"][0]["content"][:3]],
        "gemini": lambda: [part["inlineData"]["data"] for part in sent["contents"][0]["parts"][:3]],
    }[wire]()
    decoded = [base64.b64decode(text.replace("-", "+").replace("_", "/")) for text in pictures]
    assert decoded == [JPEG + bytes([i]) for i in range(3)]
    assert "What is there?" in json.dumps(sent)


@every_wire
def test_sampling_is_sent_as_the_roster_says(wire: Wire) -> None:
    _, sent, _ = ask(wire, body(wire))
    expected = {
        "openai": {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "seed": 3},
        "anthropic": {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64},
        "gemini": {"temperature": 0.5, "topP": 0.9, "maxOutputTokens": 64, "seed": 3},
    }[wire]
    holder = sent["generationConfig"] if wire == "gemini" else sent
    assert {name: holder[name] for name in expected} == expected
    assert wire == "gemini" or sent["model"] == "m-1"


def openai_choice(finish: str, **message: Any) -> web.Response:
    return body("openai", choices=[{"index": 0, "finish_reason": finish, "message": message}])


@pytest.mark.parametrize(
    ("wire", "answer", "ended", "text"),
    [
        ("openai", openai_choice("length", content="I see"), "length", "I see"),
        ("openai", openai_choice("content_filter", content=None), "filtered", ""),
        ("openai", openai_choice("stop", content=None, refusal="I can't."), "refused", "I can't."),
        ("openai", error(400, code="content_policy_violation"), "filtered", ""),
        ("openai", error(400, code="data_inspection_failed"), "filtered", ""),
        ("anthropic", body("anthropic", stop_reason="max_tokens"), "length", "I see a heart."),
        ("anthropic", body("anthropic", stop_reason="refusal", content=[]), "refused", ""),
        ("gemini", body("gemini", candidates=[{"finishReason": "SAFETY"}]), "filtered", ""),
        ("gemini", body("gemini", candidates=[], promptFeedback={"blockReason": "OTHER"}), "filtered", ""),
        ("gemini", body("gemini", candidates=[{"finishReason": "MAX_TOKENS", "content": {}}]), "length", ""),
    ],
)
def test_how_replies_end(wire: Wire, answer: web.Response, ended: str, text: str) -> None:
    reply, _, _ = ask(wire, answer)
    assert (reply.ended, reply.text) == (ended, text)


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ("openai", openai_choice("stop", content="t", reasoning_content="because")),
        ("anthropic", body("anthropic", content=[{"type": "thinking", "thinking": "because", "signature": "x"},
                                                 {"type": "text", "text": "t"}])),
        ("gemini", body("gemini", candidates=[{"finishReason": "STOP", "content": {"parts": [
            {"text": "because", "thought": True}, {"text": "t"}]}}])),
    ],
)  # fmt: skip
def test_reasoning_is_kept_apart(wire: Wire, answer: web.Response) -> None:
    reply, _, _ = ask(wire, answer)
    assert (reply.text, reply.reasoning) == ("t", "because")


@every_wire
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(401, "Incorrect API key"), "auth"),
        (error(403, "not allowed"), "auth"),
        (error(404, "no such model"), "model"),
        (error(402, "pay"), "quota"),
        (error(429, "slow down", code="insufficient_quota"), "quota"),
        (error(400, "Your credit balance is too low"), "quota"),
        (error(400, "API key not valid", status="INVALID_ARGUMENT", reason="API_KEY_INVALID"), "auth"),
        (error(429, "slow down"), "rate_limit"),
        (error(408), "timeout"),
        (error(400, "bad image"), "bad_request"),
        (error(413), "bad_request"),
        (error(422), "bad_request"),
        (error(500), "server"),
        (error(503), "server"),
        (error(529), "server"),
        (web.Response(status=502, text="<html>bad gateway</html>", content_type="text/html"), "server"),
        (web.Response(status=200, text="<html>hello</html>", content_type="text/html"), "bad_reply"),
        (web.Response(status=200, text='{"choices": [{"mess', content_type="application/json"), "bad_reply"),
        (web.json_response({}), "bad_reply"),
        (web.json_response([1]), "bad_reply"),
        (reset, "transport"),
    ],
)
def test_errors_are_told_apart(wire: Wire, answer: Any, kind: str) -> None:
    assert fail(wire, answer).kind == kind


@every_wire
def test_retry_after_is_heard(wire: Wire) -> None:
    assert fail(wire, error(429, headers={"Retry-After": "7"})).retry_after_s == 7.0
    assert fail(wire, error(429)).retry_after_s is None
    assert fail(wire, error(429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})).retry_after_s == 0.0


def test_geminis_own_retry_delay_is_heard() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"}]
    assert fail("gemini", error(429, code=429, status="RESOURCE_EXHAUSTED", details=details)).retry_after_s == 12.0


@every_wire
def test_a_stalled_reply_times_out(wire: Wire) -> None:
    async def stall(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    async def run() -> None:
        async with asked(wire, stall, timeout_s=0.2) as (teacher, _):
            with pytest.raises(TeacherError, match=r"no reply within 0\.2 s") as caught:
                await teacher.ask([JPEG], "prompt", "key")
            assert caught.value.kind == "timeout"

    asyncio.run(run())


@every_wire
def test_a_redirect_is_not_followed(wire: Wire) -> None:
    """A local teacher must not become a remote one by its own say-so."""

    async def run() -> None:
        async with asked(wire, body(wire)) as (_, elsewhere):
            moved = web.Response(status=307, headers={"Location": elsewhere.address})
            async with asked(wire, moved) as (teacher, _):
                with pytest.raises(TeacherError):
                    await teacher.ask([JPEG], "prompt", "key")
            assert elsewhere.received == []

    asyncio.run(run())


@every_wire
def test_a_proxy_of_the_environment_sees_nothing_of_a_local_teacher(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with asked(wire, body(wire)) as (_, proxy):
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.address)
            async with asked(wire, body(wire)) as (teacher, server):
                await teacher.ask([JPEG], "prompt", "key")
                assert len(server.received) == 1 and proxy.received == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        openai_choice("stop", content={"no": "text"}),
        openai_choice("stop", content="t", reasoning_content=["no", "text"]),
        body("openai", model={"name": "m"}),
        body("openai", usage={"prompt_tokens": 2**70, "completion_tokens": 1}),
        body("openai", usage={"prompt_tokens": 3_000_000_000, "completion_tokens": 1}),
        body("openai", usage={"prompt_tokens": "7", "completion_tokens": 1}),
        web.Response(text="[" * 200_000, content_type="application/json"),
    ],
)
def test_what_no_ledger_could_hold_is_a_bad_reply(answer: web.Response) -> None:
    assert fail("openai", answer).kind == "bad_reply"


def test_half_a_surrogate_pair_is_replaced() -> None:
    raw = '{"choices": [{"finish_reason": "stop", "message": {"content": "a \\ud800 b"}}]}'
    reply, _, _ = ask("openai", web.Response(text=raw, content_type="application/json"))
    assert reply.text == "a \ufffd b" and reply.text.encode()


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "I see "}, {"type": "text", "text": "a heart."}]
    reply, _, _ = ask("openai", openai_choice("stop", content=parts))
    assert reply.text == "I see a heart."


@every_wire
def test_an_odd_delay_is_no_delay_and_a_long_one_is_cut(wire: Wire) -> None:
    odd = web.Response(status=429, text='{"error": {"retryDelay": 5}}', content_type="application/json")
    assert fail(wire, odd).retry_after_s is None
    assert fail(wire, error(429, headers={"Retry-After": "1e12"})).retry_after_s == 600.0


@every_wire
def test_an_error_cannot_steer_a_terminal(wire: Wire) -> None:
    assert "\x1b" not in str(fail(wire, error(500, "\x1b]0;title\x07 \x1b[31mred")))


def test_the_account_at_openai_is_no_other_services_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-somebody")
    _, _, headers = ask("openai", body("openai"))
    assert not any("of-somebody" in value for value in headers.values())


def test_only_openai_itself_gets_its_own_name_for_the_limit() -> None:
    from cxr_max.teachers.openai import OFFICIAL, body_of
    from tests.teachers.scripted import spec

    def names(endpoint: str) -> set[str]:
        return set(body_of(spec("openai", endpoint), endpoint, [JPEG], "prompt"))

    assert "max_completion_tokens" in names(OFFICIAL)
    assert "max_tokens" in names("https://api.x.ai/v1")


@every_wire
def test_a_prompt_that_speaks_of_pictures_is_sent_as_it_is(wire: Wire) -> None:
    from cxr_max.teachers.wire import PICTURE

    async def run() -> str:
        async with asked(wire, body(wire)) as (teacher, server):
            await teacher.ask([JPEG], f'Say "{PICTURE}" and \u00e9.', "key")
            return json.dumps(server.received[0], ensure_ascii=False)

    sent = asyncio.run(run())
    assert 'Say \\"<picture>\\" and \u00e9.' in sent
    assert sent.count(base64.b64encode(JPEG).decode()) == 1


@every_wire
def test_what_headers_say_of_limits_comes_with_replies_and_errors(wire: Wire) -> None:
    said = {"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "2s"}
    good = body(wire)
    good.headers.update(said)
    reply, _, _ = ask(wire, good)
    assert reply.limits == Limits(requests_left=3, requests_reset_s=2.0)
    assert fail(wire, error(429, headers=said)).limits == reply.limits
    assert ask(wire, body(wire))[0].limits is None


@every_wire
def test_an_overrun_service_is_known_as_such(wire: Wire) -> None:
    assert [fail(wire, error(status)).overrun for status in (429, 503, 529, 500, 400)] == [
        True, True, True, False, False,
    ]  # fmt: skip
