"""A reply as it came -> how it counts, and what it claims: one reading for releases, submissions and suites."""

from cxr_max import labeler, progression
from cxr_max.answers import status_of
from cxr_max.labeler import Labels
from cxr_max.records import Ended, Status


def read_reply(
    text: str, ended: Ended, *, structured_answer: bool, given: tuple[str, ...] = ()
) -> tuple[Status, Labels | None]:
    """The status, and the labels of a reply that is whole and in the form that was asked for.

    Args:
        given: the findings that the prompt gave away, of which an echo is no finding.
    """
    status = status_of(text, ended, structured_answer=structured_answer)
    if status != "ok":
        return status, None
    labels = labeler.label(text, structured=structured_answer, given=given)
    return ("refused", None) if labels.refused else ("ok", labels)


def read_comparison(text: str, ended: Ended) -> Status:
    """The status of a reply about changes between two pictures: what it names is in one, the other or both, so
    that it claims no finding of either."""
    status = status_of(text, ended, structured_answer=False)
    if status != "ok":
        return status
    if progression.read(text) is not None:
        return "ok"
    return "refused" if labeler.label(text).refused else "unparsed"
