"""Judgements about a model, each from its scores alone: whoever has the scores comes to the same."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cxr_max.eval.board import Flag
from cxr_max.eval.conditions import ORIGINAL
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
    worth, unseen_ = _interval(gain), _interval(blank)
    if unseen_ and unseen_[0] > _CHANCE:
        reason = f"its answers about blank pictures are right more often than chance ({_said(blank)})"
        return Flag(USES, "no", reason)
    if worth is None:
        return Flag(USES, "not shown", f"the image gain has no trusted interval: {_why(gain)}")
    if worth[0] <= 0:
        reason = f"another patient's picture would have given answers as good: image gain {_said(gain)}"
        return Flag(USES, "no", reason)
    if unseen_ is None and not _declined(blank):
        reason = f"image gain {_said(gain)}, but of blank pictures there is no trusted interval: {_why(blank)}"
        return Flag(USES, "not shown", reason)
    about = "refuses blank pictures" if _declined(blank) else f"accuracy on blank pictures {_said(blank)}"
    return Flag(USES, "yes", f"image gain {_said(gain)}, {about}")


def robust(scores: Sequence[Score], largest_loss: float) -> Flag:
    """Only of a model that is shown to use the image: whoever ignores it loses nothing on worse ones."""
    loss = _mean(scores, "mean_loss", f"severity {_SEVERITY}")
    base = _mean(scores, "balanced_accuracy", ORIGINAL)
    lost, had = _interval(loss), _interval(base)
    if lost is None:
        return Flag(ROBUST, "not shown", f"the loss at severity {_SEVERITY} has no trusted interval: {_why(loss)}")
    if had is None or had[0] <= _CHANCE:
        return Flag(ROBUST, "not shown", f"there is nothing to lose: balanced accuracy {_said(base)}")
    uses = uses_the_image(scores)
    if uses.verdict != "yes":
        return Flag(ROBUST, "not shown", f"it is not shown to use the image: {uses.reason}")
    refused = _refused_more(scores)
    if refused > largest_loss:
        reason = f"it refuses {refused:.1%} more at severity {_SEVERITY}; at most {largest_loss:.1%} allowed"
        return Flag(ROBUST, "no", reason)
    reason = f"mean loss at severity {_SEVERITY} {_said(loss)}; at most {largest_loss:g} allowed"
    held = lost[1] <= largest_loss or _nothing_changed(scores)
    return Flag(ROBUST, "yes" if held else "no", reason)


def _nothing_changed(scores: Sequence[Score]) -> bool:
    """No loss and no gain under any corruption of the severity, where an interval is as wide as it is cautious."""
    losses = [one.value for one in scores if one.metric == "loss" and _worse(one.condition)]
    return bool(losses) and all(loss == 0 for loss in losses)


def _worse(condition: str | None) -> bool:
    return condition is not None and condition.endswith(f"-{_SEVERITY}")


def _declined(blank: Score | None) -> bool:
    """Refusing is the best that can be said about a blank picture."""
    return blank is not None and blank.n_refused > blank.n_scored


def _refused_more(scores: Sequence[Score]) -> float:
    """The mean share of refusals over the corruptions of the severity, less that on the pictures as they are."""
    rates = {one.condition: one.value for one in scores if one.metric == "refusal_rate" and one.value is not None}
    worse = [rate for name, rate in rates.items() if _worse(name)]
    before = rates.get(ORIGINAL)
    return sum(worse) / len(worse) - before if worse and before is not None else 0.0


def unseen(leaks: Mapping[str, Any]) -> Flag:
    """Whether the leak check found nothing."""
    if not leaks:
        return Flag(UNSEEN, "not shown", "nobody looked for leaks")
    if not leaks["images"] or not leaks["training_images"]:
        return Flag(UNSEEN, "not shown", "there were no pictures of a training split to compare with")
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


def _interval(score: Score | None) -> tuple[float, float] | None:
    """If it is there and can be trusted."""
    if score is None or not score.trusted or score.low is None or score.high is None:
        return None
    return score.low, score.high


def _said(score: Score | None) -> str:
    if score is None or score.value is None or score.low is None or score.high is None:
        return _why(score)
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _why(score: Score | None) -> str:
    if score is None:
        return "it was not measured"
    return score.reason or score.distrust or "no interval"
