"""A release and its pixels -> what the student learns from."""

from pathlib import Path

from cxr_max import prompts
from cxr_max.builders.consensus import groups_of
from cxr_max.builders.pixels import Pixels
from cxr_max.builders.release import read_manifest
from cxr_max.errors import RequestError
from cxr_max.records import Trajectory
from cxr_max.schemas import read_preferences, read_trajectories
from cxr_max.student.data import Lesson

_SPLIT = "train"


def sft_lessons(release: Path, pixels: Pixels, *, refusals: bool = False) -> list[Lesson]:
    """All whole trajectories of the train split, image set by image set.

    Args:
        refusals: keep what refuses, too.

    Raises:
        RequestError: the release is not sealed, or holds nothing to learn from.
        ImageError: an image set is not in the copy.
    """
    read_manifest(release)
    kept = {"ok", "refused"} if refusals else {"ok"}
    lessons = []
    for group in groups_of(read_trajectories(release, _SPLIT)):
        whole = [row for row in group if row.status in kept and row.text.strip()]
        if whole:
            texts = tuple(row.text for row in whole)
            teachers = tuple(row.teacher for row in whole)
            lessons.append(_lesson(group[0], pixels, texts, teachers))
    if not lessons:
        raise RequestError(f"{release} has no whole trajectory in its train split: build one with more studies.")
    return lessons


def apo_lessons(release: Path, pixels: Pixels, *, negatives: int = 1) -> list[Lesson]:
    """All preferences of the train split.

    Args:
        negatives: fewest dispreferred replies.

    Raises:
        RequestError: the release has no preferences, or too few teachers for one.
        ImageError: an image set is not in the copy.
    """
    manifest = read_manifest(release)
    if "preferences" not in manifest["derived"]:
        raise RequestError(f"{release} has no preferences yet: run cxr-max consensus on it first.")
    first = {
        (group[0].study_id, group[0].image_sha256, group[0].prompt_sha256): group[0]
        for group in groups_of(read_trajectories(release, _SPLIT))
    }
    lessons = []
    for row in read_preferences(release, _SPLIT):
        about = first.get((row.study_id, row.image_sha256, row.prompt_sha256))
        if about is not None and len(row.rejected) >= negatives:
            replies = (row.chosen, *row.rejected)
            teachers = ("consensus", *row.rejected_teachers)
            lessons.append(_lesson(about, pixels, replies, teachers, (True, *row.agreeing)))
    if not lessons:
        raise RequestError(f"{release} has no preference with {negatives} dispreferred reply: use more teachers.")
    return lessons


def _lesson(
    about: Trajectory,
    pixels: Pixels,
    replies: tuple[str, ...],
    teachers: tuple[str, ...],
    agreeing: tuple[bool, ...] = (),
) -> Lesson:
    prompt = prompts.load(about.prompt_name)
    if prompt.sha256 != about.prompt_sha256:
        raise RequestError(
            f"The release was asked prompt {about.prompt_name} version {about.prompt_version}, which this cxr-max"
            " no longer has: train with the version that built it."
        )
    text = prompt.fill(pixels.study(about))
    if text is None:
        raise RequestError(f"Study {about.study_id} lacks what its prompt gives away: give the labels it had.")
    return Lesson(about.study_id, pixels.image_set(about), text, replies, teachers, agreeing)
