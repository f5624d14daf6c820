"""Whether teachers can be asked: every way of failing is one sentence with its remedy."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cxr_max.builders.check import phantom_jpeg
from cxr_max.costs import Price
from cxr_max.teachers import roster
from cxr_max.teachers.check import MAX_TOKENS, Check, check
from cxr_max.teachers.student_folder import defect_of
from tests.background import background
from tests.cli.test_cli import call
from tests.teachers.scripted import JPEG, body, error, reset, spec


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-key-123")


def only(answer: Any, wire: Any = "openai", deadline_s: float = 20, **changes: Any) -> Check:
    with background(answer) as server:
        (found,) = check([spec(wire, server.address, **changes)], JPEG, deadline_s)
    return found


@pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
def test_a_teacher_that_answers_is_told_in_full(wire: Any) -> None:
    headers = {
        "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499",
        "anthropic-ratelimit-requests-limit": "500", "anthropic-ratelimit-requests-remaining": "499",
    }  # fmt: skip

    async def answer(request: web.Request) -> web.StreamResponse:
        good = body(wire, "Yes.")
        return web.Response(body=good.body, headers=headers, content_type="application/json")

    found = only(answer, wire, price=Price(1.0, 2.0))
    assert found.problem is None and found.note is None and found.asked
    assert (found.text, found.model_reported, found.input_tokens) == ("Yes.", "m-1-2025", 100)
    assert found.cost_usd == pytest.approx((100 * 1.0 + 7 * 2.0) / 1e6)
    assert found.latency_s is not None and found.latency_s > 0
    if wire != "gemini":
        assert found.limits is not None and (found.limits.requests, found.limits.requests_left) == (500, 499)


def test_one_small_request_with_the_picture_is_sent_and_nothing_is_tried_twice() -> None:
    with background(error(500)) as server:
        teacher = spec("openai", server.address)
        check([teacher], JPEG)
        (sent,) = server.received
    assert sent["max_tokens"] == min(MAX_TOKENS, teacher.sampling.max_tokens) and sent["temperature"] == 0.5
    assert [part["type"] for part in sent["messages"][0]["content"]] == ["image_url", "text"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            error(401, "bad key secret-key-123"),
            r"The key in SOME_KEY is not accepted \(HTTP 401.*export a valid one",
        ),
        (
            error(404, "no such model"),
            r"There is no model m-1 at 127.0.0.1:\d+ \(HTTP 404.*correct model or endpoint",
        ),
        (error(429, "x", code="insufficient_quota"), r"account behind SOME_KEY has nothing left.*top it up"),
        (error(429, "slow down"), r"takes no more requests for now.*wait, or lower rpm"),
        (error(503, "overloaded"), r"127.0.0.1:\d+ is in trouble \(HTTP 503.*try again later"),
        (error(400, "images are not supported"), r"refuses the request.*see whether m-1 takes images"),
        (reset, r"127.0.0.1:\d+ cannot be reached.*start the server"),
        (web.Response(text="<html>hello</html>"), r"answers in another format.*correct endpoint or provider"),
        (web.json_response({"choices": []}), r"answers in another format"),
    ],
    ids=["key", "model", "quota", "rate", "server", "image", "reset", "html", "shape"],
)
def test_a_failure_is_one_sentence_with_what_to_do(answer: Any, said: str) -> None:
    import re

    found = only(answer)
    assert found.problem is not None and re.search(said, found.problem), found.problem
    assert "\n" not in found.problem and "secret" not in found.problem
    assert found.asked and found.text is None


def test_nobody_at_the_address_is_said() -> None:
    (found,) = check([spec("openai", "http://127.0.0.1:9")], JPEG, 20)
    assert found.problem is not None and "127.0.0.1:9 cannot be reached" in found.problem


def test_a_stalled_service_is_given_up_at_its_deadline_and_holds_nobody_up() -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        if "m-stalled" in (await request.text()):
            await asyncio.sleep(60)
        return body("openai", "Yes.")

    with background(stall) as server:
        specs = [spec("openai", server.address, model=model, name=model) for model in ("m-stalled", "m-1")]
        stalled, good = check(specs, JPEG, deadline_s=0.5)
    assert stalled.problem is not None and "did not answer in time (no reply within 0.5 s)" in stalled.problem
    assert good.problem is None and good.teacher == "m-1"


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "No API key in SOME_KEY: export it"), ("two\nlines", "characters that no API key has")],
)
def test_a_key_that_cannot_be_right_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, value: str | None, said: str
) -> None:
    monkeypatch.delenv("SOME_KEY")
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with background(body("openai")) as server:
        (found,) = check([spec("openai", server.address)], JPEG)
        assert not server.received
    assert found.problem is not None and said in found.problem and not found.asked


def test_a_service_that_seems_to_leave_the_picture_out_is_noted() -> None:
    usage = {"prompt_tokens": 24, "completion_tokens": 1, "total_tokens": 25}
    found = only(body("openai", "Yes.", usage=usage))
    assert found.problem is None and found.note is not None and "24 input tokens, too few" in found.note


def test_a_filtered_picture_is_noted() -> None:
    found = only(error(400, "no", code="content_filter"))
    assert found.problem is None and found.note is not None and "declines to look" in found.note


def test_the_personas_are_asked_through_their_simulator() -> None:
    specs = [one for one in roster.load().values() if one.provider == "simulated"]
    found = check(specs, phantom_jpeg())
    assert [one.teacher for one in found] == [one.name for one in specs]
    assert all(one.problem is None and one.cost_usd == 0 for one in found)


def test_the_phantom_shows_nobody_and_carries_nothing() -> None:
    import io

    from PIL import Image

    jpeg = phantom_jpeg()
    assert jpeg == phantom_jpeg()
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.size == (256, 256) and not image.getexif() and "comment" not in image.info


# Students.


def safetensors(path: Path, missing: int = 0) -> None:
    """One tensor of 8 bytes, in the published format."""
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    path.write_bytes(content[: len(content) - missing])


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        (folder / name).write_text('{"a": 1}')
    safetensors(folder / "model.safetensors")
    return folder


def adapter(folder: Path, base: Path | str) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    safetensors(folder / "adapter_model.safetensors")
    return folder


def test_a_whole_student_has_no_defect(whole: Path, tmp_path: Path) -> None:
    assert defect_of(str(whole)) is None
    assert defect_of(str(adapter(tmp_path / "over it", whole))) is None
    assert defect_of(str(adapter(tmp_path / "over the hub's", "Qwen/Qwen2.5-VL-3B-Instruct"))) is None
    assert defect_of("Qwen/Qwen2.5-VL-3B-Instruct") is None


def test_what_transformers_writes_is_whole(tmp_path: Path) -> None:
    from cxr_max.student.tiny import write_tiny

    write_tiny(tmp_path / "tiny")
    assert defect_of(str(tmp_path / "tiny")) is None


def test_a_student_in_shards_is_looked_at_shard_by_shard(whole: Path) -> None:
    (whole / "model.safetensors").rename(whole / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (whole / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing" in str(defect_of(str(whole)))
    safetensors(whole / "model-00002-of-00002.safetensors")
    assert defect_of(str(whole)) is None


@pytest.mark.parametrize("missing", [1, 8, 20, 200])
def test_weights_that_are_cut_off_are_found(whole: Path, missing: int) -> None:
    safetensors(whole / "model.safetensors", missing)
    said = defect_of(str(whole))
    assert said is not None and "model.safetensors is damaged" in said and said.endswith("copy the folder again.")


def test_weights_that_are_something_else_are_found(whole: Path) -> None:
    (whole / "model.safetensors").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    assert "damaged" in str(defect_of(str(whole)))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "preprocessor_config.json", "model.safetensors"]
)
def test_a_missing_file_is_named(whole: Path, name: str) -> None:
    (whole / name).unlink()
    assert name in str(defect_of(str(whole)))


def test_an_adapter_without_its_base_is_found(whole: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "over it", whole)
    (whole / "model.safetensors").unlink()
    assert "model.safetensors is missing" in str(defect_of(str(folder)))
    assert "which is not there" in str(defect_of(str(adapter(tmp_path / "over none", tmp_path / "none"))))
    (folder / "adapter_config.json").write_text("{}")
    assert "names no base model" in str(defect_of(str(folder)))


# The command.


def test_the_command_ends_with_3_where_one_fails_and_tells_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    safetensors(whole / "model.safetensors", 3)
    with background(error(401, "bad key")) as server:
        file = tmp_path / "roster.toml"
        file.write_text(
            f'[mine]\nprovider = "openai"\nmodel = "m-1"\nendpoint = "{server.address}/v1"\nkey = "SOME_KEY"\n'
            f'[young]\nprovider = "student"\nmodel = "{whole}"\n'
        )
        asked = ["teachers", "--check", "--roster", file, "--teachers", "mine,young,sim-grok-4"]
        code, printed, said = call(capsys, monkeypatch, *asked)
        assert code == 3 and "Asking 3 teachers" in said
        lines = printed.splitlines()
        assert lines[0].startswith("mine        FAILS  The key in SOME_KEY is not accepted")
        assert lines[1].startswith("young       FAILS") and "damaged" in lines[1]
        assert lines[2].startswith("sim-grok-4  ok") and "nothing charged" in lines[2]
        assert lines[-1] == "1 of 3 can be asked; 2 requests sent, $0.0000"
        code, printed, _ = call(capsys, monkeypatch, *asked, "--json")
        found = {one["teacher"]: one for one in json.loads(printed)["teachers"]}
        assert code == 3 and found["sim-grok-4"]["ok"] and not found["mine"]["ok"]
        assert found["sim-grok-4"]["price"]["input"] == 0


def test_the_command_ends_with_0_where_all_can_be_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, printed, _ = call(capsys, monkeypatch, "teachers", "--check", "--teachers", "simulated")
    assert code == 0 and "7 of 7 can be asked" in printed
    code, _, said = call(capsys, monkeypatch, "teachers", "--check", "--teachers", "nobody")
    assert code == 2 and "no teacher nobody" in said.replace("'", "")
