"""An evaluation end to end: asked, stored and submitted models, one result each, and nothing twice."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from cxr_max.errors import DataUseError, RequestError
from cxr_max.eval import stored
from cxr_max.eval.predictions import read_predictions
from cxr_max.eval.result import HASHED, read_data, read_result, read_scores
from cxr_max.eval.run import Evaluation
from cxr_max.eval.scoring import score_all
from cxr_max.eval.suite import read_suites
from cxr_max.records import Score
from cxr_max.shards import sha256_of
from tests.background import background, contents, roster_of
from tests.eval.data import (
    ORIGINALS,
    QUESTIONS,
    TEACHERS,
    TINY,
    Watch,
    check_score,
    evaluated,
    release,
    request_of,
)
from tests.teachers.scripted import body, error

TEXT = "The heart is large.\n\nANSWER\nCardiomegaly: present\nPneumothorax: absent"
TEACHER = "sim-grok-4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory)


async def reply(_request: web.Request) -> web.StreamResponse:
    return body("openai", TEXT)


def quiet(*_: object) -> None:
    pass


def evaluation_of(run: Path, out: Path, text: str = TINY, **who: Any) -> tuple[Evaluation, Watch]:
    """As ``cxr-max eval`` does it."""
    suites = out.parent / f"{out.name}.toml"
    suites.write_text(text)
    request = request_of(run, out, suites, **who)
    watch = Watch()
    with evaluated(request) as prepared:
        if prepared.asks:
            prepared.ask(watch)
        return prepared.finish(quiet), watch


@pytest.fixture(scope="module")
def asked(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Watch]:
    """One persona, asked live; only looked at."""
    return evaluation_of(run, tmp_path_factory.mktemp("asked") / "e", teacher=TEACHER)


def numbers(scores: Sequence[Score], task: str | None = None) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {
        (one.task, one.metric, one.finding, one.condition, one.group): (
            one.value, one.low, one.high, one.n_scored, one.n_refused, one.n_failed,
        )
        for one in scores
        if task is None or one.task == task
    }  # fmt: skip


def value(evaluation: Evaluation, metric: str, condition: str | None = None) -> float | None:
    (one,) = {
        replace(score, task="")
        for score in evaluation.scores
        if (score.metric, score.condition, score.finding, score.group) == (metric, condition, None, None)
    }
    return one.value


def trajectories(run: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(run / "release" / "data" / "trajectories").to_pylist())


# Asked.


def test_only_what_the_build_did_not_ask_is_sent(asked: tuple[Evaluation, Watch]) -> None:
    evaluation, watch = asked
    assert watch.sent == QUESTIONS - ORIGINALS
    assert (evaluation.failed, evaluation.gaps) == (0, ())


def test_every_question_is_a_row(asked: tuple[Evaluation, Watch], run: Path) -> None:
    table = read_predictions(asked[0].out / "predictions.parquet")
    assert Counter(table["condition"].to_pylist()) == {
        "original": 8, "sample-1": 2, "paraphrase-brief": 2, "mirror": 2, "blank": 3, "noise-3": 3,
    }  # fmt: skip
    theirs = {row["study_id"]: row for row in trajectories(run) if row["teacher"] == TEACHER}
    for row in table.filter(pc.equal(table["condition"], "original")).to_pylist():
        other = theirs[row["study_id"]]
        assert (row["status"], row["findings"], row["text"]) == (other["status"], other["findings"], other["text"])


def test_scores_are_whole_and_one_of_each(asked: tuple[Evaluation, Watch]) -> None:
    scores = asked[0].scores
    assert len(numbers(scores)) == len(scores) > 300
    assert {one.task for one in scores} == {"consistency", "robustness", "generalization"}
    assert {one.model for one in scores} == {TEACHER}
    for one in scores:
        check_score(one)


def test_a_stranger_comes_to_the_same_scores(asked: tuple[Evaluation, Watch]) -> None:
    out = asked[0].out
    result = read_result(out)
    assert result.suites == asked[0].suites and result.member and result.model == TEACHER
    assert set(result.files) == set(HASHED)
    assert all(sha256_of(out / name) == digest for name, digest in result.files.items())
    assert read_scores(out / "scores.parquet") == asked[0].scores
    data = read_data(out, result.member)
    again = [
        scored.score(result.model, result.dataset, task, suite)
        for suite in result.suites
        for task, scored in score_all(data, suite)
    ]
    assert tuple(again) == asked[0].scores


def test_the_reference_is_what_the_phantoms_show(asked: tuple[Evaluation, Watch]) -> None:
    from itertools import islice

    from cxr_max.builders.sources.phantom import cases

    truth = [set(case.findings) for case in islice(cases(0), 40)]
    reference = read_data(asked[0].out, True).reference
    assert Counter(row.split for row in reference.rows) == {"test": 4, "validation": 4}
    for row in reference.rows:
        present = {name for name, state in (row.findings or {}).items() if state == 1}
        drawn = truth[int(row.study_id.rpartition("-")[2])]
        assert drawn <= present and present - drawn <= {"Lung Opacity", "No Finding"}, "what is drawn, and implied"


def test_the_second_run_sends_nothing_and_changes_no_byte(run: Path, tmp_path: Path) -> None:
    first, _ = evaluation_of(run, tmp_path / "e", teacher=TEACHER)
    before = contents(first.out)
    second, watch = evaluation_of(run, tmp_path / "e", teacher=TEACHER)
    assert watch.sent == 0 and second.scores == first.scores and contents(second.out) == before


def test_nothing_in_a_result_names_a_place_on_this_machine(asked: tuple[Evaluation, Watch], run: Path) -> None:
    places = [str(run), str(asked[0].out.parent)]
    for name, content in contents(asked[0].out).items():
        assert not any(place.encode() in content for place in places), name


def test_peers_are_the_other_teachers(asked: tuple[Evaluation, Watch]) -> None:
    data = read_data(asked[0].out, True)
    assert sorted(data.peers) == sorted(set(TEACHERS) - {TEACHER})
    assert value(asked[0], "consensus_agreement") != 1


@pytest.mark.parametrize("stored_rows", [False, True])
def test_nobody_is_a_peer_of_itself_whatever_it_is_called(run: Path, tmp_path: Path, stored_rows: bool) -> None:
    evaluation, _ = evaluation_of(run, tmp_path / "e", teacher=TEACHER, stored=stored_rows, name="Our model")
    peers = read_data(evaluation.out, True).peers
    assert sorted(peers) == sorted(set(TEACHERS) - {TEACHER})


def test_notes_and_settings_say_that_it_is_simulated(asked: tuple[Evaluation, Watch]) -> None:
    result = read_result(asked[0].out)
    assert any(note.startswith("Simulated:") for note in result.notes)
    assert result.settings["provider"] == "simulated" and result.settings["replies"] == str(QUESTIONS)
    assert any("they show no patient" in note for note in result.dataset_notes)
    assert result.dataset_notes[0] == "4 image sets of 2 patients, split test."


def test_stored_rows_of_a_persona_are_said_to_be_simulated_under_any_name(run: Path, tmp_path: Path) -> None:
    evaluation, _ = evaluation_of(run, tmp_path / "e", teacher=TEACHER, stored=True, name="Our model")
    assert any(note.startswith("Simulated:") for note in read_result(evaluation.out).notes)


# Stored.


def test_stored_rows_score_like_the_same_answers_asked(
    run: Path, tmp_path: Path, asked: tuple[Evaluation, Watch]
) -> None:
    evaluation, watch = evaluation_of(run, tmp_path / "e", teacher=TEACHER, stored=True)
    assert watch.sent == 0 and not (tmp_path / "e" / "ledger.sqlite").exists()
    same = ("balanced_accuracy", "f1", "accuracy", "alpha", "consensus_agreement", "image_gain", "refusal_rate")
    ours, theirs = numbers(evaluation.scores), numbers(asked[0].scores)
    keys = [key for key in theirs if key[1] in same and key[3] in (None, "original")]
    assert len(keys) > 60
    for key in keys:
        assert ours[key] == theirs[key], key
    assert evaluation.failed == 0


def test_samples_of_a_release_are_conditions(tmp_path: Path) -> None:
    from tests.builders.test_build import built

    built("phantom", tmp_path / "run", TEACHER, studies=40, samples=3)
    evaluation, _ = evaluation_of(tmp_path / "run", tmp_path / "e", teacher=TEACHER, stored=True)
    data = read_data(evaluation.out, True)
    assert set(data.answers) == {"original", "sample-1", "sample-2"} and not data.peers
    assert value(evaluation, "self_consistency") is not None and value(evaluation, "alpha") is None


def test_the_vote_of_the_release_is_a_model(run: Path, tmp_path: Path) -> None:
    from cxr_max.builders.consensus import fill

    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(RequestError, match="has no consensus yet: run cxr-max consensus"):
        evaluation_of(tmp_path / "run", tmp_path / "no", teacher="consensus", stored=True)
    fill(tmp_path / "run" / "release")
    evaluation, _ = evaluation_of(tmp_path / "run", tmp_path / "e", teacher="consensus", stored=True)
    data = read_data(evaluation.out, False)
    assert sorted(data.peers) == sorted(TEACHERS) and value(evaluation, "consensus_agreement") == 1
    vote = next(one for one in evaluation.scores if one.metric == "vote_accuracy" and one.finding is None)
    assert vote.value == value(evaluation, "balanced_accuracy")


# Submitted.


def submission(run: Path, path: Path, teacher: str = TEACHER, **changes: Any) -> Path:
    """A teacher's rows as its own file, in another order."""
    answers = stored.stored_answers(run / "release", stored.prompt_of(run / "release", "diagnose"))[teacher]
    rows = answers.to_pylist()[::-1]
    pq.write_table(pa.Table.from_pylist([{**row, **changes} for row in rows], schema=answers.schema), path)
    return path


def test_a_submission_scores_like_the_same_rows_stored(run: Path, tmp_path: Path) -> None:
    file = submission(run, tmp_path / "mine.parquet")
    submitted, watch = evaluation_of(run, tmp_path / "e", predictions=file)
    from_release, _ = evaluation_of(run, tmp_path / "s", teacher=TEACHER, stored=True)
    assert watch.sent == 0 and not (tmp_path / "e" / "ledger.sqlite").exists()
    ours, theirs = (numbers(one.scores, "generalization") for one in (submitted, from_release))
    assert ours == theirs
    assert {one.model for one in submitted.scores} == {"mine"}
    assert sorted(read_data(submitted.out, False).peers) == sorted(TEACHERS)
    assert value(submitted, "peer_agreement", TEACHER) == 1


def test_a_submission_lacks_no_row_that_is_scored(
    run: Path, tmp_path: Path, asked: tuple[Evaluation, Watch]
) -> None:
    whole = pq.read_table(submission(run, tmp_path / "whole.parquet"))
    test = {row.study_id for row in read_data(asked[0].out, True).reference.rows if row.split == "test"}
    kept = [study in test for study in whole["study_id"].to_pylist()]
    pq.write_table(whole.filter(pa.array(kept)), tmp_path / "enough.parquet")
    evaluation, _ = evaluation_of(run, tmp_path / "e", predictions=tmp_path / "enough.parquet")
    assert value(evaluation, "f1_at_threshold") is None and value(evaluation, "f1") is not None
    kept[kept.index(True)] = False
    pq.write_table(whole.filter(pa.array(kept)), tmp_path / "few.parquet")
    with pytest.raises(
        RequestError, match=r"few\.parquet has no row of the condition original for 1 of the image"
    ) as no:
        evaluation_of(run, tmp_path / "f", predictions=tmp_path / "few.parquet")
    assert "\n" not in str(no.value)


def test_failed_rows_lower_no_score(run: Path, tmp_path: Path) -> None:
    """Half of the rows failed: the numbers are those of the other half."""
    whole = pq.read_table(submission(run, tmp_path / "whole.parquet")).to_pylist()
    nothing = dict.fromkeys(("findings", "sides", "scores", "contradictions", "text"))
    half = [{**row, "status": "failed", **nothing} if k % 2 else row for k, row in enumerate(whole)]
    schema = pq.read_schema(tmp_path / "whole.parquet")
    pq.write_table(pa.Table.from_pylist(half, schema=schema), tmp_path / "half.parquet")
    evaluation, _ = evaluation_of(run, tmp_path / "e", predictions=tmp_path / "half.parquet")
    failed = sum(one.n_failed for one in evaluation.scores if one.metric == "refusal_rate" and not one.condition)
    assert failed > 0 and value(evaluation, "refusal_rate") == 0
    data = read_data(evaluation.out, False)
    answers = data.under("original")
    for place in range(14):
        truth = data.reference.states[:, place]
        rows = [
            k
            for k in range(len(answers))
            if data.reference.rows[k].split == "test" and answers.ok[k] and truth[k] != 2
        ]
        by_hand = [(truth[k] == 3) == (answers.states[k, place] == 3) for k in rows]
        (score,) = (
            one for one in evaluation.scores
            if one.metric == "accuracy" and one.task == "generalization" and one.finding
            and place == list(data.reference.rows[0].findings or {}).index(one.finding)
        )  # fmt: skip
        assert score.value == pytest.approx(sum(by_hand) / len(by_hand))


# What failed is asked again, and named.


def test_failures_under_every_condition_are_counted(run: Path, tmp_path: Path) -> None:
    """The originals are answered, and nothing else: that is no complete evaluation."""
    few = TINY.split("[consistency]")[0] + "[generalization]\n"
    with background(reply) as server:
        who = {"teacher": "mine", "roster": roster_of(tmp_path, server, "mine")}
        evaluation, watch = evaluation_of(run, tmp_path / "e", few, **who)
        if watch.sent != ORIGINALS or evaluation.failed:
            pytest.fail("the originals should have been answered", pytrace=False)
        server.answers[:] = [error(400, "no")]
        evaluation, watch = evaluation_of(run, tmp_path / "e", **who)
    status = read_predictions(evaluation.out / "predictions.parquet")["status"].to_pylist()
    assert evaluation.failed == status.count("failed") == QUESTIONS - ORIGINALS


def test_a_model_that_cannot_be_reached_has_no_score_and_says_so(run: Path, tmp_path: Path) -> None:
    with background(error(401, "wrong key")) as server:
        roster = roster_of(tmp_path, server, "mine")
        evaluation, _ = evaluation_of(run, tmp_path / "e", teacher="mine", roster=roster)
    assert evaluation.failed >= ORIGINALS
    for one in evaluation.scores:
        check_score(one)
        if one.metric not in ("vote_accuracy", "verdicts_moved"):
            assert one.value is None and one.reason, one


# Leaks.


def flag(evaluation: Evaluation, name: str = "unseen test set") -> Any:
    (several,) = evaluation.flags.values()
    return next(one for one in several if one.name == name)


def test_a_clean_split_is_unseen(asked: tuple[Evaluation, Watch]) -> None:
    assert flag(asked[0]).verdict == "yes" and "32 of the training release" in flag(asked[0]).reason
    assert not any(one.group for one in asked[0].scores if one.group in ("unseen", "seen in training"))


def test_training_studies_are_seen(run: Path, tmp_path: Path) -> None:
    text = TINY.replace("version = 1", 'version = 1\nsplit = "train"')
    evaluation, _ = evaluation_of(run, tmp_path / "e", text, teacher=TEACHER, stored=True)
    assert flag(evaluation).verdict == "no" and flag(evaluation).reason.startswith("32 of 32 studies")
    assert all(row.seen for row in read_data(evaluation.out, True).reference.rows if row.split == "train")
    assert "seen in training" in {one.group for one in evaluation.scores}


def test_another_release_is_looked_in(run: Path, tmp_path: Path) -> None:
    from tests.builders.test_build import built

    built("phantom:5", tmp_path / "other", TEACHER, studies=10)
    evaluation, _ = evaluation_of(run, tmp_path / "e", teacher=TEACHER, stored=True, trained_on=tmp_path / "other")
    assert flag(evaluation).verdict == "yes"
    result = read_result(evaluation.out)
    assert result.trained_on != result.release_digest
    other = json.loads((tmp_path / "other" / "release" / "manifest.json").read_text())
    assert result.trained_on == other["trajectories_digest"]


def test_a_training_release_of_another_prompt_is_looked_in_all_the_same(run: Path, tmp_path: Path) -> None:
    """The same patients and pictures, of which another question was asked."""
    from tests.builders.test_build import built

    built("phantom", tmp_path / "other", TEACHER, studies=40, prompt="rationale")
    text = TINY.replace("version = 1", 'version = 1\nsplit = "train"')
    evaluation, _ = evaluation_of(
        run, tmp_path / "e", text, teacher=TEACHER, stored=True, trained_on=tmp_path / "other"
    )
    assert flag(evaluation).verdict == "no", flag(evaluation)


def test_the_validation_split_is_looked_for_too_where_it_is_scored(run: Path, tmp_path: Path) -> None:
    text = TINY.replace("version = 1", 'version = 1\nsplit = "validation"')
    evaluation, _ = evaluation_of(run, tmp_path / "e", text, teacher=TEACHER, stored=True)
    assert "4 pictures compared" in flag(evaluation).reason, flag(evaluation)


# Wrong requests.

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("nobody", {}, "Say who is evaluated"),
    ("two", {"teacher": TEACHER, "predictions": Path("p.csv")}, "one of them"),
    ("model and teacher", {"teacher": TEACHER, "model": Path("m")}, "one of them"),
    ("unknown teacher", {"teacher": "grok-9"}, "no teacher 'grok-9' in the roster"),
    ("several teachers", {"teacher": "simulated"}, "means 7 teachers: name one"),
    ("two teachers", {"teacher": "sim-grok-4,sim-gpt-5-nano"}, "means 2 teachers"),
    ("not in the release", {"teacher": "sim-qwen-vl-max", "stored": True}, "has no rows of 'sim-qwen-vl"),
    ("no consensus", {"teacher": "consensus", "stored": True}, "no consensus yet"),
    ("unknown suite", {"teacher": TEACHER, "suites": "robusness"}, "There is no suite 'robusness'"),
    ("no suite", {"teacher": TEACHER, "suites": ","}, "No suite is named"),
    ("absent file", {"predictions": Path("/nowhere/p.csv")}, "/nowhere/p.csv"),
    ("absent model", {"model": Path("/nowhere/m")}, "/nowhere/m"),
    ("no release", {"teacher": TEACHER, "release": Path("/nowhere")}, "holds no sealed release"),
    ("another training release", {"teacher": TEACHER, "trained_on": Path("/nowhere")}, "holds no sealed release"),
    ("missing key", {"teacher": "gpt-5-nano"}, "OPENAI_API_KEY"),
]  # fmt: skip


def attempted(run: Path, out: Path, **who: Any) -> None:
    request = request_of(run, out, who.pop("suites", "quick"), **who)
    with evaluated(request):
        pass


@pytest.mark.parametrize(("who", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_request_is_one_sentence(run: Path, tmp_path: Path, who: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        attempted(run, tmp_path / "e", **who)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "e" / "ledger.sqlite").exists() and not (tmp_path / "e" / "result").exists()


@pytest.mark.parametrize("who", [{"teacher": "grok-9"}, {"teacher": TEACHER, "release": Path("/nowhere")}])
def test_a_wrong_request_does_not_stand_in_the_way_of_the_right_one(
    run: Path, tmp_path: Path, who: dict[str, Any]
) -> None:
    with pytest.raises(RequestError):
        attempted(run, tmp_path / "e", **who)
    try:
        attempted(run, tmp_path / "e", teacher=TEACHER)
    except RequestError as error:
        raise AssertionError(str(error)) from error


def test_a_suite_of_another_prompt_or_split_is_named(tmp_path: Path, run: Path) -> None:
    from tests.builders.test_build import built

    with pytest.raises(RequestError, match=r"The suite asks rationale, and the release .* was asked diagnose"):
        evaluation_of(
            run, tmp_path / "e", TINY.replace("version = 1", 'version = 1\nprompt = "rationale"'), teacher=TEACHER
        )
    built("phantom", tmp_path / "run", TEACHER, studies=2)
    with pytest.raises(RequestError, match="has nothing in the split test: build more studies"):
        evaluation_of(tmp_path / "run", tmp_path / "f", teacher=TEACHER)


@pytest.mark.parametrize(
    "other",
    [{"teacher": "sim-gpt-5-nano"}, {"teacher": "sim-gpt-5-nano", "stored": True}],
)
def test_another_model_needs_another_folder(run: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    evaluation_of(
        run, tmp_path / "e", TINY.split("[consistency]")[0] + "[generalization]\n", teacher=TEACHER, stored=True
    )
    before = contents(tmp_path / "e")
    with pytest.raises(RequestError, match=r"begun with teacher = 'sim-grok-4'.*choose another --out"):
        attempted(run, tmp_path / "e", **other)
    assert contents(tmp_path / "e") == before


def test_another_file_needs_another_folder_too(run: Path, tmp_path: Path) -> None:
    """Else the first result is overwritten without a word."""
    for name in ("one", "two"):
        submission(run, tmp_path / f"{name}.parquet")
    evaluation_of(run, tmp_path / "e", predictions=tmp_path / "one.parquet")
    with pytest.raises(RequestError):
        evaluation_of(run, tmp_path / "e", predictions=tmp_path / "two.parquet")


def test_credentialed_images_reach_no_remote_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is sent, and scored from stored rows all the same."""
    from tests.builders.test_build import built
    from tests.mimic_fixture import write_mimic

    _, jpg = write_mimic(tmp_path / "mimic")
    built(f"mimic-cxr-jpg:{jpg}", tmp_path / "run", TEACHER)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(DataUseError, match=r"api\.openai\.com"):
        attempted(tmp_path / "run", tmp_path / "e", teacher="gpt-5-nano")
    assert not (tmp_path / "e" / "ledger.sqlite").exists()
    evaluation, _ = evaluation_of(tmp_path / "run", tmp_path / "f", teacher=TEACHER, stored=True)
    assert any(
        "pass them on only to those who may see the data" in note
        for note in read_result(evaluation.out).dataset_notes
    )


def test_all_suites_of_one_run_are_scored_apart(run: Path, tmp_path: Path) -> None:
    request = request_of(run, tmp_path / "e", "generalization,quick", teacher=TEACHER, stored=True)
    with evaluated(request) as prepared:
        evaluation = prepared.finish(quiet)
    suites = read_suites("generalization,quick")
    assert {one.suite_sha256 for one in evaluation.scores} == {one.sha256 for one in suites}
    assert set(evaluation.flags) == {one.title for one in suites}
