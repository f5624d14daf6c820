"""Keys never reach a log, the ledger, a shard or an error."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from cxr_max.records import Reply

_KEY_LIKE = re.compile(r"\b(?:sk|xai|pk|gsk|key)-[\w*.-]{6,}|\bAIza[\w-]{10,}|(?i:bearer)\s+[\w.~+/=-]{8,}")


def redact(text: str, keys: Iterable[str]) -> str:
    """``text`` without any of ``keys``, nor anything shaped like a key (services echo them, in part)."""
    return _KEY_LIKE.sub("[key]", without_keys(text, keys))


def without_keys(text: str, keys: Iterable[str]) -> str:
    """``text`` without any of ``keys``, plain or as JSON writes them; one under six characters is no secret."""
    for key in keys:
        if len(key) >= 6:
            text = text.replace(key, "[key]").replace(json.dumps(key)[1:-1], "[key]")
    return text


def cleaned(reply: Reply, keys: Iterable[str]) -> Reply:
    """``reply`` without any of ``keys``: a service that echoes one must not write it into the ledger."""
    said = {name: value for name, value in asdict(reply).items() if isinstance(value, str)}
    clean: dict[str, Any] = {name: without_keys(value, keys) for name, value in said.items()}
    return replace(reply, **clean)
