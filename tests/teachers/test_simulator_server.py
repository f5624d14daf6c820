"""The three wires, spoken by the official SDKs over loopback sockets with only their base URL changed."""

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anthropic
import numpy as np
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from PIL import Image

from cxr_max.findings import FINDINGS
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.personas import PERSONAS, Persona
from cxr_max.teachers.simulator.server import BLOCKED_SHARE
from cxr_max.teachers.simulator.world import claims, uniform

PROMPT = "Read this radiograph step by step. End with a line ANSWER and one line per finding."
SICK = Truth(dict.fromkeys(FINDINGS, 1), {"Pleural Effusion": "left"}, difficulty=0.0)
WELL = Truth(dict.fromkeys(FINDINGS, 0), None, difficulty=0.0)
PATHS = {
    "openai": "/openai/v1/chat/completions",
    "anthropic": "/anthropic/v1/messages",
    "gemini": "/gemini/v1beta/models/{model}:generateContent",
}
KEY_HEADERS = {
    "openai": {"Authorization": "Bearer any"},
    "anthropic": {"x-api-key": "any"},
    "gemini": {"x-goog-api-key": "any"},
}


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (150, 100), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


SICK_IMAGE, WELL_IMAGE, STRANGE_IMAGE = picture(1), picture(2), picture(3)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(seed=3) as running:
        running.learn(sha256(SICK_IMAGE).hexdigest(), SICK)
        running.learn(sha256(WELL_IMAGE).hexdigest(), WELL)
        yield running


def body_of(persona: str, wire: str, image: bytes, max_tokens: int | None = 1024) -> dict[str, Any]:
    """A request's body in the form that the wire's service documents."""
    data = base64.b64encode(image).decode()
    if wire == "gemini":
        parts = [{"inlineData": {"mimeType": "image/jpeg", "data": data}}, {"text": PROMPT}]
        config = {} if max_tokens is None else {"maxOutputTokens": max_tokens}
        return {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
    source = {"type": "base64", "media_type": "image/jpeg", "data": data}
    shown = {
        "openai": {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}},
        "anthropic": {"type": "image", "source": source},
    }[wire]
    content = [shown, {"type": "text", "text": PROMPT}]
    limit = {} if max_tokens is None else {"max_tokens": max_tokens}
    return {"model": persona, "messages": [{"role": "user", "content": content}], **limit}


def post(
    simulator: Simulator,
    persona: str,
    image: bytes = SICK_IMAGE,
    wire: str | None = None,
    headers: dict[str, str] | None = None,
    body: Any = None,
    **limits: Any,
) -> tuple[int, bytes]:
    """Ask without an SDK; the status and the body's bytes."""
    wire = wire or PERSONAS[persona].wire
    url = simulator.address + PATHS[wire].format(model=persona)
    sent = json.dumps(body_of(persona, wire, image, **limits) if body is None else body).encode()
    request = Request(url, sent, {"Content-Type": "application/json", **KEY_HEADERS[wire], **(headers or {})})
    try:
        with urlopen(request) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


async def ask_openai(simulator: Simulator, model: str, image: bytes, **options: Any) -> Any:
    url = f"{simulator.address}/openai/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        messages: Any = body_of(model, "openai", image)["messages"]
        return await client.chat.completions.create(model=model, messages=messages, **options)


async def ask_anthropic(simulator: Simulator, model: str, image: bytes, **options: Any) -> Any:
    url = f"{simulator.address}/anthropic"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
        messages: Any = body_of(model, "anthropic", image)["messages"]
        options = {"max_tokens": 1024, **options}
        return await client.messages.create(model=model, messages=messages, **options)


async def ask_gemini(simulator: Simulator, model: str, image: bytes, **config: Any) -> Any:
    options = genai_types.HttpOptions(base_url=f"{simulator.address}/gemini")
    async with genai.Client(api_key="any", http_options=options).aio as client:
        return await client.models.generate_content(
            model=model,
            contents=[
                genai_types.Part.from_bytes(data=image, mime_type="image/jpeg"),
                genai_types.Part(text=PROMPT),
            ],
            config=genai_types.GenerateContentConfig(**config),
        )


def key_that(persona: Persona, image: bytes, *, refused: bool, blocked: bool = False) -> str:
    """A noise key whose reply is, or is not, a refusal of that kind."""
    image_sha256 = sha256(image).hexdigest()
    for index in range(20_000):
        key = f"key {index}"
        reply = claims(persona, image_sha256, SICK, key, 3, asked=())
        draw = uniform("3", "blocked", persona.name, image_sha256, key)
        if reply.refused == refused and (not refused or (draw < BLOCKED_SHARE) == blocked):
            return key
    raise AssertionError(f"{persona.name} never does that")


def test_openai_round_trip(simulator: Simulator) -> None:
    key = {"Idempotency-Key": "one"}
    reply = asyncio.run(ask_openai(simulator, "sim-glm-4.5v", SICK_IMAGE, extra_headers=key))
    (choice,) = reply.choices
    assert reply.model == "sim-glm-4.5v" and reply.id.startswith("chatcmpl-")
    assert choice.finish_reason == "stop" and choice.message.refusal is None
    assert "ANSWER" in choice.message.content
    assert "I see" in choice.message.reasoning_content
    length = len(choice.message.content) + len(choice.message.reasoning_content)
    assert reply.usage.completion_tokens == pytest.approx(length / 4, abs=2)
    assert reply.usage.prompt_tokens == -(-len(PROMPT) // 4) + 100 * 150 // 750
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_openai_models_are_the_wires_personas(simulator: Simulator) -> None:
    async def listed() -> list[str]:
        url = f"{simulator.address}/openai/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
            return [model.id async for model in client.models.list()]

    assert asyncio.run(listed()) == [name for name, one in PERSONAS.items() if one.wire == "openai"]


def test_anthropic_round_trip(simulator: Simulator) -> None:
    key = {"Idempotency-Key": key_that(PERSONAS["sim-claude-sonnet-4"], SICK_IMAGE, refused=False)}
    reply = asyncio.run(ask_anthropic(simulator, "sim-claude-sonnet-4", SICK_IMAGE, extra_headers=key))
    assert reply.model == "sim-claude-sonnet-4" and reply.id.startswith("msg_")
    assert reply.stop_reason == "end_turn"
    assert "ANSWER" in reply.content[0].text
    assert reply.usage.output_tokens == -(-len(reply.content[0].text) // 4)


def test_gemini_round_trip(simulator: Simulator) -> None:
    reply = asyncio.run(ask_gemini(simulator, "sim-gemini-2.5-flash-lite", SICK_IMAGE))
    assert reply.model_version == "sim-gemini-2.5-flash-lite" and reply.response_id
    assert reply.candidates[0].finish_reason == genai_types.FinishReason.STOP
    assert "ANSWER" in reply.text
    usage = reply.usage_metadata
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count


def test_a_swapped_image_shows(simulator: Simulator) -> None:
    """The easy sick image and the easy healthy one are told apart by the bytes alone."""
    for persona in PERSONAS.values():
        counts = []
        for image in (SICK_IMAGE, WELL_IMAGE):
            key = {"Idempotency-Key": key_that(persona, image, refused=False)}
            counts.append(post(simulator, persona.name, image, headers=key)[1].count(b": present"))
        assert counts[0] > counts[1] + 3, (persona.name, counts)


def test_an_unknown_image_is_a_bad_request_on_every_wire(simulator: Simulator) -> None:
    with pytest.raises(openai.BadRequestError, match="not told the truth"):
        asyncio.run(ask_openai(simulator, "sim-grok-4", STRANGE_IMAGE))
    with pytest.raises(anthropic.BadRequestError, match="not told the truth"):
        asyncio.run(ask_anthropic(simulator, "sim-claude-sonnet-4", STRANGE_IMAGE))
    with pytest.raises(genai_errors.ClientError, match="not told the truth") as caught:
        asyncio.run(ask_gemini(simulator, "sim-gemini-2.5-flash-lite", STRANGE_IMAGE))
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")


def test_an_unknown_model_is_not_found_on_every_wire(simulator: Simulator) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        asyncio.run(ask_openai(simulator, "gpt-6", SICK_IMAGE))
    assert missing.value.code == "model_not_found"
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        asyncio.run(ask_anthropic(simulator, "sim-grok-4", SICK_IMAGE))  # a persona of another wire
    with pytest.raises(genai_errors.ClientError) as caught:
        asyncio.run(ask_gemini(simulator, "gemini-9", SICK_IMAGE))
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("wire", "status"), [("openai", 401), ("anthropic", 401), ("gemini", 403)])
def test_a_missing_key_is_refused(simulator: Simulator, wire: str, status: int) -> None:
    persona = next(name for name, one in PERSONAS.items() if one.wire == wire)
    blank = dict.fromkeys(KEY_HEADERS[wire], "")
    got, body = post(simulator, persona, headers=blank)
    assert got == status and b"key" in body


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("body", [[], {}, {"model": 1}, {"messages": 3, "contents": 3, "model": "m"}, "text"])
def test_a_malformed_body_is_a_bad_request(simulator: Simulator, wire: str, body: Any) -> None:
    persona = next(name for name, one in PERSONAS.items() if one.wire == wire)
    got, answer = post(simulator, persona, body=body)
    assert got == 400 and json.loads(answer)["error"]["message"]


@pytest.mark.parametrize("limit", [0, -1, "many"])
def test_a_limit_that_is_no_count_is_a_bad_request(simulator: Simulator, limit: Any) -> None:
    assert post(simulator, "sim-grok-4", max_tokens=limit)[0] == 400


@pytest.mark.parametrize("persona", PERSONAS)
def test_a_repeated_request_gets_the_same_bytes(simulator: Simulator, persona: str) -> None:
    first = post(simulator, persona)
    assert first[0] == 200
    assert post(simulator, persona) == first
    keyed = post(simulator, persona, headers={"Idempotency-Key": "k"})
    assert keyed == post(simulator, persona, headers={"Idempotency-Key": "k"})
    assert keyed != post(simulator, persona, headers={"Idempotency-Key": "other"})


def test_two_simulators_with_one_seed_say_the_same() -> None:
    replies = []
    for seed in (5, 5, 6):
        with Simulator(seed=seed) as running:
            running.learn(sha256(SICK_IMAGE).hexdigest(), SICK)
            replies.append(post(running, "sim-gpt-5-nano"))
    assert replies[0] == replies[1] != replies[2]


def test_max_tokens_cuts_the_text(simulator: Simulator) -> None:
    for persona in ("sim-gpt-5-nano", "sim-claude-sonnet-4", "sim-gemini-2.5-flash-lite"):
        key = {"Idempotency-Key": key_that(PERSONAS[persona], SICK_IMAGE, refused=False)}
        whole, short = (
            json.loads(post(simulator, persona, headers=key, max_tokens=limit)[1]) for limit in (4096, 20)
        )
        text = {
            "sim-gpt-5-nano": lambda reply: reply["choices"][0]["message"]["content"],
            "sim-claude-sonnet-4": lambda reply: reply["content"][0]["text"],
            "sim-gemini-2.5-flash-lite": lambda reply: reply["candidates"][0]["content"]["parts"][0]["text"],
        }[persona]
        assert text(short) == text(whole)[:80]
        assert any(reason in json.dumps(short) for reason in ('"length"', '"max_tokens"', '"MAX_TOKENS"'))


def test_reasoning_spends_the_limit_first(simulator: Simulator) -> None:
    reply = json.loads(post(simulator, "sim-grok-4", max_tokens=10)[1])
    message = reply["choices"][0]["message"]
    assert len(message["reasoning_content"]) == 40 and message["content"] == ""
    assert reply["usage"]["completion_tokens"] == 10


def test_openai_refusals(simulator: Simulator) -> None:
    persona = PERSONAS["sim-moonshot-v1"]
    for blocked in (True, False):
        key = {"Idempotency-Key": key_that(persona, SICK_IMAGE, refused=True, blocked=blocked)}
        reply = asyncio.run(ask_openai(simulator, persona.name, SICK_IMAGE, extra_headers=key))
        message = reply.choices[0].message
        assert reply.choices[0].finish_reason == "stop"
        assert (message.content is None) == blocked == (message.refusal is not None)
        assert "ANSWER" not in (message.content or message.refusal)


def test_anthropic_refusals(simulator: Simulator) -> None:
    persona = PERSONAS["sim-claude-sonnet-4"]
    for blocked, reason in ((True, "refusal"), (False, "end_turn")):
        key = {"Idempotency-Key": key_that(persona, SICK_IMAGE, refused=True, blocked=blocked)}
        reply = asyncio.run(ask_anthropic(simulator, persona.name, SICK_IMAGE, extra_headers=key))
        assert reply.stop_reason == reason
        assert (reply.content == []) == blocked


def test_gemini_refusals(simulator: Simulator) -> None:
    persona = PERSONAS["sim-gemini-2.5-flash-lite"]
    for blocked, reason in ((True, "SAFETY"), (False, "STOP")):
        key = {"Idempotency-Key": key_that(persona, SICK_IMAGE, refused=True, blocked=blocked)}
        options = {"http_options": genai_types.HttpOptions(headers=key)}
        reply = asyncio.run(ask_gemini(simulator, persona.name, SICK_IMAGE, **options))
        assert reply.candidates[0].finish_reason == genai_types.FinishReason(reason)
        assert (reply.text is None) == blocked


def test_requests_are_counted() -> None:
    with Simulator() as running:
        running.learn(sha256(SICK_IMAGE).hexdigest(), SICK)
        for persona in ("sim-grok-4", "sim-grok-4", "sim-glm-4.5v", "nobody"):
            post(running, persona, wire="openai")
    assert running.requests == 4
    assert running.requests_by_persona == {"sim-grok-4": 2, "sim-glm-4.5v": 1}


def test_latency_holds_replies_back_without_queueing_them() -> None:
    with Simulator(latency_s=0.2) as running:
        running.learn(sha256(SICK_IMAGE).hexdigest(), SICK)
        start = time.monotonic()
        threads = [threading.Thread(target=post, args=(running, "sim-grok-4")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 0.2 <= time.monotonic() - start < 1.2


def test_it_stops_quickly_with_a_request_in_flight() -> None:
    before = threading.active_count()
    with Simulator(latency_s=30) as running:
        running.learn(sha256(SICK_IMAGE).hexdigest(), SICK)

        def ask() -> None:
            with pytest.raises((OSError, ConnectionError)):
                post(running, "sim-grok-4")

        thread = threading.Thread(target=ask)
        thread.start()
        while running.requests == 0:
            time.sleep(0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    thread.join()
    assert threading.active_count() == before


def test_an_address_only_while_it_runs() -> None:
    idle = Simulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = idle.address
    with pytest.raises(ValueError, match="sha256"):
        idle.learn("abc", WELL)
