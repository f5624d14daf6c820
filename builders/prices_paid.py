"""The prices that a run's replies were paid at: ``prices.json`` in its folder, and ``settings`` of its manifest.

A reply's cost stands in its row. What it was reckoned with stands here, since tables of prices change, and a run
may be built over weeks.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr_max.errors import RequestError
from cxr_max.shards import canonical_json, write_text
from cxr_max.teachers.base import TeacherSpec

Prices = dict[str, list[dict[str, Any]]]
"""By teacher, every price in the order of its first use; none of teachers that are free or of unknown price."""


def keep_price(path: Path, spec: TeacherSpec) -> None:
    """Remember that a reply of this teacher was paid at its price.

    Raises:
        RequestError: the file is damaged.
        StorageError: the disk refused.
    """
    if spec.price is None or spec.price.input == spec.price.output == 0:
        return
    kept, price = read_prices(path), asdict(spec.price)
    if price not in kept.setdefault(spec.name, []):
        kept[spec.name].append(price)
        write_text(path, canonical_json(kept))


def read_prices(path: Path) -> Prices:
    """What was kept so far.

    Raises:
        RequestError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        kept: Prices = json.loads(path.read_text("utf-8"))
        if all(isinstance(prices, list) for prices in kept.values()):
            return kept
    except (OSError, ValueError, AttributeError):
        pass
    raise RequestError(f"{path} is damaged: remove it, and only the prices of earlier builds are forgotten.")
