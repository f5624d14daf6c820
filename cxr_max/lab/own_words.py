"""Preferences whose preferred text is the student's own: what it would rather say than its teachers' vote.

In the paper the student writes the consensus, and what it has learnt from all studies together speaks in it. The
tiny student cannot read seven texts, so the lab's consensus is the vote, which knows one study at a time. Here the
student's own answer takes the vote's place, and the teachers who say something else are preferred less.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cxr_max.builders.consensus import groups_of, prefer
from cxr_max.consensus import takes_part, vote
from cxr_max.errors import RequestError
from cxr_max.records import Preference, Trajectory
from cxr_max.schemas import read_trajectories
from cxr_max.student.data import Lesson

_SPLIT: Final = "train"


def in_own_words(lessons: Sequence[Lesson], teachers: Path, own: Path) -> list[Lesson]:
    """The lessons for whose pictures the student gave an answer that can be read, with that as the preferred text.

    Args:
        lessons: preferences from the teachers' release.
        teachers: their release.
        own: the student's answers about the same studies, as a release.

    Raises:
        RequestError: there is no such answer.
    """
    answers = {answer.study_id: answer for answer in read_trajectories(own, _SPLIT) if takes_part(answer)}
    by_study = {
        one.study_id: one for one in own_preferences(groups_of(read_trajectories(teachers, _SPLIT)), answers)
    }
    found = [_taught(lesson, by_study[lesson.study_id]) for lesson in lessons if lesson.study_id in by_study]
    if not found:
        raise RequestError(
            "The student gave no answer about the training pictures that can be read and that a teacher"
            " contradicts: there is nothing to prefer."
        )
    return found


def own_preferences(
    groups: Iterable[Sequence[Trajectory]], answers: Mapping[str, Trajectory]
) -> Iterator[Preference]:
    """Each answer, by its study, against the teachers' texts; none where no teacher wrote anything else."""
    for group in groups:
        answer = answers.get(group[0].study_id)
        if answer is not None:
            preference = prefer(replace(vote([answer], quorum=1), text=answer.text), group)
            if preference is not None:
                yield preference


def _taught(lesson: Lesson, preference: Preference) -> Lesson:
    return replace(
        lesson,
        replies=(preference.chosen, *preference.rejected),
        teachers=("consensus", *preference.rejected_teachers),
        agreeing=(True, *preference.agreeing),
    )
