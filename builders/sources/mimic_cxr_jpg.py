"""MIMIC-CXR-JPG v2.1.0: 377,110 JPEG images of 227,835 studies, with splits and labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.mimic_cxr import open_reports, report_warnings
from cxr_max.builders.sources.mimic_inventory import inventory_of
from cxr_max.builders.sources.mimic_tables import (
    CHEXPERT,
    JPG_HOME,
    METADATA,
    METADATA_COLUMNS,
    RECORDS,
    SPLIT,
    TEST_LABELS,
    Catalogue,
    Dated,
    ImageRow,
    from_tables,
    locate,
    need_table,
    read_images,
    sibling,
    study_folder,
)
from cxr_max.builders.sources.tables import existing_folder, find_version
from cxr_max.records import Study

CITATION: Final = (
    "Johnson AEW, Pollard TJ, Greenbaum NR, Lungren MP, Deng CY, Peng Y, Lu Z, Mark RG, Berkowitz SJ, "
    "Horng S. MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs. "
    "arXiv:1901.07042 (2019). Johnson A, Lungren M, Peng Y, Lu Z, Mark R, Berkowitz S, Horng S. "
    "MIMIC-CXR-JPG - chest radiographs with structured labels (version 2.1.0). PhysioNet (2024). "
    "https://doi.org/10.13026/jsn5-t979"
)


class MimicCxrJpg:
    """A copy of MIMIC-CXR-JPG.

    Reference findings are CheXpert's, read from the reports; in the test split a radiologist's, where that
    table is there. Coded 1 / 0 / -1 / ``None``; a study without a row has none at all.
    """

    info = SourceInfo(
        name="mimic-cxr-jpg",
        title="MIMIC-CXR-JPG v2.1.0",
        data_use="credentialed",
        licence="other",
        citation=CITATION,
        home=JPG_HOME,
        download=("files/ (570 GB)", "mimic-cxr-2.0.0-*.csv.gz", "mimic-cxr-2.1.0-test-set-labeled.csv"),
        expected={
            "images": 377_110,
            "studies": 227_835,
            "train": 368_960,
            "validation": 2_991,
            "test": 5_159,
        },
        overlaps=("mimic-cxr", "ms-cxr-t"),
    )
    prerendered = True

    def __init__(self, root: Path, *, labels: Path | None = None, reports: bool = False) -> None:
        """
        Args:
            root: the version folder (``.../mimic-cxr-jpg/2.1.0``) or the one above it.
            labels: a folder with other tables, or a table of labels, to be used before those of ``root``.
            reports: also read the reports, from the DICOM set beside this one or from an archive in ``root``.

        Raises:
            RequestError: a folder, a table or a column is missing, or a table contradicts itself.
        """
        self._folder = find_version(existing_folder(root, "MIMIC-CXR-JPG"), METADATA)
        tables = locate([self._folder], labels)
        for name in (METADATA, SPLIT, CHEXPERT):
            if name not in tables:
                need_table([self._folder], name, JPG_HOME)
        self._catalogue = Catalogue.join(
            read_images(tables[METADATA], METADATA_COLUMNS, JPG_HOME).assign(described=True), tables
        )
        self._tables = tables
        self._reports = self._report_folders() if reports else None
        self.total: int | None = self._catalogue.count_studies()
        self.warnings = (*self._catalogue.warnings(), *report_warnings(self._reports, self._catalogue))

    def _report_folders(self) -> list[Path]:
        beside = sibling(self._folder, "mimic-cxr", RECORDS)
        return [self._folder] if beside is None else [beside, self._folder]

    def studies(self) -> Iterator[Study]:
        """Every study, by subject and study."""
        with open_reports(self._reports) as report:
            yield from self._catalogue.studies(self.info.name, self._image, report)

    def _image(self, row: ImageRow) -> Dated:
        folder = self._folder / study_folder(row.subject_id, row.study_id)
        return from_tables(row, folder / f"{row.dicom_id}.jpg")

    def inventory(self) -> Inventory:
        """See ``Shipped``."""
        rows = self._catalogue.images[["subject_id", "study_id", "dicom_id"]].itertuples(index=False, name=None)
        images = (f"{study_folder(subject, study)}/{image}.jpg" for subject, study, image in rows)
        absent = () if TEST_LABELS in self._tables else (f"{TEST_LABELS}.csv (a radiologist's labels)",)
        return inventory_of(self._folder, self._catalogue, images, self._tables.values(), absent)
