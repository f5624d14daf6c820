"""What every metric of a score file is: its formula, where it comes from, and which way is better.

Every number goes with one of these wherever it is shown. Per finding unless said otherwise; TP, FP, FN, TN count
claims against the reference.
"""

from dataclasses import dataclass
from typing import Final, Literal

from cxr_max.eval.metrics import text
from cxr_max.eval.metrics.calibration import ECE_CONVENTION
from cxr_max.eval.metrics.classification import NULL_RULES

VERSION: Final = 1
"""Raised when a definition changes: then every suite has another hash."""
Better = Literal["higher", "lower", "neither"]
RULES: Final = NULL_RULES
MEANS: Final = (
    "a score without a finding is a mean over findings: where there is a reference, over those that 15 patients or"
    " more have and as many do not, whatever the model does, and null where it has no value for one of them;"
    " elsewhere over those that 10 patients or more decide, or over all with a value where there are none"
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric."""

    title: str
    formula: str
    source: str
    better: Better = "higher"
    bounds: tuple[float, float] = (0.0, 1.0)


_OWN: Final = "defined here"
_USUAL: Final = "standard"
DEFINITIONS: Final[dict[str, Definition]] = {
    "accuracy": Definition("accuracy", "(TP + TN) / n, over the rows the model answered", _USUAL),
    "accuracy_refusals_wrong": Definition(
        "accuracy, refusals wrong", "(TP + TN) / n, over all rows; a reply without findings is wrong", _USUAL
    ),
    "balanced_accuracy": Definition("balanced accuracy", "(sensitivity + specificity) / 2", _USUAL),
    "sensitivity": Definition("sensitivity", "TP / (TP + FN)", _USUAL),
    "specificity": Definition("specificity", "TN / (TN + FP)", _USUAL),
    "precision": Definition("precision", "TP / (TP + FP)", _USUAL),
    "f1": Definition("F1", "2 TP / (2 TP + FP + FN); undefined where no reference is positive", _USUAL),
    "auroc": Definition(
        "AUROC", "the share of pairs of a positive and a negative that the score ranks rightly, ties half", _USUAL
    ),
    "average_precision": Definition(
        "AUPRC", "average precision: the sum over thresholds of precision times the rise in recall", _USUAL
    ),
    "sensitivity_at_specificity": Definition(
        "sensitivity at specificity",
        "the highest sensitivity of any threshold with at least the suite's specificity, on these very rows",
        _USUAL,
    ),
    "f1_at_threshold": Definition(
        "F1 at threshold", "F1 of score >= the threshold that was best on the validation split", _USUAL
    ),
    "brier": Definition("Brier score", "the mean of (probability - reference)^2", "Brier 1950", "lower"),
    "calibration_error": Definition("calibration error", ECE_CONVENTION, "Guo et al. 2017", "lower"),
    "refusal_rate": Definition(
        "refusals", "replies without findings / replies, of all image sets; no finding", _OWN, "lower"
    ),
    "alpha": Definition(
        "agreement with teachers",
        "Krippendorff's alpha, nominal, of the model and one teacher of the release, averaged over its teachers:"
        " absent, uncertain, present; not mentioned is no rating",
        "Krippendorff 2011",
        bounds=(-1.0, 1.0),
    ),
    "peer_agreement": Definition(
        "agreement with one teacher",
        "of the image sets on which both mention the finding, the share on which they say the same state; the"
        " condition names the teacher",
        _OWN,
    ),
    "consensus_agreement": Definition(
        "agreement with the vote",
        "of the image sets on which the other teachers' vote decides the finding and the model mentions it, the"
        " share on which it says what they say",
        _OWN,
    ),
    "side_agreement": Definition(
        "agreement on sides",
        "of the pairs of the model and a teacher that both claim the finding with a side, the share with one side",
        _OWN,
    ),
    "self_consistency": Definition(
        "self-consistency",
        "the probability that two samples of the same question say the same: present, absent, uncertain or"
        " nothing",
        _OWN,
    ),
    "flip_rate": Definition(
        "flips under paraphrase",
        "of the answers to the paraphrased prompts, the share unlike the original's (four states)",
        _OWN,
        "lower",
    ),
    "reasoning_agreement": Definition(
        "reasoning agrees with answer",
        "of the findings mentioned, the share whose structured answer is not contradicted by the text before it",
        _OWN,
    ),
    "mirror_consistency": Definition(
        "sides follow the mirror",
        "of the findings claimed with a side on the picture and on its mirror image, the share whose left became"
        " right, whose right left, and whose bilateral stayed",
        _OWN,
    ),
    "image_gain": Definition(
        "image gain",
        "balanced accuracy of the answers, less that of the answers about another patient's picture held against"
        " the same references: what the picture is worth; 0 where it is not looked at",
        _OWN,
        bounds=(-1.0, 1.0),
    ),
    "blank_accuracy": Definition(
        "accuracy on a blank picture",
        "balanced accuracy of the answers about a picture with nothing in it; 1/2 is all that can be had honestly",
        _OWN,
        "neither",
    ),
    **{
        f"quadrant_{name}": Definition(
            title,
            "share of the answers (image set and finding) that " + words + "; consistent: the same in all samples"
            " and paraphrases; uses the picture: other than on a blank picture or on another patient's",
            _OWN,
            "higher" if name == "consistent_uses" else "neither",
        )
        for name, title, words in (
            ("consistent_uses", "consistent, uses the picture", "are consistent and use the picture"),
            ("consistent_ignores", "consistent, ignores the picture", "are consistent and ignore the picture"),
            ("inconsistent_uses", "inconsistent, uses the picture", "are inconsistent and use the picture"),
            ("inconsistent_ignores", "inconsistent, ignores it", "are inconsistent and ignore the picture"),
        )
    },
    "loss": Definition(
        "loss",
        "balanced accuracy on the pictures as they are, less that on the same pictures made worse; paired",
        _OWN,
        "lower",
        (-1.0, 1.0),
    ),
    "relative_degradation": Definition(
        "relative degradation",
        "loss / (balanced accuracy on the pictures as they are - 1/2): the share of what it can do that is lost",
        _OWN,
        "lower",
        (-10.0, 10.0),
    ),
    "mean_loss": Definition(
        "mean loss", "loss, averaged over the corruptions at one severity", _OWN, "lower", (-1.0, 1.0)
    ),
    "worst_group": Definition(
        "worst group", "the lowest balanced accuracy of any group of view, sex or age that can be trusted", _OWN
    ),
    "verdicts_moved": Definition(
        "verdicts moved",
        "of the vote's verdicts (image set and finding), the share that changes when a teacher is left out, gives"
        " another patient's answers, or claims the opposite of the truth; the condition names it",
        _OWN,
        "lower",
    ),
    "vote_accuracy": Definition(
        "balanced accuracy of the vote", "of the vote of all teachers, or of those that the condition leaves", _OWN
    ),
    **{
        f"bleu_{order}": Definition(f"BLEU-{order}", text.BLEU_CONVENTION, "Papineni et al. 2002")
        for order in range(1, text.ORDERS + 1)
    },
    "rouge_l": Definition("ROUGE-L", text.ROUGE_L_CONVENTION, "Lin 2004"),
    "cider": Definition("CIDEr-D", text.CIDER_CONVENTION, "Vedantam et al. 2015", bounds=(0.0, 10.0)),
    "progression_macro_accuracy": Definition(
        "macro accuracy of progression",
        "the mean over improving, stable and worsening of the share of pairs with that label that are said to be"
        " it; a finding that the answer leaves out is wrong; means are over the five findings of MS-CXR-T",
        "Bannur et al. 2023",
    ),
    "progression_accuracy": Definition(
        "accuracy of progression",
        "the share of pairs whose label is said, of three; a finding that the answer leaves out is wrong; means"
        " are over the five findings of MS-CXR-T",
        _USUAL,
    ),
    "progression_accuracy_refusals_wrong": Definition(
        "accuracy of progression, refusals wrong",
        "the same over all pairs; a reply without an answer is wrong",
        _USUAL,
    ),
    "top1_accuracy": Definition(
        "top-1 accuracy of presence",
        "(TP + TN) / n of presence on the later picture alone, over the rows the model answered; means are over"
        " the five findings of MS-CXR-T",
        "arXiv 2510.04142, which leaves classes and reference open",
    ),
    "finding_f1": Definition("F1 of findings in reports", text.FINDING_F1_CONVENTION, _OWN),
}
