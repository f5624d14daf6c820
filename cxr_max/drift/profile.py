"""A trajectory against the report: precise and terse, or wordy with a high recall.

Value coding: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned.
"""

from dataclasses import dataclass

from cxr_max.findings import FINDINGS, Findings, positives


@dataclass(frozen=True, slots=True)
class Profile:
    """Three shares of findings, 0 to 1; ``None`` where the share would be of nothing."""

    precision: float | None
    """Of the trajectory's present findings, those present in the report; ``None`` if it claims none."""
    recall: float | None
    """Of the report's present findings, those the trajectory claims; ``None`` if the report has none."""
    similarity: float | None
    """Jaccard index of the two sets of present findings; ``None`` if both are empty."""


def profile(claimed: Findings, reported: Findings) -> Profile:
    """Precision |C & R| / |C|, recall |C & R| / |R| and similarity |C & R| / |C | R| of present findings.

    C is what the trajectory calls present and R what the report does. A finding on which the report is uncertain
    is left out of all three; one the report does not mention counts as not present, and so does one the
    trajectory is uncertain about. No Finding is a claim like any other: a normal report bears it out.

    Source: the paper (arXiv 2510.04142) charts each teacher by precision, recall and similarity against the
    report, and does not say what similarity is. The printed values lie between the Jaccard index and the F1
    score that the printed precision and recall would give. Jaccard is chosen here: a metric's complement, and
    never above either of the two others.
    """
    counted = {name for name in FINDINGS if reported.get(name) != -1}
    ours, theirs = set(positives(claimed)) & counted, set(positives(reported))
    return Profile(
        _ratio(len(ours & theirs), len(ours)),
        _ratio(len(ours & theirs), len(theirs)),
        _ratio(len(ours & theirs), len(ours | theirs)),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
