"""Lessons -> packs, one micro-batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cxr_max.errors import RequestError
from cxr_max.student.chat import Chat, EncodedPrompt
from cxr_max.student.data import Lesson, Turn
from cxr_max.student.packing import pack

_CACHED: Final = 128
"""Encoded prompts in memory, of a megapixel each."""
_MEGAPIXEL: Final = 1024 * 1024
NOT_COUNTED: Final = -100
"""The label that the Trainer leaves out when it counts what a step's loss is divided by."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A turn in tokens."""

    turn: Turn
    prompt: EncodedPrompt
    replies: tuple[Tensor, ...]
    cut: int
    """How many of the replies were longer, and lost their ends."""


@dataclass(eq=False)
class Turns(Dataset[Encoded]):
    """The whole course of a training in its order, encoded as it is reached.

    Raises:
        RequestError: a prompt leaves no room for a reply.
        ImageError: an image is missing, unreadable, or another than the teachers saw.
    """

    chat: Chat
    lessons: Sequence[Lesson]
    turns: Sequence[Turn]
    max_length: int
    """Tokens of a prompt with one reply; a longer reply is cut, and its end is then not learnt."""
    _prompts: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A small set comes round many times; about 3 MB each at a megapixel, so that as many more small ones fit.
        kept = _CACHED * _MEGAPIXEL // min(self.chat.max_pixels or _MEGAPIXEL, _MEGAPIXEL)
        self._prompts = lru_cache(maxsize=kept)(self._prompt)

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, index: int) -> Encoded:
        turn = self.turns[index]
        prompt = self._prompts(turn.lesson)
        lesson, room = self.lessons[turn.lesson], self.max_length - len(prompt.input_ids)
        if room < 1:
            raise RequestError(
                f"The prompt of study {lesson.study_id} takes {len(prompt.input_ids)} tokens of {self.max_length}:"
                " raise max_length, or lower max_pixels."
            )
        whole = [self.chat.reply(lesson.replies[reply]) for reply in turn.replies]
        return Encoded(turn, prompt, tuple(reply[:room] for reply in whole), sum(len(r) > room for r in whole))

    def _prompt(self, lesson: int) -> EncodedPrompt:
        asked = self.lessons[lesson]
        images = [Image.open(BytesIO(image.jpeg)) for image in asked.images.encoded()]
        return self.chat.prompt(images, asked.prompt)


def collate_sft(encoded: Sequence[Encoded]) -> dict[str, Any]:
    """A pack; ``labels`` are the reply tokens that are learnt, for the Trainer to count."""
    packed = pack([(item.prompt, item.replies) for item in encoded])
    idle = torch.tensor([item.turn.idle for item in encoded])
    tokens = torch.tensor([sum(map(len, item.replies)) for item in encoded])
    labels = packed.targets.masked_fill(idle.repeat_interleave(tokens), NOT_COUNTED)
    return {"pack": packed, "labels": labels, "shift_labels": labels, "counts": _counts(encoded)}


def collate_apo(encoded: Sequence[Encoded]) -> dict[str, Any]:
    """A pack and the lessons' numbers; ``labels`` has one entry per study, for the Trainer to count."""
    counted = torch.tensor([NOT_COUNTED if item.turn.idle else 1 for item in encoded])
    packed = pack([(item.prompt, item.replies) for item in encoded])
    lessons = torch.tensor([item.turn.lesson for item in encoded])
    numbers = {"lessons": lessons, "counts": _counts(encoded)}
    return {"pack": packed, "labels": counted, "shift_labels": counted, **numbers}


def _counts(encoded: Sequence[Encoded]) -> dict[str, int]:
    heard = [item for item in encoded if not item.turn.idle]
    return {"replies": sum(len(item.replies) for item in heard), "replies_cut": sum(item.cut for item in heard)}
