"""Several studies, each with several replies, as one row of tokens: image and prompt stand in it once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cxr_max.student.attention import Layout
from cxr_max.student.chat import EncodedPrompt


@dataclass(frozen=True, slots=True)
class Pack:
    """A row of S tokens: for every study its prompt, then all its replies.

    There is no padding: the lengths in ``layout`` say where everything is.
    """

    input_ids: Tensor
    """(1, S), int64."""
    mm_token_type_ids: Tensor
    """(1, S), int64: 1 where an image's features go, else 0."""
    pixel_values: Tensor
    """(patches of all images, channels x patch size), float32, normalised."""
    image_grid_thw: Tensor
    """(images, 3), int64: patches in time, height and width."""
    layout: Layout
    """Per study (prompt tokens, tokens of each reply)."""

    def to(self, device: torch.device | str, **_: object) -> "Pack":
        """The same on another device."""
        names = ("input_ids", "mm_token_type_ids", "pixel_values", "image_grid_thw")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @property
    def predicting(self) -> Tensor:
        """(T,): the index of the token that predicts each reply token, reply after reply."""
        rows, start = [], 0
        for prompt, *replies in self.layout:
            start += prompt
            last = torch.tensor([start - 1])
            for length in replies:
                rows += [last, torch.arange(start, start + length - 1)]
                start += length
        return torch.cat(rows).to(self.input_ids.device)

    @property
    def targets(self) -> Tensor:
        """(T,): the reply tokens, reply after reply."""
        parts = iter(self.input_ids[0].split([length for study in self.layout for length in study]))
        studies = [[next(parts) for _ in study] for study in self.layout]
        return torch.cat([reply for study in studies for reply in study[1:]])

    @property
    def reply_lengths(self) -> list[int]:
        """Tokens of every reply, study after study."""
        return [length for study in self.layout for length in study[1:]]


def pack(studies: Sequence[tuple[EncodedPrompt, Sequence[Tensor]]]) -> Pack:
    """Lay out studies and their replies in one row.

    Args:
        studies: a prompt and at least one reply, each (length,) int64 with at least one token.

    Raises:
        ValueError: a study without replies, or an empty reply.
    """
    if not studies or any(not replies or any(len(r) == 0 for r in replies) for _, replies in studies):
        raise ValueError("A pack needs studies, each study replies, and each reply tokens")
    ids = [part for prompt, replies in studies for part in (prompt.input_ids, *replies)]
    input_ids = torch.cat(ids)[None]
    types = [
        part
        for prompt, replies in studies
        for part in (prompt.mm_token_type_ids, torch.zeros(sum(map(len, replies)), dtype=torch.int64))
    ]
    return Pack(
        input_ids=input_ids,
        mm_token_type_ids=torch.cat(types)[None],
        pixel_values=torch.cat([prompt.pixel_values for prompt, _ in studies]),
        image_grid_thw=torch.cat([prompt.image_grid_thw for prompt, _ in studies]),
        layout=tuple((len(prompt.input_ids), *map(len, replies)) for prompt, replies in studies),
    )
