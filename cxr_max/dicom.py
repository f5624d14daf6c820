"""DICOM files, read by pydicom: the header, and the one grey frame."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.dicom_fast import Layout, find_plain_pixels
from cxr_max.dicom_streams import jpeg_2000_size, jpeg_size, rle_is_whole
from cxr_max.errors import ImageError
from cxr_max.image_file import MAX_PIXELS, Header, Stored, hush, reason, require_content

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

_PIXEL_TAGS: Final = [
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "ModalityLUTSequence"),
    *("RescaleIntercept", "RescaleSlope", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("BurnedInAnnotation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]
_HEADER_TAGS: Final = [
    *("PhotometricInterpretation", "Rows", "Columns", "ImagerPixelSpacing", "PixelSpacing", "ViewPosition"),
    *("StudyDate", "StudyTime", "BurnedInAnnotation", "PatientSex", "PatientAge"),
]
_IMPLICIT: Final = "1.2.840.10008.1.2"
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_META_BYTES: Final = 2048
"""The transfer syntax stands within so many bytes of a file's start."""
_RLE: Final = "1.2.840.10008.1.2.5"
_RLE_RATIO: Final = 64
"""Two bytes stand for at most 128 (DICOM PS3.5 G.3.1)."""
_JPEG_2000: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
"""JPEG 2000 and High-Throughput JPEG 2000, whose streams begin alike."""


def read_dicom_header(path: Path) -> Header:
    """Geometry, view and time, without decoding pixels.

    Raises:
        ImageError: the file is missing, or no DICOM image.
    """
    with _reading(path) as stream:
        dataset = _parsed(stream, _HEADER_TAGS, pixels=False)
    rows, columns = _shape(path, dataset)
    return Header(
        photometric_interpretation=_text(dataset, "PhotometricInterpretation"),
        rows=rows,
        columns=columns,
        pixel_spacing_mm=_spacing(dataset),
        view_position=_text(dataset, "ViewPosition"),
        acquired_at=_moment(_text(dataset, "StudyDate"), _text(dataset, "StudyTime")),
        burned_in=_burned_in(dataset),
        sex=_text(dataset, "PatientSex"),
        age=_text(dataset, "PatientAge"),
    )


def read_dicom_pixels(path: Path) -> Stored:
    """The one grey frame; values as stored, padding included.

    Ordinary uncompressed values are read straight from the file, pydicom decodes all others.

    Raises:
        ImageError: the file is missing, damaged, not one grey image, or compressed in a way that needs a
            decoder that is not installed.
    """
    with _reading(path) as stream:
        dataset = _parsed(stream, _PIXEL_TAGS, pixels=False)
        layout = _plain_layout(dataset)
        plain = None if layout is None else find_plain_pixels(path, stream, layout)
        if plain is None:
            stream.seek(0)
            dataset = _parsed(stream, _PIXEL_TAGS, pixels=True)
    white_is_zero = _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if plain is not None and layout is not None:
        return Stored(plain, white_is_zero, dataset, layout.bits_stored, _burned_in(dataset))
    pixels = _decoded(path, dataset)
    # pydicom has cleared the unused bits.
    return Stored(pixels, white_is_zero, dataset, 8 * pixels.itemsize, _burned_in(dataset))


def _plain_layout(dataset: Dataset) -> Layout | None:
    """How one ordinary grey frame lies in its file; ``None`` for all that pydicom is to decode or refuse."""
    syntax = dataset.file_meta.TransferSyntaxUID
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    rows, columns, allocated, stored, signed, samples = (_integer(dataset, name) or 0 for name in names)
    plain = (
        syntax in {_IMPLICIT, _EXPLICIT}
        and samples == 1
        and _text(dataset, "PhotometricInterpretation") in {"MONOCHROME1", "MONOCHROME2"}
        and ("NumberOfFrames" not in dataset or _integer(dataset, "NumberOfFrames") == 1)
        and 0 < rows * columns <= MAX_PIXELS
        and allocated in {8, 16}
        and 0 < stored <= allocated
        and "PixelRepresentation" in dataset
        and signed in {0, 1}
    )
    return Layout(rows, columns, allocated, stored, bool(signed), syntax == _IMPLICIT) if plain else None


def _decoded(path: Path, dataset: Dataset) -> NDArray[np.integer[Any]]:
    """The frame as pydicom's decoders give it, little endian."""
    import numpy as np

    _refuse_syntax(path, dataset)
    _refuse_dicom(path, dataset)
    _refuse_undecodable(path, dataset)
    _refuse_other_size(path, dataset)
    try:
        if dataset.file_meta.TransferSyntaxUID == _RLE:
            dataset.pixel_array_options(decoding_plugin=_rle_plugin(dataset))
        pixels = dataset.pixel_array
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as fault:  # plugins raise anything on damaged pixels, a Rust panic is no Exception
        raise ImageError(
            f"The pixels of {path.name} are damaged ({reason(fault)}): fetch it again, or leave it out."
        ) from fault
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise ImageError(f"{path.name} is not one grey image of 8 to 16 bits: leave it out.")
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False))


def _rle_plugin(dataset: Dataset) -> str:
    """The fast decoder where it can be trusted with the data, else pydicom's own."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    itemsize = (_integer(dataset, "BitsAllocated") or 0) // 8
    pixels = (_integer(dataset, "Rows") or 0) * (_integer(dataset, "Columns") or 0)
    return "pylibjpeg" if rle_is_whole(frame, pixels, itemsize) else "pydicom"


@contextmanager
def _reading(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file's bytes, uncompressed; whatever goes wrong until it is closed is an ``ImageError``."""
    require_content(path)
    hush()
    try:
        with _opened(path) as stream:
            yield stream
    except ImageError:
        raise
    except Exception as fault:  # pydicom raises anything on bytes that are not DICOM
        raise ImageError(
            f"{path.name} is not DICOM, or is truncated or damaged ({type(fault).__name__}): fetch it again."
        ) from fault


def _opened(path: Path) -> io.BufferedIOBase:
    """A gzip is unpacked in memory, and a deflated data set too; at most as far as the largest image goes."""
    stream: io.BufferedIOBase = path.open("rb")
    if path.suffix.lower() == ".gz":
        with stream, gzip.open(stream) as packed:
            stream = io.BytesIO(packed.read(2 * MAX_PIXELS))
    start = stream.read(_META_BYTES)
    stream.seek(0)
    if _DEFLATED not in start:
        return stream
    with stream:
        return io.BytesIO(_inflated(stream.read()))


def _inflated(data: bytes) -> bytes:
    """A file in Deflated Explicit VR Little Endian as it was before (DICOM PS3.5 A.5).

    pydicom inflates without a limit.
    """
    end = _end_of_meta(data)
    meta = data[:end].replace(_DEFLATED, _EXPLICIT.encode().ljust(len(_DEFLATED), b"\0"), 1)
    return meta + zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], 2 * MAX_PIXELS)


def _end_of_meta(data: bytes) -> int:
    """Where the File Meta Information ends: elements of group 2 in explicit little endian (PS3.10 7.1)."""
    at = 132
    while data[at : at + 2] == b"\2\0":
        long = data[at + 4 : at + 6] in {b"OB", b"UN"}
        size, head = ("<I", 12) if long else ("<H", 8)
        at += head + int(struct.unpack_from(size, data, at + head - struct.calcsize(size))[0])
    return at


def _parsed(stream: io.BufferedIOBase, tags: list[str], pixels: bool) -> Dataset:
    """Read the named attributes only, so that no patient's name is ever in memory.

    Without ``pixels`` the stream then stands before the element Pixel Data.
    """
    import pydicom

    dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, force=True, specific_tags=tags)
    _name_syntax(dataset)
    return dataset


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
    data = _value(dataset, "PixelData")
    if not isinstance(data, bytes) or not data:
        raise ImageError(f"{path.name} holds no pixels, so it is truncated or a mere header: fetch it again.")
    expected = rows * columns * bits // 8
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated and len(data) < expected:
        raise ImageError(f"{path.name} is truncated ({len(data)} of {expected} bytes of pixels): fetch it again.")


def _refuse_syntax(path: Path, dataset: Dataset) -> None:
    """Refuse by name a transfer syntax that is none, or that holds no single picture."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        get_decoder(syntax)
    except NotImplementedError as fault:
        raise ImageError(
            f"{path.name} is in transfer syntax {' '.join(syntax.name.split())}, which holds no radiograph:"
            " leave it out."
        ) from fault


def _refuse_undecodable(path: Path, dataset: Dataset) -> None:
    """Name the package that is missing for this transfer syntax, before a decoder fails in its own words."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit, JPEGLSTransferSyntaxes

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    plugins = get_decoder(syntax).available_plugins
    # Pillow reads the 8-bit kind of this syntax only.
    if syntax == JPEGExtended12Bit and (_integer(dataset, "BitsStored") or 0) > 8:
        plugins = tuple(name for name in plugins if name != "pillow")
    if not plugins:
        free = syntax in JPEGLSTransferSyntaxes
        package = "pyjpegls" if free else "'cxr-max[gpl]' (pylibjpeg-libjpeg, GPL-3)"
        raise ImageError(
            f"No decoder for {syntax.name}, in which {path.name} is compressed: pip install {package}."
        )


def _refuse_other_size(path: Path, dataset: Dataset) -> None:
    """Refuse a compressed stream whose own size is another than the header's.

    A decoder believes one of the two, and one damaged byte there has it allocate gigabytes for half a minute.
    """
    from pydicom.encaps import get_frame

    rows, columns = _shape(path, dataset)
    syntax, data = dataset.file_meta.TransferSyntaxUID, dataset.PixelData
    if syntax == _RLE:
        bits = _integer(dataset, "BitsAllocated") or 0
        if rows * columns * bits // 8 > _RLE_RATIO * len(data):
            raise ImageError(f"{path.name} is truncated or damaged (too few bytes of pixels): fetch it again.")
        return
    if not syntax.is_encapsulated:
        return
    try:
        frame = get_frame(data, 0, number_of_frames=1)
        size = jpeg_2000_size(frame) if syntax in _JPEG_2000 else jpeg_size(frame)
    except Exception as fault:  # pydicom and struct raise anything on fragments that are none
        raise ImageError(f"The pixels of {path.name} are damaged ({reason(fault)}): fetch it again.") from fault
    if size not in {None, (rows, columns)}:
        raise ImageError(
            f"{path.name} is damaged ({size[0]} x {size[1]} pixels where its header says {rows} x {columns}):"
            " fetch it again."
        )


def _burned_in(dataset: Dataset) -> bool:
    return (_text(dataset, "BurnedInAnnotation") or "").upper() == "YES"


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset[keyword].value
    except Exception:  # noqa: BLE001 - absent, or a value pydicom cannot convert: both unknown
        return None


def _integer(dataset: Dataset, keyword: str) -> int | None:
    try:
        return int(dataset[keyword].value)
    except Exception:  # noqa: BLE001 - absent, empty, or a value pydicom cannot convert: all unknown
        return None


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = _value(dataset, keyword)
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
