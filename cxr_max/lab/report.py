"""The page: what was claimed, what came of it, and everything behind it. Self-contained; no script."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cxr_max.eval.bootstrap import CONVENTION, Estimate
from cxr_max.eval.html import environment
from cxr_max.lab.claims import AT_CHANCE, LEARNT, RULE, Claim, judge, learnt
from cxr_max.lab.gathered import COLUMNS, Gathered, course, gather, thinned
from cxr_max.lab.plan import stages, students
from cxr_max.lab.schedule import seconds
from cxr_max.lab.settings import ARMS, CONTROLS, FINDINGS_ASKED, POSITIVE, SINGLE, Settings
from cxr_max.lab.stages import folder
from cxr_max.shards import canonical_json, write_text

WIDTH: Final = 620
HEIGHT: Final = 240
MARGIN: Final = 44
INKS: Final = ("#1b5ea8", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#be185d")
"""Told apart by hue and lightness; every line is named in the legend too."""
_APOS: Final = ("dpo", "apo", "apo-anchor", "apo-shuffled", "noise-apo")
CURVES: Final = (
    ("SFT: loss per token", "nats", "loss", ("sft-one", "sft-all", "noise-sft", POSITIVE)),
    ("Preference: reward margin, preferred minus dispreferred", "nats", "reward_margin", _APOS),
    ("Preference: shift of the preferred text's log-probability", "nats", "chosen_logp_shift", _APOS),
)
EXAMPLES: Final = 2
_DRIFT: Final = ("consensus_agreement", "reasoning_agreement", "balanced_accuracy")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart, in pixels."""

    name: str
    ink: str
    points: str
    last: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A small picture of several trainings."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    low: float
    high: float
    steps: int
    zero: float | None
    """y of 0, where it lies inside."""


def write_report(out: Path, lab: Settings) -> list[Claim]:
    """Write ``report.html``, and ``claims.json`` for programs.

    Raises:
        RequestError: a result is not what it says it is, or Jinja2 is not installed.
    """
    gathered = gather(out, lab)
    claims = judge(gathered.accuracy, gathered.inherited)
    templates = environment("The page", package="cxr_max.lab")
    templates.filters |= {"number": number, "interval": interval}
    page = templates.get_template("report.html").render(
        lab=lab,
        gathered=gathered,
        columns=[title for title, *_ in COLUMNS],
        drift=[[metric for *_, metric in COLUMNS].index(name) for name in _DRIFT],
        claims=claims,
        rule=RULE,
        convention=CONVENTION.replace("2000", "1000").replace("2,000", "1,000"),
        charts=[chart(out, lab, *one) for one in CURVES],
        examples=_examples(out, gathered),
        profile=profile(out, lab),
        seen=_seen(out, lab),
        asked=FINDINGS_ASKED,
        arms=ARMS,
        controls=CONTROLS,
        single=SINGLE,
        students=students(lab),
        summary=summary(claims, gathered),
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
    )
    write_text(out / "claims.json", canonical_json([claim.as_json() for claim in claims]))
    write_text(out / "report.html", page)
    return claims


def summary(claims: Sequence[Claim], gathered: Gathered) -> list[str]:
    """What a reader should take away, in sentences that follow from the claims alone."""
    of_paper = [claim for claim in claims if not claim.sentence.startswith("Control")]
    counts = {v: sum(c.verdict == v for c in of_paper) for v in ("reproduced", "not reproduced", "undecided")}
    said = [
        f"{sum(counts.values())} claims: {counts['reproduced']} reproduced, {counts['not reproduced']} not"
        f" reproduced, {counts['undecided']} undecided."
    ]
    by_sentence = {claim.sentence: claim for claim in claims}
    main = by_sentence.get("APO with an anchor beats SFT")
    if main is not None:
        words = {
            "reproduced": "APO with an anchor is better than SFT in this world",
            "not reproduced": "APO with an anchor is not better than SFT in this world",
            "undecided": "whether APO with an anchor is better than SFT is undecided here",
        }.get(main.verdict, "there is no number for APO against SFT")
        said.append(f"{words[0].upper()}{words[1:]}: {main.numbers} balanced accuracy.")
    said.append(_positive(gathered))
    controls = [claim for claim in claims if claim.sentence.startswith("Control")]
    held = [claim for claim in controls if claim.verdict == "holds"]
    failed = [claim.sentence for claim in controls if claim.verdict == "fails"]
    if failed:
        said.append(
            f"A negative control FAILS ({'; '.join(failed)}): APO gains where nothing can be learnt, so no gain of"
            " it on this page can be believed."
        )
    elif controls and len(held) == len(controls):
        said.append("The negative controls hold: from noise and from other studies' consensus, APO gains nothing.")
    elif controls:
        said.append(
            f"{len(controls) - len(held)} of {len(controls)} negative controls decide nothing, and none fails."
        )
    vain = sum(claim.note == AT_CHANCE for claim in claims)
    if vain:
        said.append(
            f"In {vain} of the comparisons neither side is better than chance: answers that call (almost)"
            " everything absent cannot show who is better."
        )
    if gathered.lab.seeds == 1:
        said.append("One seed: the intervals are over patients only, and another seed may fall elsewhere.")
    return said


def _positive(gathered: Gathered) -> str:
    value = number(gathered.accuracy[POSITIVE, "test"].measured.value)
    if learnt(gathered.accuracy):
        return (
            f"The positive control holds: taught by a teacher that is always right, the student reaches {value}."
        )
    return (
        f"The positive control FAILS: taught by a teacher that is always right, the student reaches {value}, not"
        f" over {LEARNT}. These students cannot learn, and nothing on this page tells how well they were taught."
    )


def chart(out: Path, lab: Settings, title: str, unit: str, metric: str, arms: Sequence[str]) -> Chart:
    """The trainings of the first seed."""
    found = {arm: thinned(course(out, arm, 0), metric) for arm in arms}
    found = {arm: pairs for arm, pairs in found.items() if pairs}
    values = [y for pairs in found.values() for _, y in pairs] or [0.0, 1.0]
    low, high = min([*values, 0.0]), max([*values, 0.0])
    high = high if high > low else low + 1
    steps = max([x for pairs in found.values() for x, _ in pairs], default=1.0)

    def place(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * x / steps
        return f"{across:.1f},{_down(y, low, high):.1f}"

    lines = [
        Line(arm, ink, " ".join(place(*pair) for pair in pairs), pairs[-1][1])
        for (arm, pairs), ink in zip(found.items(), INKS, strict=False)
    ]
    zero = _down(0.0, low, high) if low < 0 else None
    return Chart(title, unit, tuple(lines), low, high, round(steps), zero)


def _down(y: float, low: float, high: float) -> float:
    return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / (high - low)


def profile(out: Path, lab: Settings) -> list[tuple[str, int, float]]:
    """Kind of stage, how many, and their seconds together."""
    kinds: dict[str, list[float]] = {}
    for stage in stages(lab):
        what, which, _ = stage.name.split(":")
        kinds.setdefault(f"{what} {which}" if what != "build" else what, []).append(seconds(out, stage))
    return [(kind, len(took), sum(took)) for kind, took in kinds.items()]


def _seen(out: Path, lab: Settings) -> Mapping[str, Any]:
    """By sign, AUROC and balanced accuracy of the eyes, and balanced accuracy of what is said under code names."""
    if lab.base != "tiny":
        return {}
    eyes, said = (
        json.loads((folder(out, what, "base", 0) / "seen.json").read_text("utf-8")) for what in ("eyes", "school")
    )
    return {name: {**one, "said": said[name]} for name, one in eyes.items()}


def _examples(out: Path, gathered: Gathered) -> list[dict[str, Any]]:
    """The first test studies by hash on which the students differ, with picture and texts."""
    told = {arm: _texts(gathered, arm) for arm in (SINGLE, "sft-all", "apo", "apo-anchor")}
    reference = gathered.verified["sft-all", "test", 0].data.of_split("test").reference
    examples: list[dict[str, Any]] = []
    for row in reference.rows:
        claims = {str(told[arm].get(row.key, ("", None))[1]) for arm in ("sft-all", "apo-anchor")}
        if len(claims) < 2 and len(reference.rows) - len(examples) > EXAMPLES:
            continue
        findings, sides = row.findings or {}, row.sides or {}
        truth = [
            f"{name}{f', {sides[name]}' if sides.get(name) else ''}"
            for name in FINDINGS_ASKED
            if findings[name] == 1
        ]
        examples.append({
            "study": row.study_id,
            "picture": _picture(out, row.study_id),
            "truth": truth,
            "texts": {arm: texts.get(row.key, ("no reply", None))[0] for arm, texts in told.items()},
        })  # fmt: skip
        if len(examples) == EXAMPLES:
            break
    return examples


def _texts(gathered: Gathered, who: str) -> dict[Any, tuple[str, Any]]:
    from cxr_max.eval.predictions import read_predictions

    table = read_predictions(gathered.verified[who, "test", 0].folder / "predictions.parquet")
    names = ("study_id", "image_ids", "condition", "text", "findings")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {
        (study, tuple(images)): (text or "(refused without a word)", findings)
        for study, images, condition, text, findings in rows
        if condition == "original"
    }


def _picture(out: Path, study: str) -> str:
    found = sorted((folder(out, "build", "test", 0) / "phantoms").rglob(f"{study}.png"))
    return base64.b64encode(found[0].read_bytes()).decode() if found else ""


def number(value: float | None, digits: int = 3) -> str:
    """For a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(found: Estimate | None) -> str:
    """The interval, or nothing where there is none."""
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{found.low:.2f} to {found.high:.2f}"
