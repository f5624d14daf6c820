"""Who stands in one table, and how models are told apart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval.board import Comparison
from cxr_max.eval.bootstrap import difference
from cxr_max.eval.leaderboard import boards, clusters, read_all
from tests.eval import results


def silent(what: str, done: int, total: int) -> None:
    """Follow nothing."""


def compared(order: str, different: set[str]) -> list[Comparison]:
    return [
        Comparison(a, b, 0.1, 0.0, 0.2, 0.01 if a + b in different else 0.5, None)
        for place, a in enumerate(order)
        for b in order[place + 1 :]
    ]


def test_letters_by_hand() -> None:
    assert clusters("abc", compared("abc", set())) == {"a": "a", "b": "a", "c": "a"}
    assert clusters("abc", compared("abc", {"ab", "ac", "bc"})) == {"a": "a", "b": "b", "c": "c"}
    # The ends differ, the middle is like both.
    assert clusters("abc", compared("abc", {"ac"})) == {"a": "a", "b": "ab", "c": "b"}
    # Not an interval of ranks: the second differs from the third alone.
    assert clusters("abc", compared("abc", {"bc"})) == {"a": "ab", "b": "a", "c": "b"}
    assert clusters("", []) == {}


@given(st.data())
def test_two_models_share_a_letter_exactly_where_no_difference_is_shown(data: st.DataObject) -> None:
    order = "abcdef"
    pairs = [a + b for place, a in enumerate(order) for b in order[place + 1 :]]
    different = set(data.draw(st.lists(st.sampled_from(pairs), unique=True)))
    letters = clusters(order, compared(order, different))
    for pair in pairs:
        assert bool(set(letters[pair[0]]) & set(letters[pair[1]])) == (pair not in different)


def test_models_of_one_suite_and_reference_stand_on_one_board(tmp_path: Path) -> None:
    good = results.write(tmp_path / "good", "good", 0.95)
    poor = results.write(tmp_path / "poor", "poor", 0.6, seed=2)
    verified, refused = read_all([good, poor], silent)
    assert refused == []
    (board,) = boards(verified)
    assert [entry.name for entry in board.entries] == ["good", "poor"]
    auroc = next(one for one in board.compared if one.column.metric == "auroc")
    (pair,) = auroc.comparisons
    assert (pair.first, pair.second) == ("good", "poor")
    assert pair.low is not None and pair.low > 0
    assert pair.p_value is not None and pair.p_value < 0.05
    assert auroc.clusters == {"good": "a", "poor": "b"}
    first, second = (
        one.drawn[board.suite_sha256]["generalization", "auroc", None, None, None] for one in verified
    )
    assert pair.value == difference(first, second).value


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    folders = [results.write(tmp_path / name, name) for name in ("one", "two")]
    (board,) = boards(read_all(folders, silent)[0])
    assert all(one.clusters == {"one": "a", "two": "a"} for one in board.compared)


def test_another_version_of_the_suite_or_other_studies_are_another_board(tmp_path: Path) -> None:
    folders = [
        results.write(tmp_path / "one", "model"),
        results.write(
            tmp_path / "two", "model", suites=(results.suite(results.SUITE.replace("version = 1", "version = 2")),)
        ),
        results.write(tmp_path / "three", "model", n=40),
    ]
    made = boards(read_all(folders, silent)[0])
    assert len(made) == 3
    assert len({(board.suite_sha256, board.dataset_notes) for board in made}) == 3


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [results.write(tmp_path / name, "model", seed=seed) for name, seed in (("one", 1), ("two", 2))]
    verified, _ = read_all(folders, silent)
    with pytest.raises(RequestError, match="Two results are called model"):
        boards(verified)


def test_what_does_not_hold_is_named_and_the_others_stand(tmp_path: Path) -> None:
    good = results.write(tmp_path / "good", "good")
    bad = results.write(tmp_path / "bad", "bad")
    (bad / "scores.parquet").write_bytes(b"lies")
    verified, refused = read_all([good, bad, tmp_path / "nowhere"], silent)
    assert [one.result.model for one in verified] == ["good"]
    assert len(refused) == 2
    assert "scores.parquet" in refused[0]


def test_terms_keep_texts_and_identifiers_off_the_page(tmp_path: Path) -> None:
    public = results.write(tmp_path / "public", "model")
    private = results.write(tmp_path / "private", "model", data_use="credentialed")
    for folder, shown in ((public, True), (private, False)):
        (board,) = boards(read_all([folder], silent)[0])
        studies = [example.study for example in board.entries[0].examples]
        assert any(study.startswith("s") and not study.startswith("study") for study in studies) == shown
        assert shown or all(example.text is None for example in board.entries[0].examples)


def test_leaks_and_failures_are_said_beside_the_model(tmp_path: Path) -> None:
    leaky = results.write(tmp_path / "leaky", "leaky", leaks={**results.LEAKS, "leaked": 4})
    (board,) = boards(read_all([leaky], silent)[0])
    (entry,) = board.entries
    assert "4 of the scored studies are in the training release." in entry.notes
    assert {flag.name: flag.verdict for flag in entry.flags}["unseen test set"] == "no"


def test_one_data_set_with_two_references_is_told_apart(tmp_path: Path) -> None:
    folders = [results.write(tmp_path / "one", "model"), results.write(tmp_path / "two", "model", n=40)]
    titles = [board.dataset for board in boards(read_all(folders, silent)[0])]
    assert len(set(titles)) == 2
    assert all("reference" in title for title in titles)


def test_findings_are_compared_one_by_one_with_holm_over_them(tmp_path: Path) -> None:
    good = results.write(tmp_path / "good", "good", 0.95)
    poor = results.write(tmp_path / "poor", "poor", 0.6, seed=2)
    (board,) = boards(read_all([good, poor], silent)[0])
    found = {one.metric: one.findings for one in board.per_finding}
    assert set(found) == {"auroc", "balanced_accuracy", "f1"}
    values = [
        score.value
        for entry in board.entries
        for score in entry.scores
        if score.metric == "f1" and score.finding == "Edema"
    ]
    assert values[0] is not None and values[1] is not None
    assert found["f1"]["Edema"].value == pytest.approx(values[0] - values[1], abs=1e-12)
    assert len(found["auroc"]) == 14
