"""How sure a student is of each finding: the odds of the three states, read from its own tokens."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from cxr_max.answers import last_heading
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, STATES
from cxr_max.student.chat import Chat, EncodedPrompt
from cxr_max.student.generation import Request
from cxr_max.student.logps import sums, token_logps
from cxr_max.student.model import Student
from cxr_max.student.packing import Pack, pack


def finding_scores(
    student: Student, requests: Sequence[Request], texts: Sequence[str]
) -> list[dict[str, float] | None]:
    """The probability that each finding is present, 0 to 1, for every reply; no grad, no dropout, nothing drawn.

    The reply is kept up to its last ANSWER heading and continued by ``Pneumothorax: present``, ``... absent`` and
    ``... uncertain``, each finding by itself as the first line of the answer. The score is pi(present) of the
    three state words, which are made to add up to 1; an uncertain finding counts no part of its probability as
    present.

    Everything is conditioned on image, prompt and *the student's own reasoning*: the score says how sure the
    student is once it has argued, not what another argument would have made of the picture. Nor does it see what
    the reply's own answer says below the heading. It is a model's probability, and calibrated only as far as
    training made it so.

    Each reply is a pack of its own, in which image, prompt and reasoning pass once for all 42 continuations: its
    scores are the same bits whatever other replies there are.

    Args:
        requests: as they were asked; how replies are drawn does not matter here.
        texts: the reply to each.

    Returns:
        All 14 findings for each reply, or ``None`` where it has no ANSWER heading.

    Raises:
        MemoryError: a single reply does not fit the GPU.
        RequestError: what the model computes is no number.
    """
    return [_scores(student, request, text) for request, text in zip(requests, texts, strict=True)]


def _scores(student: Student, request: Request, text: str) -> dict[str, float] | None:
    heading = last_heading(text)
    if heading is None:
        return None
    present = state_probabilities(student, request, text[: heading.end()])[:, tuple(STATES).index("present")]
    return dict(zip(FINDINGS, present.tolist(), strict=True))


def state_probabilities(student: Student, request: Request, reasoning: str) -> Tensor:
    """(14, 3), float64: of each finding the probability of each state, in the order of ``FINDINGS``, ``STATES``.

    Args:
        reasoning: the reply up to its heading, the heading included.

    Raises:
        MemoryError, RequestError: see ``finding_scores``.
    """
    lines = _lines(student.chat, reasoning)
    start = _shared(lines)
    images = [Image.open(BytesIO(jpeg)) for jpeg in request.images]
    prompt = _continued(student.chat.prompt(images, request.prompt), lines[0][:start])
    tails = [line[start:] for line in lines]
    values = _logps(student, pack([(prompt, tails)])).split([len(tail) for tail in tails])
    # What the three lines of a finding share, its name above all, says nothing about its state: left out, so
    # that the rounding of it is left out too.
    states = len(STATES)
    names = [_shared(tails[i : i + states]) for i in range(0, len(tails), states) for _ in STATES]
    words = [value[name:] for value, name in zip(values, names, strict=True)]
    chances = sums(torch.cat(words), [len(word) for word in words]).view(-1, states).double().softmax(-1)
    if not chances.isfinite().all():
        raise RequestError("What the student computes is no number: train it again with a lower learning_rate.")
    return chances


def _lines(chat: Chat, reasoning: str) -> list[Tensor]:
    """The reply so far with one line more: all states of the first finding, of the second, and so on.

    Each text is tokenised whole: where line and heading meet, a token may reach over the seam, as ``**`` and the
    end of a line do in Qwen's vocabulary.
    """
    return [chat.reply(f"{reasoning}\n{name}: {word}")[:-1] for name in FINDINGS for word in STATES]


def _shared(rows: Sequence[Tensor]) -> int:
    """How many tokens all rows begin with, where none is the beginning of all others."""
    width = min(map(len, rows))
    table = torch.stack([row[:width] for row in rows])
    return int((table != table[0]).any(dim=0).nonzero()[0])


def _continued(prompt: EncodedPrompt, reply: Tensor) -> EncodedPrompt:
    """A prompt that ends in the first tokens of its reply."""
    return replace(
        prompt,
        input_ids=torch.cat([prompt.input_ids, reply]),
        mm_token_type_ids=torch.cat([prompt.mm_token_type_ids, torch.zeros_like(reply)]),
    )


def _logps(student: Student, packed: Pack) -> Tensor:
    """(T,), on the CPU: see ``token_logps``. The model is left in the mode that it was in."""
    training = student.model.training
    student.model.eval()
    try:
        with torch.no_grad():
            return token_logps(student.model, packed.to(student.model.device)).cpu()
    except torch.OutOfMemoryError as error:
        # Without its cause: the traceback holds on to the tensors.
        raise MemoryError(str(error)) from None
    finally:
        student.model.train(training)
