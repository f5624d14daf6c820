"""A suite over one model's data -> its scores. Pure: the same predictions and reference give the same numbers."""

from collections.abc import Callable, Iterator
from typing import Final

from cxr_max.eval.answers import Data
from cxr_max.eval.scored import Scored
from cxr_max.eval.suite import Suite, Task
from cxr_max.eval.tasks.consistency import consistency
from cxr_max.eval.tasks.generalization import generalization
from cxr_max.eval.tasks.progression import presence_top1, progression
from cxr_max.eval.tasks.report import report
from cxr_max.eval.tasks.robustness import robustness

TASKS: Final[dict[Task, Callable[[Data, Suite], Iterator[Scored]]]] = {
    "consistency": consistency,
    "robustness": robustness,
    "generalization": generalization,
    "report": report,
    "progression": progression,
    "presence_top1": presence_top1,
}


def tasks_of(suite: Suite) -> tuple[Task, ...]:
    """Those that the suite has settings for."""
    return tuple(name for name in TASKS if getattr(suite, name) is not None)


def score_all(data: Data, suite: Suite) -> Iterator[tuple[Task, Scored]]:
    """Every number of the suite, task by task; none where no image set of the suite's split is there."""
    if not any(row.split == suite.split for row in data.reference.rows):
        return
    asked = data.only(suite.wanted())
    for task in tasks_of(suite):
        for scored in TASKS[task](asked, suite):
            yield task, scored
