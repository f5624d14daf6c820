"""What a vLLM server says where it gives no reply, word for word as its release 0.32.0 said it (tiny Qwen2.5-VL,
``--max-model-len 4096``, one image per prompt, an API key), and how it was brought to say so."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from PIL import Image

from cxr_max.records import Sampling
from cxr_max.teachers.base import ErrorKind

KEY = "a-key-of-our-own"
MODEL = "student"


def jpeg(size: tuple[int, int] = (224, 224)) -> bytes:
    """A grey picture."""
    stream = io.BytesIO()
    Image.new("L", size, 90).save(stream, "JPEG")
    return stream.getvalue()


def _one() -> list[bytes]:
    return [jpeg()]


@dataclass(frozen=True)
class Case:
    """One error: what was asked, what came back, and what that means."""

    status: int
    kind: ErrorKind
    body: str
    images: Callable[[], list[bytes]] = _one
    prompt: str = "What is there?"
    key: str = KEY
    spec: Mapping[str, Any] = field(default_factory=dict)

    def response(self) -> web.Response:
        """It, with the server's headers."""
        headers = {"Server": "uvicorn", "Vary": "Origin"}
        return web.Response(text=self.body, status=self.status, content_type="application/json", headers=headers)


CASES: dict[str, Case] = {
    "another key": Case(401, "auth", '{"error":"Unauthorized"}', key="another"),
    "no such model": Case(
        404, "model",
        '{"error":{"message":"The model `nope` does not exist. Valid aliases: student.","type":"NotFoundError",'
        '"param":"model","code":404}}',
        spec={"model": "nope"},
    ),
    "prompt too long": Case(
        400, "bad_request",
        '{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, your prompt contains'
        " at least 4097 input tokens, which exceeds this limit even without any output tokens. Please reduce the"
        ' length of the input prompt. (parameter=input_tokens, value=4097)","type":"BadRequestError",'
        '"param":"input_tokens","code":400}}',
        prompt="word " * 6000,
    ),
    "reply longer than the context": Case(
        400, "bad_request",
        '{"error":{"message":"max_tokens=100000 cannot be greater than max_model_len=4096. Please request fewer'
        ' output tokens. (parameter=max_tokens, value=100000)","type":"BadRequestError","param":"max_tokens",'
        '"code":400}}',
        spec={"sampling": Sampling(max_tokens=100_000)},
    ),
    "no picture": Case(
        400, "bad_request",
        '{"error":{"message":"Failed to load image: cannot identify image file <_io.BytesIO object>",'
        '"type":"BadRequestError","param":null,"code":400}}',
        images=lambda: [b"no picture at all"],
    ),
    "half a picture": Case(
        400, "bad_request",
        '{"error":{"message":"Failed to load image: image file is truncated (0 bytes not processed)",'
        '"type":"BadRequestError","param":null,"code":400}}',
        images=lambda: [jpeg()[:-300]],
    ),
    "a picture without shape": Case(
        400, "bad_request",
        '{"error":{"message":"Failed to apply Qwen2_5_VLProcessor on data={\'images\': [<PIL.Image.Image image'
        " mode=RGB size=2x1000>]} with kwargs={'do_normalize': False, 'do_rescale': False, 'return_tensors':"
        ' \'pt\'}","type":"BadRequestError","param":null,"code":400}}',
        images=lambda: [jpeg((2, 1000))],
    ),
    "three pictures where two are allowed": Case(
        400, "bad_request",
        '{"error":{"message":"At most 2 image(s) may be provided in one prompt. (parameter=image)",'
        '"type":"BadRequestError","param":"image","code":400}}',
        images=lambda: [jpeg()] * 3,
    ),
    "temperature out of range": Case(
        400, "bad_request",
        '{"error":{"message":"temperature must be in [0, 2], got 5.0. (parameter=temperature, value=5.0)",'
        '"type":"BadRequestError","param":"temperature","code":400}}',
        spec={"sampling": Sampling(temperature=5.0)},
    ),
}  # fmt: skip
"""What the same server says again when asked the same."""

ENGINE_DIED = Case(
    500, "server",
    '{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    '"type":"InternalServerError","param":null,"code":500}}',
)  # fmt: skip
"""To all that is in flight when its process is killed; after that, connections are refused."""
CACHE_DRIFTED = Case(
    500, "server",
    '{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}',
)  # fmt: skip
"""To a picture that came before with a request that was refused: its processes disagree about who still has it.
Asked again, it is answered."""
NO_ROUTE = Case(404, "model", '{"detail":"Not Found"}')
"""Where the endpoint lacks its ``/v1``."""

REPLY = (
    '{"id":"chatcmpl-8681b56567eded83","object":"chat.completion","created":1795535058,"model":"student",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":" support support","refusal":null,'
    '"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,'
    '"finish_reason":"length","stop_reason":null,"token_ids":null,"routed_experts":null}],"service_tier":null,'
    '"system_fingerprint":"vllm-0.32.0-86c4475e","usage":{"prompt_tokens":82,"total_tokens":98,'
    '"completion_tokens":16,"prompt_tokens_details":null,"completion_tokens_details":null},'
    '"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,'
    '"ec_transfer_params":null,"metrics":null}'
)
