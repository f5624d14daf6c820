"""ChestX-Det10 and ChestX-Det in miniature: the same boxes, other names, outlines in one of them."""

import json
from pathlib import Path
from typing import Any, Final

from tests.source_fixtures.pictures import write_picture, write_text

TRAIN: Final[list[dict[str, Any]]] = [
    {"file_name": "00000013_005.png", "syms": [], "boxes": []},
    {
        "file_name": "00000013_026.png",
        "syms": ["Effusion", "Effusion", "Fracture"],
        "boxes": [[620, 175, 889, 778], [263, 526, 409, 743], [162, 344, 342, 611]],
    },
]
TEST: Final[list[dict[str, Any]]] = [
    {"file_name": "00000071_008.png", "syms": ["Effusion"], "boxes": [[799, 666, 937, 761]]},
    {
        "file_name": "00000103_000.png",
        "syms": ["Mass", "Nodule", "Consolidation", "Calcification"],
        "boxes": [[360, 416, 469, 588], [318, 261, 390, 318], [300, 300, 700, 500], [706, 536, 795, 761]],
    },
]


def write_ten(root: Path) -> Path:
    """ChestX-Det10: NIH's names, ``train_data`` and ``test_data``."""
    for split, entries in (("train", TRAIN), ("test", TEST)):
        write_text(root / f"{split}.json", json.dumps(entries))
        for number, entry in enumerate(entries):
            write_picture(root / f"{split}_data" / entry["file_name"], number)
    return root


def write_thirteen(root: Path) -> Path:
    """ChestX-Det: images numbered anew, three more categories, outlines."""
    for split, entries, first in (("train", TRAIN, 100), ("test", TEST, 36199)):
        renamed = []
        for number, entry in enumerate(entries):
            more = split == "test" and number == 0
            syms = [*entry["syms"], *(["Diffuse Nodule", "Pleural Thickening"] if more else [])]
            boxes = [*entry["boxes"], *([[90, 200, 900, 800], [100, 100, 200, 200]] if more else [])]
            outlines = [[[x1, y1], [x2, y2], [x1, y2]] for x1, y1, x2, y2 in boxes]
            name = f"{first + number}.png"
            renamed.append({"file_name": name, "syms": syms, "boxes": boxes, "polygons": outlines})
            write_picture(root / split / name, number)
        write_text(root / f"ChestX_Det_{split}.json", json.dumps(renamed))
    return root
