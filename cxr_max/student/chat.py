"""A question and its reply -> the tokens and pixels that Qwen2.5-VL and Qwen3-VL take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from jinja2 import TemplateError
from torch import Tensor

from cxr_max.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_TOKEN: Final = "<|image_pad|>"
END_OF_TURN: Final = "<|im_end|>"
_TEXT: Final = "\ue000"
"""Where the text goes while the markup around it is rendered: a character for private use."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A question about one image set, up to where the reply begins. P tokens, one image or more."""

    input_ids: Tensor
    """(P,), int64."""
    mm_token_type_ids: Tensor
    """(P,), int64: 1 where an image's features go, else 0."""
    pixel_values: Tensor
    """(patches, channels x patch size), float32, normalised."""
    image_grid_thw: Tensor
    """(images, 3), int64: patches in time, height and width."""


@dataclass(frozen=True, slots=True)
class Chat:
    """How text and images become tokens.

    Built from tokenizer and image processor alone: the processor class of transformers needs torchvision for the
    videos that a radiograph is not.
    """

    tokenizer: Any
    image_processor: Any
    max_pixels: int | None = None
    """An image is scaled down to at most so many pixels; ``None`` leaves it to the image processor."""

    def __post_init__(self) -> None:
        if not self._shows_images():
            raise RequestError(
                f"The model's chat template puts no {IMAGE_TOKEN} where the image belongs, so the student would"
                " never see one: choose a Qwen2.5-VL or Qwen3-VL model as --base."
            )

    def prompt(self, images: "Sequence[Image]", text: str) -> EncodedPrompt:
        """A user's turn with images and text, and the beginning of the assistant's.

        Special tokens that are written out in ``text`` are text, not markup.

        Args:
            images: grey or RGB pictures.
        """
        size = {} if self.max_pixels is None else {"size": self._size(self.max_pixels)}
        pictures = [image.convert("RGB") for image in images]
        seen = self.image_processor(images=pictures, return_tensors="pt", **size)
        merged = self.image_processor.merge_size**2
        before, _, after = self._rendered(_TEXT, len(pictures)).partition(_TEXT)
        parts = before.split(IMAGE_TOKEN)
        words = parts[0]
        for grid, part in zip(seen["image_grid_thw"], parts[1:], strict=True):
            words += IMAGE_TOKEN * (int(grid.prod()) // merged) + part
        ids = torch.tensor([*self._ids(words), *self._ids(text, markup=False), *self._ids(after)])
        is_image = ids == self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        return EncodedPrompt(ids, is_image.long(), seen["pixel_values"], seen["image_grid_thw"])

    def reply(self, text: str) -> Tensor:
        """(length,): the assistant's text and the token that ends its turn.

        Special tokens that a teacher wrote out are text, not markup.
        """
        return torch.tensor([*self._ids(text, markup=False), self.tokenizer.convert_tokens_to_ids(END_OF_TURN)])

    def text(self, ids: Tensor) -> str:
        """The inverse of ``reply``; what follows the end of the turn is left out."""
        end = self.tokenizer.convert_tokens_to_ids(END_OF_TURN)
        kept = ids.tolist()
        kept = kept[: kept.index(end)] if end in kept else kept
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def _rendered(self, text: str, images: int) -> str:
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]
        turn = [{"role": "user", "content": content}]
        return str(self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def _shows_images(self) -> bool:
        try:
            return IMAGE_TOKEN in self._rendered(_TEXT, 1).partition(_TEXT)[0]
        except (TypeError, ValueError, TemplateError):
            return False  # A template for text alone adds strings, and chokes on a list of parts.

    def _ids(self, words: str, *, markup: bool = True) -> list[int]:
        ids: list[int] = self.tokenizer(words, add_special_tokens=False, split_special_tokens=not markup)[
            "input_ids"
        ]
        return ids

    def _size(self, max_pixels: int) -> dict[str, int]:
        least = min(self.image_processor.size["shortest_edge"], max_pixels)
        return {"shortest_edge": least, "longest_edge": max_pixels}
