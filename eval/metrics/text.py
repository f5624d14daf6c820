"""Report generation: n-gram overlap with one reference report each, finding-level F1, and the floors beside them.

A BLEU without its convention means little: two reports of different patients share most of their words. Each score
here therefore has its convention as a constant, to be printed with it, and two floors: reports shuffled among
patients, and one constant report. Reports are (n,) texts of the model and of the reference, paired by position.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.classification import binary, micro_f1
from cxr_max.eval.metrics.measured import Additive, Floats, everyone, mean_of
from cxr_max.findings import FINDINGS, Findings

BLEU_CONVENTION: Final = (
    "corpus level, one reference, lower case, sacrebleu's tokenizer 13a, orders 1 to N weighted alike, brevity"
    " penalty, no smoothing; 0 to 1"
)
ROUGE_L_CONVENTION: Final = (
    "F1 of the longest common subsequence, the whole report as one sequence, mean over reports; rouge-score's"
    " tokens: lower case, letters a to z and digits, no stemming; 0 to 1"
)
CIDER_CONVENTION: Final = (
    "CIDEr-D: orders 1 to 4 weighted alike, counts clipped, length penalty with sigma 6, document frequencies"
    " of this test set's references, one reference, no stemming, rouge-score's tokens; mean over reports; 0 to 10"
)
FINDING_F1_CONVENTION: Final = (
    "F1 of positive findings read from the text, counts of the 14 findings together (micro); reference not"
    " mentioned is negative, uncertain is left out; prediction uncertain or not mentioned is no claim"
)
CONSTANT_REPORT: Final = (
    "The heart is normal in size. The mediastinal contours are unremarkable. The lungs are clear. There is no"
    " pleural effusion or pneumothorax. No acute osseous abnormality."
)
"""What a model that never looks would write: the second floor."""
ORDERS: Final = 4
_SIGMA: Final = 6.0
_NOT_A_TOKEN: Final = re.compile(r"[^a-z0-9]+")
_Ngrams = Counter[tuple[str, ...]]
_Scores = TypeVar("_Scores")


def bleu(reports: Sequence[str], references: Sequence[str]) -> tuple[Additive, ...]:
    """BLEU-1 to BLEU-4 (Papineni et al. 2002), by ``BLEU_CONVENTION``.

    BLEU-N is BP exp(mean over n of log(matched_n / written_n)), BP = exp(min(0, 1 - reference length / length)).

    Raises:
        RequestError: the numbers of reports differ.
    """
    _paired(reports, references)
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer: Callable[[str], str] = Tokenizer13a()  # type: ignore[no-untyped-call]
    rows = [
        _matches(tokenizer(report.lower()).split(), tokenizer(reference.lower()).split())
        for report, reference in zip(reports, references, strict=True)
    ]
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), 2 * ORDERS + 2)
    every = (everyone(len(rows)),)
    return tuple(
        Additive(columns, partial(_bleu, order=order), "the references are empty", every, "smooth")
        for order in range(1, ORDERS + 1)
    )


def rouge_l(reports: Sequence[str], references: Sequence[str]) -> Additive:
    """ROUGE-L (Lin 2004), by ``ROUGE_L_CONVENTION``."""
    _paired(reports, references)
    return mean_of([_lcs_f1(tokens(a), tokens(b)) for a, b in zip(reports, references, strict=True)])


def cider(reports: Sequence[str], references: Sequence[str]) -> Additive:
    """CIDEr-D (Vedantam et al. 2015), by ``CIDER_CONVENTION``. Resampling keeps the document frequencies."""
    _paired(reports, references)
    seen = Counter(gram for reference in references for grams in _ngrams(tokens(reference)) for gram in grams)
    documents = math.log(max(len(references), 1))
    rarity = {gram: documents - math.log(count) for gram, count in seen.items()}
    scores = [
        _cider(_ngrams(tokens(report)), _ngrams(tokens(reference)), rarity, documents)
        for report, reference in zip(reports, references, strict=True)
    ]
    return mean_of(scores, bounds=(0.0, 10.0))


def finding_f1(references: Sequence[Findings], predictions: Sequence[Findings | None]) -> Additive:
    """Micro F1 over the 14 findings that a labeler read, by ``FINDING_F1_CONVENTION``."""
    pairs, kept = [], []
    for finding in FINDINGS:
        found = binary(references, predictions, finding)
        full = np.zeros((3, len(references)), dtype=np.bool_)
        full[:, found.rows] = found.reference, found.claim, np.ones(len(found.rows), dtype=np.bool_)
        pairs.append((full[0], full[1]))
        kept.append(full[2])
    return micro_f1(pairs, kept)


def shuffled(references: Sequence[str], subjects: Sequence[str], seed: int) -> list[str]:
    """The first floor: for each study a real report of another subject, each report used once.

    The subjects are put in random order, their reports with them, and the ring of reports is turned by the largest
    number of reports of one subject, so that nobody gets a report of their own.

    Raises:
        RequestError: one subject has more than half of the reports, so that some would keep their own.
    """
    _paired(references, subjects)
    if not references:
        return []
    names, subject = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    turn = int(np.bincount(subject).max())
    if 2 * turn > len(references):
        raise RequestError("one subject has more than half of the reports: shuffle a set with more subjects")
    rng = np.random.default_rng(seed)
    ring = np.lexsort((rng.random(len(subject)), rng.permutation(len(names))[subject]))
    given = np.empty(len(ring), dtype=np.int64)
    given[ring] = np.roll(ring, turn)
    return [references[index] for index in given.tolist()]


def floors(
    score: Callable[[Sequence[str], Sequence[str]], _Scores],
    references: Sequence[str],
    subjects: Sequence[str],
    seed: int,
) -> dict[str, _Scores]:
    """What a score gives to reports that no image was looked at for."""
    return {
        "shuffled": score(shuffled(references, subjects, seed), references),
        "constant": score([CONSTANT_REPORT] * len(references), references),
    }


def tokens(text: str) -> list[str]:
    """rouge-score's: lower case, split at everything that is not a to z or a digit."""
    return [token for token in _NOT_A_TOKEN.split(text.lower()) if token]


def _paired(first: Sequence[str], second: Sequence[str]) -> None:
    if len(first) != len(second):
        raise RequestError(f"{len(first)} and {len(second)} texts cannot be paired: give one for each row")


def _ngrams(words: Sequence[str]) -> list[_Ngrams]:
    return [Counter(zip(*(words[start:] for start in range(n)), strict=False)) for n in range(1, ORDERS + 1)]


def _matches(words: Sequence[str], truth: Sequence[str]) -> list[int]:
    """Matched and written n-grams of each order, and both lengths."""
    pairs = list(zip(_ngrams(words), _ngrams(truth), strict=True))
    matched = [(ours & theirs).total() for ours, theirs in pairs]
    return [*matched, *(ours.total() for ours, _ in pairs), len(words), len(truth)]


def _bleu(sums: Floats, order: int) -> Floats:
    matched, written = sums[:, :order], sums[:, ORDERS : ORDERS + order]
    words, truth = sums[:, -2], sums[:, -1]
    some = (matched > 0).all(axis=1)
    precision = np.divide(matched, written, out=np.ones_like(matched), where=matched > 0)
    brevity = np.minimum(0, 1 - np.divide(truth, words, out=np.ones_like(truth), where=words > 0))
    score = np.where(some, np.exp(np.log(precision).mean(axis=1) + brevity), 0.0)
    return np.where(truth > 0, score, np.nan)


def _lcs_f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    common = _longest_common_subsequence(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, one machine word of positions at a time (Hyyrö 2004): about ten times the table's speed."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(first) - row.bit_count()


def _cider(
    ours: Sequence[_Ngrams], theirs: Sequence[_Ngrams], rarity: Mapping[tuple[str, ...], float], unseen: float
) -> float:
    """10 exp(-(difference in tokens)^2 / (2 sigma^2)) times the mean over orders of the clipped tf-idf cosine."""
    similarity = 0.0
    for written, truth in zip(ours, theirs, strict=True):
        left = {gram: count * rarity.get(gram, unseen) for gram, count in written.items()}
        right = {gram: count * rarity[gram] for gram, count in truth.items()}
        norm = math.sqrt(sum(v * v for v in left.values())) * math.sqrt(sum(v * v for v in right.values()))
        if norm > 0:
            similarity += (
                sum(min(value, right.get(gram, 0.0)) * right.get(gram, 0.0) for gram, value in left.items()) / norm
            )
    apart = ours[0].total() - theirs[0].total()
    return 10 * math.exp(-(apart**2) / (2 * _SIGMA**2)) * similarity / len(ours)
