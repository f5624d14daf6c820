"""``--source NAME[:PATH]`` -> an opened source."""

from pathlib import Path
from typing import Any, Final

from cxr_max.builders.sources.base import Source
from cxr_max.errors import RequestError
from cxr_max.records import SPLITS

_NEEDS_PATH: Final = {
    "mimic-cxr-jpg": "the folder mimic-cxr-jpg/2.1.0 from PhysioNet",
    "mimic-cxr": "the folder mimic-cxr/2.1.0 from PhysioNet",
    "folder": "a folder of images",
}
NAMES: Final = ("phantom", *_NEEDS_PATH)


def open_source(spec: str, *, workspace: Path, labels: Path | None = None, reports: bool = False) -> Source:
    """Open the data set that ``spec`` names.

    Args:
        spec: ``mimic-cxr-jpg:PATH``, ``mimic-cxr:PATH``, ``folder:PATH``, or ``phantom[:SEED][,OPTION...]``:
            ``112px`` (rows and columns), ``shifted`` (another hospital), or a split that all studies are in.
        workspace: where the phantom source writes its pictures; other sources write nothing.
        labels: tables elsewhere than where the source looks for them.
        reports: read the studies' reports too.

    Raises:
        RequestError: the name is unknown, the path is missing, or its tables are not as its owners ship them.
    """
    name, _, path = spec.partition(":")
    if name == "phantom":
        from cxr_max.builders.sources.phantom import PhantomSource

        if labels is not None:
            raise RequestError("The phantom source knows its own labels: leave --labels out.")
        seed, options = _phantom(path)
        return PhantomSource(seed, directory=workspace / "phantoms", **options)
    if name not in _NEEDS_PATH:
        raise RequestError(f"There is no source {name!r}: choose one of {', '.join(NAMES)}.")
    if not path:
        raise RequestError(f"The source {name} needs a path, {name}:PATH, to {_NEEDS_PATH[name]}.")
    root = Path(path).expanduser().resolve()
    if name == "folder":
        from cxr_max.builders.sources.folder import Folder

        return Folder(root, labels=labels)
    if name == "mimic-cxr":
        from cxr_max.builders.sources.mimic_cxr import MimicCxr

        return MimicCxr(root, labels=labels, reports=reports)
    from cxr_max.builders.sources.mimic_cxr_jpg import MimicCxrJpg

    return MimicCxrJpg(root, labels=labels, reports=reports)


def listing() -> list[dict[str, str]]:
    """Every data set that can be read: how to name it, its terms, and what it is."""
    from cxr_max.builders.sources.mimic_cxr import MimicCxr
    from cxr_max.builders.sources.mimic_cxr_jpg import MimicCxrJpg
    from cxr_max.builders.sources.phantom import INFO

    known = [("phantom[:SEED]", INFO), ("mimic-cxr-jpg:PATH", MimicCxrJpg.info), ("mimic-cxr:PATH", MimicCxr.info)]
    entries = [{"spec": spec, "data_use": info.data_use, "title": info.title} for spec, info in known]
    folder = {
        "spec": "folder:PATH",
        "data_use": "by licence",
        "title": "JPEG, PNG, TIFF or DICOM files, and a table if there is one",
    }
    return [*entries, folder]


def canonical(spec: str) -> str:
    """``spec`` with its path made absolute, so that it means the same from every folder."""
    name, _, path = spec.partition(":")
    return f"{name}:{Path(path).expanduser().resolve()}" if path and name != "phantom" else spec


def _phantom(text: str) -> tuple[int, dict[str, Any]]:
    """``7,112px,test`` -> seed and options."""
    first, *others = text.split(",")
    options: dict[str, Any] = {}
    for option in others:
        if option.endswith("px") and option[:-2].isdecimal():
            options["size"] = int(option[:-2])
        elif option == "shifted":
            options["shifted"] = True
        elif option in SPLITS:
            options["split"] = option
        else:
            raise RequestError(
                f"The phantom source does not know {option!r}: its options are 128px (or another size), shifted,"
                f" {', '.join(SPLITS)}."
            )
    try:
        return int(first or "0"), options
    except ValueError:
        raise RequestError(f"The phantom source takes a seed, phantom:7 for instance, not {first!r}.") from None
