"""The drift report on releases small enough to count by hand."""

import json
import re
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxr_max.cli import main
from cxr_max.errors import RequestError
from cxr_max.eval.drift_numbers import RESAMPLES, Rate
from cxr_max.eval.drift_report import DriftReport, PromptDrift, Steps, measure
from cxr_max.eval.drift_rows import open_release, read_rows
from cxr_max.eval.drift_table import as_json, table
from cxr_max.findings import FINDINGS, LATERAL, Side, State
from cxr_max.records import Given, Sampling, Status, Trajectory
from cxr_max.schemas import row_of, trajectory_schema
from cxr_max.shards import canonical_json, write_shard, write_text

TEACHERS = ("ann", "ben", "cem")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NORMAL = "The heart is of normal size. There is no pleural effusion."
HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></article></body>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "\u202ereversed\u2066 \x00\x07",
)


@dataclass(frozen=True)
class Said:
    """One reply."""

    teacher: str
    study: int
    findings: dict[str, State | None] | None
    sides: dict[str, Side | None] | None = None
    status: Status = "ok"
    text: str = NORMAL
    sample: int = 0
    given: Given = "nothing"
    subject: int | None = None
    """The study's own where it is None."""
    provider: str = "openai"
    model: str = "model-1"


def trajectory(said: Said) -> Trajectory:
    return Trajectory(
        trajectory_id=f"{said.study}-{said.teacher}-{said.sample}-{said.given}",
        study_id=f"study-{said.study:04}",
        subject_id=f"patient-{said.study if said.subject is None else said.subject:04}",
        source="made", split="train", image_ids=(f"image-{said.study:04}",), source_sha256=("0" * 64,),
        image_sha256=(f"{said.study:064}",), rendering="as_is-1@1024", teacher=said.teacher,
        provider=said.provider, model="m", model_reported=said.model, prompt_name=f"told-{said.given}",
        prompt_version="1", prompt_sha256=said.given * 4, prompt_given=said.given, sampling=Sampling(),
        sample_index=said.sample, status=said.status, finish_reason="stop", text=said.text, reasoning=None,
        findings=None if said.findings is None else {**dict.fromkeys(FINDINGS), **said.findings},
        sides={**dict.fromkeys(FINDINGS), **(said.sides or {})}, labeler="by-hand-1", contradictions=(),
        input_tokens=None, output_tokens=None, cost_usd=None, latency_s=0.0,
        created_at=BEGAN + timedelta(minutes=said.study), request_sha256="",
    )  # fmt: skip


def release(folder: Path, replies: list[Said], **manifest: Any) -> Path:
    """A sealed release of two shards, so that nothing may hang on there being one."""
    rows = [row_of(trajectory(one)) for one in replies]
    half = len(rows) // 2
    for index, part in enumerate((rows[:half], rows[half:])):
        path = folder / "data" / "trajectories" / f"train-0000{index}-of-00002.parquet"
        write_shard(path, part, trajectory_schema())
    about = {"source": {"title": "Made by hand", "data_use": "open"}, "trajectories_digest": "abc", **manifest}
    write_text(folder / "manifest.json", canonical_json(about))
    return folder


def by_everybody(studies: int, findings: dict[str, State | None], **more: Any) -> list[Said]:
    return [Said(teacher, study, findings, **more) for study in range(studies) for teacher in TEACHERS]


def only(report: DriftReport) -> PromptDrift:
    (prompt,) = report.prompts
    assert prompt.drift is not None
    return prompt.drift


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cxr-max", "drift", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_teachers_that_say_the_same_have_no_conflict(tmp_path: Path) -> None:
    drift = only(measure(release(tmp_path, by_everybody(6, {"Edema": 1, "Pneumothorax": 0}))))
    for mean in drift.mean_conflict.values():
        assert (mean.value, mean.low, mean.high, mean.n, mean.subjects) == (0.0, 0.0, 0.0, 6, 6)
    assert drift.conflict["ann"]["Edema"] == Rate(0.0, 6)
    assert drift.conflict["ann"]["Fracture"] == Rate(None, 0)
    assert drift.positive["ben"]["Edema"] == Rate(1.0, 6)
    assert all(pair.agreement == Rate(1.0, 12) for pair in drift.pairs)
    assert all(pair.kappa == Rate(None, 0) for pair in drift.pairs), "constant raters have no kappa"
    assert isinstance(drift.steps, Steps) and set(drift.steps.divergence) == {0.0}
    assert drift.examples == ()


def test_a_teacher_is_held_against_the_others_and_never_against_itself(tmp_path: Path) -> None:
    """Ben and Cem outvote Ann. Without Ben, Ann and Cem tie: uncertain, which Ben hedges and does not oppose."""
    replies = by_everybody(4, {"Edema": 1})
    replies = [replace(one, findings={"Edema": 0}) if one.teacher == "ann" else one for one in replies]
    drift = only(measure(release(tmp_path, replies)))
    assert {name: mean.value for name, mean in drift.mean_conflict.items()} == {"ann": 1.0, "ben": 0.0, "cem": 0.0}
    assert [pair.agreement.value for pair in drift.pairs] == [0.0, 0.0, 1.0]
    assert drift.quorum == 2


def test_two_teachers_are_held_against_each_other(tmp_path: Path) -> None:
    replies = [Said("ann", 0, {"Edema": 1}), Said("ben", 0, {"Edema": 0})]
    drift = only(measure(release(tmp_path, replies)))
    assert drift.quorum == 1 and drift.mean_conflict["ann"].value == drift.mean_conflict["ben"].value == 1.0


def test_several_samples_share_the_teachers_one_vote(tmp_path: Path) -> None:
    """Cem's three samples against Ben's one: half and half, so that Ann faces no majority."""
    replies = [Said("ann", 0, {"Edema": 1}), Said("ben", 0, {"Edema": 1})]
    replies += [Said("cem", 0, {"Edema": 0}, sample=sample) for sample in range(3)]
    drift = only(measure(release(tmp_path, replies)))
    assert drift.mean_conflict["ann"].value == 0.0
    assert (drift.mean_conflict["cem"].value, drift.mean_conflict["cem"].n) == (1.0, 3)


def test_kappa_of_a_known_table(tmp_path: Path) -> None:
    """20 both present, 15 both absent, 5 and 10 apart: agreement 0.7, chance 0.5, kappa 0.4 (a textbook table)."""
    cells = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    replies = []
    for study, (ours, theirs) in enumerate(cells):
        replies += [Said("ann", study, {"Edema": ours}), Said("ben", study, {"Edema": theirs})]  # type: ignore[dict-item]
    (pair,) = only(measure(release(tmp_path, replies))).pairs
    assert pair.agreement == Rate(0.7, 50)
    assert pair.kappa.value == pytest.approx(0.4)


def test_a_planted_split_of_left_and_right(tmp_path: Path) -> None:
    effusion: dict[str, State | None] = {"Pleural Effusion": 1}
    sides: tuple[tuple[Side | None, ...], ...] = (
        ("left", "right", "right"), ("left", "left", "left"), ("bilateral", "left", "left"), ("left", None, None)
    )  # fmt: skip
    replies = [
        Said(teacher, study, effusion, {"Pleural Effusion": side})
        for study, said in enumerate(sides)
        for teacher, side in zip(TEACHERS, said, strict=True)
    ]
    report = measure(release(tmp_path, replies))
    places = {one.finding: one for one in report.prompts[0].laterality}
    assert set(places) == LATERAL
    one = places["Pleural Effusion"]
    assert (one.left, one.right, one.bilateral, one.unsided) == (7, 2, 1, 2)
    assert one.teachers == {"left": 3, "right": 2, "bilateral": 1}
    assert one.split == Rate(1 / 3, 3), "bilateral splits from neither, and one voice is no split"
    drift = only(report)
    assert drift.side_conflict["ann"] == Rate(2 / 3, 3), "right and left against left and bilateral"
    assert [example.study_id for example in drift.examples] == ["study-0000", "study-0002"]
    assert drift.examples[0].voices[0].claims[0].words == (
        "Pleural Effusion: present, left; the others: present, right"
    )


def test_refusals_are_counted_and_take_no_part(tmp_path: Path) -> None:
    replies = by_everybody(4, {"Edema": 1})
    refusal: dict[str, Any] = {"status": "refused", "findings": None, "text": "I cannot help."}
    replies = [replace(one, **refusal) if one.teacher == "cem" and one.study else one for one in replies]
    report = measure(release(tmp_path, replies))
    cem = report.prompts[0].statuses[2]
    assert (cem.teacher, cem.counts["refused"], cem.counts["ok"], cem.finish_reasons) == ("cem", 3, 1, {"stop": 4})
    assert report.statuses["refused"] == 3
    drift = only(report)
    assert drift.positive["cem"]["Edema"] == Rate(1.0, 1)
    assert drift.mean_conflict["ann"].n == 1, "one other voter is no quorum"
    assert isinstance(drift.steps, Steps) and drift.steps.left_out == ("cem",) and drift.steps.image_sets == 4


def test_ok_rows_that_nothing_read_are_counted_apart(tmp_path: Path) -> None:
    replies = [replace(one, findings=None) for one in by_everybody(2, {})]
    report = measure(release(tmp_path, replies))
    assert [one.unread for one in report.prompts[0].statuses] == [2, 2, 2]
    assert only(report).mean_conflict["ann"].value is None


def test_what_a_prompt_gave_away_is_not_measured(tmp_path: Path) -> None:
    told = by_everybody(3, {"Edema": 1}, given="findings", sides={"Pneumonia": None})
    report = measure(release(tmp_path, told + by_everybody(3, {"Edema": 1})))
    assert [prompt.prompt.given for prompt in report.prompts] == ["nothing", "findings"]
    first, second = report.prompts
    assert first.drift is not None and first.rows == 9
    assert second.drift is None and len(second.statuses) == 3 and len(second.laterality) == len(LATERAL)


def test_a_model_that_is_exchanged_and_a_conflict_that_moves(tmp_path: Path) -> None:
    pytest.importorskip("river")
    replies = by_everybody(300, {"Edema": 1})
    replies = [
        replace(one, findings={"Edema": 0}, model="model-2") if one.teacher == "ann" and one.study >= 150 else one
        for one in replies
    ]
    time = only(measure(release(tmp_path, replies))).time
    assert not isinstance(time, str)
    ann, ben, _ = time
    assert ann.observations == 300 and ann.changes[0].onset == BEGAN + timedelta(minutes=150)
    assert (ann.changes[0].before, ann.changes[0].after) == (0.0, 1.0)
    assert [(c.before, c.after, c.at) for c in ann.model_changes] == [
        ("model-1", "model-2", BEGAN + timedelta(minutes=150))
    ]
    assert ben.changes == () and ben.model_changes_total == 0


def test_the_interval_resamples_patients(tmp_path: Path) -> None:
    """Ten studies of one patient are one observation; of ten patients they are ten."""
    replies = by_everybody(10, {"Edema": 1})
    replies = [
        replace(one, findings={"Edema": 0}) if one.teacher == "ann" and one.study < 5 else one for one in replies
    ]
    many = only(measure(release(tmp_path / "many", replies))).mean_conflict["ann"]
    assert many.value == 0.5 and many.low is not None and many.high is not None and RESAMPLES == 1_000
    assert 0.1 <= many.low <= 0.3 and 0.7 <= many.high <= 0.9, "binomial, n = 10: 0.2 to 0.8"
    alone = release(tmp_path / "one", [replace(one, subject=0) for one in replies])
    one = only(measure(alone)).mean_conflict["ann"]
    assert (one.value, one.low, one.high, one.subjects) == (0.5, None, None, 1)


def test_the_streams_see_where_teachers_part(tmp_path: Path) -> None:
    same = "There is no pneumothorax. The heart is of normal size. "
    replies = [
        replace(one, text=same + ("There is a left pleural effusion." if one.teacher == "ann" else NORMAL[29:]))
        for one in by_everybody(20, {"Edema": 1})
    ]
    steps = only(measure(release(tmp_path, replies))).steps
    assert isinstance(steps, Steps) and (steps.image_sets, steps.complete, steps.subjects) == (20, 20, 20)
    assert steps.divergence[5] == 0.0 < steps.divergence[-1]
    assert steps.opposed[-1] is not None and steps.opposed[-1] > 0


def hostile_release(folder: Path) -> Path:
    """Everything that a model or a service writes, written by an enemy; one text huge, one empty."""
    evil = " ".join(HOSTILE)
    texts = {"ann": evil, "ben": "x" * 2_000_000, "cem": ""}
    replies = [
        replace(
            one, text=texts[one.teacher], findings={"Edema": 1 if one.teacher == "ann" else 0}, model=HOSTILE[0]
        )
        for one in by_everybody(3, {})
    ]
    replies.append(Said(HOSTILE[2], 0, {"Edema": 1}, text=evil))
    return release(folder, replies, source={"title": HOSTILE[0], "data_use": "open"})


def page_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path) -> str:
    code, _, said = run(capsys, monkeypatch, folder, "--out", out)
    assert code == 0, said
    return (out / "index.html").read_text("utf-8")


def test_hostile_words_are_shown_and_never_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(capsys, monkeypatch, hostile_release(tmp_path / "release"), tmp_path / "out")
    assert "<script" not in page and "<img" not in page and "onerror=alert" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "{{ 7 * 7 }}" in page
    assert page.count("</body>") == 1 and page.count("</article>") == page.count("<article")
    assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069]", page)
    assert len(page) < 400_000 and re.search(r"1,?994,?000 more characters", page)


def test_the_page_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(capsys, monkeypatch, hostile_release(tmp_path / "release"), tmp_path / "out")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe", page)
    assert 'lang="en"' in page and "prefers-color-scheme" in page and "@media print" in page
    assert all("aria-label=" in tag for tag in re.findall(r"<svg[^>]*>", page))


def test_simulated_teachers_are_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = by_everybody(2, {"Edema": 1})
    real = page_of(capsys, monkeypatch, release(tmp_path / "real", replies), tmp_path / "a")
    assert "Simulated teachers" not in real
    made_up = release(tmp_path / "made-up", [replace(one, provider="simulated") for one in replies])
    assert "Simulated teachers" in page_of(capsys, monkeypatch, made_up, tmp_path / "b")


def test_same_release_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_release(tmp_path / "release")
    for name in ("one", "two"):
        page_of(capsys, monkeypatch, folder, tmp_path / name)
    for file in ("index.html", "drift.json", "drift.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "drift.json",
        "drift.parquet",
        "index.html",
    ]


def test_the_table_and_the_json_say_what_the_report_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = by_everybody(5, {"Edema": 1})
    replies = [replace(one, findings={"Edema": 0}) if one.teacher == "ann" else one for one in replies]
    folder, out = release(tmp_path / "release", replies), tmp_path / "out"
    code, printed, _ = run(capsys, monkeypatch, folder, "--out", out, "--json")
    assert code == 0 and json.loads(printed)["studies"] == 5 and json.loads(printed)["teachers"] == list(TEACHERS)
    report = measure(folder)
    assert json.loads((out / "drift.json").read_text()) == json.loads(json.dumps(as_json(report)))
    assert "pieces" not in (out / "drift.json").read_text() and NORMAL not in (out / "drift.json").read_text()
    lines = pq.read_table(out / "drift.parquet").to_pylist()
    assert lines == list(table(report))
    (mean,) = [one for one in lines if one["metric"] == "conflict_mean" and one["teacher"] == "ann"]
    assert (mean["value"], mean["low"], mean["high"], mean["n"]) == (1.0, 1.0, 1.0, 5)


def test_a_runs_folder_will_do(tmp_path: Path) -> None:
    release(tmp_path / "release", by_everybody(2, {"Edema": 1}))
    assert open_release(tmp_path).folder == tmp_path / "release"
    rows = read_rows(open_release(tmp_path), lambda *_: None)
    assert len(rows) == 6 and rows.teachers == TEACHERS


def not_there(folder: Path) -> None:
    """Nothing at all."""


def unsealed(folder: Path) -> None:
    release(folder, by_everybody(2, {"Edema": 1}))
    (folder / "manifest.json").unlink()


def empty(folder: Path) -> None:
    write_text(folder / "manifest.json", "{}")


def no_parquet(folder: Path) -> None:
    release(folder, by_everybody(2, {"Edema": 1}))
    (folder / "data" / "trajectories" / "train-00000-of-00002.parquet").write_bytes(b"PAR1 and then nothing")


@pytest.mark.parametrize("spoil", [not_there, unsealed, empty, no_parquet])
def test_a_release_that_is_none_is_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    spoil(tmp_path / "release")
    code, printed, said = run(capsys, monkeypatch, tmp_path / "release", "--out", tmp_path / "out")
    assert code == 2 and printed == "" and said.startswith("cxr-max: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_reports_of_other_studies_are_refused(tmp_path: Path) -> None:
    folder = release(tmp_path, by_everybody(2, {"Edema": 1}))
    with pytest.raises(RequestError, match="no report of any study"):
        measure(folder, reports="phantom")


@pytest.mark.parametrize("where", ["release", "release/page", "file"])
def test_an_out_that_would_harm_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = release(tmp_path / "release", by_everybody(2, {"Edema": 1}))
    (tmp_path / "file").touch()
    before = sorted(folder.rglob("*"))
    code, _, said = run(capsys, monkeypatch, folder, "--out", tmp_path / where)
    assert code == 2 and "choose" in said and sorted(folder.rglob("*")) == before
