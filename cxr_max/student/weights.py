"""What tells one student from another, without loading it: the one file here that needs no torch."""

import hashlib
import json
from pathlib import Path
from typing import Final

from cxr_max.shards import sha256_of

ADAPTER: Final = "adapter_config.json"
"""A folder with this file holds an adapter, and names its base in it."""


def fingerprint(name: str) -> str:
    """sha256 over the names and hashes of a folder's weights and settings; of a Hub name, over the name.

    The base under an adapter is part of it.
    """
    folder = Path(name)
    if not folder.is_dir():
        return hashlib.sha256(name.encode()).hexdigest()
    kinds = ("*.safetensors", "config.json", ADAPTER, "tokenizer.json", "preprocessor_config.json")
    paths = sorted({path for kind in kinds for path in folder.glob(kind)})
    parts = [f"{path.name} {sha256_of(path)}" for path in paths]
    if (folder / ADAPTER).is_file():
        below = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
        parts.append(fingerprint(below))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
