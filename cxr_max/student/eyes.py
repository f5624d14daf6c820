"""Eyes before words: a random vision tower learns to tell signs apart, before any language model looks through it.

A real base has pretrained eyes; a random one would have to learn seeing from texts, which takes long, and longer
where they are often wrong. Each sign gets a direction by lot, and the mean of a picture's tokens learns to lie far
along it where the sign is there. The directions are thrown away afterwards, and no word is in them.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr_max.student.model import open_student
from cxr_max.student.tiny import TinySize, tiny_image_processor, tiny_model, tiny_tokenizer
from cxr_max.student.training import Watch

if TYPE_CHECKING:
    from PIL.Image import Image

EPOCHS: Final = 5
PICTURES_PER_STEP: Final = 32
LEARNING_RATE: Final = 2e-3
WARMUP: Final = 50
"""Steps in which the learning rate rises; it then falls as a cosine to 0."""
_TOWER: Final = "tower.pt"
_AT_ONCE: Final = 200


class Stills(nn.Module):
    """The tower's first layer for pictures: it convolves a video of two equal frames.

    The same numbers, as one product with the sum of both frames' weights: on a CPU a training step is 1.5 times as
    fast.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = convolution.weight

    def forward(self, patches: Tensor) -> Tensor:
        """(patches, channels x height x width) -> (patches, width of the tower)."""
        return nn.functional.linear(patches, self.weight.sum(2).flatten(1))


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of one size as the vision tower takes them."""

    patches: Tensor
    """(B, patches, channels, height, width), float16, normalised; of one frame of two equal ones."""
    grid: Tensor
    """(3,): patches in time, height and width; the same for all."""

    def values(self, chosen: Sequence[int]) -> Tensor:
        """As ``Stills`` takes them: (B x patches, channels x height x width), float32."""
        return self.patches[chosen].float().flatten(0, 1).flatten(1)


def encoded(batches: "Iterable[Sequence[Image]]") -> Pictures:
    """Pictures in RGB, in batches so that one of these is in memory at a time; 75 kB each at 112 x 112 pixels."""
    processor = tiny_image_processor()
    patches: list[Tensor] = []
    grid = torch.zeros(3, dtype=torch.int64)
    for images in batches:
        seen = processor(images=list(images), return_tensors="pt")
        grid, side = seen["image_grid_thw"][0], processor.patch_size
        shaped = seen["pixel_values"].view(len(images), -1, 3, processor.temporal_patch_size, side, side)
        patches.append(shaped[:, :, :, 0].half())
    return Pictures(torch.cat(patches), grid)


def write_eyes(
    out: Path, size: TinySize, data: Pictures, signs: NDArray[np.float32], tried: Pictures, watch: Watch
) -> NDArray[np.float64]:
    """Train the tower of a tiny student of this size, and write it to the folder ``out``.

    There is nothing in between to go on from: after an interruption it begins again.

    Args:
        signs: (B, signs), 1 or 0, of ``data``.

    Returns:
        (pictures, signs): how sure it is of each sign in the pictures of ``tried``, in log-odds.
    """
    visual = tiny_model(tiny_tokenizer(), size=size).model.visual
    said = learn_to_see(visual, data, torch.from_numpy(signs), tried, watch)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(visual.state_dict(), out / _TOWER)
    return said.double().numpy()


def give_eyes(student: Path, eyes: Path) -> None:
    """Put the tower that ``write_eyes`` wrote to ``eyes`` into the student in the folder ``student``."""
    model = open_student(str(student)).model
    model.model.visual.load_state_dict(torch.load(eyes / _TOWER, weights_only=True))
    model.save_pretrained(student)


def learn_to_see(visual: Any, data: Pictures, signs: Tensor, tried: Pictures, watch: Watch) -> Tensor:
    """Train a Qwen2.5-VL's vision tower in place; see ``write_eyes``."""
    count = len(signs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = nn.Linear(visual.config.out_hidden_size, signs.shape[1])
        nn.init.orthogonal_(probe.weight).requires_grad_(False)
    of_videos, visual.patch_embed = visual.patch_embed, Stills(visual.patch_embed.proj)
    weights = [*visual.parameters(), probe.bias]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    order = [place for epoch in range(EPOCHS) for place in random.Random(epoch).sample(range(count), count)]
    steps = -(-len(order) // PICTURES_PER_STEP)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * step / steps))
    )
    torch.set_flush_denormal(True)
    for step in range(steps):
        chosen = order[step * PICTURES_PER_STEP : (step + 1) * PICTURES_PER_STEP]
        logits = _logits(visual, probe, data, chosen)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, signs[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        watch("Learning to see", step + 1, steps)
    torch.set_flush_denormal(False)
    places = range(len(tried.patches))
    with torch.no_grad():
        said = torch.cat([_logits(visual, probe, tried, places[at : at + _AT_ONCE]) for at in places[::_AT_ONCE]])
    visual.patch_embed = of_videos
    return said


def _logits(visual: Any, probe: nn.Linear, data: Pictures, chosen: Sequence[int]) -> Tensor:
    """(pictures, signs)."""
    out = visual(data.values(chosen), grid_thw=data.grid.expand(len(chosen), 3))
    features: Tensor = out.pooler_output
    logits: Tensor = probe(features.view(len(chosen), -1, features.shape[-1]).mean(1))
    return logits
