"""The objects of a JSON or JSONL file, one at a time, with the line on which each begins."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cxr_max.errors import RequestError

_CHUNK: Final = 2**16
_LONGEST: Final = 2**26
"""Characters of one object of an array: beyond that the file is no list of conversations."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no JSON object."""

    reason: str


def rows_of_file(path: Path) -> Iterator[tuple[int, int, dict[str, Any] | Unreadable]]:
    """Line (from 1), bytes read so far, and the object, or why there is none. Memory holds one object.

    Raises:
        RequestError: an array is cut short or no text, so that what follows cannot be found.
    """
    with path.open("rb") as stream:
        begin = stream.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
    yield from _of_array(path) if begin.startswith(b"[") else _of_lines(path)


def _of_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any] | Unreadable]]:
    end = 0
    with path.open("rb") as stream:
        for line, data in enumerate(stream, start=1):
            end += len(data)
            if line == 1:
                data = data.removeprefix(codecs.BOM_UTF8)
            if data.strip():
                yield line, end, _object(data)


def _object(data: bytes) -> dict[str, Any] | Unreadable:
    try:
        row = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Unreadable("the line is not UTF-8")
    except (ValueError, RecursionError):
        return Unreadable("the line is no JSON")
    return row if isinstance(row, dict) else Unreadable("the line is no JSON object")


def _of_array(path: Path) -> Iterator[tuple[int, int, dict[str, Any] | Unreadable]]:
    decoder, line, buffer, seen = json.JSONDecoder(), 1, "", 0
    with path.open(encoding="utf-8-sig", newline="") as stream:
        buffer = _more(path, stream, "").lstrip("\ufeff")
        line, buffer = _skipped(line, buffer, "[")
        while True:
            line, buffer = _skipped(line, buffer, ",")
            if buffer.startswith("]"):
                return
            try:
                row, used = decoder.raw_decode(buffer) if buffer else (None, 0)
            except (ValueError, RecursionError):
                used = 0
            if used == 0:
                more = _more(path, stream, buffer) if len(buffer) < _LONGEST else buffer
                if more == buffer:
                    raise RequestError(
                        f"{path}, line {line}: the array is cut short or damaged: get the file anew."
                    )
                buffer = more
                continue
            yield (
                line,
                seen,
                row if isinstance(row, dict) else Unreadable("the entry is no object"),
            )
            line += buffer.count("\n", 0, used)
            seen += used
            buffer = buffer[used:]


def _more(path: Path, stream: Any, buffer: str) -> str:
    try:
        return buffer + str(stream.read(_CHUNK))
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 ({error.reason}): convert it first.") from error


def _skipped(line: int, buffer: str, mark: str) -> tuple[int, str]:
    """Without white space and one mark in front."""
    for strip in ("", mark, ""):
        rest = buffer.removeprefix(strip).lstrip() if strip else buffer.lstrip()
        line += buffer.count("\n", 0, len(buffer) - len(rest))
        buffer = rest
    return line, buffer
