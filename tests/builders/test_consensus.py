"""The consensus and preferences configs: known votes, texts that were really written, a seal that holds."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.answers import read
from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.consensus import compose, fill, groups_of, medoid, prefer, word
from cxr_max.consensus import decided, vote
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, SIDES, blank, blank_sides
from cxr_max.records import Consensus, Sampling, Trajectory
from cxr_max.schemas import (
    consensus_of_row,
    read_consensus,
    read_trajectories,
    row_of,
    row_of_consensus,
    trajectory_of_row,
)
from tests.background import contents
from tests.builders.test_build import Quiet


def said(teacher: str, text: str = "", study: str = "s1", status: str = "ok", **claims: Any) -> Trajectory:
    """A trajectory that claims what is named: ``Edema=1`` or ``Pleural_Effusion=(1, "left")``."""
    findings, sides = blank(), blank_sides()
    for name, claim in claims.items():
        state, side = claim if isinstance(claim, tuple) else (claim, None)
        findings[name.replace("_", " ")], sides[name.replace("_", " ")] = state, side
    return Trajectory(
        trajectory_id=f"{study}/{teacher}", study_id=study, subject_id="p", source="t", split="train",
        image_ids=("i",), source_sha256=("f",), image_sha256=(f"j-{study}",), rendering="as_is-1@1024",
        teacher=teacher, provider="openai", model="m", model_reported="m-1", prompt_name="diagnose",
        prompt_version="1", prompt_sha256="t", prompt_given="nothing", sampling=Sampling(), sample_index=0,
        status=status,  # type: ignore[arg-type]
        finish_reason="stop", text=text or f"{teacher} writes", reasoning=None,
        findings=findings if status == "ok" else None, sides=sides if status == "ok" else None,
        labeler="l-1", contradictions=(),
        input_tokens=1, output_tokens=1, cost_usd=None, latency_s=1.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC), request_sha256="r",
    )  # fmt: skip


def settled(*group: Trajectory) -> Any:
    """The consensus in words, the preference, and whether the words were composed."""
    agreed = vote(group)
    worded, composed = word(agreed, group) if decided(agreed) else (agreed, False)
    return worded, prefer(worded, group), composed


def test_the_preferred_text_is_one_that_says_the_vote() -> None:
    wrong = said("a", Edema=0, Pneumonia=1)
    right = [said(t, f"large heart seen by {t}", Edema=1, Pneumonia=0) for t in "bcd"]
    agreed, preference, composed = settled(wrong, *right)
    assert not composed and agreed.text == preference.chosen == right[0].text
    assert preference.rejected_teachers == ("a", "c", "d") and preference.conflicts == (1.0, 0.0, 0.0)
    assert preference.agreeing == (False, True, True)
    assert preference.chosen not in preference.rejected


def test_no_conflict_is_not_agreement() -> None:
    """What is claimed beyond the consensus or missed of it opposes nothing: conflict 0, and yet a negative."""
    same = [said(t, Edema=1, Pneumonia=1, Fracture=0) for t in "abc"]
    more = said("d", Edema=1, Pneumonia=1, Pneumothorax=1)
    less, silent = said("e", Edema=1), said("f", Edema=1, Pneumonia=1)
    _, preference, _ = settled(*same, more, less, silent)
    assert preference.rejected_teachers == ("b", "c", "d", "e", "f")
    assert preference.conflicts == (0.0,) * 5 and preference.agreeing == (True, True, False, False, True)


def test_what_nothing_read_for_findings_agrees_with_nothing() -> None:
    """Over a consensus of absent findings, silence would count as agreement."""
    unread = replace(said("c"), findings=None, sides=None)
    _, preference, _ = settled(said("a", Edema=0), said("b", Edema=0), unread)
    assert preference.rejected_teachers == ("b", "c") and preference.agreeing == (True, False)


def test_the_preferred_text_is_nobodys_negative() -> None:
    twins = [said(t, "the same words", Edema=1) for t in "ab"]
    _, preference, _ = settled(*twins, said("c", Edema=1, Fracture=1))
    assert preference.rejected_teachers == ("c",)


def test_a_text_on_the_wrong_side_does_not_say_the_vote() -> None:
    left = [said(t, Pleural_Effusion=(1, "left")) for t in "ab"]
    agreed, preference, composed = settled(said("c", Pleural_Effusion=(1, "right")), *left)
    assert not composed and agreed.text == left[0].text and preference.conflicts[0] == 1.0


def test_a_text_is_composed_where_nobody_says_the_vote() -> None:
    one = said("a", Edema=1, Pneumonia=1, Fracture=0)
    two = said("b", Edema=1, Pneumonia=0, Fracture=1)
    three = said("c", Edema=0, Pneumonia=1, Fracture=1)
    agreed, preference, composed = settled(one, two, three)
    assert composed and len(preference.rejected) == 3
    answer = read(agreed.text)
    assert answer is not None and answer.findings == agreed.findings


def test_refusals_are_neither_preferred_nor_dispreferred() -> None:
    agreed, preference, _ = settled(said("a", Edema=1), said("b", Edema=1), said("c", status="refused"))
    assert agreed.abstained == ("c",) and preference.rejected_teachers == ("b",)


def test_without_a_quorum_nothing_is_preferred() -> None:
    agreed, preference, composed = settled(said("a", Edema=1), said("b", Fracture=1))
    assert (agreed.text, preference, composed) == (None, None, False)


def test_the_medoid_is_in_the_middle() -> None:
    texts = ["the heart is large", "the heart is large and wide", "a completely different text here"]
    assert medoid([said(str(n), text) for n, text in enumerate(texts)]).text == texts[0]  # type: ignore[union-attr]
    assert medoid([]) is None


@given(st.dictionaries(st.sampled_from(FINDINGS), st.tuples(st.sampled_from([1, 0, -1]), st.sampled_from(SIDES))))
def test_a_composed_text_reads_back_as_the_vote(claims: dict[str, tuple[int, str]]) -> None:
    findings = {**blank(), **{name: state for name, (state, _) in claims.items()}}
    sides = {**blank_sides(), **{name: side for name, (state, side) in claims.items() if state}}
    agreed = Consensus("s", ("j",), "t", findings, sides, {}, (), "m", None)  # type: ignore[arg-type]
    answer = read(compose(agreed))
    assert (answer is None) == (not claims)
    assert answer is None or (answer.findings == findings and answer.sides == sides)


def test_groups_keep_image_sets_and_prompts_apart() -> None:
    rows = [said("a"), said("b"), replace(said("a"), prompt_sha256="u"), said("a", study="s2")]
    assert [[t.teacher for t in group] for group in groups_of(rows)] == [["a", "b"], ["a"], ["a"]]


def test_rows_and_records_are_inverses() -> None:
    trajectory = said("a", Edema=1)
    assert trajectory_of_row(row_of(trajectory)) == trajectory
    agreed = vote([trajectory, said("b", Edema=-1), said("c", status="refused")])
    assert consensus_of_row(row_of_consensus(agreed)) == agreed


@pytest.fixture
def release(tmp_path: Path) -> Path:
    build(BuildRequest("phantom", "simulated", tmp_path, studies=12), Quiet())
    return tmp_path / "release"


def test_filling_a_release(release: Path) -> None:
    import datasets

    filled = fill(release)
    assert filled.consensus == 12 and 0 < filled.preferences <= 12
    manifest = json.loads((release / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json"} == set(contents(release))
    assert manifest["counts"]["consensus"]["rows"] == 12
    assert manifest["derived"]["consensus"]["from"] == manifest["trajectories_digest"]
    cache = str(release.parent / "cache")
    together = datasets.load_dataset(str(release), "consensus", cache_dir=cache)
    rows = [row for split in together.values() for row in split]
    by_study: dict[str, list[Trajectory]] = {}
    for split in ("train", "validation", "test"):
        for trajectory in read_trajectories(release, split):
            by_study.setdefault(trajectory.study_id, []).append(trajectory)
    for row in rows:
        agreed = vote(by_study[row["study_id"]])
        assert row["findings"] == dict(agreed.findings) and row["abstained"] == list(agreed.abstained)
    read_back = [agreed for split in ("train", "validation", "test") for agreed in read_consensus(release, split)]
    assert {agreed.study_id: agreed.text for agreed in read_back} == {row["study_id"]: row["text"] for row in rows}
    preferred = datasets.load_dataset(str(release), "preferences", cache_dir=cache)
    for row in (row for split in preferred.values() for row in split):
        assert row["chosen"] not in row["rejected"]
        assert len(row["rejected"]) == len(row["rejected_teachers"]) == len(row["conflicts"]) >= 1
        assert len(row["agreeing"]) == len(row["rejected"])
        assert all(conflict == 0 for conflict, same in zip(row["conflicts"], row["agreeing"], strict=True) if same)
    card = (release / "README.md").read_text()
    assert "Where `agreeing` is true" in card and "A model was asked" not in card


def test_filling_twice_gives_the_same_bytes(release: Path) -> None:
    fill(release)
    once = contents(release)
    fill(release)
    assert contents(release) == once


def test_a_rebuild_keeps_the_consensus_while_the_trajectories_stay(release: Path) -> None:
    fill(release)
    filled = contents(release)
    build(BuildRequest("phantom", "simulated", release.parent, studies=12), Quiet())
    assert contents(release) == filled
    build(BuildRequest("phantom", "simulated", release.parent, studies=13), Quiet())
    assert (
        not (release / "data" / "consensus").exists() and "consensus-" not in (release / "README.md").read_text()
    )
    assert json.loads((release / "manifest.json").read_text())["derived"] == {}


def test_estimated_weights_say_so(release: Path) -> None:
    fill(release, weighting="estimated")
    manifest = json.loads((release / "manifest.json").read_text())
    assert "weights estimated" in manifest["derived"]["preferences"]["method"]


def test_what_cannot_be_filled_is_said(release: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no sealed release"):
        fill(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="quorum of 9"):
        fill(release, quorum=9)
    assert (release / "manifest.json").exists()
