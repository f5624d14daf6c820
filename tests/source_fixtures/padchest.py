"""PadChest in miniature: an unnamed first column, quoted lists, ``nan`` in them, 16-bit PNG, one inverted."""

import csv
from pathlib import Path
from typing import Final

from tests.source_fixtures.pictures import write_picture

TABLE: Final = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
COLUMNS: Final = (
    *("", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"),
    *("ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Modality_DICOM", "Manufacturer_DICOM"),
    *("PhotometricInterpretation_DICOM", "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM"),
    *("SpatialResolution_DICOM", "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM"),
    *("Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime"),
    *("RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations"),
    *("LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS"),
)
ROWS: Final[tuple[dict[str, str], ...]] = (
    {
        "ImageID": "216840111366964012339356563862009041122518701_00-061-032.png",
        "ImageDir": "4",
        "StudyID": "S1",
        "PatientID": "P1",
        "PatientBirth": "1951.0",
        "PatientSex_DICOM": "M",
        "Projection": "L",
        "Labels": "['pleural effusion', ' nodule', 'nodule', 'aortic elongation']",
    },
    {
        "ImageID": "216840111366964012339356563862009041122518701_00-061-001.png",
        "ImageDir": "4",
        "StudyID": "S1",
        "PatientID": "P1",
        "PatientBirth": "1951.0",
        "PatientSex_DICOM": "M",
        "Projection": "PA",
        "Labels": "['pleural effusion', ' nodule', 'nodule', 'aortic elongation']",
    },
    {
        "ImageID": "1.png",
        "ImageDir": "0",
        "StudyID": "S2",
        "PatientID": "P2",
        "PatientBirth": "1980",
        "PatientSex_DICOM": "F",
        "Projection": "AP_horizontal",
        "PhotometricInterpretation_DICOM": "MONOCHROME1",
        "MethodLabel": "RNN_model",
        "Labels": "['normal']",
    },
    {
        "ImageID": "2.png",
        "ImageDir": "0",
        "StudyID": "S3",
        "PatientID": "P2",
        "PatientBirth": "nan",
        "PatientSex_DICOM": "O",
        "Projection": "EXCLUDE",
        "Labels": "[nan, 'pacemaker', '']",
    },
    {
        "ImageID": "3.png",
        "ImageDir": "0",
        "StudyID": "S4",
        "PatientID": "P3",
        "Projection": "COSTAL",
        "Labels": "nan",
    },
    {
        "ImageID": "4.png",
        "ImageDir": "0",
        "StudyID": "S5",
        "PatientID": "P4",
        "Projection": "AP",
        "MethodLabel": "RNN_model",
        "Labels": "['hydropneumothorax', 'COVID 19']",
    },
)
_USUAL: Final = {
    "StudyDate_DICOM": "20130515",
    "PhotometricInterpretation_DICOM": "MONOCHROME2",
    "Rows_DICOM": "64",
    "Columns_DICOM": "64",
    "BitsStored_DICOM": "12",
    "MethodLabel": "Physician",
    "Report": "derram pleural izquierd , sin otr hallazg . ",
}


def write(root: Path) -> Path:
    """Write the layout and return it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / TABLE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(ROWS):
            writer.writerow({**dict.fromkeys(COLUMNS, ""), **_USUAL, **row, "": str(number)})
    for number, row in enumerate(ROWS):
        inverted = row.get("PhotometricInterpretation_DICOM") == "MONOCHROME1"
        write_picture(root / row["ImageDir"] / row["ImageID"], number, deep=True, inverted=inverted)
    return root
