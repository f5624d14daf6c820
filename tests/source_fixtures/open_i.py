"""Open-I in miniature: XML with both kinds of MeSH, and the same reports as two tables."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.source_fixtures.pictures import write_picture, write_text


@dataclass(frozen=True)
class Report:
    """One report; images are named without ``CXR``, each with the table's word for its view."""

    uid: int
    major: tuple[str, ...]
    automatic: tuple[str, ...]
    caption: str
    findings: str
    impression: str
    images: tuple[tuple[str, str], ...]


REPORTS: Final = (
    Report(
        2,
        ("Cardiomegaly/borderline", "Pulmonary Artery/enlarged"),
        ("cardiomegaly", "pulmonary artery"),
        "Chest, 2 views, frontal and lateral",
        'Borderline cardiomegaly, "stable". Clear lungs.',
        "No acute pulmonary findings.",
        (("2_IM-0652-2001", "Lateral"), ("2_IM-0652-1001", "Frontal")),
    ),
    Report(
        1,
        ("normal",),
        (),
        "Xray Chest PA and Lateral",
        "The lungs are clear. There is no pneumothorax & no effusion.",
        "Normal chest x-XXXX.",
        (("1_IM-0001-3001", "Lateral"), ("1_IM-0001-4001", "Frontal")),
    ),
    Report(
        10,
        ("Opacity/lung/base/left", "Opacity/lung/base/right/mild", "Nodule/lung/left", "Thickening/pleura/apex"),
        (),
        "PORTABLE CHEST AP",
        "",
        "Bibasilar opacities. Left nodule.",
        (("10_IM-0002-1001", "Frontal"),),
    ),
    Report(11, ("No Indexing",), ("Hernia",), "", "Unremarkable.", "", (("11_IM-0067-1001", "Frontal"),)),
    Report(12, ("Pneumonia/lower lobe/right",), (), "Chest PA", "Right lower lobe pneumonia.", "Pneumonia.", ()),
)


def write_xml(root: Path) -> Path:
    """``ecgen-radiology/1.xml`` and so on, and the images beside."""
    for report in REPORTS:
        write_text(root / "ecgen-radiology" / f"{report.uid}.xml", _xml(report))
    for number, (name, _) in enumerate(image for report in REPORTS for image in report.images):
        write_picture(root / "NLMCXR_png" / f"{_xml_name(name)}.png", number)
    return root


def _xml_name(name: str) -> str:
    """The first report's images alone have its number twice."""
    return f"CXR1_{name}" if name.startswith("1_") else f"CXR{name}"


def _xml(report: Report) -> str:
    terms = [f"<major>{term}</major>" for term in report.major]
    terms += [f"<automatic>{term}</automatic>" for term in report.automatic]
    images = [
        f'<parentImage id="{_xml_name(name)}"><figureId>F{place}</figureId><caption>{report.caption}</caption>'
        f'<panel type="single"><url>/hadoop/storage/{_xml_name(name)}.jpg</url></panel></parentImage>'
        for place, (name, _) in enumerate(report.images, start=1)
    ]
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation>\n   <meta type="rr"/>\n   <uId id="CXR{report.uid}"/>'
        f'<pmcId id="{report.uid}"/><docSource>CXR</docSource><MedlineCitation><Article><Abstract>'
        f'<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION"/>'
        f'<AbstractText Label="FINDINGS">{report.findings.replace("&", "&amp;")}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{report.impression}</AbstractText></Abstract></Article>'
        f"</MedlineCitation><MeSH>\n      {''.join(terms)}\n   </MeSH>{''.join(images)}</eCitation>\n"
    )


def write_tables(root: Path) -> Path:
    """``indiana_reports.csv``, ``indiana_projections.csv`` and ``images/images_normalized/``."""
    write_projections(root)
    with (root / "indiana_reports.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"))
        for report in REPORTS:
            heads = ";".join(term.partition("/")[0] for term in report.major)
            texts = (report.caption, "cough", "None.", report.findings, report.impression)
            writer.writerow((report.uid, ";".join(report.major), heads, *texts))
    for number, (name, _) in enumerate(image for report in REPORTS for image in report.images):
        write_picture(root / "images" / "images_normalized" / f"{name}.dcm.png", number)
    return root


def write_projections(root: Path) -> None:
    """The table of views alone."""
    lines = ["uid,filename,projection"]
    lines += [f"{report.uid},{name}.dcm.png,{view}" for report in REPORTS for name, view in report.images]
    write_text(root / "indiana_projections.csv", "\n".join(lines) + "\n")
