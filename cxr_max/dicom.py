"""DICOM files, read by pydicom: the header, and the one grey frame."""

from __future__ import annotations

import gzip
import io
import struct
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxr_max.errors import ImageError
from cxr_max.image_file import MAX_PIXELS, Header, Stored, hush, reason, require_content

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_TAGS: Final = [
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "ModalityLUTSequence"),
    *("RescaleIntercept", "RescaleSlope", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]
_HEADER_TAGS: Final = [
    *("PhotometricInterpretation", "Rows", "Columns", "ImagerPixelSpacing", "PixelSpacing", "ViewPosition"),
    *("StudyDate", "StudyTime", "BurnedInAnnotation"),
]
_JPEG_2000: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
"""JPEG 2000 and High-Throughput JPEG 2000, whose streams begin alike."""


def read_dicom_header(path: Path) -> Header:
    """Geometry, view and time, without decoding pixels.

    Raises:
        ImageError: the file is missing, or no DICOM image.
    """
    dataset = _dataset(path, _HEADER_TAGS, pixels=False)
    rows, columns = _shape(path, dataset)
    return Header(
        photometric_interpretation=_text(dataset, "PhotometricInterpretation"),
        rows=rows,
        columns=columns,
        pixel_spacing_mm=_spacing(dataset),
        view_position=_text(dataset, "ViewPosition"),
        acquired_at=_moment(_text(dataset, "StudyDate"), _text(dataset, "StudyTime")),
        burned_in=(_text(dataset, "BurnedInAnnotation") or "").upper() == "YES",
    )


def read_dicom_pixels(path: Path) -> Stored:
    """Decode the one grey frame; values as stored, padding included.

    Raises:
        ImageError: the file is missing, damaged, not one grey image, or compressed in a way that needs a
            decoder that is not installed.
    """
    import numpy as np

    dataset = _dataset(path, _PIXEL_TAGS, pixels=True)
    _refuse_undecodable(path, dataset)
    _refuse_dicom(path, dataset)
    _refuse_other_size(path, dataset)
    try:
        pixels = dataset.pixel_array
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as fault:  # plugins raise anything on damaged pixels, a Rust panic is no Exception
        raise ImageError(
            f"The pixels of {path.name} are damaged ({reason(fault)}): fetch it again, or leave it out."
        ) from fault
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise ImageError(f"{path.name} is not one grey image of 8 to 16 bits: leave it out.")
    native = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    return Stored(native, _text(dataset, "PhotometricInterpretation") == "MONOCHROME1", dataset)


def _dataset(path: Path, tags: list[str], pixels: bool) -> Dataset:
    """Read the named attributes only, so that no patient's name is ever in memory."""
    import pydicom

    require_content(path)
    hush()
    try:
        with _opened(path) as stream:
            dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, force=True, specific_tags=tags)
        _name_syntax(dataset)
    except Exception as fault:  # pydicom raises anything on bytes that are not DICOM
        raise ImageError(
            f"{path.name} is not DICOM, or is truncated or damaged ({type(fault).__name__}): fetch it again."
        ) from fault
    return dataset


def _opened(path: Path) -> io.BufferedIOBase:
    """The file's bytes; a gzip is unpacked in memory, at most as far as the largest image goes."""
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    with gzip.open(path) as stream:
        return io.BytesIO(stream.read(2 * MAX_PIXELS))


def _name_syntax(dataset: Dataset) -> None:
    """Where there is no file meta, name the encoding that pydicom found the data set to be in."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    if not isinstance(dataset.file_meta.TransferSyntaxUID, UID):
        raise ValueError("more than one transfer syntax")


def _shape(path: Path, dataset: Dataset) -> tuple[int, int]:
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    if not rows or not columns:
        raise ImageError(
            f"{path.name} is truncated, or no DICOM image (rows and columns cannot be read): fetch it again."
        )
    if rows * columns > MAX_PIXELS:
        raise ImageError(f"{path.name} claims {rows} x {columns} pixels, too many for a radiograph: leave it out.")
    return rows, columns


def _refuse_dicom(path: Path, dataset: Dataset) -> None:
    """Refuse by name what is not one grey image, or is not all there."""
    rows, columns = _shape(path, dataset)
    frames, samples = _integer(dataset, "NumberOfFrames") or 1, _integer(dataset, "SamplesPerPixel") or 1
    photometric, bits = _text(dataset, "PhotometricInterpretation"), _integer(dataset, "BitsAllocated") or 0
    if frames > 1:
        raise ImageError(f"{path.name} is multi-frame ({frames} frames): give each radiograph a file of its own.")
    if samples > 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise ImageError(
            f"{path.name} is not grey ({samples} samples per pixel, {photometric}): radiographs are"
            " MONOCHROME1 or MONOCHROME2, so leave it out."
        )
    if bits not in {8, 16}:
        raise ImageError(f"{path.name} stores {bits} bits per pixel, not 8 or 16: leave it out.")
    data = dataset.get("PixelData")
    if not isinstance(data, bytes) or not data:
        raise ImageError(f"{path.name} holds no pixels, so it is truncated or a mere header: fetch it again.")
    expected = rows * columns * bits // 8
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated and len(data) < expected:
        raise ImageError(f"{path.name} is truncated ({len(data)} of {expected} bytes of pixels): fetch it again.")


def _refuse_undecodable(path: Path, dataset: Dataset) -> None:
    """Name the package that is missing for this transfer syntax, before a decoder fails in its own words."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit, JPEGLSTransferSyntaxes

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        plugins = get_decoder(syntax).available_plugins
    except NotImplementedError as fault:
        raise ImageError(
            f"{path.name} is in transfer syntax {' '.join(syntax.name.split())}, which holds no radiograph:"
            " leave it out."
        ) from fault
    if not syntax.is_encapsulated:
        return
    # Pillow reads the 8-bit kind of this syntax only.
    if syntax == JPEGExtended12Bit and (_integer(dataset, "BitsStored") or 0) > 8:
        plugins = tuple(name for name in plugins if name != "pillow")
    if not plugins:
        package = "pyjpegls" if syntax in JPEGLSTransferSyntaxes else "pylibjpeg-libjpeg (GPL-3)"
        raise ImageError(
            f"No decoder for {syntax.name}, in which {path.name} is compressed: pip install {package}."
        )


def _refuse_other_size(path: Path, dataset: Dataset) -> None:
    """Refuse a JPEG 2000 stream whose own size is another than the header's (ITU-T T.800 A.5.1, SIZ).

    A decoder believes the stream, and one damaged byte there has it allocate gigabytes for half a minute.
    """
    start = dataset.PixelData.find(b"\xff\x4f\xff\x51")
    if start < 0 or dataset.file_meta.TransferSyntaxUID not in _JPEG_2000:
        return
    width, height, left, top = struct.unpack_from(">4I", dataset.PixelData.ljust(start + 24), start + 8)
    rows, columns = _shape(path, dataset)
    if (height - top, width - left) != (rows, columns):
        raise ImageError(
            f"{path.name} is damaged ({height - top} x {width - left} pixels where its header says"
            f" {rows} x {columns}): fetch it again."
        )


def _integer(dataset: Dataset, keyword: str) -> int | None:
    try:
        return int(dataset[keyword].value)
    except Exception:  # noqa: BLE001 - absent, empty, or a value pydicom cannot convert: all unknown
        return None


def _text(dataset: Dataset, keyword: str) -> str | None:
    try:
        value = dataset[keyword].value
    except Exception:  # noqa: BLE001 - absent, or a value pydicom cannot convert: both unknown
        return None
    return (str(value).strip() or None) if value is not None else None


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            row, column = (float(value) for value in dataset[keyword].value)
        except Exception:  # noqa: BLE001 - absent, empty, or a value pydicom cannot convert
            continue
        if 0 < row < float("inf") and 0 < column < float("inf"):
            return row, column
    return None


def _moment(date: str | None, time: str | None) -> datetime | None:
    """``20200131`` and ``101500.0`` (DICOM PS3.5 6.2, DA and TM), to the second; ``None`` if one is bad."""
    clock = (time or "").partition(".")[0]
    if len(date or "") != 8 or len(clock) not in {2, 4, 6}:
        return None
    try:
        return datetime.strptime(f"{date} {clock:0<6}", "%Y%m%d %H%M%S")
    except ValueError:
        return None
