"""The types that flow through every stage, one way: Study -> Trajectory -> Preference -> Score.

Frozen dataclasses of the standard library; their fields are the contract.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, get_args

from cxr_max.findings import Findings, Sides

Split = Literal["train", "validation", "test"]
View = Literal["PA", "AP", "LATERAL", "LL", "other", "unknown"]
Given = Literal["nothing", "findings", "report", "trajectories"]
Status = Literal["ok", "refused", "truncated", "filtered", "unparsed"]
DataUse = Literal["open", "registration", "credentialed"]
Place = Literal["local", "remote"]
Ended = Literal["stop", "length", "filtered", "refused"]
PredictionStatus = Literal["ok", "refused", "truncated", "filtered", "unparsed", "failed"]
"""Those of a trajectory, and ``failed``: there is no reply, which no score may hold against the model."""

PREDICTION_STATUSES: Final[tuple[PredictionStatus, ...]] = get_args(PredictionStatus)
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
STATUSES: Final[tuple[Status, ...]] = ("ok", "refused", "truncated", "filtered", "unparsed")
FRONTAL: Final[frozenset[View]] = frozenset({"PA", "AP"})


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One image file of a study. What only the file's header knows is ``None`` until it is read."""

    image_id: str
    """SOP Instance UID, or the data set's own identifier of the image."""
    path: Path
    view: View = "unknown"
    photometric_interpretation: str | None = None
    rows: int | None = None
    columns: int | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    """Row and column spacing in mm at the detector (DICOM PS3.3 C.8.11.4, Imager Pixel Spacing)."""
    prior: bool = False
    """Of an earlier examination, for comparison: what the study says holds of the other images."""


@dataclass(frozen=True, slots=True)
class Study:
    """One examination of one patient: the unit that sources yield."""

    study_id: str
    subject_id: str
    source: str
    split: Split | None
    radiographs: tuple[Radiograph, ...]
    """In time, then view order (frontal first); an earlier examination's come first."""
    acquired_at: datetime | None = None
    reference_findings: Findings | None = None
    """All 14 findings, coded 1 / 0 / -1 / None; ``None`` where the source has no labels for the study."""
    reference_sides: Sides | None = None
    other_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that do not map to the 14 findings, under the data set's own names."""
    report: str | None = None
    sex: str | None = None
    """``M`` or ``F``."""
    age: float | None = None
    """Years."""
    difficulty: float | None = None
    """0 (plain) to 1 (barely visible), uniform over a population; known for generated images only."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a teacher samples. ``None`` leaves the choice to the service, and says so."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int = 1024
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One request to one teacher, and the row of the release that its reply becomes."""

    study_id: str
    subject_id: str
    source: str
    split: Split | None
    image_ids: tuple[str, ...]
    source_sha256: tuple[str, ...]
    """Of each image's file as the data set ships it."""
    rendering: str
    """Its name, version and long side in pixels: ``mimic_jpg-1@1024``, ``as_is-1@1024``."""
    teacher: str
    provider: str
    model: str
    prompt_name: str
    prompt_version: str
    prompt_sha256: str
    """Of the template's text."""
    prompt_given: Given
    structured_answer: bool
    sampling: Sampling
    sample_index: int
    request_sha256: str
    """What is asked once is never bought twice: see ``ledger.request_key``."""
    given_findings: tuple[str, ...] = ()
    """The diagnoses that the prompt gave away."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service's headers say of its rate limits; ``None`` where they say nothing."""

    requests: int | None = None
    """Allowed in the service's window."""
    requests_left: int | None = None
    requests_reset_s: float | None = None
    """Seconds until all of them are left again."""
    tokens: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a teacher answered. A transport failure is never a reply."""

    text: str
    reasoning: str | None
    ended: Ended
    """Why the text ends, in one vocabulary for all services."""
    finish_reason: str | None
    """The same as the service words it."""
    model_reported: str | None
    input_tokens: int | None
    output_tokens: int | None
    request_id: str | None
    """The service's own identifier of the request, for its support desk."""
    raw: str
    """The body as received."""
    limits: Limits | None = None
    """What came with it for the one who paces; kept nowhere."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One reply of one teacher to one prompt about one image set: a row of the release.

    A prediction of a student is one too, so that everything is scored on the same ruler.
    """

    trajectory_id: str
    study_id: str
    subject_id: str
    source: str
    split: Split | None
    image_ids: tuple[str, ...]
    source_sha256: tuple[str, ...]
    image_sha256: tuple[str, ...]
    """Of the bytes the teacher was sent, one per image."""
    rendering: str
    teacher: str
    provider: str
    model: str
    model_reported: str | None
    """What the service says answered."""
    prompt_name: str
    prompt_version: str
    prompt_sha256: str
    prompt_given: Given
    sampling: Sampling
    sample_index: int
    status: Status
    finish_reason: str | None
    text: str
    reasoning: str | None
    findings: Findings | None
    """``None`` where nothing read the text for findings."""
    sides: Sides | None
    labeler: str | None
    """Name and version of what filled ``findings``."""
    contradictions: tuple[str, ...]
    """Findings of which the structured answer says another state than the text before it."""
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    """``None`` where the price is unknown."""
    latency_s: float
    created_at: datetime
    request_sha256: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What every trajectory about one image set has in common: the images, without what was said about them."""

    study_id: str
    subject_id: str
    source: str
    split: Split | None
    image_ids: tuple[str, ...]
    source_sha256: tuple[str, ...]
    image_sha256: tuple[str, ...]
    rendering: str


@dataclass(frozen=True, slots=True)
class Consensus:
    """What several teachers say together about one image set, asked one prompt."""

    study_id: str
    image_sha256: tuple[str, ...]
    prompt_sha256: str
    findings: Findings
    """All 14 findings, coded 1 / 0 / -1 / ``None``."""
    sides: Sides
    support: Mapping[str, tuple[float, int]]
    """Per finding: how many teachers say what the consensus says, and how many say anything about it. A teacher
    with several samples may be split, hence the fractions."""
    abstained: tuple[str, ...]
    """Teachers that were asked and took no part: refused, truncated, filtered or unparsed."""
    method: str
    """What made it, with its version and settings."""
    text: str | None
    """The consensus in words; ``None`` where only findings were combined."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One preferred text against several dispreferred ones, about one image set."""

    study_id: str
    image_sha256: tuple[str, ...]
    prompt_sha256: str
    chosen: str
    rejected: tuple[str, ...]
    rejected_teachers: tuple[str, ...]
    """Who wrote each rejected text."""
    conflicts: tuple[float | None, ...]
    """Each rejected text's conflict with the consensus, 0 to 1; ``None`` where nothing is comparable."""
    agreeing: tuple[bool, ...]
    """Whether each rejected text claims exactly what the consensus claims: such a text is no negative. A conflict
    of 0 does not say so, since it counts opposed findings only."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model says about one image set under one condition: a row of a submission."""

    study_id: str
    image_ids: tuple[str, ...]
    condition: str
    """What was changed about picture or question; ``original`` where nothing was (see ``eval.conditions``)."""
    status: PredictionStatus
    findings: Findings | None
    """``None`` unless the status is ok."""
    sides: Sides | None
    scores: Mapping[str, float | None] | None
    """Per finding the probability that it is present, 0 to 1; ``None`` where the model gives none."""
    contradictions: tuple[str, ...] | None
    """Findings of which the structured answer says another state than the text before it; ``None`` where nothing
    compared them."""
    text: str | None


@dataclass(frozen=True, slots=True)
class Score:
    """One number about one model, with its 95% interval; or the reason why there is none."""

    model: str
    dataset: str
    task: str
    metric: str
    """A name of ``eval.definitions``, which says what it is."""
    finding: str | None
    """``None`` where the number is about all findings together."""
    condition: str | None
    """Picture or question changed, or teacher left out or replaced; ``None`` where nothing was."""
    group: str | None
    """Whom it is about, as ``sex F``; ``None`` for everybody."""
    value: float | None
    low: float | None
    high: float | None
    reason: str | None
    """Why there is no value."""
    trusted: bool
    """Whether the interval can be expected to hold the truth 95 times of 100."""
    distrust: str | None
    """Why not."""
    patients: int
    """Those that decide the metric."""
    n_scored: int
    """Rows whose reference decides and to which the model gave findings."""
    n_refused: int
    """Rows with a reply without findings: refused, filtered, truncated or not in the form asked for."""
    n_failed: int
    """Rows without a reply, for want of a connection or of a row in the submission."""
    suite_sha256: str
