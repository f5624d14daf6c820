"""The image sets of a release that a suite is about, and what is known about them."""

from collections.abc import Iterable
from pathlib import Path

from cxr_max.builders.pixels import Pixels
from cxr_max.errors import ImageError, RequestError
from cxr_max.eval import stored
from cxr_max.eval.reference import Reference, ReferenceRow, ordered
from cxr_max.progression import Changes, changes_of
from cxr_max.records import Asked, Study

VALIDATION = "validation"
"""The split that thresholds are chosen on."""


def split_of(asked: Asked) -> str:
    """Data that is not divided is scored as a whole."""
    return asked.split or "test"


def image_sets_of(release: Path, prompt_sha256: str, split: str) -> list[Asked]:
    """Those of a split, and of the validation split.

    Raises:
        RequestError: the release has nothing in the split.
    """
    asked = [one for one in stored.asked_about(release, prompt_sha256) if split_of(one) in (split, VALIDATION)]
    if not any(split_of(one) == split for one in asked):
        raise RequestError(
            f"The release in {release} has nothing in the split {split}: build more studies, or give a suite of"
            " another split."
        )
    return asked


def reference_of(asked: Iterable[Asked], pixels: Pixels) -> Reference:
    """What the source knows about the image sets; none of them is marked as seen."""
    return ordered(_row(one, pixels) for one in asked)


def _row(asked: Asked, pixels: Pixels) -> ReferenceRow:
    study = _study(asked, pixels)
    views = {image.image_id: image.view for image in study.radiographs} if study else {}
    return ReferenceRow(
        study_id=asked.study_id,
        image_ids=asked.image_ids,
        subject_id=asked.subject_id,
        source=asked.source,
        split=split_of(asked),
        source_sha256=asked.source_sha256,
        findings=study.reference_findings if study else None,
        sides=study.reference_sides if study else None,
        sex=study.sex if study else None,
        age=study.age if study else None,
        view=views.get(asked.image_ids[0], "unknown"),
        report=study.report if study else None,
        seen=False,
        progression=_progression(asked, study) if study else None,
    )


def _progression(asked: Asked, study: Study) -> Changes | None:
    """Only of images that were shown together and in order: an earlier one, then the study's own."""
    order = [(image.image_id, image.prior) for image in study.radiographs]
    if [prior for _, prior in order] != [True, False] or asked.image_ids != tuple(name for name, _ in order):
        return None
    changes = changes_of(study.other_labels)
    return changes if any(changes.values()) else None


def _study(asked: Asked, pixels: Pixels) -> Study | None:
    try:
        return pixels.study(asked)
    except ImageError:
        return None
