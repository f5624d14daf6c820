"""A folder of images, with or without a table that says what they are."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.image_files import DICOM_SUFFIXES, IMAGE_SUFFIXES, image_files
from cxr_max.builders.sources.tables import (
    SPLIT_WORDS,
    existing_folder,
    finding_named,
    read_state,
    read_table,
    sex_of,
)
from cxr_max.builders.sources.views import from_header, normalise_view
from cxr_max.data_use import credentialed_sign
from cxr_max.errors import RequestError
from cxr_max.findings import State, blank, positives, state_of
from cxr_max.records import DataUse, Radiograph, Split, Study

TABLES: Final = ("manifest.csv", "labels.csv")
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "file": ("file", "path", "filename", "file_name", "image"),
    "study_id": ("study_id",),
    "subject_id": ("patient_id", "subject_id"),
    "split": ("split",),
    "view": ("view",),
    "sex": ("sex",),
    "age": ("age",),
    "licence": ("licence", "license"),
    "finding": ("finding",),
}
"""What a column may be called, in any case; the first that is there counts. The 14 findings are others."""

_OPEN: Final = re.compile(
    r"\b(cc0|cc[ -]by|creative commons|public domain|pddl|odbl|odc|mit|apache|bsd|ms-pl|no restrictions?)\b"
)
"""Words of licences under which an image may be passed on. Any other wording is nobody's permission."""
_RESTRICTIVE: Final = ("credentialed", "restricted", "physionet", "data use agreement", "all rights reserved")
_HINT: Final = "_auto"


@dataclass(frozen=True, slots=True)
class _Row:
    """One image as it is listed; ``None`` and empty mean that nothing says."""

    file: str
    study_id: str
    subject_id: str | None = None
    split: Split | None = None
    view: str = ""
    sex: str | None = None
    age: float | None = None
    licence: str = ""
    findings: Mapping[str, State | None] | None = None
    other: Mapping[str, str] = field(default_factory=dict)


class Folder:
    """The images of a folder.

    A table (``manifest.csv``, else ``labels.csv``, in the folder, or the one given) is the list of images, in
    its order, and rows that share a ``study_id`` are one study; without a table every image found is a study.
    Reference findings come from columns named as the 14 findings are, coded 1 present, 0 absent,
    -1 uncertain, blank not mentioned, and from names in the column ``finding``, which mean present. What else
    ``finding`` says, and columns ending in ``_auto``, are other labels, never a reference. Where the table
    gives no view, that of a DICOM file's header counts. Ages are in years; one that is no plain number
    (``90+``) is not kept.
    """

    def __init__(self, root: Path, *, labels: Path | None = None) -> None:
        """
        Raises:
            RequestError: the folder or the table is missing or empty, or the table names a file twice or
                outside the folder, has a cell that its column's coding lacks, or contradicts itself.
        """
        self._root = existing_folder(root, "images")
        found = sorted(image_files(self._root))
        table = self._table = _find_table(self._root, labels)
        rows = _rows_of_files(found, self._root) if table is None else _rows_of_table(table)
        self._studies: dict[str, list[_Row]] = {}
        for row in rows:
            self._studies.setdefault(row.study_id, []).append(row)
        for listed in self._studies.values():
            _study_fields(listed)
        self.total: int | None = len(self._studies)
        self.prerendered = not all(_is_dicom(row.file) for row in rows)
        self._listed = tuple(row.file for row in rows)
        sign = credentialed_sign(self._root, self._listed)
        data_use: DataUse = "credentialed" if sign is not None else _data_use(rows)
        self.info = SourceInfo("folder", "Images in a folder", data_use, "other", "")
        left_out = len(set(found) - {row.file for row in rows})
        self.warnings = tuple(_warnings(rows, left_out, table, sign))

    def studies(self) -> Iterator[Study]:
        """Every study, in the order of the table, or else of the file names."""
        for study_id, rows in self._studies.items():
            fields = _study_fields(rows)
            dated = [self._image(row) for row in rows]
            yield Study(
                study_id=study_id,
                subject_id=fields.subject_id or study_id,
                source=self.info.name,
                split=fields.split,
                radiographs=tuple(image for image, _ in dated),
                acquired_at=min((at for _, at in dated if at is not None), default=None),
                reference_findings=None if fields.findings is None else blank() | dict(fields.findings),
                other_labels=fields.other,
                sex=fields.sex,
                age=fields.age,
            )

    def _image(self, row: _Row) -> tuple[Radiograph, datetime | None]:
        image = Radiograph(row.file, self._root / row.file, normalise_view(row.view, None, None))
        return from_header(image) if _is_dicom(row.file) else (image, None)

    def inventory(self) -> Inventory:
        """See ``Shipped``. Labels are counted by study, where they are present."""
        labels: Counter[str] = Counter()
        splits: Counter[str] = Counter()
        for rows in self._studies.values():
            fields = _study_fields(rows)
            labels.update(positives(fields.findings or {}))
            splits.update([fields.split] * len(rows) if fields.split else [])
        return Inventory(
            root=self._root,
            tables=() if self._table is None else (self._table.name,),
            absent=(f"{' or '.join(TABLES)} (what the images are)",) if self._table is None else (),
            rows=len(self._listed),
            counts={"images": len(self._listed), "studies": len(self._studies), **splits},
            images=self._listed,
            labels=labels,
            unmapped=frozenset(),
        )


def _is_dicom(file: str) -> bool:
    return file.lower().endswith(DICOM_SUFFIXES)


def _find_table(root: Path, labels: Path | None) -> Path | None:
    if labels is None:
        return next((path for name in TABLES if (path := root / name).is_file()), None)
    if not labels.expanduser().is_file():
        raise RequestError(f"{labels} is not a file: name the table that lists the images of {root}.")
    return labels.expanduser()


def _rows_of_files(files: list[str], root: Path) -> list[_Row]:
    if not files:
        raise RequestError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)}): name a folder that does.")
    return [_Row(file, study_id) for file, study_id in _default_ids(files).items()]


def _default_ids(files: Iterable[str]) -> dict[str, str]:
    """Each file's path without its suffix, or with it where two files differ in nothing else."""
    stems = {file: _stem(file) for file in files}
    shared = Counter(stems.values())
    return {file: stem if shared[stem] == 1 else file for file, stem in stems.items()}


def _stem(file: str) -> str:
    suffixes = [suffix for suffix in IMAGE_SUFFIXES if file.lower().endswith(suffix)]
    return file[: -len(max(suffixes, key=len))] if suffixes else file


def _rows_of_table(table: Path) -> list[_Row]:
    frame = read_table(table, None, "whoever made it")
    names = {str(name).casefold(): str(name) for name in reversed(frame.columns)}
    known = {
        meaning: next((names[alias] for alias in aliases if alias in names), None)
        for meaning, aliases in COLUMNS.items()
    }
    if known["file"] is None:
        raise RequestError(f"{table} does not say which file a row is about: add a column named file.")
    if frame.empty:
        raise RequestError(f"{table} lists no image: add a row for each.")
    files = [_inside(cell, table) for cell in frame[known["file"]]]
    for file, times in Counter(files).items():
        if times > 1:
            raise RequestError(f"{table} lists {file} {times} times: leave one row.")
    ids = _default_ids(files)
    records = frame.to_dict("records")
    return [_row(table, known, cells, file, ids[file]) for file, cells in zip(files, records, strict=True)]


def _inside(cell: str, table: Path) -> str:
    path = PurePosixPath(cell)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise RequestError(f"{table} names the file {cell!r}: write its path from inside the image folder.")
    return path.as_posix()


def _row(
    table: Path,
    known: Mapping[str, str | None],
    cells: Mapping[Hashable, str],
    file: str,
    default_id: str,
) -> _Row:
    values = {meaning: "" if name is None else cells[name] for meaning, name in known.items()}
    split = values["split"].casefold()
    if split and split not in SPLIT_WORDS:
        raise RequestError(f"{table} puts {file} in the split {split!r}: write train, validate, test or nothing.")
    findings, beyond = _findings(table, file, cells, values["finding"])
    hints = {str(name): text for name, text in cells.items() if str(name).casefold().endswith(_HINT) and text}
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*y?", values["age"].casefold())
    return _Row(
        file=file,
        study_id=values["study_id"] or default_id,
        subject_id=values["subject_id"] or None,
        split=SPLIT_WORDS.get(split),
        view=values["view"],
        sex=sex_of(values["sex"]),
        age=float(age[1]) if age else None,
        licence=values["licence"],
        findings=findings,
        other=hints | ({"finding": beyond} if beyond else {}),
    )


def _findings(
    table: Path, file: str, cells: Mapping[Hashable, str], named: str
) -> tuple[dict[str, State | None] | None, str]:
    """The reference findings of a row, and what its ``finding`` says beyond the 14 names."""
    columns = [(name, cell) for column, cell in cells.items() if (name := finding_named(str(column)))]
    stated: list[tuple[str, State | None]] = []
    beyond = []
    stated.extend((name, read_state(cell, f"{table}, {name} of {file}")) for name, cell in columns)
    for part in filter(None, map(str.strip, re.split(r"[|;]", named))):
        written = re.fullmatch(r"([^=]+)(?:=\s*(1|0|-1)(?:\.0)?)?", part)
        name = finding_named(written[1]) if written else None
        if written and name:
            stated.append((name, state_of(written[2] or "1")))
        else:
            beyond.append(part)
    findings = _agreed(stated, f"{table} contradicts itself about", f" of {file}")
    return (findings if stated else None), "; ".join(beyond)


def _agreed(
    stated: Iterable[tuple[str, State | None]], complaint: str, about: str = ""
) -> dict[str, State | None]:
    merged: dict[str, State | None] = {}
    for name, state in stated:
        if merged.setdefault(name, state) is None:
            merged[name] = state
        elif state is not None and merged[name] != state:
            raise RequestError(f"{complaint} {name}{about}: correct one of the cells.")
    return merged


def _study_fields(rows: list[_Row]) -> _Row:
    """What the rows of one study say together: each may leave out what another says, but not deny it."""
    first = rows[0]
    complaint = f"The rows of study {first.study_id} contradict each other about"
    for name in ("subject_id", "split", "sex", "age"):
        if len({getattr(row, name) for row in rows} - {None}) > 1:
            raise RequestError(f"{complaint} {name}: correct the table, or give them different study_ids.")
    stated = [item for row in rows for item in (row.findings or {}).items()]
    other: dict[str, list[str]] = {}
    for name, text in ((name, text) for row in rows for name, text in row.other.items()):
        if text not in other.setdefault(name, []):
            other[name].append(text)
    return _Row(
        file=first.file,
        study_id=first.study_id,
        subject_id=next((row.subject_id for row in rows if row.subject_id), None),
        split=next((row.split for row in rows if row.split), None),
        sex=next((row.sex for row in rows if row.sex), None),
        age=next((row.age for row in rows if row.age is not None), None),
        findings=_agreed(stated, complaint) if stated else None,
        other={name: "; ".join(texts) for name, texts in other.items()},
    )


def _data_use(rows: Iterable[_Row]) -> DataUse:
    """``open`` only where every image names a known open licence, and none that bars passing it on."""
    licences = {row.licence.casefold() for row in rows}
    barred = any(word in licence for licence in licences for word in _RESTRICTIVE)
    return "open" if not barred and all(map(_OPEN.search, licences)) else "credentialed"


def _warnings(rows: Iterable[_Row], left_out: int, table: Path | None, sign: str | None) -> Iterator[str]:
    if table is not None and left_out:
        yield f"{left_out} images of the folder are not listed in {table.name} and are left out."
    if not any(row.subject_id for row in rows):
        yield (
            "Nothing says which images are of one patient, so each counts as a patient of its own, and the file "
            "names become identifiers in the release: rename files that name somebody, and add a column named "
            "patient_id before splitting by patient."
        )
    if sign is not None:
        yield (
            f"{sign}, so these images are treated as credentialed data whatever a column licence says: for all of"
            " MIMIC-CXR with its labels, use the sources mimic-cxr-jpg and mimic-cxr."
        )
    elif _data_use(rows) != "open":
        yield (
            "Nothing declares an open licence that is known here (CC0, CC BY, public domain, MIT, ...) for every "
            "one of these images, so they are treated as the strictest class, credentialed data, and are never "
            "sent to a remote service without an attestation: name each image's licence in a column named "
            "licence of manifest.csv."
        )
