"""Every planted defect is found, by its own check and no other; a clean release has none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cxr_max.builders.checks.base import KEPT
from cxr_max.builders.checks.texts import looks_like
from cxr_max.builders.release import shards_of, write_rows
from cxr_max.builders.release_check import check_release, read_subjects
from cxr_max.cli import app
from cxr_max.errors import RequestError
from cxr_max.shards import canonical_json, sha256_of, write_shard
from tests.background import contents
from tests.builders.made_releases import Rows, change_rows, make_run, manifest_of, rows_of

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run")) / "release"


@pytest.fixture
def release(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "release"))


def set_in(config: str, split: str, row: int, /, **values: Any) -> Break:
    return lambda release: change_rows(release, config, split, lambda rows: rows[row].update(values))


def with_text(text: str, config: str = "trajectories", column: str = "reasoning") -> Break:
    return set_in(config, "train", 2, **{column: text})


def with_parts(column: str, **parts: Any) -> Break:
    def change(rows: Rows) -> None:
        next(row for row in rows if row[column])[column].update(parts)

    return lambda release: change_rows(release, "trajectories", "train", change)


def edit_manifest(change: Callable[[dict[str, Any]], object]) -> Break:
    def spoil(release: Path) -> None:
        manifest = manifest_of(release)
        change(manifest)
        (release / "manifest.json").write_text(canonical_json(manifest))

    return spoil


def edit_text(name: str, old: str, new: str) -> Break:
    """Changes a file that is made of the manifest, and lists it as if that were well."""

    def spoil(release: Path) -> None:
        path = release / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        entry = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        edit_manifest(lambda manifest: manifest["files"].update({name: entry}))(release)

    return spoil


def swap(rows: Rows) -> None:
    rows[0], rows[1] = rows[1], rows[0]


def other_columns(release: Path) -> None:
    shard = shards_of(release, "trajectories")[0]
    table = pq.read_table(shard).append_column("mine", pa.array(range(pq.read_metadata(shard).num_rows)))
    write_shard(shard, table.to_pylist(), table.schema)
    files = manifest_of(release)["files"]
    files[shard.relative_to(release).as_posix()] = {"bytes": shard.stat().st_size, "sha256": sha256_of(shard)}
    edit_manifest(lambda manifest: manifest.update(files=files))(release)


def rename_split(release: Path) -> None:
    shard = next(path for path in shards_of(release, "trajectories") if path.name.startswith("validation"))
    new = shard.with_name(shard.name.replace("validation", "val"))
    shard.rename(new)

    def relist(manifest: dict[str, Any]) -> None:
        name = shard.relative_to(release).as_posix()
        manifest["files"][new.relative_to(release).as_posix()] = manifest["files"].pop(name)

    edit_manifest(relist)(release)


def cut(release: Path) -> None:
    path = shards_of(release, "consensus")[0]
    path.write_bytes(path.read_bytes()[:-5])


DEFECTS: dict[str, tuple[Break, set[str]]] = {
    "a shard cut short": (cut, {"changed file", "schema"}),
    "a file that is gone": (lambda r: (r / "croissant.json").unlink(), {"missing file"}),
    "a file that nobody listed": (lambda r: (r / "ledger.sqlite").touch(), {"unlisted file"}),
    "a card edited by hand": (
        lambda r: (r / "README.md").write_text((r / "README.md").read_text() + "x"),
        {"changed file"},
    ),
    "a card with another number": (edit_text("README.md", "40 reasoning", "41 reasoning"), {"card"}),
    "a description of another file": (edit_text("croissant.json", '"sha256": "', '"sha256": "0'), {"croissant"}),
    "a column too many": (
        other_columns,
        {"schema", "digest", "stale config", "orphan", "croissant"},
    ),
    "a split of another name": (
        rename_split,
        {"split name", "digest", "stale config", "counts", "orphan", "croissant"},
    ),
    "a count that is wrong": (
        edit_manifest(lambda m: m["counts"]["trajectories"]["by_teacher"]["sim-grok-4"].update(ok=999)),
        {"counts", "card"},
    ),
    "a cost that is wrong": (edit_manifest(lambda m: m.update(cost_usd=3.5)), {"counts", "card"}),
    "a config made of other rows": (
        edit_manifest(lambda m: m["derived"]["consensus"].update({"from": "0" * 64})),
        {"stale config"},
    ),
    "a digest of other rows": (edit_manifest(lambda m: m.update(trajectories_digest="0" * 64)),
                               {"digest", "card", "croissant"}),
    "a subject in two splits": (
        set_in("trajectories", "train", 0, subject_id="phantom-0-p0000008"),
        {"subject leak"},
    ),
    "a row twice": (
        lambda r: change_rows(r, "trajectories", "train", lambda rows: [rows[0], *rows]),
        {"duplicate", "duplicate id"},
    ),
    "an id twice": (
        lambda r: change_rows(
            r, "trajectories", "train", lambda rows: rows[1].update(trajectory_id=rows[0]["trajectory_id"])
        ),
        {"duplicate id"},
    ),
    "a consensus twice": (
        lambda r: change_rows(r, "consensus", "train", lambda rows: [rows[0], *rows]),
        {"duplicate"},
    ),
    "rows in another order": (lambda r: change_rows(r, "trajectories", "train", swap), {"order"}),
    "a row in another split's file": (set_in("trajectories", "train", 0, split="test"), {"split"}),
    "a status that does not exist": (set_in("trajectories", "train", 0, status="fine"), {"status", "findings"}),
    "an empty reply": (
        set_in("trajectories", "train", 0, text=" \n", findings=None, sides=None, labeler=None),
        {"empty text"},
    ),
    "no study": (set_in("trajectories", "test", 0, study_id=None), {"null"}),
    "a state that does not exist": (with_parts("findings", Pneumonia=7), {"coding", "findings"}),
    "a side that does not exist": (with_parts("sides", Pneumonia="up"), {"coding", "findings"}),
    "a finding that is not in the text": (
        with_parts("findings", **{"Pleural Other": -1, "Fracture": -1}),
        {"findings"},
    ),
    "an image hash that is none": (set_in("trajectories", "test", 3, image_sha256=["xyz"]), {"hash"}),
    "a hash too few": (set_in("trajectories", "train", 0, source_sha256=[]), {"hash"}),
    "a prompt that nobody knows": (
        lambda r: (
            change_rows(r, "trajectories", "train", lambda rows: rows[-1].update(prompt_sha256="1" * 64)),
            edit_manifest(lambda m: m["prompts"].pop(0))(r),
        ),
        {"prompt", "counts", "card"},
    ),
    "a cost that is no number": (set_in("trajectories", "train", 0, cost_usd=float("nan")), {"number"}),
    "a conflict beyond 1": (set_in("preferences", "train", 0, conflicts=[1.5, 0.0]), {"number"}),
    "a preference about nobody": (set_in("preferences", "train", 0, study_id="phantom-0-0009999"), {"orphan"}),
    "a consensus about other images": (set_in("consensus", "train", 0, image_sha256=["2" * 64]), {"orphan"}),
    "texts without teachers": (set_in("preferences", "train", 0, rejected_teachers=[]), {"preference"}),
    "a date": (with_text("Compared with the film of 03/14/2019."), {"identifier"}),
    "a telephone number": (with_text("Results were called to (617) 555-0134."), {"identifier"}),
    "a number of a patient": (with_text("MRN: 4417720"), {"identifier"}),
    "an e-mail address": (with_text("ask j.doe@hospital.org", "consensus", "text"), {"identifier"}),
    "a name": (with_text("Discussed with Dr. Miller by telephone."), {"identifier"}),
    "a name in a dispreferred text": (
        lambda r: change_rows(
            r, "preferences", "train", lambda rows: rows[1]["rejected"].__setitem__(0, "Seen by Dr. Chen.")
        ),
        {"identifier"},
    ),
    "a key": (with_text(f"Bearer sk-{'a1B2' * 8}"), {"key"}),
    "the row's own subject": (
        with_text("Image of phantom-0-p0000000.", column="text"), {"identifier", "findings"}
    ),
}  # fmt: skip


def test_a_whole_release_is_clean_and_is_not_touched(whole: Path) -> None:
    before = contents(whole)
    verdict = check_release(whole)
    assert verdict.clean and not verdict.defects and verdict.rows == 40
    assert contents(whole) == before


DAILY = (
    "a shard cut short", "a file that is gone", "a file that nobody listed", "a card with another number",
    "a description of another file", "a column too many", "a count that is wrong", "a config made of other rows",
    "a subject in two splits", "a row twice", "rows in another order", "an empty reply",
    "a finding that is not in the text", "an image hash that is none", "a prompt that nobody knows",
    "a cost that is no number", "a preference about nobody", "a name in a dispreferred text", "a key",
)  # fmt: skip
"""The others take as long again and find what these find."""


@pytest.mark.parametrize(
    "name", [name if name in DAILY else pytest.param(name, marks=pytest.mark.slow) for name in DEFECTS]
)
def test_a_planted_defect_is_found(release: Path, name: str) -> None:
    spoil, expected = DEFECTS[name]
    spoil(release)
    verdict = check_release(release)
    print(name, dict(verdict.counts), [defect.message for defect in verdict.defects][:2])
    assert not verdict.clean
    assert set(verdict.counts) == expected


def test_subjects_of_a_benchmark_may_not_be_trained_on(whole: Path, tmp_path: Path) -> None:
    table = tmp_path / "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
    table.write_text("dicom_id,subject_id,study_id\nx,phantom-0-p0000000,1\ny,phantom-0-p0000008,2\nz,7,3\n")
    verdict = check_release(whole, excluded=read_subjects(table))
    assert dict(verdict.counts) == {"excluded subject": 1}
    assert "phantom-0-p0000000" in verdict.defects[0].message


def test_subjects_are_read_as_mimic_writes_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffsubject_id\n10000032\np10000048\n\n")
    assert read_subjects(tmp_path / "a.csv") == {"10000032", "10000048"}
    (tmp_path / "b.csv").write_text("patient\n1\n")
    with pytest.raises(RequestError, match="no column subject_id"):
        read_subjects(tmp_path / "b.csv")


def test_all_defects_are_counted_and_the_first_are_told(release: Path) -> None:
    def date_all(rows: Rows) -> None:
        for row in rows:
            row["reasoning"] = "Seen on 2019-03-14."

    change_rows(release, "trajectories", "train", date_all)
    verdict = check_release(release)
    assert verdict.counts["identifier"] == 32 and len(verdict.defects) == KEPT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.clear(), "see schema_version"),
        (lambda m: m.update(schema_version=99), "reads up to"),
        (lambda m: m.pop("counts"), "see counts"),
        (lambda m: m.update(files=[]), "see files"),
        (lambda m: m["files"].update({"README.md": {}}), r"see files\.README\.md\.bytes"),
        (lambda m: m["source"].update(mine="x"), "see source"),
    ],
)
def test_what_is_no_release_is_no_defect(release: Path, change: Callable[[Any], object], said: str) -> None:
    edit_manifest(change)(release)
    with pytest.raises(RequestError, match=said):
        check_release(release)


def test_a_manifest_that_no_card_can_be_made_of_is_told(release: Path) -> None:
    edit_manifest(lambda manifest: manifest["counts"]["trajectories"].pop("usage"))(release)
    verdict = check_release(release)
    assert set(verdict.counts) == {"counts", "card"}


def test_a_manifest_cannot_point_outside_the_release(release: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    entry = {"bytes": 1, "sha256": sha256_of(tmp_path / "outside")}
    edit_manifest(lambda manifest: manifest["files"].update({"../outside": entry}))(release)
    assert dict(check_release(release).counts) == {"missing file": 1}


def test_exit_codes_of_the_command(release: Path) -> None:
    runner = CliRunner()
    clean = runner.invoke(app, ["verify", str(release), "--json"])
    assert clean.exit_code == 0 and json.loads(clean.stdout)["clean"] is True
    (release / "mine.txt").touch()
    found = runner.invoke(app, ["verify", str(release)])
    assert found.exit_code == 1 and "unlisted file: mine.txt" in found.stdout
    (release / "manifest.json").unlink()
    assert isinstance(runner.invoke(app, ["verify", str(release)]).exception, RequestError)


def test_what_git_and_the_hub_keep_is_nobodys_business(release: Path) -> None:
    (release / ".gitattributes").touch()
    (release / ".cache").mkdir()
    (release / ".cache" / "etag").touch()
    assert check_release(release).clean


@pytest.mark.parametrize(
    "text",
    [
        "Comparison: ___. The patient ___ was called on ___ by Dr. ___ at 3:15 p.m.",
        "Widening at T4-T5, ribs 4/5/6, 2/3 of the lung, ratio 0.55, 1.5 x 2.3 cm, 24/7.",
        "Step 1/10: 100-200 mL; kVp 120, FiO2 0.40; grade 2-3, C5/6. Key finding: none. sk-shaped words stay.",
        "An 84-year-old; 12 year old film. Prof. review is advised. See Fig. 12.345 and 10.1 mm.",
        "The doctor Right side is fine. May 12 or so ribs. In March 2019 nothing.",
    ],
)
def test_ordinary_text_names_nobody(text: str) -> None:
    assert looks_like(text) is None


@pytest.mark.parametrize(
    "text",
    ["born 14.03.2019", "on 2019-3-14", "March 14, 2019", "14th March 2019", "Accession #: A4417720", "p10000032",
     "study 50414267", "1.2.840.113619.2.55.3", "Mrs. Jones", "patient name: Miller", "a 93-year-old",
     "call 617-555-0134", "+49 30 1234 5678", "123-45-6789", "jane@ward.example"],
)  # fmt: skip
def test_identifiers_are_seen(text: str) -> None:
    found = looks_like(f"No effusion; {text} as before.")
    assert found is not None and found[0] == "identifier"


def test_reports_that_were_deidentified_pass(shared: Path) -> None:
    import csv

    with (shared / "open-i" / "reports.csv").open(encoding="utf-8") as file:
        texts = [f"{row['findings']}\n{row['impression']}" for row in csv.DictReader(file)]
    texts += [path.read_text() for path in (shared / "mimic-fixture").rglob("s*.txt")]
    assert len(texts) > 3000 and not any(map(looks_like, texts))


def test_a_key_is_found_in_the_manifest_and_not_repeated(release: Path) -> None:
    key = f"hf_{'aB3' * 10}"
    edit_manifest(lambda manifest: manifest["settings"].update(note=key))(release)
    verdict = check_release(release)
    assert dict(verdict.counts) == {"key": 1} and not any(key in str(defect) for defect in verdict.defects)


def test_rows_of_which_little_is_known_are_no_defects(whole: Path, tmp_path: Path) -> None:
    """As trajectories that were made elsewhere are: without hashes, times, prices or a known prompt."""
    unknown = (
        "rendering", "provider", "model", "model_reported", "finish_reason", "reasoning", "input_tokens",
        "output_tokens", "cost_usd", "latency_s", "created_at", "request_sha256", "prompt_version", "prompt_given",
    )  # fmt: skip

    def rows(split: str) -> Rows:
        made = [row for row in rows_of(whole) if row["split"] == split]
        for row in made:
            row |= dict.fromkeys(unknown) | {"source_sha256": [None], "image_sha256": [None]}
            row["prompt_name"], row["prompt_sha256"] = "imported", f"{int(row['study_id'][-2:]):064x}"
        return made

    about = {
        "source": manifest_of(whole)["source"],
        "settings": {},
        "missing": {"gaps": 0, "failed": 0},
        "imported": {"files": 2},
    }
    manifest = write_rows(tmp_path / "made", {"train": 32, "validation": 4, "test": 4}, rows, about)
    assert manifest["prompts"] == [] and manifest["cost_usd"] is None and manifest["imported"] == {"files": 2}
    assert check_release(tmp_path / "made").clean
    assert (
        "| sim-grok-4 | not reported | unknown | unknown | unknown |" in (tmp_path / "made/README.md").read_text()
    )
