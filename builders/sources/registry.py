"""``--source NAME[:PATH]`` -> an opened source."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from cxr_max.builders.sources.base import Shipped, Source, SourceInfo
from cxr_max.errors import RequestError
from cxr_max.records import SPLITS


@dataclass(frozen=True, slots=True)
class _Set:
    """How one data set is opened. Its module is imported only then."""

    module: str
    kind: str
    """The class."""
    path: str
    """What the path leads to."""
    labels: bool = False
    """Whether tables of labels may come from elsewhere."""
    reports: bool = False

    def load(self) -> Any:
        return getattr(import_module(f"cxr_max.builders.sources.{self.module}"), self.kind)


_SETS: Final = {
    "mimic-cxr-jpg": _Set(
        "mimic_cxr_jpg",
        "MimicCxrJpg",
        "the folder mimic-cxr-jpg/2.1.0 from PhysioNet",
        labels=True,
        reports=True,
    ),
    "mimic-cxr": _Set(
        "mimic_cxr", "MimicCxr", "the folder mimic-cxr/2.1.0 from PhysioNet", labels=True, reports=True
    ),
    "ms-cxr-t": _Set(
        "ms_cxr_t", "MsCxrT", "the folder ms-cxr-t/1.0.0 from PhysioNet, beside mimic-cxr-jpg", labels=True
    ),
    "open-i": _Set("open_i", "OpenI", "the folder with Open-I's reports and images", reports=True),
    "chestxray14": _Set("chestxray14", "ChestXray14", "the folder with ChestX-ray14's tables and images"),
    "chexpert": _Set("chexpert", "CheXpert", "the folder CheXpert-v1.0 or CheXpert-v1.0-small"),
    "chestx-det10": _Set("chestx_det", "ChestXDet10", "the folder with ChestX-Det10's JSON files and images"),
    "chestx-det": _Set("chestx_det", "ChestXDet", "the folder with ChestX-Det's JSON files and images"),
    "vindr-cxr": _Set("vindr_cxr", "VinDrCxr", "the folder vindr-cxr/1.0.0 from PhysioNet"),
    "padchest": _Set("padchest", "PadChest", "the folder with PadChest's table and images"),
    "folder": _Set("folder", "Folder", "a folder of images", labels=True),
}
NAMES: Final = ("phantom", *_SETS)


def open_source(spec: str, *, workspace: Path, labels: Path | None = None, reports: bool = False) -> Source:
    """Open the data set that ``spec`` names.

    Args:
        spec: ``NAME:PATH`` with one of ``NAMES``, or ``phantom[:SEED][,OPTION...]``: ``112px`` (rows and columns),
            ``shifted`` (another hospital), ``25%`` (of each finding of MS-CXR-T), or a split that all studies are
            in.
        workspace: where the phantom source writes its pictures; other sources write nothing.
        labels: tables elsewhere than where the source looks for them; for MIMIC's two sets and ``folder``;
            for MS-CXR-T the folder of MIMIC-CXR-JPG.
        reports: read the studies' reports too, where the set has any.

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
    return _open(name, path, labels, reports)


def open_copy(spec: str) -> Shipped:
    """Open a user's copy of a data set, to compare it with what its owners ship.

    Raises:
        RequestError: as for ``open_source``; the phantom source is nobody's copy.
    """
    name, _, path = spec.partition(":")
    if name == "phantom":
        raise RequestError("The phantom source is drawn, not copied: there is nothing to check.")
    return _open(name, path, None, reports=False)


def _open(name: str, path: str, labels: Path | None, reports: bool) -> Shipped:
    known = _SETS.get(name)
    if known is None:
        raise RequestError(f"There is no source {name!r}: choose one of {', '.join(NAMES)}.")
    if not path:
        raise RequestError(f"The source {name} needs a path, {name}:PATH, to {known.path}.")
    if labels is not None and not known.labels:
        raise RequestError(f"The source {name} brings its own labels: leave --labels out.")
    options: dict[str, Any] = {"labels": labels} if known.labels else {}
    options |= {"reports": reports} if known.reports else {}
    opened: Callable[..., Shipped] = known.load()
    return opened(Path(path).expanduser().resolve(), **options)


def listing() -> list[dict[str, Any]]:
    """Every data set that can be read: how to name it, its terms, what it is, where to get it, how much it is."""
    from cxr_max.builders.sources.phantom import INFO

    entries = [_entry("phantom[:SEED]", INFO)]
    entries += [_entry(f"{name}:PATH", known.load().info) for name, known in _SETS.items() if name != "folder"]
    folder = SourceInfo(
        "folder", "JPEG, PNG, TIFF or DICOM files, and a table if there is one", "open", "other", ""
    )
    return [*entries, {**_entry("folder:PATH", folder), "data_use": "by licence", "licence": "by licence"}]


def _entry(spec: str, info: SourceInfo) -> dict[str, Any]:
    return {
        "spec": spec,
        "data_use": info.data_use,
        "title": info.title,
        "licence": info.licence,
        "home": info.home,
        "download": list(info.download),
        "expected": dict(info.expected),
        "overlaps": list(info.overlaps),
    }


def info_of(name: str) -> SourceInfo | None:
    """What is known of a data set without a copy of it; ``None`` of a folder, and of a set that is unknown."""
    from cxr_max.builders.sources.phantom import INFO

    if name == "phantom":
        return INFO
    info: SourceInfo | None = _SETS[name].load().info if name in _SETS and name != "folder" else None
    return info


def canonical(spec: str) -> str:
    """``spec`` with its path made absolute, so that it means the same from every folder."""
    name, _, path = spec.partition(":")
    return f"{name}:{Path(path).expanduser().resolve()}" if path and name != "phantom" else spec


def _phantom(text: str) -> tuple[int, dict[str, Any]]:
    """``7,112px,test`` -> seed and options."""
    from cxr_max.builders.sources.phantom import Population

    first, *others = text.split(",")
    options: dict[str, Any] = {}
    population = Population()
    for option in others:
        if option.endswith("px") and option[:-2].isdecimal():
            options["size"] = int(option[:-2])
        elif option == "shifted":
            population = replace(population, shifted=True)
        elif option.endswith("%") and option[:-1].isdecimal():
            population = replace(population, percent=int(option[:-1]))
        elif option in SPLITS:
            options["split"] = option
        else:
            raise RequestError(
                f"The phantom source does not know {option!r}: its options are 128px (or another size), shifted,"
                f" 25% (or another share), {', '.join(SPLITS)}."
            )
    try:
        return int(first or "0"), {**options, "population": population}
    except ValueError:
        raise RequestError(f"The phantom source takes a seed, phantom:7 for instance, not {first!r}.") from None
