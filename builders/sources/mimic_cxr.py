"""MIMIC-CXR v2.1.0: 377,110 DICOM images of 227,835 studies, and their free-text reports."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.mimic_inventory import inventory_of
from cxr_max.builders.sources.mimic_tables import (
    CHEXPERT,
    DICOM_HOME,
    JPG_HOME,
    METADATA,
    METADATA_COLUMNS,
    RECORDS,
    SPLIT,
    Catalogue,
    Dated,
    ImageRow,
    ReadReport,
    from_tables,
    locate,
    need_table,
    read_images,
    sibling,
    study_folder,
)
from cxr_max.builders.sources.tables import existing_folder, find_version
from cxr_max.builders.sources.views import from_header
from cxr_max.errors import RequestError
from cxr_max.records import Study

if TYPE_CHECKING:
    import pandas as pd

RECORD_COLUMNS: Final = ("subject_id", "study_id", "dicom_id", "path")
REPORTS: Final = "mimic-cxr-reports.zip"
_LOST: Final = {
    METADATA: "views and times come from each header",
    SPLIT: "splits are null",
    CHEXPERT: "labels are null",
}
"""Without tables of MIMIC-CXR-JPG."""
CITATION: Final = (
    "Johnson AEW, Pollard TJ, Berkowitz SJ, Greenbaum NR, Lungren MP, Deng CY, Mark RG, Horng S. MIMIC-CXR, "
    "a de-identified publicly available database of chest radiographs with free-text reports. "
    "Scientific Data 6, 317 (2019). https://doi.org/10.1038/s41597-019-0322-0 "
    "Johnson A, Pollard T, Mark R, Berkowitz S, Horng S. MIMIC-CXR Database (version 2.1.0). "
    "PhysioNet (2024). https://doi.org/10.13026/4jqj-jw95"
)


class MimicCxr:
    """A copy of MIMIC-CXR.

    Its record list says which images there are. Splits, labels, views and times come from the tables of
    MIMIC-CXR-JPG; an image that those do not describe is looked up in its own header when its turn comes.
    """

    info = SourceInfo(
        name="mimic-cxr",
        title="MIMIC-CXR v2.1.0",
        data_use="credentialed",
        licence="other",
        citation=CITATION,
        home=DICOM_HOME,
        download=(
            "files/ (4.6 TB)",
            "cxr-record-list.csv.gz",
            "mimic-cxr-reports.zip",
            "the tables of mimic-cxr-jpg",
        ),
        expected={"images": 377_110, "studies": 227_835},
        overlaps=("mimic-cxr-jpg", "ms-cxr-t"),
    )
    prerendered = False

    def __init__(self, root: Path, *, labels: Path | None = None, reports: bool = False) -> None:
        """
        Args:
            root: the version folder (``.../mimic-cxr/2.1.0``) or the one above it.
            labels: a folder with MIMIC-CXR-JPG's tables, or a table of labels, to be used before those of
                ``../../mimic-cxr-jpg/2.1.0``.
            reports: also read the reports, from files beside the images or from their archive.

        Raises:
            RequestError: a folder, the record list or a column is missing, or a table contradicts itself.
        """
        self._folder = find_version(existing_folder(root, "MIMIC-CXR"), RECORDS)
        records = need_table([self._folder], RECORDS, DICOM_HOME)
        beside = sibling(self._folder, "mimic-cxr-jpg", METADATA)
        tables = locate([] if beside is None else [beside], labels)
        self._catalogue = Catalogue.join(
            _describe(read_images(records, RECORD_COLUMNS, DICOM_HOME), tables), tables
        )
        self._tables = (records, *tables.values())
        self._absent = tuple(f"{name}.csv.gz ({lost})" for name, lost in _LOST.items() if name not in tables)
        self._reports = [self._folder] if reports else None
        self.total: int | None = self._catalogue.count_studies()
        self.warnings = (
            *_table_warnings(tables),
            *self._catalogue.warnings(),
            *report_warnings(self._reports, self._catalogue),
        )

    def studies(self) -> Iterator[Study]:
        """Every study, by subject and study."""
        with open_reports(self._reports) as report:
            yield from self._catalogue.studies(self.info.name, self._image, report)

    def _image(self, row: ImageRow) -> Dated:
        path = self._folder / row.path
        compressed = path.with_name(f"{path.name}.gz")
        if not path.is_file() and compressed.is_file():
            path = compressed
        image, acquired_at = from_tables(row, path)
        return (image, acquired_at) if row.described else from_header(image)

    def inventory(self) -> Inventory:
        """See ``Shipped``."""
        images = self._catalogue.images["path"]
        return inventory_of(self._folder, self._catalogue, images, self._tables, self._absent)


def _describe(images: "pd.DataFrame", tables: Mapping[str, Path]) -> "pd.DataFrame":
    if METADATA not in tables:
        images["described"] = False
        return images
    metadata = read_images(tables[METADATA], METADATA_COLUMNS, JPG_HOME)
    described = metadata.drop(columns=["subject_id", "study_id"]).assign(described=True)
    joined = images.merge(described, on="dicom_id", how="left")
    joined["described"] = joined["described"].eq(True)
    for name in joined.select_dtypes("category"):
        joined[name] = joined[name].astype("str")
    return joined.fillna("")


def _table_warnings(tables: Mapping[str, Path]) -> Iterator[str]:
    missing = [name for name in _LOST if name not in tables]
    if missing:
        names = ", ".join(f"{name}.csv.gz" for name in missing)
        yield (
            f"Without {names}, {', '.join(_LOST[name] for name in missing)}: download what is missing from "
            f"{JPG_HOME} into ../../mimic-cxr-jpg/2.1.0, or name its folder as labels."
        )


@contextmanager
def open_reports(folders: Iterable[Path] | None) -> Iterator[ReadReport]:
    """Give access to the reports: ``files/p10/p10000032/s50414267.txt``, else in ``mimic-cxr-reports.zip``.

    Args:
        folders: where to look; ``None`` gives no report of any study.

    Raises:
        RequestError: the archive is damaged.
    """
    roots = list(folders or ())
    archive = _archive(roots)
    if archive is None:
        yield lambda subject, study: _report_file(roots, subject, study)
        return
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise RequestError(f"{archive} is damaged ({error}): get it anew from {DICOM_HOME}.") from error
    with opened:
        prefix = next((name[: name.index("files/")] for name in opened.namelist() if "files/" in name), "")
        yield (
            lambda subject, study: (
                _report_file(roots, subject, study) or _report_member(opened, prefix, subject, study)
            )
        )


def report_warnings(folders: Iterable[Path] | None, catalogue: Catalogue) -> Iterator[str]:
    """Says so where reports were asked for and there seem to be none."""
    roots = list(folders or ())
    if folders is None or _archive(roots) is not None:
        return
    subject, study = catalogue.images[["subject_id", "study_id"]].iloc[0]
    if _report_file(roots, subject, study) is None:
        yield f"{REPORTS} is missing, so studies may have no report: download it from {DICOM_HOME}."


def _archive(folders: Iterable[Path]) -> Path | None:
    return next((path for folder in folders if (path := folder / REPORTS).is_file()), None)


def _report_file(folders: Iterable[Path], subject: int, study: int) -> str | None:
    for folder in folders:
        path = folder / f"{study_folder(subject, study)}.txt"
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


def _report_member(archive: zipfile.ZipFile, prefix: str, subject: int, study: int) -> str | None:
    try:
        return archive.read(f"{prefix}{study_folder(subject, study)}.txt").decode("utf-8", errors="replace")
    except KeyError:
        return None
