"""What the tables of a copy of one of MIMIC's two sets list."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_max.builders.sources.base import Inventory
from cxr_max.findings import FINDINGS

if TYPE_CHECKING:
    from cxr_max.builders.sources.mimic_tables import Catalogue


def inventory_of(
    folder: Path, catalogue: "Catalogue", images: Iterable[str], tables: Iterable[Path], absent: Iterable[str]
) -> Inventory:
    """Put together what both sets know. Labels are counted by study, where they are present."""
    rows = catalogue.images
    states = list(catalogue.labels.values())
    labels = {name: sum(row[place] == 1 for row in states) for place, name in enumerate(FINDINGS)}
    splits = rows.loc[rows["split"] != "", "split"].value_counts()
    return Inventory(
        root=folder,
        tables=tuple(
            path.relative_to(folder).as_posix() if folder in path.parents else str(path) for path in tables
        ),
        absent=tuple(absent),
        rows=len(rows),
        counts={
            "images": len(rows),
            "studies": catalogue.count_studies(),
            "subjects": int(rows["subject_id"].nunique()),
            **{str(split): int(times) for split, times in splits.items()},
        },
        images=tuple(images),
        labels={name: times for name, times in labels.items() if times},
        unmapped=frozenset(),
    )
