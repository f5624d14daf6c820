"""Judgements about a model, each from its scores alone: whoever has the scores comes to the same."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cxr_max.eval.board import Flag
from cxr_max.eval.suite import Suite
from cxr_max.records import Score

USES: Final = "uses the image"
ROBUST: Final = "robust"
UNSEEN: Final = "unseen test set"
_SEVERITY: Final = 3
_CHANCE: Final = 0.5


def flags(scores: Sequence[Score], suite: Suite, leaks: Mapping[str, Any]) -> tuple[Flag, ...]:
    """What can be judged from one suite's scores.

    Args:
        leaks: as ``result.json`` has them.
    """
    judged = []
    if suite.consistency is not None:
        judged.append(uses_the_image(scores))
    if suite.robustness is not None:
        judged.append(robust(scores, suite.robustness.largest_loss))
    return (*judged, unseen(leaks))


def uses_the_image(scores: Sequence[Score]) -> Flag:
    """No if its answers are worth no more than those about other patients, or are right about blank pictures."""
    gain, blank = _mean(scores, "image_gain"), _mean(scores, "blank_accuracy")
    if blank is not None and blank.low is not None and blank.trusted and blank.low > _CHANCE:
        return Flag(
            USES, "no", f"its answers about blank pictures are right more often than chance ({_said(blank)})"
        )
    if gain is None or gain.low is None or not gain.trusted:
        return Flag(USES, "not shown", f"the image gain has no trusted interval: {_why(gain)}")
    if gain.low <= 0:
        return Flag(
            USES, "no", f"another patient's picture would have given answers as good: image gain {_said(gain)}"
        )
    return Flag(USES, "yes", f"image gain {_said(gain)}")


def robust(scores: Sequence[Score], largest_loss: float) -> Flag:
    """Only of a model that is shown to use the image: whoever ignores it loses nothing on worse ones."""
    loss = _mean(scores, "mean_loss", f"severity {_SEVERITY}")
    base = _mean(scores, "balanced_accuracy", "original")
    if loss is None or loss.high is None or not loss.trusted:
        return Flag(ROBUST, "not shown", f"the loss at severity {_SEVERITY} has no trusted interval: {_why(loss)}")
    if base is None or base.low is None or not base.trusted or base.low <= _CHANCE:
        return Flag(ROBUST, "not shown", f"there is nothing to lose: balanced accuracy {_said(base)}")
    uses = uses_the_image(scores)
    if uses.verdict != "yes":
        return Flag(ROBUST, "not shown", f"it is not shown to use the image: {uses.reason}")
    verdict = f"mean loss at severity {_SEVERITY} {_said(loss)}, at most {largest_loss:g} allowed"
    return Flag(ROBUST, "yes" if loss.high <= largest_loss else "no", verdict)


def unseen(leaks: Mapping[str, Any]) -> Flag:
    """Whether the leak check found nothing."""
    if not leaks:
        return Flag(UNSEEN, "not shown", "nobody looked for leaks")
    leaked, studies = leaks["leaked"], leaks["studies"]
    looked = f"{leaks['images']} pictures compared with {leaks['training_images']} of the training release"
    if leaked:
        return Flag(UNSEEN, "no", f"{leaked} of {studies} studies are in the training release; {looked}")
    return Flag(UNSEEN, "yes", f"none of {studies} studies is in the training release; {looked}")


def _mean(scores: Sequence[Score], metric: str, condition: str | None = None) -> Score | None:
    """The mean over findings, of everybody."""
    wanted = (metric, condition, None, None)
    found = (one for one in scores if (one.metric, one.condition, one.finding, one.group) == wanted)
    return next(found, None)


def _said(score: Score | None) -> str:
    if score is None or score.value is None or score.low is None or score.high is None:
        return _why(score)
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _why(score: Score | None) -> str:
    if score is None:
        return "it was not measured"
    return score.reason or score.distrust or "no interval"
