"""Radiographs made up for the tests: values, DICOM files, JPEGs, and how to look into what is sent."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

Array = NDArray[Any]


def phantom(rows: int = 60, columns: int = 48, low: int = 0, high: int = 4095) -> Array:
    """A smooth ramp with a bright disc and noise, exactly from ``low`` to ``high``: int64 (rows, columns)."""
    y, x = np.mgrid[0:rows, 0:columns]
    shape = y / rows + 0.7 * x / columns + 0.8 * ((y - rows / 2) ** 2 + (x - columns / 3) ** 2 < rows**2 / 16)
    shape += np.random.default_rng(7).normal(0, 0.02, shape.shape)
    unit = (shape - shape.min()) / (shape.max() - shape.min())
    values: Array = np.rint(low + unit * (high - low)).astype(np.int64)
    return values


def dicom(values: Array, bits: int = 12, signed: bool = False, **attributes: Any) -> FileDataset:
    allocated = 8 if bits == 8 else 16
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "SECRET-7"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    stored = values.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    dataset.PixelData = stored + b"\0" * (len(stored) % 2)
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def saved(path: Path, dataset: FileDataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def recipe(values: Array, inverted: bool) -> Array:
    """MIMIC-CXR-JPG's recipe in float64, equalised by OpenCV's documented formula."""
    image = values.astype(np.float64) - values.min()
    image = (image / image.max() * 255).astype(np.uint8)
    image = 255 - image if inverted else image
    histogram = np.bincount(image.ravel(), minlength=256)
    first = int(np.flatnonzero(histogram)[0])
    cumulative = np.cumsum(histogram) - histogram[first]
    table = np.rint(np.clip(cumulative * 255 / (image.size - histogram[first]), 0, 255))
    equalised: Array = table[image]
    return equalised


def segments(jpeg: bytes) -> list[int]:
    """Codes of the marker segments up to the first scan."""
    codes, at = [], 2
    while True:
        assert jpeg[at] == 0xFF
        codes.append(jpeg[at + 1])
        if jpeg[at + 1] == 0xDA:
            return codes
        at += 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]


def jpeg_bytes(pixels: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def decoded(jpeg: bytes) -> Array:
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.mode == "L"
        return np.asarray(image)


def lut(first: int, depth: int, entries: Array) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, depth])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item
