"""Whether a student's folder is whole, told from its files alone: nothing is loaded, and torch is not needed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cxr_max.student.weights import ADAPTER

_INDEX: Final = "model.safetensors.index.json"
_BESIDE: Final = ("tokenizer_config.json", "preprocessor_config.json")
"""What turns text and images into the model's tokens; an adapter takes its base's."""
_LONGEST_HEADER: Final = 100_000_000
"""Bytes; the limit of the safetensors format itself."""


def defect_of(weights: str) -> str | None:
    """What is wrong with a student, in a sentence; ``None`` where nothing is seen to be.

    A folder holds whole weights, or an adapter and the name of its base, which is looked at too. A base that is a
    name on the Hub is fetched when it is first asked, and not looked at.
    """
    return next(_defects(weights), None)


def _defects(weights: str) -> Iterator[str]:
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        return
    if (folder / ADAPTER).is_file():
        base = _read(folder / ADAPTER).get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            yield f"{folder / ADAPTER} names no base model: copy the folder again."
            return
        yield from _torn(folder / "adapter_model.safetensors")
        if base.startswith(("/", ".", "~")) and not Path(base).expanduser().is_dir():
            yield f"{folder} is an adapter over {base}, which is not there: put it back, or correct {ADAPTER}."
        yield from _defects(base)
        return
    if "model_type" not in _read(folder / "config.json"):
        yield f"{folder / 'config.json'} is missing or does not say which model it is: copy the folder again."
    for name in _BESIDE:
        if not _read(folder / name):
            yield f"{folder} has no readable {name}: copy it from the model that the student was trained from."
    for path in _shards(folder):
        yield from _torn(path)


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        return [folder / "model.safetensors"]
    named = _read(index).get("weight_map")
    return sorted({folder / str(name) for name in named.values()}) if isinstance(named, dict) else [index]


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _torn(path: Path) -> Iterator[str]:
    """Weights that are missing or cut off: a safetensors file says in its header how long it is."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= _LONGEST_HEADER else None
        if not isinstance(header, dict):
            raise ValueError("it has no header")
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted, found = 8 + length + max(ends, default=0), path.stat().st_size
        if wanted != found:
            raise ValueError(f"it has {found} bytes of {wanted}")
    except FileNotFoundError:
        yield f"{path} is missing: copy the folder again."
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield f"{path} is damaged ({error}): copy the folder again."
