"""bespokelabs-curator asking as ``asking`` does, run by the interpreter of its own environment.

    CXR_MAX_CURATOR=/path/to/its/python python -m benchmarks asking

That environment needs ``pip install bespokelabs-curator`` alone. Prints wall-clock and CPU seconds as JSON.
"""

import base64
import json
import os
import resource
import sys
import time
from typing import Any, Final

HERE: Final = os.environ.get("CXR_MAX_CURATOR")
"""The interpreter; ``None`` leaves curator out of the table."""


def main(address: str, requests: int, in_flight: int, image_bytes: int, folder: str) -> tuple[float, float]:
    """One run."""
    os.environ.update(
        OPENAI_API_KEY="x",
        OPENAI_BASE_URL=address,
        CURATOR_CACHE_DIR=folder,
        TELEMETRY_ENABLED="false",
        CURATOR_DISABLE_RICH_DISPLAY="1",
        HOSTED_CURATOR_VIEWER="0",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        HF_HUB_OFFLINE="1",
    )
    _without_download()
    from bespokelabs import curator
    from datasets import Dataset

    image = base64.b64encode(bytes(range(256)) * (image_bytes // 256)).decode()

    class Reader(curator.LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, Any]) -> Any:
            return f"read {row['number']}", curator.types.Image(content=image, mime_type="image/jpeg")

        def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
            return {"number": row["number"], "text": response}

    reader = Reader(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": address,
            "api_key": "x",
            "max_concurrent_requests": in_flight,
            "max_requests_per_minute": 10**7,
            "max_tokens_per_minute": 10**10,
            "max_retries": 3,
            "require_all_responses": False,
        },
    )
    questions = Dataset.from_dict({"number": list(range(requests))})
    before, start = _cpu(), time.perf_counter()
    replies = reader(questions)
    took = time.perf_counter() - start, _cpu() - before
    assert len(getattr(replies, "dataset", replies)) == requests
    return took


def _without_download() -> None:
    """It counts tokens with a vocabulary from the network; this count is faster than the real one."""
    import tiktoken

    class Encoding:
        def encode(self, text: str, **_: Any) -> list[int]:
            return [0] * (len(text) // 4 + 1)

    tiktoken.get_encoding = tiktoken.encoding_for_model = lambda *_, **__: Encoding()


def _cpu() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    said = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    print(json.dumps(said))
