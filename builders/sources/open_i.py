"""Open-I (Indiana University): reports with their images, in the owners' XML or as two tables.

The labels are MeSH codes, of which there are two kinds. ``major`` terms were given by two coders who read the
report, and these are the labels here; ``automatic`` terms were found by a program (MTI) and stand among the
other labels as ``MeSH automatic``, never as a reference. Only what the report states as present was coded, so
what is not listed is ``None`` (not mentioned), never 0, except that No Finding is 0 where a disease is coded.

The two tables are the same reports as others converted them, with major terms only; they alone say which image is
frontal and which is lateral. Where both forms are in the folder, reports come from the XML and views from the
table.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from cxr_max.builders.sources.base import NO_SPLIT, Inventory, SourceInfo
from cxr_max.builders.sources.image_files import ImagePlaces
from cxr_max.builders.sources.labels import label_table
from cxr_max.builders.sources.open_i_terms import counted_as, findings_of, parsed, sides_of_terms
from cxr_max.builders.sources.tables import (
    existing_folder,
    optional_file,
    read_table,
    refuse,
    refuse_conflicts,
    rows_of,
)
from cxr_max.builders.sources.views import frontal_first, only_frontal_named
from cxr_max.errors import RequestError
from cxr_max.records import Radiograph, Study, View

if TYPE_CHECKING:
    import pandas as pd

HOME: Final = "https://openi.nlm.nih.gov/faq#collection"
REPORTS: Final = "indiana_reports.csv"
PROJECTIONS: Final = "indiana_projections.csv"
XML_FOLDERS: Final = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", "NLMCXR_reports", ".")
_REPORT_COLUMNS: Final = ("uid", "MeSH", "image", "findings", "impression")
_WHOLE_XML: Final = {"images": 7_470, "studies": 3_851}
_WHOLE_TABLES: Final = {"images": 7_466, "studies": 3_851}
_SEVERAL: Final = re.compile(r"\blat|\b(two|2)[ -]view|\bviews", re.IGNORECASE)
"""In captions of more than one image."""
_PROJECTED: Final[Mapping[str, View]] = {"lateral": "LATERAL"}


@dataclass(frozen=True, slots=True)
class _Report:
    """One report, without its images' places."""

    uid: str
    """``1`` for ``CXR1``."""
    caption: str
    findings: str
    impression: str
    major: tuple[str, ...]
    automatic: tuple[str, ...]
    images: Mapping[str, str]
    """By identifier, ``CXR10_IM-0002-1001``, the file as this form of the collection names it."""


class OpenI:
    """A copy of the Indiana University collection. It has no split, names no patient, and tells no age or sex."""

    info = SourceInfo(
        name="open-i",
        title="Open-I, Indiana University chest radiographs",
        data_use="open",
        licence="cc-by-nc-nd-4.0",
        citation=(
            "Demner-Fushman D, Kohli MD, Rosenman MB, Shooshan SE, Rodriguez L, Antani S, Thoma GR, McDonald CJ. "
            "Preparing a collection of radiology examinations for distribution and retrieval. Journal of the "
            "American Medical Informatics Association 23, 304-310 (2016). https://doi.org/10.1093/jamia/ocv080"
        ),
        home=HOME,
        download=(
            "NLMCXR_png.tgz",
            "NLMCXR_reports.tgz",
            "or indiana_reports.csv, indiana_projections.csv (without it no views are known) and images/",
        ),
        expected=_WHOLE_XML,
    )
    prerendered = True

    def __init__(self, root: Path, *, reports: bool = False) -> None:
        """
        Args:
            root: the folder with the XML files in it or in ``ecgen-radiology/``, or with the two tables.
            reports: also give the reports: findings and impression.

        Raises:
            RequestError: the folder or the reports are missing, or a file is not as its owners ship it.
        """
        self._folder = existing_folder(root, "Open-I")
        self._xml = _find_xml(self._folder)
        self._report_table = optional_file(self._folder, REPORTS)
        self._projection_table = optional_file(self._folder, PROJECTIONS)
        projections = {} if self._projection_table is None else _read_projections(self._projection_table)
        self._views = {image: view for images in projections.values() for image, view in images.items()}
        if self._xml:
            read = [_read_xml(path) for path in self._xml]
        elif self._report_table is not None and projections:
            read = list(_read_reports(self._report_table, projections))
            self.info = replace(OpenI.info, expected=_WHOLE_TABLES)
        else:
            raise RequestError(
                f"{self._folder} has neither the XML reports (1.xml to 3999.xml) nor {REPORTS} and {PROJECTIONS}:"
                f" download them from {HOME}."
            )
        self._all = _without_repeats(read)
        self._shown = [report for report in self._all if report.images]
        self._reports = reports
        self._terms = label_table(self.info.name)
        self._places = ImagePlaces(self._folder, "images")
        self.total: int | None = len(self._shown)
        self.warnings = tuple(self._warn())

    def _warn(self) -> Iterator[str]:
        if left_out := len(self._all) - len(self._shown):
            yield f"{left_out} reports have no image and are left out."
        if not self._views:
            yield (
                "The XML does not say which image is lateral, so every image may be asked about as if it were"
                f" frontal: put {PROJECTIONS} beside it, from the collection as two tables."
            )
        yield "The set names no patients, so each report counts as a patient of its own."
        yield NO_SPLIT

    def studies(self) -> Iterator[Study]:
        """Every report that has an image, by number; its images frontal ones first."""
        for report in self._shown:
            terms = [parsed(term) for term in report.major]
            findings = findings_of(terms, self._terms)
            coded = [term for term in report.major if term.casefold() != "no indexing"]
            images = [self._image(name, file, report.caption) for name, file in report.images.items()]
            yield Study(
                study_id=f"CXR{report.uid}",
                subject_id=f"CXR{report.uid}",
                source=self.info.name,
                split=None,
                radiographs=tuple(sorted(images, key=frontal_first)),
                reference_findings=findings if coded else None,
                reference_sides=sides_of_terms(terms, self._terms, findings) if coded else None,
                other_labels=self._others(report),
                report=_text(report) if self._reports else None,
            )

    def _image(self, name: str, file: str, caption: str) -> Radiograph:
        view = self._views.get(name)
        if view != "LATERAL" and (view is not None or _one_view(caption)):
            view = only_frontal_named(caption)
        return Radiograph(name, self._folder / self._file(name, file), view or "unknown")

    def _file(self, image: str, file: str) -> str:
        """The pictures may come from the other form than the reports."""
        return self._places.file(file, f"{image}.png", f"{image.removeprefix('CXR')}.dcm.png")

    def _others(self, report: _Report) -> dict[str, str]:
        kept = [term for term in report.major if not findings_of([parsed(term)], self._terms, mapped_only=True)]
        others = {"MeSH major": "; ".join(kept), "MeSH automatic": "; ".join(report.automatic)}
        return {name: text for name, text in others.items() if text}

    def inventory(self) -> Inventory:
        """See ``Shipped``. Labels are the major terms up to what decides their meaning, counted by report."""
        labels: Counter[str] = Counter()
        for report in self._all:
            labels.update({counted_as(parsed(term), self._terms) for term in report.major})
        images = [item for report in self._shown for item in report.images.items()]
        found = [path for path in (None if self._xml else self._report_table, self._projection_table) if path]
        xml = (f"{len(self._xml)} XML files in {self._xml[0].parent.name}",) if self._xml else ()
        return Inventory(
            root=self._folder,
            tables=(*xml, *(path.name for path in found)),
            absent=() if self._views else (f"{PROJECTIONS} (views)",),
            rows=len(self._all),
            counts={"images": len(images), "studies": len(self._shown)},
            images=tuple(self._file(image, file) for image, file in images),
            labels=labels,
            unmapped=self._terms.unmapped(labels),
            unknown=self._terms.unknown(labels),
        )


def _find_xml(folder: Path) -> list[Path]:
    """The reports in the order of their numbers."""
    for name in XML_FOLDERS:
        if found := [path for path in (folder / name).glob("*.xml") if path.stem.isdecimal()]:
            return sorted(found, key=lambda path: int(path.stem))
    return []


def _read_xml(path: Path) -> _Report:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise RequestError(f"{path} is damaged ({error}): get it anew from {HOME}.") from error
    uid = root.find("uId")
    number = re.fullmatch(r"(?:CXR)?(\d+)", "" if uid is None else uid.get("id", "").strip())
    if number is None:
        raise RequestError(f"{path} does not say which report it is (uId): get it anew from {HOME}.")
    sections: dict[str, list[str]] = {}
    for part in root.iter("AbstractText"):
        sections.setdefault(part.get("Label", "").upper(), []).append(_content(part))
    images = [image for image in root.iter("parentImage") if image.get("id", "").strip()]
    names = [PurePosixPath(image.get("id", "").strip()).name.removesuffix(".png") for image in images]
    captions = (_content(caption) for image in images if (caption := image.find("caption")) is not None)
    return _Report(
        uid=number[1],
        caption=next(filter(None, captions), ""),
        findings=" ".join(filter(None, sections.get("FINDINGS", ()))),
        impression=" ".join(filter(None, sections.get("IMPRESSION", ()))),
        major=_distinct(_content(term) for term in root.iter("major")),
        automatic=_distinct(_content(term) for term in root.iter("automatic")),
        images={_image_id(number[1], name): f"{name}.png" for name in names},
    )


def _image_id(uid: str, name: str) -> str:
    """``CXR1_IM-0001-3001``, for ``CXR1_1_IM-0001-3001`` of the XML and ``1_IM-0001-3001`` of the tables."""
    _, mark, rest = name.partition("IM-")
    return f"CXR{uid}_{mark}{rest or name}"


def _content(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))


def _read_reports(path: Path, projections: Mapping[str, Mapping[str, View]]) -> Iterator[_Report]:
    frame = read_table(path, _REPORT_COLUMNS, HOME).drop_duplicates(ignore_index=True)
    _refuse_uids(frame, path)
    refuse_conflicts(frame, "uid", path, HOME)
    for uid, mesh, caption, findings, impression in rows_of(frame):
        yield _Report(
            uid=uid,
            caption=_told(caption),
            findings=_told(findings),
            impression=_told(impression),
            major=_distinct(term.strip() for term in _told(mesh).split(";")),
            automatic=(),
            images={image: f"{image.removeprefix('CXR')}.dcm.png" for image in projections.get(uid, ())},
        )


def _told(cell: str) -> str:
    return "" if cell.casefold() == "nan" else cell


def _read_projections(path: Path) -> dict[str, dict[str, View]]:
    """By report, each image's identifier and its view; ``Frontal`` may be either of two."""
    frame = read_table(path, ("uid", "filename", "projection"), HOME).drop_duplicates(ignore_index=True)
    _refuse_uids(frame, path)
    refuse_conflicts(frame, "filename", path, HOME)
    listed: dict[str, dict[str, View]] = {}
    for uid, filename, projection in rows_of(frame):
        name = filename.removesuffix(".png").removesuffix(".dcm")
        listed.setdefault(uid, {})[_image_id(uid, name)] = _PROJECTED.get(projection.casefold(), "unknown")
    return listed


def _refuse_uids(frame: "pd.DataFrame", path: Path) -> None:
    refuse(frame.loc[~frame["uid"].str.fullmatch(r"\d{1,6}"), "uid"], path, "an impossible uid", HOME)


def _without_repeats(reports: Iterable[_Report]) -> list[_Report]:
    kept: dict[str, _Report] = {}
    for report in reports:
        if kept.setdefault(report.uid, report) != report:
            raise RequestError(f"Two reports that differ say that they are CXR{report.uid}: get them from {HOME}.")
    return sorted(kept.values(), key=lambda report: int(report.uid))


def _text(report: _Report) -> str | None:
    """Findings and impression in the form of a report; ``None`` where both are empty."""
    parts = (("FINDINGS", report.findings), ("IMPRESSION", report.impression))
    return "\n".join(f"{name}: {text}" for name, text in parts if text) or None


def _one_view(caption: str) -> bool:
    """Whether a caption speaks of a single projection, and so of every image that it stands under."""
    return only_frontal_named(caption) != "unknown" and not re.search(
        r"(?i)\blat|\b(two|2)[ -]view|\bviews", caption
    )
