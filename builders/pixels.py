"""A release has no pixels: here its rows find their studies and image files again, in a copy of the data set."""

import tomllib
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from cxr_max.builders.release import read_manifest
from cxr_max.builders.sources.registry import open_source
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_set import ImageSet
from cxr_max.radiograph import EncodedImage
from cxr_max.records import SPLITS, Asked, Study, Trajectory
from cxr_max.schemas import read_questions

_ENDLESS = 20
"""Where a source never ends, so many times the wanted studies are looked through."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The studies of a release, by their identifiers."""

    studies: dict[str, Study]
    _workspace: "TemporaryDirectory[str] | None" = field(default=None, repr=False)
    """Kept as long as this lives: pictures that the phantom source draws for a release without a run."""

    def image_set(self, trajectory: Trajectory | Asked) -> ImageSet:
        """The files that a trajectory is about.

        Raises:
            ImageError: the study or one of its images is not in the copy.
        """
        study = self.study(trajectory)
        paths = {image.image_id: image.path for image in study.radiographs}
        missing = [image_id for image_id in trajectory.image_ids if image_id not in paths]
        if missing:
            raise ImageError(f"Study {study.study_id} has no image {missing[0]} in the copy that --images names.")
        found = tuple(paths[image_id] for image_id in trajectory.image_ids)
        return ImageSet(found, trajectory.source_sha256, trajectory.rendering)

    def encoded(self, trajectory: Trajectory | Asked) -> tuple[EncodedImage, ...]:
        """What the teacher was sent, rendered again.

        Raises:
            ImageError: see ``ImageSet.encoded`` and ``image_set``.
        """
        return self.image_set(trajectory).encoded()

    def study(self, trajectory: Trajectory | Asked) -> Study:
        """The study that a trajectory is about.

        Raises:
            ImageError: it is not in the copy.
        """
        try:
            return self.studies[trajectory.study_id]
        except KeyError:
            raise ImageError(
                f"Study {trajectory.study_id} is not in the copy that --images names: give the one it was"
                " built from."
            ) from None


def open_pixels(release: Path, images: str | None = None, *, reports: bool = False) -> Pixels:
    """Find the studies of a release.

    Args:
        images: a source, ``NAME[:PATH]``; left out, the one that the run's ``run.toml`` beside the release names.
        reports: read the studies' reports too.

    Raises:
        RequestError: no source is known, or it is another data set than the release's.
    """
    manifest = read_manifest(release)
    spec, labels = _source_of(release, images)
    beside = (release.parent / "run.toml").is_file()
    temporary = None if beside else TemporaryDirectory()
    workspace = release.parent if temporary is None else Path(temporary.name)
    source = open_source(spec, workspace=workspace, labels=labels, reports=reports)
    if source.info.name != manifest["source"]["name"]:
        raise RequestError(
            f"The release is of {manifest['source']['name']}, and --images names {source.info.name}: give its own"
            " source."
        )
    if source.info.data_use == "credentialed" != manifest["source"]["data_use"]:
        raise RequestError(
            f"The release says that its images are {manifest['source']['data_use']}, and those of {spec} are"
            f" {source.info.data_use}: give the copy that it was built from, or build it again."
        )
    wanted = {study for split in SPLITS for study, _, _ in read_questions(release, split)}
    looked = source.total if source.total is not None else _ENDLESS * len(wanted) + 100
    studies: dict[str, Study] = {}
    for study in islice(source.studies(), looked):
        if study.study_id in wanted:
            studies[study.study_id] = study
            if len(studies) == len(wanted):
                break
    return Pixels(studies, temporary)


def _source_of(release: Path, images: str | None) -> tuple[str, Path | None]:
    if images is not None:
        return images, None
    try:
        run = tomllib.loads((release.parent / "run.toml").read_text("utf-8"))
        return run["source"], Path(run["labels"]) if run.get("labels") else None
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(
            f"Nothing beside {release} says where its images are: give --images NAME[:PATH], the source that"
            " it was built from."
        ) from error
