"""Questions -> replies of a student in this process, many at a time."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from cxr_max.student.chat import END_OF_TURN, Chat, EncodedPrompt
from cxr_max.student.model import Student


@dataclass(frozen=True, slots=True)
class Request:
    """One question about one image set, and how its reply is drawn."""

    images: tuple[bytes, ...]
    """JPEG files."""
    prompt: str
    temperature: float | None
    """``None`` or 0 takes the likeliest token each time."""
    top_p: float | None
    """The likeliest tokens that make up so much of the probability are drawn from; ``None`` for all."""
    max_tokens: int
    """Of the reply, the end of the turn included."""
    seed: int | None
    """Of the drawing; ``None`` for another reply each time."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A reply."""

    text: str
    ended: Literal["stop", "length"]
    """Whether the student ended its turn, or ``max_tokens`` cut it."""
    input_tokens: int
    """Those in an image's place included."""
    output_tokens: int
    """The end of the turn included."""


def generate(
    student: Student, requests: Sequence[Request], *, cancelled: Callable[[], bool] = lambda: False
) -> list[Generated]:
    """One reply per request, from one batch. Settings may differ within it.

    A reply depends on its own request alone, but for rounding: in float32 that turns a reply only where two
    tokens are as good as equal, in bfloat16 more often. Penalties and the like of the model's
    ``generation_config.json`` are left out, so that what is drawn is the distribution that training shaped.

    Args:
        cancelled: asked before every token; once true, the replies end where they are.

    Raises:
        MemoryError: the batch does not fit the GPU.
    """
    if not requests:
        return []
    prompts = [_encoded(student.chat, request) for request in requests]
    inputs = {
        name: values.to(student.model.device)
        for name, values in left_padded(prompts, student.chat.tokenizer.pad_token_id).items()
    }
    width = inputs["input_ids"].shape[1]
    ends = _ends(student.chat)
    try:
        rows = student.model.generate(
            **inputs,
            generation_config=_config(student.chat, ends, max(request.max_tokens for request in requests)),
            logits_processor=LogitsProcessorList([RowSampler(requests)]),
            stopping_criteria=StoppingCriteriaList([_Limits(requests, width, cancelled)]),
        )[:, width:].cpu()
    except torch.OutOfMemoryError as error:
        # Without its cause: the traceback holds on to the tensors.
        raise MemoryError(str(error)) from None
    return [
        _generated(student.chat, row[: request.max_tokens], ends, len(prompt.input_ids))
        for row, request, prompt in zip(rows, requests, prompts, strict=True)
    ]


def free_memory() -> None:
    """Give back what dropped models and batches took of the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _encoded(chat: Chat, request: Request) -> EncodedPrompt:
    return chat.prompt([Image.open(BytesIO(jpeg)) for jpeg in request.images], request.prompt)


def left_padded(prompts: Sequence[EncodedPrompt], pad: int) -> dict[str, Tensor]:
    """Prompts -> a model's inputs, all replies beginning in the same column.

    The model counts positions from ``attention_mask`` and ``mm_token_type_ids``, so that padding moves none.

    Returns:
        ``input_ids``, ``attention_mask`` and ``mm_token_type_ids``, each (B, longest prompt); ``pixel_values`` and
        ``image_grid_thw`` of all images, in order.
    """
    width = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        start = width - len(prompt.input_ids)
        ids[row, start:] = prompt.input_ids
        types[row, start:] = prompt.mm_token_type_ids
        mask[row, start:] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": types,
        "pixel_values": torch.cat([prompt.pixel_values for prompt in prompts]),
        "image_grid_thw": torch.cat([prompt.image_grid_thw for prompt in prompts]),
    }


def _ends(chat: Chat) -> list[int]:
    """The end of the turn, and the end of all text, which stands in for padding too."""
    return [chat.tokenizer.convert_tokens_to_ids(END_OF_TURN), chat.tokenizer.pad_token_id]


def _config(chat: Chat, ends: list[int], max_tokens: int) -> GenerationConfig:
    # What is not said here is taken from the model's own file.
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        max_new_tokens=max_tokens,
        eos_token_id=ends,
        pad_token_id=chat.tokenizer.pad_token_id,
        use_cache=True,
    )


def _generated(chat: Chat, row: Tensor, ends: list[int], input_tokens: int) -> Generated:
    where = torch.isin(row, torch.tensor(ends)).nonzero()
    if len(where):
        end = int(where[0])
        return Generated(chat.text(row[:end]), "stop", input_tokens, end + 1)
    return Generated(chat.text(row), "length", input_tokens, len(row))


class RowSampler(LogitsProcessor):
    """Makes the likeliest token of each row the one that its request draws.

    The token with the greatest logit / temperature + Gumbel noise is an exact draw from the softmax (Gumbel 1954;
    Maddison et al. 2014); the noise is minus the logarithm of an exponential variable. Each row has noise of its
    own, so that no request sees another's.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._noise: dict[int, torch.Generator] = {}

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """(B, tokens so far), (B, vocabulary) -> (B, vocabulary)."""
        drawn = scores.clone()
        for row, request in enumerate(self._requests):
            if request.temperature:
                logits = _nucleus(scores[row].float() / request.temperature, request.top_p)
                noise = torch.empty_like(logits).exponential_(generator=self._generator(row, logits.device))
                drawn[row] = logits - noise.log()
        return drawn

    def _generator(self, row: int, device: torch.device) -> torch.Generator:
        if row not in self._noise:
            generator, seed = torch.Generator(device), self._requests[row].seed
            if seed is None:
                generator.seed()
            else:
                generator.manual_seed(seed)
            self._noise[row] = generator
        return self._noise[row]


def _nucleus(logits: Tensor, top_p: float | None) -> Tensor:
    """(vocabulary,): all but the fewest tokens that make up ``top_p`` ruled out (Holtzman et al. 2020)."""
    if top_p is None or top_p >= 1:
        return logits
    ordered, order = logits.softmax(-1).sort(descending=True)
    above = ordered.cumsum(-1) - ordered
    return logits.masked_fill(
        torch.zeros_like(above, dtype=torch.bool).scatter(0, order, above >= top_p), -torch.inf
    )


class _Limits(StoppingCriteria):
    """Ends each row at its own request's ``max_tokens``."""

    def __init__(self, requests: Sequence[Request], width: int, cancelled: Callable[[], bool]) -> None:
        self._limits = torch.tensor([width + request.max_tokens for request in requests])
        self._cancelled = cancelled

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """(B, tokens so far) -> (B,) bool: done."""
        if self._cancelled():
            return torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return (input_ids.shape[1] >= self._limits).to(input_ids.device)
