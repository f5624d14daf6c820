"""Which studies and image sets of a source a build is about."""

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from cxr_max.builders.sources.base import Source
from cxr_max.builders.sources.tables import read_table
from cxr_max.builders.sources.views import frontal
from cxr_max.errors import RequestError
from cxr_max.records import Radiograph, Split, Study

Views = Literal["frontal", "study"]
Images = tuple[Radiograph, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is chosen from a source; the same of the same copy every time."""

    views: Views = "frontal"
    split: Split | None = None
    studies: int | None = None
    """At most so many studies that have an image to ask about; ``None`` for all."""
    image_sets: int | None = None
    """Exactly so many image sets, drawn by ``seed``; ``None`` for all."""
    seed: int = 0
    excluded: frozenset[str] = field(default=frozenset(), repr=False)
    """Subjects that are left out."""

    def chosen(
        self, source: Source, askable: Callable[[Study], bool], skipped: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Study, list[Images]]]:
        """Every chosen study with its image sets, in the source's order.

        Args:
            askable: whether there is something to ask about a study; only such studies are drawn from.
            skipped: called for every study that has no image of the wanted view.

        Raises:
            RequestError: the source has fewer image sets than are to be drawn.
        """
        if self.image_sets is None:
            yield from islice(self._offered(source, skipped), self.studies)
            return
        drawn = self._drawn(source, askable)
        for study, sets in self._offered(source, skipped):
            kept = [images for images in sets if _lot(self.seed, images) in drawn]
            if kept:
                yield study, kept

    def _offered(self, source: Source, skipped: Callable[[], None]) -> Iterator[tuple[Study, list[Images]]]:
        for study in source.studies():
            if (self.split is not None and study.split != self.split) or study.subject_id in self.excluded:
                continue
            sets = image_sets(study, self.views)
            if sets:
                yield study, sets
            else:
                skipped()

    def _drawn(self, source: Source, askable: Callable[[Study], bool]) -> frozenset[bytes]:
        """The smallest lots: whatever the order of the source, and the first of a larger draw by the same seed."""
        wanted = self.image_sets or 0
        lots = (
            _lot(self.seed, images)
            for study, sets in self._offered(source, lambda: None)
            if askable(study)
            for images in sets
        )
        drawn = frozenset(heapq.nsmallest(wanted, lots))
        if len(drawn) < wanted:
            raise RequestError(
                f"Only {len(drawn):,} image sets can be asked about, and --image-sets wants {wanted:,}: lower it,"
                " or choose another --split or --prompt."
            )
        return drawn


def _lot(seed: int, images: Sequence[Radiograph]) -> bytes:
    """sha256 of ``SEED/IMAGE_ID``, several identifiers joined by ``/``."""
    return hashlib.sha256("/".join([str(seed), *(image.image_id for image in images)]).encode()).digest()


def image_sets(study: Study, views: Views) -> list[Images]:
    """What is asked about together: each frontal image by itself, or all images of the study."""
    if views == "study":
        return [study.radiographs] if study.radiographs else []
    return [(image,) for image in frontal(study.radiographs)]


def read_subjects(table: Path) -> frozenset[str]:
    """The subjects of a CSV table with a column ``subject_id``, such as the one that MS-CXR-T ships.

    Raises:
        RequestError: the table is missing or damaged, or names no subject.
    """
    if not table.is_file():
        raise RequestError(
            f"{table} is not a file: give --exclude-subjects FILE, a CSV table with a column subject_id. For"
            " MS-CXR-T's subjects it is MS_CXR_T_temporal_image_classification_v1.0.0.csv from PhysioNet."
        )
    subjects = frozenset(read_table(table, ("subject_id",), "whoever made it")["subject_id"]) - {""}
    if not subjects:
        raise RequestError(f"{table} names no subject_id, so that nobody would be excluded: give another table.")
    return subjects
