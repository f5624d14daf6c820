"""Eyes before words: the tiny student's vision tower learns to tell the painted signs apart.

The paper's base has pretrained eyes; a random one would have to learn seeing from teachers that err half of the
time. Each sign gets a direction by lot, and the mean of a picture's tokens learns to lie far along it where the
sign is there. The directions are thrown away afterwards, and no word is in them: which sign is which finding is
left to be learnt from the teachers.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cxr_max.builders.sources.phantom import ASKED, BESIDE, Case, cases, drawn
from cxr_max.eval.metrics.classification import balanced_accuracy
from cxr_max.eval.metrics.ranking import auroc
from cxr_max.lab.world import SEEDS, SIZE, population
from cxr_max.shards import canonical_json, write_text
from cxr_max.student.tiny import TinySize, tiny_image_processor, tiny_model, tiny_tokenizer
from cxr_max.student.training import Watch

STUDENT: Final = TinySize(spread=128**-0.5)
"""The lab's student; with Qwen's own spread of weights a width of 128 learns several times as slowly."""
TOWER: Final = "tower.pt"
"""The file of the vision tower's weights."""
SIGNS: Final = (*ASKED, *BESIDE, "Support Devices")
EPOCHS: Final = 5
PICTURES_PER_STEP: Final = 32
LEARNING_RATE: Final = 2e-3
WARMUP: Final = 50
"""Steps in which the learning rate rises; it then falls as a cosine to 0."""
TRIED_ON: Final = 600
"""Further phantoms on which it is tried what the eyes see."""
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
    """Phantoms as the vision tower takes them, and what is painted in them."""

    patches: Tensor
    """(B, patches, channels, height, width), float16, normalised; of one frame of two equal ones."""
    grid: Tensor
    """(3,): patches in time, height and width; the same for all."""
    signs: Tensor
    """(B, signs), 1 or 0."""

    def values(self, chosen: Sequence[int]) -> Tensor:
        """As ``Stills`` takes them."""
        return self.patches[chosen].float().flatten(0, 1).flatten(1)


def pictures(which: str, count: int, processor: Any, watch: Watch) -> Pictures:
    """Draw so many phantoms."""
    patches: list[Tensor] = []
    signs: list[list[float]] = []
    grid = torch.zeros(3, dtype=torch.int64)
    for several in _batches(islice(cases(SEEDS[which], population(which)), count)):
        images = [Image.fromarray(drawn(case, SIZE)).convert("RGB") for case in several]
        encoded = processor(images=images, return_tensors="pt")
        grid = encoded["image_grid_thw"][0]
        side = processor.patch_size
        shaped = encoded["pixel_values"].view(len(several), -1, 3, processor.temporal_patch_size, side, side)
        patches.append(shaped[:, :, :, 0].half())
        signs += [[float(sign in case.findings) for sign in SIGNS] for case in several]
        watch("Drawing", len(signs), count)
    return Pictures(torch.cat(patches), grid, torch.tensor(signs))


def _batches(every: Iterator[Case]) -> Iterator[list[Case]]:
    while several := list(islice(every, _AT_ONCE)):
        yield several


def eyes(out: Path, count: int, watch: Watch) -> None:
    """Write a vision tower that sees to ``out``, and what it sees to ``out/seen.json``.

    There is nothing in between to go on from: after an interruption it begins again.
    """
    model = tiny_model(tiny_tokenizer(), size=STUDENT)
    seen = learn_to_see(model.model.visual, tiny_image_processor(), count, watch)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(model.model.visual.state_dict(), out / TOWER)
    write_text(out / "seen.json", canonical_json(seen))


def learn_to_see(visual: Any, processor: Any, count: int, watch: Watch) -> dict[str, dict[str, float | None]]:
    """Train a vision tower, in place.

    Args:
        visual: of a Qwen2.5-VL.
        count: phantoms to learn from; they take 75 kB of memory each.

    Returns:
        Of each sign, AUROC and balanced accuracy on ``TRIED_ON`` phantoms that it never saw.
    """
    seen = pictures("seen", min(TRIED_ON, count), processor, watch)
    data = pictures("school", count, processor, watch)
    torch.manual_seed(0)
    probe = nn.Linear(visual.config.out_hidden_size, len(SIGNS))
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
        loss = nn.functional.binary_cross_entropy_with_logits(logits, data.signs[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        watch("Learning to see", step + 1, steps)
    tried = _tried(visual, probe, seen)
    visual.patch_embed = of_videos
    return tried


def _logits(visual: Any, probe: nn.Linear, data: Pictures, chosen: Sequence[int]) -> Tensor:
    """(pictures, signs)."""
    out = visual(data.values(chosen), grid_thw=data.grid.expand(len(chosen), 3))
    features: Tensor = out.pooler_output
    logits: Tensor = probe(features.view(len(chosen), -1, features.shape[-1]).mean(1))
    return logits


def _tried(visual: Any, probe: nn.Linear, seen: Pictures) -> dict[str, dict[str, float | None]]:
    places = range(len(seen.signs))
    with torch.no_grad():
        parts = [_logits(visual, probe, seen, places[at : at + _AT_ONCE]) for at in places[::_AT_ONCE]]
    logits, truth = torch.cat(parts).double().numpy(), seen.signs.numpy() == 1
    return {
        name: {
            "auroc": auroc(truth[:, place], logits[:, place]).measured().value,
            "balanced_accuracy": balanced_accuracy(truth[:, place], logits[:, place] > 0).measured().value,
        }
        for place, name in enumerate(SIGNS)
    }
