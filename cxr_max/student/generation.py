"""A student answers: several questions at once, greedily or sampled, each with a seed of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from cxr_max.student.chat import END_OF_TURN, EncodedPrompt
from cxr_max.student.model import Student


@dataclass(frozen=True, slots=True)
class Request:
    """One question."""

    images: tuple[bytes, ...]
    """JPEG files."""
    prompt: str
    max_tokens: int
    temperature: float | None = None
    """``None`` or 0 is greedy."""
    top_p: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer."""

    text: str
    ended: Literal["stop", "length"]
    input_tokens: int
    output_tokens: int


def generate(student: Student, requests: Sequence[Request]) -> list[Generated]:
    """Answer a batch. What stands beside a request changes its answer only by rounding.

    Sampling is exact: the largest of logits / temperature plus Gumbel noise is a draw from their softmax (Maddison
    et al. 2014), and the noise depends on the request's seed and the position alone.
    """
    prompts = [
        student.chat.prompt([Image.open(BytesIO(jpeg)) for jpeg in request.images], request.prompt)
        for request in requests
    ]
    longest = max(request.max_tokens for request in requests)
    batch = {name: value.to(student.model.device) for name, value in _padded(prompts, student).items()}
    with torch.no_grad():
        ids = student.model.generate(
            **batch,
            max_new_tokens=longest,
            do_sample=False,
            logits_processor=LogitsProcessorList([_Gumbel(requests)]),
        )
    new = ids[:, batch["input_ids"].shape[1] :].cpu()
    return [_answer(student, *each) for each in zip(requests, prompts, new, strict=True)]


def _padded(prompts: Sequence[EncodedPrompt], student: Student) -> dict[str, Tensor]:
    """Padded on the left, where it is masked."""
    width = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), student.chat.tokenizer.pad_token_id)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        start = width - len(prompt.input_ids)
        ids[row, start:], types[row, start:], mask[row, start:] = prompt.input_ids, prompt.mm_token_type_ids, 1
    pixels = torch.cat([prompt.pixel_values for prompt in prompts]).to(student.model.dtype)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": types,
        "pixel_values": pixels,
        "image_grid_thw": torch.cat([prompt.image_grid_thw for prompt in prompts]),
    }


def _answer(student: Student, request: Request, prompt: EncodedPrompt, new: Tensor) -> Generated:
    new = new[: request.max_tokens]
    end = student.chat.tokenizer.convert_tokens_to_ids(END_OF_TURN)
    stopped = (new == end).nonzero()
    length = int(stopped[0]) + 1 if len(stopped) else len(new)
    return Generated(student.chat.text(new), "stop" if len(stopped) else "length", len(prompt.input_ids), length)


class _Gumbel(LogitsProcessor):
    """Adds each sampled row's noise, so that the greedy choice is its draw."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._noise = [torch.Generator().manual_seed(request.seed) for request in requests]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float().clone()
        for row, (request, noise) in enumerate(zip(self._requests, self._noise, strict=True)):
            if request.temperature:
                kept = _nucleus(scores[row] / request.temperature, request.top_p)
                uniform = torch.rand(kept.shape, generator=noise).clamp_min(1e-20).to(kept.device)
                scores[row] = kept - torch.log(-torch.log(uniform))
        return scores


def _nucleus(logits: Tensor, top_p: float | None) -> Tensor:
    """The likeliest tokens that together reach ``top_p`` (Holtzman et al. 2020); the others at minus infinity."""
    if top_p is None or top_p >= 1:
        return logits
    ordered, order = logits.sort(descending=True)
    before = ordered.softmax(0).cumsum(0) - ordered.softmax(0)
    out: Any = torch.full_like(logits, -torch.inf)
    out[order[before < top_p]] = ordered[before < top_p]
    kept: Tensor = out
    return kept
