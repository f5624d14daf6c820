"""The consensus in a model's words: kept only where it stands, paid for once, never sent where it may not go."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cxr_max import prompts
from cxr_max.answers import last_heading
from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.consensus import Filled, compose, fill, groups_of, medoid, word
from cxr_max.builders.pixels import Pixels
from cxr_max.builders.sending import Interrupted
from cxr_max.builders.synthesis import COPIED, OUTCOMES, copied, judge, writer_for
from cxr_max.consensus import takes_part, vote
from cxr_max.errors import DataUseError, RequestError, RunLockedError
from cxr_max.records import SPLITS, Consensus, Trajectory
from cxr_max.schemas import read_consensus, read_trajectories
from cxr_max.teachers import roster
from tests.background import background, contents, keys_received, roster_of
from tests.builders.test_build import Quiet
from tests.builders.test_consensus import said
from tests.cli.test_cli import call
from tests.teachers.scripted import body, error

OPENING = "Well centred, upright, exposed so that the spine shows behind the heart. "
KINDS = ("kept", "copy", "unsupported", "refused", "unparsed", "readers", "truncated", "no_reply", "bare")


def groups(release: Path) -> list[list[Trajectory]]:
    return [group for split in SPLITS for group in groups_of(read_trajectories(release, split))]


def consensus(release: Path) -> dict[str, Consensus]:
    return {agreed.study_id: agreed for split in SPLITS for agreed in read_consensus(release, split)}


def preferences(release: Path) -> dict[str, dict[str, Any]]:
    import pyarrow.parquet as pq

    files = sorted((release / "data" / "preferences").glob("*.parquet"))
    return {row["study_id"]: row for file in files for row in pq.read_table(file).to_pylist()}


def written(kind: str, agreed: Consensus, group: list[Trajectory]) -> str:
    """A reply of one kind; all but the unsupported one would say what the vote says."""
    good = OPENING + compose(agreed)
    heading = last_heading(good)
    assert heading is not None
    block = good[heading.start() :]
    if kind == "copy":
        copied_from = next(t.text for t in group if takes_part(t))
        end = last_heading(copied_from)
        assert end is not None
        return copied_from[: end.start()] + block
    if kind == "unsupported":
        state = "absent" if agreed.findings["Fracture"] == 1 else "present"
        return f"{good}\nFracture: {state}"
    return {
        "refused": "I'm sorry, but I cannot interpret medical images.",
        "unparsed": OPENING,
        "readers": good.replace(OPENING, "Most readers agree on this. "),
        "bare": block,
    }.get(kind, good)


class Script:
    """Answers the consensus prompt of every image set in the way that is laid down for it."""

    def __init__(self, release: Path) -> None:
        self.texts: dict[str, tuple[str, str]] = {}
        self.kinds: dict[str, str] = {}
        for number, group in enumerate(groups(release)):
            prompt = prompts.load("consensus").fill_trajectories(
                prompts.load("diagnose"), [t for t in group if takes_part(t)]
            )
            kind = KINDS[number % len(KINDS)]
            self.kinds[group[0].study_id] = kind
            self.texts[prompt] = kind, written(kind, vote(group), group)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        content = (await request.json())["messages"][0]["content"]
        assert content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,") and len(content) == 2
        kind, text = self.texts[content[1]["text"]]
        if kind == "no_reply":
            return error(400, "too long for me")
        if kind == "truncated":
            cut = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": text}}
            return body("openai", choices=[cut])
        return body("openai", text)


def filled_by(release: Path, teachers: Path, **options: Any) -> tuple[Filled, Quiet]:
    watch = Quiet()
    return fill(release, writer=writer_for(release, watch, teacher="mine", roster_file=teachers, **options)), watch


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    build(BuildRequest("phantom", "simulated", out, studies=18), Quiet())
    return out


@pytest.fixture
def release(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run")) / "release"


@pytest.fixture
def scripted(release: Path, tmp_path: Path) -> Iterator[tuple[Any, Script, Path]]:
    script = Script(release)
    with background(script) as server:
        yield server, script, roster_of(tmp_path, server, "mine")


def test_every_kind_of_reply_is_told_apart(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    server, script, teachers = scripted
    filled, _ = filled_by(release, teachers)
    assert len(server.headers) == 18 and not filled.complete
    expected = Counter("unparsed" if kind == "bare" else kind for kind in script.kinds.values())
    assert filled.student == {outcome: expected[outcome] for outcome in OUTCOMES}
    assert set(KINDS) - {"bare"} <= {outcome for outcome, count in filled.student.items() if count}


def test_what_is_kept_is_the_students_and_the_rest_is_the_votes(
    release: Path, scripted: tuple[Any, Script, Path]
) -> None:
    _, script, teachers = scripted
    filled_by(release, teachers)
    found, preferred = consensus(release), preferences(release)
    for group in groups(release):
        agreed = vote(group)
        row = found[agreed.study_id]
        assert row.findings == agreed.findings
        assert row.text is not None and preferred[agreed.study_id]["chosen"] == row.text
        if script.kinds[agreed.study_id] == "kept":
            assert row.method == f"student m-mine, findings by {agreed.method}"
            assert row.text == OPENING + compose(agreed)
            whole = [t for t in group if t.status == "ok"]
            assert preferred[agreed.study_id]["rejected_teachers"] == [t.teacher for t in whole]
        else:
            assert row.method == agreed.method and row.text == word(agreed, group)[0].text


def test_the_release_is_sealed_again_and_its_card_says_who_wrote(
    release: Path, scripted: tuple[Any, Script, Path]
) -> None:
    before = json.loads((release / "manifest.json").read_text())
    filled, _ = filled_by(release, scripted[2])
    manifest = json.loads((release / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json"} == set(contents(release))
    assert manifest["trajectories_digest"] == before["trajectories_digest"]
    assert manifest["counts"]["consensus"]["student"] == filled.student
    assert manifest["derived"]["consensus"]["method"] == "student m-mine, else vote, quorum 2, weights equal"
    card = (release / "README.md").read_text()
    assert "2 of its texts are kept" in card and "2 refused, 2 truncated, 4 unparsed" in card
    fill(release)
    assert "A model was asked" not in (release / "README.md").read_text()


def test_nothing_is_asked_twice(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    server, script, teachers = scripted
    filled_by(release, teachers)
    once, first = contents(release), Counter(keys_received(server))
    assert set(first.values()) == {1}
    filled_by(release, teachers)
    again = Counter(keys_received(server)) - first
    assert contents(release) == once and again.total() == script_count(script, "no_reply")
    script.texts = {
        prompt: ("kept" if kind == "no_reply" else kind, text) for prompt, (kind, text) in script.texts.items()
    }
    filled, _ = filled_by(release, teachers)
    assert Counter(keys_received(server)) - first - again == again
    assert filled.complete and filled.student["kept"] == 4
    sent = len(server.headers)
    mended = contents(release)
    assert filled_by(release, teachers)[0] == filled and contents(release) == mended
    assert len(server.headers) == sent


def script_count(script: Script, kind: str) -> int:
    return Counter(script.kinds.values())[kind]


def test_another_ledger_gives_the_same_bytes(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    _, _, teachers = scripted
    filled_by(release, teachers)
    once = contents(release)
    (release.parent / "consensus.sqlite").unlink()
    filled_by(release, teachers)
    assert contents(release) == once


def test_a_stop_leaves_the_release_as_it_was(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    server, script, teachers = scripted
    before = contents(release)
    answered = 0

    async def stopping(request: web.Request) -> web.StreamResponse:
        nonlocal answered
        answered += 1
        if answered == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return await script(request)

    server.answers = [stopping]
    with pytest.raises(Interrupted, match=r"consensus\.sqlite"):
        filled_by(release, teachers)
    assert contents(release) == before and 5 <= answered < 18
    server.answers = [script]
    filled_by(release, teachers)
    replied = {key for key, count in Counter(keys_received(server)).items() if count == 1}
    assert len(replied) >= 18 - script_count(script, "no_reply") and len(set(keys_received(server))) == 18


def test_another_job_at_work_is_not_disturbed(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    from cxr_max.builders.run_folder import RunFolder

    before = contents(release)
    with RunFolder(release.parent).locked(), pytest.raises(RunLockedError):
        filled_by(release, scripted[2])
    assert contents(release) == before and scripted[0].headers == []


def test_images_that_cannot_be_had_are_named(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    server, _, teachers = scripted
    watch = Quiet()
    writer = writer_for(release, watch, teacher="mine", roster_file=teachers)
    filled = fill(release, writer=replace(writer, pixels=Pixels({})))
    assert server.headers == [] and filled.student["no_image"] == 18 and not filled.complete
    assert {gap.study_id for gap in watch.gaps} == {group[0].study_id for group in groups(release)}
    assert filled_by(release, teachers)[0].student["no_image"] == 0


def test_what_nobody_decided_is_not_asked_about(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    server, _, teachers = scripted
    writer = writer_for(release, Quiet(), teacher="mine", roster_file=teachers)
    filled = fill(release, quorum=7, writer=writer)
    assert filled.undecided > 0
    assert len(server.headers) == 18 - filled.undecided == sum(filled.student.values())


def test_a_prompt_that_gives_findings_away_is_left_to_the_vote(tmp_path: Path) -> None:
    out = tmp_path / "run"
    build(BuildRequest("phantom", "simulated", out, studies=6, prompt="rationale"), Quiet())
    with background(lambda request: None) as server:
        teachers = roster_of(tmp_path, server, "mine")
        with pytest.raises(RequestError, match="The consensus on rationale cannot be asked for"):
            writer_for(out / "release", Quiet(), teacher="mine", roster_file=teachers)
    build(BuildRequest("phantom", "simulated", out, studies=6), Quiet())
    diagnosed = [g for g in groups(out / "release") if g[0].prompt_name == "diagnose"]
    others = len(groups(out / "release")) - len(diagnosed)

    async def refuse(request: web.Request) -> web.StreamResponse:
        return body("openai", "I'm sorry, but I cannot interpret medical images.")

    with background(refuse) as server:
        filled, _ = filled_by(out / "release", roster_of(tmp_path, server, "mine"))
        assert len(server.headers) == len(diagnosed) == filled.student["refused"] == 6
        assert 0 < filled.student["not_asked"] <= others


def credentialed(release: Path) -> None:
    path = release / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["source"]["data_use"] = "credentialed"
    path.write_text(json.dumps(manifest))


def test_credentialed_trajectories_stay_away_from_remote_services(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_API_KEY", "key")
    credentialed(release)
    before = contents(release.parent)
    with pytest.raises(DataUseError, match=r"grok-4 is a remote service \(api\.x\.ai\)"):
        writer_for(release, Quiet(), teacher="grok-4")
    attestation = tmp_path / "attestation.toml"
    promises = "".join(f"{name} = true\n" for name in ("zero_retention", "no_training", "no_human_review"))
    days = f"date = {date.today() - timedelta(days=1)}\nexpiry = {date.today() + timedelta(days=1)}\n"
    attestation.write_text(f'[[attestation]]\nprovider = "api.x.ai"\naccount = "a"\n{days}{promises}')
    assert writer_for(release, Quiet(), teacher="grok-4", attestation=attestation).spec.name == "grok-4"
    attestation.unlink()
    assert contents(release.parent) == before


def test_credentialed_trajectories_may_be_seen_on_this_machine(
    release: Path, scripted: tuple[Any, Script, Path]
) -> None:
    credentialed(release)
    assert filled_by(release, scripted[2])[0].student["kept"] == 2
    assert "Credentialed data" in (release / "README.md").read_text()


def test_a_checkpoint_is_asked_like_any_teacher(
    release: Path, scripted: tuple[Any, Script, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, teachers = scripted
    folders: list[Path] = []

    def student_spec(folder: Path) -> Any:
        folders.append(folder)
        return roster.load(teachers)["mine"]

    monkeypatch.setattr(roster, "student_spec", student_spec, raising=False)
    filled = fill(release, writer=writer_for(release, Quiet(), model=Path("checkpoint")))
    assert folders == [Path("checkpoint")] and filled.student["kept"] == 2


def test_the_command(
    release: Path,
    scripted: tuple[Any, Script, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, script, teachers = scripted
    command = ("consensus", release.parent, "--method", "student", "--teacher", "mine", "--roster", teachers)
    code, printed, told = call(capsys, monkeypatch, *command)
    assert code == 3 and "2 texts of the asked model kept" in printed and "2 no_reply" in printed
    assert "Failed 2 times: mine: HTTP 400" in told and "the same command again" in printed
    script.texts = {
        prompt: ("kept" if kind == "no_reply" else kind, text) for prompt, (kind, text) in script.texts.items()
    }
    code, printed, _ = call(capsys, monkeypatch, *command, "--json")
    found: Mapping[str, Any] = json.loads(printed)
    assert code == 0 and found["student"]["kept"] == 4 and found["consensus"] == 18


# Judging one text.

REASONING = "the heart is enlarged and the left costophrenic angle is blunted by a small effusion"


def text_of(reasoning: str) -> str:
    return f"{reasoning}\n\nANSWER\nCardiomegaly: present\nPleural Effusion: present, left"


def test_the_share_that_is_copied() -> None:
    """Of 15 words there are 11 grams; a changed word breaks the five that it stands in, the last word one."""
    assert copied(text_of(REASONING), text_of(REASONING.upper() + ".")) == 1.0
    assert copied(text_of(REASONING), text_of(REASONING.replace("effusion", "amount"))) == pytest.approx(10 / 11)
    assert copied(text_of(REASONING), text_of(REASONING.replace("left", "right"))) == pytest.approx(6 / 11)
    assert copied(text_of(REASONING), text_of("nothing of the kind is said here")) == 0.0


def test_one_sentence_of_a_long_text_is_copied_but_not_the_other_way_round() -> None:
    long = f"{REASONING}. {' '.join(f'word{n}' for n in range(60))}"
    assert copied(text_of(REASONING), text_of(long)) == 1.0
    assert copied(text_of(long), text_of(REASONING)) < 0.2


def test_a_text_shorter_than_a_gram_is_one() -> None:
    assert copied("big heart", "Big heart!") == 1.0 and copied("big heart", "a big heart") == 0.0
    assert copied("", "a big heart") == 0.0


def test_one_word_in_twenty_replaced_is_a_copy_and_one_in_ten_is_none() -> None:
    words = [f"w{n}" for n in range(400)]

    def with_every(nth: int) -> str:
        return " ".join("other" if n % nth == nth // 2 else w for n, w in enumerate(words))

    assert copied(with_every(20), " ".join(words)) > COPIED > copied(with_every(10), " ".join(words))


@pytest.mark.parametrize(
    ("text", "claims", "outcome"),
    [
        (text_of("A wide heart with a little fluid at its left."), {}, "kept"),
        (text_of(REASONING), {}, "copy"),
        (text_of("A wide heart."), {"Edema": 1}, "unsupported"),
        (text_of("A wide heart."), {"Pleural_Effusion": (1, "right")}, "unsupported"),
        (text_of("A wide heart."), {"Cardiomegaly": None}, "unsupported"),
        (text_of("Reader 2 sees a wide heart."), {}, "readers"),
        ("ANSWER\nCardiomegaly: present\nPleural Effusion: present, left", {}, "unparsed"),
    ],
)
def test_a_text_is_judged_by_what_it_claims(text: str, claims: dict[str, Any], outcome: str) -> None:
    group = [
        said(name, text_of(f"{name} writes: {REASONING}"), Cardiomegaly=1, Pleural_Effusion=(1, "left"))
        for name in "ab"
    ]
    ours: dict[str, Any] = {"Cardiomegaly": 1, "Pleural_Effusion": (1, "left"), **claims}
    assert judge(said("student", text, **ours), vote(group), group) == outcome


def test_a_tie_between_middle_texts_goes_to_the_first() -> None:
    """Added in floating point one after the other, the same three overlaps differ by their order."""
    texts = ["a writes", "b writes", "c writes", "d writes", "e writes", "f writes", "g writes"]
    chosen = medoid([said(text[0], text) for text in texts])
    assert chosen is not None and chosen.text == "a writes"


def test_asking_stops_before_the_limit_and_goes_on_when_it_is_raised(
    release: Path, scripted: tuple[Any, Script, Path]
) -> None:
    server, _, teachers = scripted
    teachers.write_text(f"{teachers.read_text()}price = {{ input = 0, output = 10000 }}\n")
    most, each = 2048 * 10_000 / 1e6, 7 * 10_000 / 1e6
    filled, watch = filled_by(release, teachers, max_cost_usd=most + 4.5 * each)
    assert len(server.headers) == 5 and not filled.complete and filled.student["no_reply"] >= 13
    assert "raise it and run the same command again" in " ".join(watch.warnings)
    filled_by(release, teachers, max_cost_usd=most + 4.5 * each)
    assert len(server.headers) == 5, "what was spent before counts"
    filled_by(release, teachers, max_cost_usd=1000.0)
    assert len(server.headers) >= 18


def test_a_limit_that_cannot_be_kept_is_refused(release: Path, scripted: tuple[Any, Script, Path]) -> None:
    server, _, teachers = scripted
    with pytest.raises(RequestError, match="price of mine is unknown"):
        filled_by(release, teachers, max_cost_usd=5.0)
    (release / "config.json").touch()
    with pytest.raises(RequestError, match="a student costs nothing"):
        writer_for(release, Quiet(), model=release, max_cost_usd=5.0)
    assert server.headers == []
