"""Phantoms as files, and text tables written as carelessly as people do."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxr_max.builders.sources.phantom_image import draw


@lru_cache(maxsize=64)
def pixels(seed: int, size: int = 64) -> NDArray[np.uint8]:
    """(size, size) pixels of a normal chest."""
    return draw({}, seed=seed, size=size, severity=1.0)


def write_picture(path: Path, seed: int, *, deep: bool = False, inverted: bool = False) -> None:
    """A JPEG or PNG by its suffix.

    Args:
        deep: 16 bits a pixel, of which twelve are used.
        inverted: the lowest value is white.
    """
    grey = 255 - pixels(seed) if inverted else pixels(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), grey.astype(np.uint16) * 16 if deep else grey)


def write_dicom(path: Path, seed: int, *, view: str = "", columns: int = 64, sex: str = "", age: str = "") -> None:
    """An uncompressed DICOM file, MONOCHROME2, 12 bits."""
    grey = cv2.resize(pixels(seed), (columns, 64)).astype(np.uint16) * 16
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data.Modality = "DX"
    data.PatientSex, data.PatientAge = sex, age
    if view:
        data.ViewPosition = view
    data.Rows, data.Columns = grey.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = grey.tobytes()
    data["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_text(path: Path, text: str) -> None:
    """Text as it is, its line endings too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def as_windows_writes(path: Path) -> None:
    """Put a byte order mark in front of a text file, and CR LF at the end of its lines."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


def replace_in(path: Path, old: str, new: str) -> None:
    """Change a text file in one place at least."""
    text = path.read_bytes().decode()
    assert old in text, f"{old!r} is not in {path}"
    path.write_bytes(text.replace(old, new).encode())
