"""MS-CXR-T: how five findings changed between two frontal radiographs of one patient (Bannur et al. 2023).

The set is a table; its images are MIMIC-CXR-JPG's. Each row is a study here: the earlier image is a prior, and the
later one is what the study is about. Progression (improving, stable, worsening) is no state of a finding, not even
present: what improved may be gone. So it is kept under the set's own names, and reference findings are those that
MIMIC-CXR-JPG has for the later study.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.mimic_tables import (
    CHEXPERT,
    JPG_HOME,
    METADATA,
    METADATA_COLUMNS,
    SPLIT,
    TEST_LABELS,
    Catalogue,
    ImageRow,
    from_tables,
    locate,
    need_table,
    read_images,
    sibling,
    study_folder,
)
from cxr_max.builders.sources.tables import (
    existing_folder,
    find_table,
    find_version,
    read_table,
    refuse,
    refuse_conflicts,
    rows_of,
)
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS
from cxr_max.progression import CHANGES, COMPARED, column_of
from cxr_max.records import Radiograph, Study

if TYPE_CHECKING:
    import pandas as pd

HOME: Final = "https://physionet.org/content/ms-cxr-t/1.0.0/"
PAIRS: Final = "MS_CXR_T_temporal_image_classification_v1.0.0"
SENTENCES: Final = "MS_CXR_T_temporal_sentence_similarity_v1.0.0"
_IDS: Final = ("dicom_id", "previous_dicom_id", "subject_id", "study_id", "previous_study_id")
_LABELS: Final = tuple(column_of(finding) for finding in COMPARED)
_QUALITIES: Final = tuple(name.replace("_progression", "_label_quality") for name in _LABELS)
_NUMBERS: Final = ("subject_id", "study_id", "previous_study_id")


class _Pair(NamedTuple):
    """A row of the table."""

    dicom_id: str
    previous_dicom_id: str
    subject_id: int
    study_id: int
    previous_study_id: int


class MsCxrT:
    """A copy of MS-CXR-T and of MIMIC-CXR-JPG, of which only the images that it compares are needed."""

    info = SourceInfo(
        name="ms-cxr-t",
        title="MS-CXR-T v1.0.0",
        data_use="credentialed",
        licence="other",
        citation=(
            "Bannur S, Hyland S, Liu Q, Perez-Garcia F, Ilse M, Castro DC, et al. Learning to Exploit Temporal "
            "Structure for Biomedical Vision-Language Processing. CVPR (2023). MS-CXR-T: Learning to Exploit "
            "Temporal Structure for Biomedical Vision-Language Processing (version 1.0.0). PhysioNet (2023). "
            "https://doi.org/10.13026/pg10-j984"
        ),
        home=HOME,
        download=(
            f"{PAIRS}.csv",
            f"{SENTENCES}.csv (361 pairs of sentences, without images: not read)",
            f"the images it names and mimic-cxr-2.0.0-metadata.csv.gz from {JPG_HOME}",
            "mimic-cxr-2.0.0-chexpert.csv.gz from there (reference findings)",
        ),
        expected={"studies": 1_045, "test": 1_045},
        overlaps=("mimic-cxr", "mimic-cxr-jpg"),
    )
    prerendered = True

    def __init__(self, root: Path, *, labels: Path | None = None) -> None:
        """
        Args:
            root: the version folder (``.../ms-cxr-t/1.0.0``), the one above it, or one that holds ``ms-cxr-t``.
            labels: the folder of MIMIC-CXR-JPG, where it does not lie beside MS-CXR-T's.

        Raises:
            RequestError: a folder, a table or a column is missing, or a table contradicts itself or the other.
        """
        self._folder = _pairs_folder(existing_folder(root, "MS-CXR-T"))
        table = need_table([self._folder], PAIRS, HOME)
        self._images = self._images_folder(labels)
        tables = locate([self._images], None)
        self._tables = [table, *(path for name, path in tables.items() if name != SPLIT)]
        self._pairs, self._stated = _read_pairs(table)
        self._catalogue = self._listed(tables)
        self._rows = {row.dicom_id: row for row in map(ImageRow._make, rows_of(self._catalogue.images))}
        self._refuse_strangers(table)
        self.total: int | None = len(self._pairs)
        self.warnings = tuple(self._warn())

    def _images_folder(self, labels: Path | None) -> Path:
        if labels is not None:
            return find_version(existing_folder(labels, "MIMIC-CXR-JPG"), METADATA)
        beside = sibling(self._folder, "mimic-cxr-jpg", METADATA)
        if beside is None and (self._folder.parent / "mimic-cxr-jpg").is_dir():
            beside = find_version(self._folder.parent / "mimic-cxr-jpg", METADATA)
        if beside is None:
            raise RequestError(
                f"MS-CXR-T's images are MIMIC-CXR-JPG's, and no folder mimic-cxr-jpg lies beside {self._folder}:"
                " name it with --labels."
            )
        return beside

    def _listed(self, tables: Mapping[str, Path]) -> Catalogue:
        """What MIMIC-CXR-JPG knows about the images that are compared, and about no other."""
        if METADATA not in tables:
            need_table([self._images], METADATA, JPG_HOME)
        images = read_images(tables[METADATA], METADATA_COLUMNS, JPG_HOME)
        wanted = {name for pair in self._pairs for name in pair[:2]}
        images = images[images["dicom_id"].isin(wanted)].copy()
        images["described"] = True
        return Catalogue.join(images, {name: path for name, path in tables.items() if name != SPLIT})

    def _refuse_strangers(self, table: Path) -> None:
        """
        Raises:
            RequestError: an image is of another patient or study in MIMIC-CXR-JPG's table.
        """
        for pair in self._pairs:
            for image, study in ((pair.dicom_id, pair.study_id), (pair.previous_dicom_id, pair.previous_study_id)):
                row = self._rows.get(image)
                if row is not None and (row.subject_id, row.study_id) != (pair.subject_id, study):
                    raise RequestError(
                        f"{table} and {METADATA} disagree on whose image {image} is: get both anew from {HOME}"
                        f" and {JPG_HOME}."
                    )

    def _warn(self) -> Iterator[str]:
        unknown = sum(name not in self._rows for pair in self._pairs for name in pair[:2])
        if unknown:
            yield (
                f"{METADATA} does not list {unknown} images that are compared, so their view and time are not"
                f" known: get it anew from {JPG_HOME}."
            )
        backward = sum(self._backward(pair) for pair in self._pairs)
        if backward:
            yield (
                f"In {backward} pairs MIMIC-CXR-JPG dates the previous image later than the other: they are shown"
                " in the order of MS-CXR-T, which its labels follow."
            )
        if not self._catalogue.labels:
            yield (
                f"{CHEXPERT}.csv.gz is missing, so there are no reference findings, only progression: download it"
                f" from {JPG_HOME}."
            )

    def _backward(self, pair: _Pair) -> bool:
        times = [
            from_tables(self._rows[name], Path())[1]
            for name in (pair.previous_dicom_id, pair.dicom_id)
            if name in self._rows
        ]
        return len(times) == 2 and None not in times and times[0] > times[1]  # type: ignore[operator]

    def studies(self) -> Iterator[Study]:
        """Every pair, by subject and study; the previous image first."""
        for pair, stated in zip(self._pairs, self._stated, strict=True):
            previous = self._image(pair.previous_dicom_id, pair.subject_id, pair.previous_study_id, prior=True)
            current = self._image(pair.dicom_id, pair.subject_id, pair.study_id, prior=False)
            row = self._rows.get(pair.dicom_id)
            states = self._catalogue.test_labels.get(pair.study_id) or self._catalogue.labels.get(pair.study_id)
            yield Study(
                study_id=f"{pair.study_id}-{pair.dicom_id[:8]}-{pair.previous_dicom_id[:8]}",
                subject_id=str(pair.subject_id),
                source=self.info.name,
                split="test",
                radiographs=(previous, current),
                acquired_at=from_tables(row, current.path)[1] if row else None,
                reference_findings=None if states is None else dict(zip(FINDINGS, states, strict=True)),
                other_labels=stated,
            )

    def _image(self, name: str, subject: int, study: int, *, prior: bool) -> Radiograph:
        path = self._images / study_folder(subject, study) / f"{name}.jpg"
        row = self._rows.get(name)
        if row is None:
            # Every image of the set is frontal, and says so by being in it.
            return Radiograph(name, path, prior=prior)
        known = from_tables(row, path)[0]
        return Radiograph(name, path, known.view, rows=known.rows, columns=known.columns, prior=prior)

    def inventory(self) -> Inventory:
        """See ``Shipped``. Images are those of MIMIC-CXR-JPG that are compared; labels are counted by pair."""
        places = {
            f"{study_folder(pair.subject_id, study)}/{name}.jpg": None
            for pair in self._pairs
            for name, study in (
                (pair.previous_dicom_id, pair.previous_study_id), (pair.dicom_id, pair.study_id),
            )
        }  # fmt: skip
        labels = Counter(
            f"{name}: {word}" for stated in self._stated for name, word in stated.items() if name in _LABELS
        )
        missing = {CHEXPERT: "reference findings", TEST_LABELS: "a radiologist's labels"}
        there = {path.name.partition(".csv")[0] for path in self._tables}
        return Inventory(
            root=self._images,
            tables=tuple(map(str, self._tables)),
            absent=tuple(f"{name}.csv ({what})" for name, what in missing.items() if name not in there),
            rows=len(self._pairs),
            counts={
                "images": len(places),
                "studies": len(self._pairs),
                "subjects": len({pair.subject_id for pair in self._pairs}),
                "test": len(self._pairs),
            },
            images=tuple(places),
            borrowed=True,
            labels=labels,
            unmapped=frozenset(labels),
        )


def _pairs_folder(root: Path) -> Path:
    candidates = (root, root / "ms-cxr-t")
    versions = [find_version(folder, PAIRS) for folder in candidates if folder.is_dir()]
    return next((folder for folder in versions if find_table(folder, PAIRS)), root)


def _read_pairs(path: Path) -> tuple[list[_Pair], list[dict[str, str]]]:
    """The pairs by subject and study, each with the labels that are stated of it, quality included.

    Raises:
        RequestError: the table is damaged, contradicts itself, or has a label that is none of the three.
    """
    frame = read_table(path, (*_IDS, *_LABELS, *_QUALITIES), HOME)
    if frame.empty:
        raise RequestError(f"{path} lists no pair: get it anew from {HOME}.")
    for name in _LABELS:
        frame[name] = frame[name].str.lower().replace({"nan": ""})
        refuse(frame.loc[~frame[name].isin(["", *CHANGES]), name], path, f"in {name} the unknown value", HOME)
    for name in _QUALITIES:
        frame[name] = frame[name].replace({"nan": ""})
    frame = _with_numbers(frame, path).drop_duplicates()
    images = frame["previous_dicom_id"] + " and " + frame["dicom_id"]
    refuse(images[frame["previous_dicom_id"] == frame["dicom_id"]], path, "an image compared with itself:", HOME)
    refuse_conflicts(frame.assign(images=images), "images", path, HOME)
    frame = frame.sort_values(["subject_id", "study_id", "dicom_id", "previous_dicom_id"], ignore_index=True)
    pairs = [_Pair._make(row) for row in rows_of(frame[list(_Pair._fields)])]
    named = [*_LABELS, *_QUALITIES]
    stated = [dict(zip(named, row, strict=True)) for row in rows_of(frame[named])]
    return pairs, [{name: word for name, word in sorted(row.items()) if word} for row in stated]


def _with_numbers(frame: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    for name in ("dicom_id", "previous_dicom_id"):
        # Written as a path, p10/p10000032/s50414267/<dicom_id>, whose folders the other columns say too.
        frame[name] = frame[name].str.rpartition("/")[2]
        refuse(
            frame.loc[~frame[name].str.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}"), name],
            path,
            f"an impossible {name}",
            HOME,
        )
    for name in _NUMBERS:
        # A number that went through a table of floats has a fraction of 0.
        frame[name] = frame[name].str.removesuffix(".0")
        refuse(frame.loc[~frame[name].str.fullmatch(r"\d{1,18}"), name], path, f"an impossible {name}", HOME)
        frame[name] = frame[name].astype("int64")
    return frame
