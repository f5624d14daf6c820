"""What the stages left on disk -> the numbers of the page. Every result is computed again from its predictions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from cxr_max.eval.bootstrap import Draws, Estimate, estimate, macro
from cxr_max.eval.conditions import ORIGINAL
from cxr_max.eval.metrics.classification import balanced_accuracy
from cxr_max.eval.result import result_in
from cxr_max.eval.scored import Part, Ruler, counted, pairs
from cxr_max.eval.tasks.robustness import voted
from cxr_max.eval.verify import Verified, verify
from cxr_max.findings import FINDINGS
from cxr_max.lab.claims import inheritance, over_seeds
from cxr_max.lab.plan import students
from cxr_max.lab.settings import FINDINGS_ASKED, Settings
from cxr_max.lab.stages import evaluated
from cxr_max.teachers.simulator.personas import PERSONAS

MEAN: Final = "teachers' mean"
BEST: Final = "best teacher"
VOTE: Final = "teachers' vote"
COLUMNS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("balanced accuracy", "test", "generalization", "balanced_accuracy"),
    ("balanced accuracy, other hospital", "shifted", "generalization", "balanced_accuracy"),
    ("gives no answer", "test", "generalization", "refusal_rate"),
    ("worth of the picture", "test", "consistency", "image_gain"),
    ("agrees with the vote", "test", "consistency", "consensus_agreement"),
    ("agrees with itself", "test", "consistency", "self_consistency"),
    ("mirror", "test", "consistency", "mirror_consistency"),
    ("text and answer agree", "test", "consistency", "reasoning_agreement"),
    ("loss on worse pictures", "test", "robustness", "mean_loss"),
)
"""Title, test, task and metric. Balanced accuracy is a mean over the findings that were asked about.

The harness's AUROC is left out: it asks for each finding as the first line of an answer, a place in which the tiny
student has never seen four of the five.
"""
_CONDITIONS: Final = {"mean_loss": "severity 3"}


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """All numbers of a lab."""

    lab: Settings
    verified: dict[tuple[str, str, int], Verified]
    accuracy: dict[tuple[str, str], Draws]
    """Balanced accuracy over the findings asked about, by who and where, over all seeds."""
    columns: dict[tuple[str, int], Draws | None]
    """By who and number of the column."""
    findings: dict[tuple[str, str], Draws]
    """Balanced accuracy on the test studies, by who and finding."""
    inherited: Draws | None
    best: str
    """The teacher that was best on the tuning studies."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Who stands in the table, in order."""
        return (*PERSONAS, MEAN, VOTE, *students(self.lab))

    def cell(self, who: str, column: int) -> Estimate | None:
        """A number with its interval."""
        drawn = self.columns.get((who, column))
        return None if drawn is None else estimate(drawn)

    def on(self, who: str, finding: str) -> Estimate:
        """Balanced accuracy on one finding, with its interval."""
        return estimate(self.findings[who, finding])


def gather(out: Path, lab: Settings) -> Gathered:
    """Read and verify every result.

    Raises:
        RequestError: one is not what it says it is.
    """
    verified = {}
    for who in (*PERSONAS, *students(lab)):
        for seed in range(1 if who in PERSONAS else lab.seeds):
            for where, place in evaluated(out, lab, who, seed).items():
                verified[who, where, seed] = verify(result_in(place))
    accuracy = {
        (who, where): over_seeds([balanced(one) for one in _seeds(verified, who, where)])
        for who, where, seed in verified
        if seed == 0
    }
    best = best_on_tuning(accuracy)
    for where in ("test", "shifted"):
        accuracy[MEAN, where] = macro([accuracy[name, where] for name in PERSONAS])
        accuracy[BEST, where] = accuracy[best, where]
        accuracy[VOTE, where] = balanced(verified[students(lab)[0], where, 0], vote=True)
    columns = {}
    for who in (*PERSONAS, *students(lab)):
        for number, column in enumerate(COLUMNS):
            columns[who, number] = _column(verified, who, column)
    columns |= {(name, 0): accuracy[name, "test"] for name in (MEAN, VOTE)}
    columns |= {(name, 1): accuracy[name, "shifted"] for name in (MEAN, VOTE)}
    findings = _by_finding(verified, lab)
    inherited = over_seeds([inheritance(one.data, 0, 1000) for one in _seeds(verified, "sft-all", "test")])
    return Gathered(lab, verified, accuracy, columns, findings, inherited, best)


def _by_finding(verified: dict[tuple[str, str, int], Verified], lab: Settings) -> dict[tuple[str, str], Draws]:
    found: dict[tuple[str, str], Draws] = {}

    def keep(who: str, several: Sequence[Sequence[Draws]]) -> None:
        for finding, draws in zip(FINDINGS_ASKED, zip(*several, strict=True), strict=True):
            found[who, finding] = over_seeds(draws)

    for who in (*PERSONAS, *students(lab)):
        keep(who, [balanced_by_finding(one) for one in _seeds(verified, who, "test")])
    for finding in FINDINGS_ASKED:
        found[MEAN, finding] = macro([found[name, finding] for name in PERSONAS])
    keep(VOTE, [balanced_by_finding(verified[students(lab)[0], "test", 0], vote=True)])
    return found


def best_on_tuning(accuracy: dict[tuple[str, str], Draws]) -> str:
    """The teacher with the highest balanced accuracy on the tuning studies."""
    return max(PERSONAS, key=lambda name: accuracy[name, "tune"].measured.value or 0.0)


def _seeds(verified: dict[tuple[str, str, int], Verified], who: str, where: str) -> Sequence[Verified]:
    return [one for (name, test, _), one in verified.items() if (name, test) == (who, where)]


def _drawn(one: Verified) -> Any:
    (drawn,) = one.drawn.values()
    return drawn


def _column(
    verified: dict[tuple[str, str, int], Verified], who: str, column: tuple[str, str, str, str]
) -> Draws | None:
    _, where, task, metric = column
    found = []
    for one in _seeds(verified, who, where):
        if metric == "balanced_accuracy":
            found.append(balanced(one))
        else:
            drawn = _drawn(one).get((task, metric, None, _CONDITIONS.get(metric), None))
            if drawn is None or drawn.measured.value is None:
                return None
            found.append(drawn)
    return over_seeds(found) if found else None


def balanced(one: Verified, *, vote: bool = False) -> Draws:
    """Balanced accuracy over the findings asked about: the mean of ``balanced_by_finding``."""
    return macro(balanced_by_finding(one, vote=vote))


def balanced_by_finding(one: Verified, *, vote: bool = False) -> list[Draws]:
    """Balanced accuracy on each finding asked about, of a model or of the vote of the release's teachers.

    Unlike the harness's, it counts every image set with a reply: one that refuses or cannot be read claims
    nothing. So a student that has unlearnt to answer falls to chance, in place of being scored on what it still
    answers.
    """
    suite = one.result.suites[0]
    data = one.data.of_split(suite.split)
    ruler = Ruler.of(data.reference, suite)
    answers = voted(list(data.peers.values())) if vote else data.under(ORIGINAL)

    def part(place: int) -> Part:
        found = pairs(data.reference, answers, place)
        metric = balanced_accuracy(found.reference, found.claim)
        return Part(metric, found.rows, counted(data.reference, answers, place))

    return [drawn for *_, drawn in ruler.drawn(part, [FINDINGS.index(name) for name in FINDINGS_ASKED])]


def course(out: Path, arm: str, seed: int) -> list[dict[str, float]]:
    """What a training logged, step by step."""
    lines = (out / "train" / f"{arm}-{seed}" / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def thinned(entries: Sequence[dict[str, float]], metric: str, points: int = 40) -> list[tuple[float, float]]:
    """Step and value, averaged to so many points at most."""
    pairs = [(entry["step"], entry[metric]) for entry in entries if metric in entry]
    width = max(1, -(-len(pairs) // points))
    blocks = [pairs[start : start + width] for start in range(0, len(pairs), width)]
    return [(fmean(x for x, _ in block), fmean(y for _, y in block)) for block in blocks]
