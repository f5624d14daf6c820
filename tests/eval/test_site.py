"""The leaderboard's site: what stands where, what hostile names cannot do to it, and that its script works."""

import base64
import csv
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval import site_charts, site_tables
from cxr_max.eval.board import Board, Column, Comparison, Entry, Example
from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.eval.site import SORTING, against, by_task, matched, page_name, policy, slug, write_site
from cxr_max.records import Score
from tests.eval.boards import COLUMNS, DATASET, NAMES, board, scored

VOID = {"meta", "link", "br", "img", "input", "hr", "source", "col"}
AUROC = COLUMNS[0]


@dataclass(eq=False)
class Element:
    """An element with its text, that of its children included."""

    tag: str
    attrs: dict[str, str]
    parent: "Element | None" = None
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def parents(self) -> Iterator["Element"]:
        """From the inside out."""
        if self.parent is not None:
            yield self.parent
            yield from self.parent.parents()

    def all(self, tag: str, **attrs: str) -> list["Element"]:
        """Descendants by tag and attributes; ``class_`` is one of the classes."""
        found = []
        for child in self.children:
            class_ = attrs.get("class_")
            rest = {name.replace("_", "-"): value for name, value in attrs.items() if name != "class_"}
            fits = class_ is None or class_ in child.attrs.get("class", "").split()
            if tag in ("*", child.tag) and fits and rest.items() <= child.attrs.items():
                found.append(child)
            found += child.all(tag, **attrs)
        return found


class Tree(HTMLParser):
    """Strict: every element that is opened is closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Element("", {})
        self.feed(html)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Element(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        for element in (self.at, *self.at.parents()):
            element.text += data


def written(boards: Sequence[Board], out: Path, **options: str) -> Element:
    """The index of a site."""
    write_site(boards, out, **options)
    return Tree((out / "index.html").read_text("utf-8")).root


def model_page(one: Board, name: str, out: Path) -> Element:
    entry = next(entry for entry in one.entries if entry.name == name)
    return Tree((out / "models" / f"{page_name(one, entry)}.html").read_text("utf-8")).root


def rows(index: Element) -> list[Element]:
    """Of the first headline table."""
    return index.all("table", class_="sortable")[0].all("tbody")[0].all("tr")


def names(index: Element) -> list[str]:
    return [row.all("th")[0].all("a")[0].text for row in rows(index)]


def only(name: str, scores: Sequence[Score], **fields_: object) -> Entry:
    empty: dict[str, object] = {"settings": {}, "notes": (), "flags": (), "examples": ()}
    return Entry(name=name, scores=tuple(scores), **{**empty, **fields_})  # type: ignore[arg-type]


def plain(entries: Sequence[Entry], columns: Sequence[Column] = (AUROC,), **fields_: object) -> Board:
    """A board of nothing but these models."""
    empty: dict[str, object] = {
        "suite": "quick 1", "suite_sha256": "ab" * 32, "dataset": "By hand", "dataset_notes": (), "compared": (),
        "per_finding": (), "ceiling": (),
    }  # fmt: skip
    return Board(columns=tuple(columns), entries=tuple(entries), **{**empty, **fields_})  # type: ignore[arg-type]


def auroc(value: float | None, **fields_: object) -> Score:
    return scored("generalization", "auroc", value, **fields_)


@dataclass(frozen=True)
class Site:
    """A board with everything on it, and where its site was written."""

    board: Board
    out: Path
    index: Element


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Written once for the tests that only look."""
    out = tmp_path_factory.mktemp("site")
    one = board()
    return Site(one, out, written([one], out))


# The pages.


def test_a_site_has_an_index_a_page_per_model_and_tables(tmp_path: Path) -> None:
    boards = [board(), board(NAMES[:3], dataset="Open-i")]
    index = written(boards, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "differences.csv", "index.html", "leaderboard.csv", "leaderboard.md", "models",
    ]  # fmt: skip
    assert len(list((tmp_path / "models").iterdir())) == 11
    assert [section.all("h2")[0].text for section in index.all("section", class_="board")] == [
        f"{DATASET}, suite {boards[0].suite}",
        f"Open-i, suite {boards[1].suite}",
    ]
    assert len(index.all("nav")[0].all("a")) == 2
    assert not written(boards[:1], tmp_path).all("nav")


def test_every_link_leads_somewhere_and_every_identifier_is_unique(tmp_path: Path) -> None:
    write_site([board(), board(NAMES[:3], dataset="Open-i")], tmp_path)
    pages = {path.resolve(): Tree(path.read_text("utf-8")).root for path in tmp_path.rglob("*.html")}
    ids = {}
    for path, page in pages.items():
        found = [one.attrs["id"] for one in page.all("*") if "id" in one.attrs]
        assert len(set(found)) == len(found), path
        ids[path] = set(found)
    for path, page in pages.items():
        for link in page.all("a"):
            target, _, anchor = link.attrs["href"].partition("#")
            meant = (path.parent / target).resolve() if target else path
            assert meant.is_file(), link.attrs["href"]
            assert not anchor or anchor in ids[meant], link.attrs["href"]
        for labelled in (one for one in page.all("*") if "aria-labelledby" in one.attrs):
            assert labelled.attrs["aria-labelledby"] in ids[path]


def test_a_headline_cell_shows_value_interval_and_letters(site: Site) -> None:
    index = site.index
    best = site_tables.ranked(site.board, AUROC)[0]
    score = site_tables.headline(best.scores, AUROC)
    assert score is not None and score.value is not None
    cell = rows(index)[0].all("td")[0]
    assert f"{score.value:.3f}" in cell.text and f"[{score.low:.3f}, {score.high:.3f}]" in cell.text
    assert cell.all("span", class_="letters")[0].text == "group a"
    assert "412 patients decide it; 1680 rows scored, 12 refused, 3 failed." in cell.attrs["title"]
    assert [td.text for td in rows(index)[0].all("td")[-3:]] == ["1,680", "12", "3"]
    assert "share a letter" in index.text


def test_models_stand_best_first_and_those_without_a_value_last(tmp_path: Path) -> None:
    entries = [only("none", []), only("b", [auroc(0.7)]), only("void", [auroc(None)]), only("a", [auroc(0.9)])]
    assert names(written([plain(entries)], tmp_path)) == ["a", "b", "none", "void"]
    error = Column("generalization", "calibration_error", None, "Error")
    low = [
        only(name, [scored("generalization", "calibration_error", value)])
        for name, value in (("x", 0.3), ("y", 0.1))
    ]
    index = written([plain(low, [error])], tmp_path)
    assert names(index) == ["y", "x"]
    assert index.all("th", data_kind="number")[0].attrs["aria-sort"] == "ascending"


def test_what_is_wrong_with_a_number_is_said_on_hover_and_in_text(tmp_path: Path) -> None:
    few = "7 patients decide it, and fewer than 10 do not carry an interval"
    entries = [
        only("sure", [auroc(0.9)]),
        only("unsure", [auroc(0.8, trusted=False, distrust=few, patients=7)]),
        only("small", [auroc(0.7, n_scored=12)]),
        only("rare", [auroc(0.65, patients=15)]),
        only("bare", [auroc(0.6, low=None, high=None)]),
        only("void", [auroc(None, reason="the model gives no scores")]),
        only("gone", []),
    ]
    index = written([plain(entries)], tmp_path)
    notes = {item.attrs["id"]: item.text for item in index.all("ol", class_="notes")[0].all("li")}
    said = {}
    for row in rows(index):
        marks = row.all("td")[0].all("a", class_="mark")
        said[row.all("a")[0].text] = [notes[mark.attrs["href"].removeprefix("#")] for mark in marks]
        assert [mark.attrs["title"] for mark in marks] == said[row.all("a")[0].text]
        assert all(mark.attrs["title"] in mark.attrs["aria-label"] for mark in marks)
    assert said == {
        "sure": [],
        "unsure": [f"Interval not to be trusted: {few}.", "Few patients: fewer than 20 decide it."],
        "small": ["Few rows: fewer than 20 were scored."],
        "rare": ["Few patients: fewer than 20 decide it."],
        "bare": ["No interval."],
        "void": ["No value: the model gives no scores."],
        "gone": ["Not measured: the result has no such number."],
    }
    assert "unsure" in rows(index)[1].all("td")[0].all("span")[0].attrs["class"]


def test_the_worst_group_is_named(tmp_path: Path) -> None:
    column = Column("robustness", "worst_group", None, "Worst group")
    entry = only("a", [scored("robustness", "worst_group", 0.7, group="sex F")])
    assert "sex F" in rows(written([plain([entry], [column])], tmp_path))[0].all("td")[0].text


def test_flags_are_words_with_reasons(site: Site) -> None:
    index = site.index
    flags = index.all("td", class_="flag")
    assert {" ".join(flag.all("span")[0].text.split()) for flag in flags} == {"✓ yes", "✗ no", "? not shown"}
    for flag in flags:
        assert flag.attrs["title"] in flag.all("a")[0].attrs["aria-label"]
    page = model_page(site.board, NAMES[1], site.out)
    assert "At severity 3 it loses 0.11, [0.08, 0.14], of balanced accuracy" in page.text


def test_simulated_teachers_are_said_to_be(tmp_path: Path) -> None:
    one = board(simulated=NAMES[:2])
    index = written([one], tmp_path / "one")
    (banner,) = index.all("p", class_="banner")
    assert NAMES[0] in banner.text and NAMES[1] in banner.text and NAMES[2] not in banner.text
    assert model_page(one, NAMES[0], tmp_path / "one").all("p", class_="banner")
    assert not model_page(one, NAMES[2], tmp_path / "one").all("p", class_="banner")
    assert not written([board()], tmp_path / "two").all("p", class_="banner")
    assert "**Simulated: no model answered for" in (tmp_path / "one" / "leaderboard.md").read_text("utf-8")


def test_the_terms_of_the_data_stand_on_top_of_every_page(site: Site) -> None:
    for page in (site.index, model_page(site.board, NAMES[0], site.out)):
        terms = page.all("ul", class_="terms")[0]
        assert [item.text for item in terms.all("li")] == list(site.board.dataset_notes)


def test_a_heat_map_has_a_cell_for_every_model_and_finding(site: Site) -> None:
    index = site.index
    auroc_map = index.all("table", class_="heat")[0]
    assert len(index.all("table", class_="heat")) == 3
    assert [len(row.all("td")) for row in auroc_map.all("tbody")[0].all("tr")] == [14] * 8
    cells = auroc_map.all("td")
    few = [cell for cell in cells if ", Fracture:" in cell.attrs["title"]]
    assert len(few) == 8 and all(cell.text.endswith("†") and "7 patients" in cell.attrs["title"] for cell in few)
    rare = [cell for cell in cells if ", Lung Lesion:" in cell.attrs["title"]]
    assert all(cell.text.endswith("*") for cell in rare)
    void = [cell for cell in cells if cell.text == "–"]
    assert len(void) == 2 and all("No value: no reference is positive." in cell.attrs["title"] for cell in void)


def test_floors_and_ceilings_stand_below_the_models(tmp_path: Path) -> None:
    bleu = Column("report", "bleu_4", None, "BLEU-4")
    one = replace(board(), columns=(*COLUMNS, bleu))
    index = written([one], tmp_path)
    foot = index.all("table", class_="sortable")[0].all("tfoot")[0].all("tr")
    assert [row.all("th")[0].text for row in foot] == [
        "ceiling: a second reading of the reports",
        "floor: one constant report",
        "floor: reports of other patients",
    ]
    assert "0.860" in foot[0].all("td")[1].text and "0.200" in foot[1].all("td")[len(COLUMNS)].text
    assert "floor: one constant report" in (tmp_path / "leaderboard.md").read_text("utf-8")


def test_a_model_page_has_every_score_with_its_definition(site: Site) -> None:
    page = model_page(site.board, NAMES[2], site.out)
    entry = site.board.entries[2]
    shown = [row for details in page.all("details") if details.all("p", class_="how") for row in details.all("tr")]
    bodies = [row for row in shown if row.parent is not None and row.parent.tag == "tbody"]
    assert len(bodies) == len(entry.scores)
    for metric in {score.metric for score in entry.scores}:
        assert page.all("dt", id=f"def-{metric}"), metric
        assert DEFINITIONS[metric].formula in page.text
    assert {task.text for task in page.all("h3")} >= {"Generalization", "Consistency", "Robustness", "Report"}
    assert "9 patients decide it, and fewer than 10 do not carry an interval" in page.text
    settings = page.all("dl", class_="settings")[0]
    assert [term.text for term in settings.all("dt")] == list(entry.settings)


def test_examples_show_reference_and_claim_side_by_side(site: Site) -> None:
    first, second, third = model_page(site.board, NAMES[0], site.out).all("article")
    items = [" ".join(item.text.split()) for item in first.all("li")]
    assert items == [
        "Cardiomegaly ✗ missed", "Pleural Effusion, left ✗ side differs",
        "Edema ✗ not in the reference", "Pleural Effusion, right ✗ side differs",
    ]  # fmt: skip
    assert "costophrenic" in first.all("pre")[0].text
    assert "Nothing is claimed." in second.text and "No text is shown." in second.text and not second.all("pre")
    assert "Study 3, noise-5: refused" in third.text
    assert [one.mark for one in matched(("Edema",), ("Edema",), "missed")] == ["agrees"]


def test_the_differences_are_turned_to_the_model_of_the_page() -> None:
    pair = Comparison("a", "b", 0.2, 0.1, 0.3, 0.01, None)
    compared = replace(board().compared[0], comparisons=(pair,), clusters={"a": "a", "b": "b"})
    one = plain([only("a", []), only("b", [])], compared=(compared,))
    (of_b,) = against(one, one.entries[1])
    assert of_b.letters == "b" and of_b.others == (Comparison("b", "a", -0.2, -0.3, -0.1, 0.01, None),)
    (of_a,) = against(one, one.entries[0])
    assert of_a.others == (pair,)


@pytest.mark.parametrize(
    ("metric", "value", "p_value", "word"),
    [
        ("auroc", 0.2, 0.01, "better"),
        ("auroc", -0.2, 0.01, "worse"),
        ("auroc", 0.2, 0.05, "not told apart"),
        ("brier", 0.2, 0.01, "worse"),
        ("brier", -0.2, 0.01, "better"),
        ("blank_accuracy", 0.2, 0.01, "higher"),
    ],
)
def test_a_difference_is_said_in_words(
    tmp_path: Path, metric: str, value: float, p_value: float, word: str
) -> None:
    column = Column("generalization", metric, None, "Column")
    pair = Comparison("a", "b", value, value - 0.1, value + 0.1, p_value, None)
    compared = replace(board().compared[0], column=column, comparisons=(pair,), clusters={})
    one = plain([only("a", []), only("b", [])], [column], compared=(compared,))
    write_site([one], tmp_path)
    details = model_page(one, "a", tmp_path).all("details")[0]
    assert details.all("td", class_="text")[0].text == word


# Boards with little on them, and with much.


def test_a_board_with_one_model(tmp_path: Path) -> None:
    index = written([replace(board(NAMES[:1]), compared=())], tmp_path)
    assert len(rows(index)) == 1 and "1 model;" in index.text and "share a letter" not in index.text


def test_a_board_without_a_number_to_be_trusted(tmp_path: Path) -> None:
    one = board()
    entries = [
        replace(
            entry,
            scores=tuple(replace(score, trusted=False, distrust="of the weather") for score in entry.scores),
        )
        for entry in one.entries
    ]
    index = written([replace(one, entries=tuple(entries))], tmp_path)
    assert "Interval not to be trusted: of the weather." in index.all("ol", class_="notes")[0].text
    assert all("weak" in dot.attrs["class"] for dot in index.all("circle", class_="dot"))


def test_a_board_whose_models_have_nothing(tmp_path: Path) -> None:
    one = plain([only("a", []), only("b", [auroc(None)])])
    index = written([one], tmp_path)
    assert not index.all("table", class_="heat") and not index.all("circle") and len(rows(index)) == 2
    assert "No score." in model_page(one, "a", tmp_path).text
    written([plain([])], tmp_path)
    written([plain([only("a", [])], [])], tmp_path)


def test_forty_models(tmp_path: Path) -> None:
    many = [f"model {number}" for number in range(40)]
    index = written([board(many)], tmp_path)
    assert len(rows(index)) == 40 and len(list((tmp_path / "models").iterdir())) == 40
    assert [len(panel.all("polyline")) for panel in index.all("div", class_="panels")[0].all("figure")][2:] == [
        8
    ] * 6
    assert "the table below has 32 more" in index.text
    assert (tmp_path / "index.html").stat().st_size < 2_000_000


# The charts.


def test_dots_stand_at_their_values() -> None:
    entries = [only("a", [auroc(0.9, low=0.8, high=1.0)]), only("b", [auroc(0.6, low=0.5, high=0.7)])]
    drawn = site_charts.intervals(plain(entries), AUROC)
    assert drawn.axis is not None and [dot.entry.name for dot in drawn.dots] == ["a", "b"]
    assert (drawn.axis.low, drawn.axis.high) == pytest.approx((0.48, 1.0))
    assert drawn.axis.at(0.48) == 0 and drawn.axis.at(1.0) == 100 and drawn.axis.at(0.74) == 50
    assert [label for _, label in drawn.axis.ticks] == ["0.6", "0.8", "1.0"]


@given(st.lists(st.floats(-1, 1), min_size=1))
def test_an_axis_holds_its_values_and_has_ticks(values: list[float]) -> None:
    axis = site_charts.axis_of(values, (-1.0, 1.0))
    assert -1 <= axis.low <= min(values) and max(values) <= axis.high <= 1 and axis.low < axis.high
    assert 1 <= len(axis.ticks) <= 7 and len({label for _, label in axis.ticks}) == len(axis.ticks)
    assert all(abs(float(label) - value) < 1e-9 for value, label in axis.ticks)


def test_a_ceiling_is_drawn_where_there_is_one(site: Site) -> None:
    index = site.index
    plots = {table.all("b")[0].text: table for table in index.all("table", class_="dots")}
    assert list(plots) == [column.title for column in COLUMNS]
    assert plots["F1"].all("rect", class_="band") and plots["F1"].all("line", class_="top")
    assert not plots["AUROC"].all("rect", class_="band") and "ceiling" not in plots["AUROC"].text


def test_a_missing_severity_breaks_the_line() -> None:
    one = board()
    drawn = site_charts.robustness(one.entries)
    assert drawn is not None and drawn.severities == (1, 2, 3, 4, 5) and len(drawn.panels) == 8
    blur = next(panel for panel in drawn.panels if panel.corruption == "blur")
    assert [len(line.stretches) for line in blur.lines] == [1] * 6 + [2, 1]
    assert all(len(line.points) == (4 if line.number == 7 else 5) for line in blur.lines)
    assert "of 8 models, the smallest loss is" in blur.words
    labels = sorted(line.label[1] for line in blur.lines)
    assert all(after - before >= 10.9 for before, after in pairwise(labels))


def test_whiskers_are_for_a_single_model() -> None:
    one = board()
    alone = site_charts.robustness(one.entries[:1])
    several = site_charts.robustness(one.entries[:2])
    assert alone and several
    assert all(point.whisker for point in alone.panels[0].lines[0].points)
    assert not any(point.whisker for point in several.panels[0].lines[0].points)
    assert site_charts.robustness([only("a", [])]) is None


def test_a_suite_with_one_severity_is_drawn() -> None:
    loss = scored("robustness", "loss", 0.1, condition="noise-3")
    drawn = site_charts.robustness([only("a", [loss, scored("robustness", "loss", 0.2, condition="other")])])
    assert drawn and drawn.severities == (3,) and len(drawn.panels) == 1
    assert drawn.panels[0].words == "noise: the loss is 0.100 at severity 3."


def test_four_quadrants_fill_the_bar_or_there_is_a_reason() -> None:
    bars = site_charts.quadrants(board().entries)
    assert [bar.reason for bar in bars] == [None] * 7 + ["nothing was asked twice"]
    for bar in bars[:7]:
        assert [part.letter for part in bar.parts] == list("ABCD")
        assert sum(part.width for part in bar.parts) == pytest.approx(100, abs=0.05)
        assert bar.parts[1].start == bar.parts[0].width
    missing = [score for score in board().entries[0].scores if score.metric != "quadrant_inconsistent_uses"]
    (bar,) = site_charts.quadrants([only("a", missing)])
    assert bar.reason == "inconsistent, uses the picture was not measured"


def test_the_hue_of_a_heat_map_begins_at_chance() -> None:
    heat = site_charts.heat_maps(board())[0]
    assert heat.metric == "auroc" and heat.style(0.5) == heat.style(0.3) != heat.style(0.75)
    assert heat.legend == (0.5, 0.625, 0.75, 0.875, 1.0) and "faint" in heat.style(None)


# The tables.


def test_the_csv_has_every_score_with_all_its_fields(tmp_path: Path) -> None:
    one = board(NAMES[:2])
    write_site([one], tmp_path)
    read = list(csv.DictReader((tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="")))
    scores = [score for entry in one.entries for score in entry.scores]
    assert len(read) == len(scores) + len(one.ceiling)
    for row, score in zip(read, [*scores, *one.ceiling], strict=True):
        assert row["suite"] == one.suite and row["dataset_title"] == one.dataset
        for name in (each.name for each in fields(Score)):
            value = getattr(score, name)
            told = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
            assert row[name] == ("" if told is None else str(told))
    assert {row["shown_as"] for row in read} == {*NAMES[:2], ""}


def test_a_spreadsheet_runs_no_name(tmp_path: Path) -> None:
    write_site([plain([only('=HYPERLINK("x")', [auroc(0.5)])])], tmp_path)
    (row,) = csv.DictReader((tmp_path / "leaderboard.csv").open(encoding="utf-8", newline=""))
    assert row["shown_as"] == '\'=HYPERLINK("x")' and row["value"] == "0.5"


def test_the_markdown_has_a_row_per_model_and_numbered_notes(tmp_path: Path) -> None:
    one = plain(
        [only("a|b", [auroc(0.9, n_scored=12)], notes=("Seen *before*",)), only("c", [auroc(None)])],
        [AUROC],
    )
    write_site([one], tmp_path, title="Results <b>")
    lines = (tmp_path / "leaderboard.md").read_text("utf-8").splitlines()
    assert lines[0] == r"# Results \<b\>"
    start = lines.index("| model | AUROC ↑ | scored | refused | failed |")
    assert lines[start + 2 : start + 4] == [
        r"| a\|b (note 1) | 0.900 [0.870, 0.930] (note 2) | 12 | 12 | 3 |",
        "| c | – (note 3) | 1680 | 12 | 3 |",
    ]
    assert lines[-3:] == [
        r"1. Seen \*before\*",
        "2. Few rows: fewer than 20 were scored.",
        "3. No value: no reference is positive.",
    ]


def test_numbers_are_never_minus_zero() -> None:
    assert [site_tables.figure(value) for value in (-0.0001, 0.1239, None)] == ["0.000", "0.124", "–"]


# Hostile names, and hygiene.

HOSTILE = (
    "</script><script>document.title='owned'</script>\"'><img src=x onerror=alert(1)> & {{ 7*7 }}"
    " \x00\u202e\ud800 |"
)


def hostile() -> Board:
    one = board((HOSTILE, f"{HOSTILE}2"), dataset=HOSTILE)
    entry = one.entries[0]
    example = Example(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), (HOSTILE, "b"), HOSTILE)
    first = scored("generalization", "auroc", None, finding=None, reason=HOSTILE, condition=HOSTILE, group=HOSTILE)
    worse = replace(
        entry,
        settings={HOSTILE: HOSTILE},
        notes=(f"Simulated {HOSTILE}",),
        flags=(replace(entry.flags[0], name=HOSTILE, reason=HOSTILE),),
        scores=(*entry.scores, first),
        examples=(example,),
    )
    columns = (*one.columns, Column("generalization", "auroc", HOSTILE, HOSTILE))
    return replace(
        one, entries=(worse, *one.entries[1:]), columns=columns, dataset_notes=(HOSTILE,), suite=HOSTILE
    )


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    index = written([hostile(), board(NAMES[:1])], tmp_path, title=HOSTILE)
    for path in tmp_path.rglob("*.html"):
        html = path.read_text("utf-8")
        page = Tree(html).root
        assert not page.all("img") and not page.all("iframe") and "\u202e" not in html and "\x00" not in html
        assert len(page.all("script")) == (1 if path.name == "index.html" else 0)
        assert not [one for one in page.all("*") if any(name.startswith("on") for name in one.attrs)]
    assert "{{ 7*7 }}" in index.text and "<img src=x onerror=alert(1)>" in index.text
    table = (tmp_path / "leaderboard.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<", table) and "\u202e" not in table


@given(st.text())
def test_a_slug_is_safe_on_every_file_system(words: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(words, words)) and len(slug(words, words)) <= 71


def test_names_that_read_alike_have_pages_of_their_own(tmp_path: Path) -> None:
    alike = ("GPT 5", "gpt-5", "gpt/5", "../gpt-5", "模型", "模型2", "CON", "a" * 300)
    write_site([plain([only(name, []) for name in alike])], tmp_path)
    pages = sorted(path.stem for path in (tmp_path / "models").iterdir())
    assert len({page.lower() for page in pages}) == len(alike) and max(map(len, pages)) <= 71
    assert not list(tmp_path.parent.glob("gpt*"))


def test_a_page_keeps_its_name_whatever_else_is_on_the_site() -> None:
    assert page_name(board(), board().entries[0]) == page_name(board(NAMES[:1]), board(NAMES[:1]).entries[0])
    assert page_name(board(), board().entries[0]) != page_name(board(dataset="x"), board().entries[0])


def test_the_policy_lets_nothing_in_but_the_one_script(site: Site) -> None:
    index = site.index
    (script,) = index.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (rule,) = index.all("meta", http_equiv="Content-Security-Policy")
    assert rule.attrs["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
        f" script-src 'sha256-{digest}'"
    )
    page = model_page(site.board, NAMES[0], site.out)
    assert "script-src" not in page.all("meta", http_equiv="Content-Security-Policy")[0].attrs["content"]
    for path in site.out.rglob("*.html"):
        assert not re.search(r"https?:|//[a-z]|@import|url\(", path.read_text("utf-8"))


def test_the_same_boards_are_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_site([board(), board(NAMES[:2], dataset="Open-i")], tmp_path / folder)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 14
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_pages_of_models_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_site([board(NAMES[:3])], tmp_path)
    own = tmp_path / "models" / "mine.html"
    own.write_text("<p>written by hand</p>")
    write_site([board(NAMES[:2])], tmp_path)
    assert len(list((tmp_path / "models").iterdir())) == 3 and own.is_file()


def test_every_table_and_control_can_be_heard_and_reached_by_key(site: Site) -> None:
    for page in (site.index, model_page(site.board, NAMES[0], site.out)):
        assert page.all("html")[0].attrs["lang"] == "en" and page.all("main", id="content")
        assert page.all("a", class_="skip")[0].attrs["href"] == "#content"
        assert all(th.attrs.get("scope") in {"row", "col"} for th in page.all("th"))
        for scroll in page.all("div", class_="scroll"):
            assert scroll.attrs["tabindex"] == "0" and scroll.attrs["aria-label"]
        for drawing in page.all("svg"):
            hidden = any("aria-hidden" in one.attrs for one in (drawing, *drawing.parents()))
            assert hidden or drawing.attrs["aria-label"]
        levels = [int(heading.tag[1]) for heading in page.all("*") if re.fullmatch(r"h[1-6]", heading.tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        for table in page.all("table"):
            widths = {len(row.all("td")) + len(row.all("th")) for row in table.all("tr")}
            assert widths == {len(table.all("thead")[0].all("th"))}
    heads = site.index.all("table", class_="sortable")[0].all("thead")[0].all("th")
    assert all(head.all("button") for head in heads)
    assert [head.attrs.get("aria-sort") for head in heads].count("descending") == 1


# What is refused.


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no board"):
        write_site([], tmp_path)
    with pytest.raises(RequestError, match="Two boards"):
        write_site([board(), board(NAMES[:1])], tmp_path)
    with pytest.raises(RequestError, match="Two models are called 'a'"):
        write_site([plain([only("a", []), only("a", [])])], tmp_path)
    with pytest.raises(RequestError, match="'luck' has no definition"):
        write_site([plain([only("a", [replace(auroc(0.5), metric="luck")])])], tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_scores_are_grouped_with_the_whole_before_its_parts() -> None:
    grouped = by_task(board().entries[0])
    assert list(grouped) == ["generalization", "consistency", "robustness", "report"]
    assert grouped["generalization"]["auroc"][0].finding is None
    assert grouped["generalization"]["balanced_accuracy"][-1].group == "unseen"


# In a browser.

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def shown_by_browser(page: Path, profile: Path) -> Element:
    """The document after its scripts have run."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return Tree(done.stdout).root


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is at hand to run the script in")
def test_pressing_a_heading_sorts_and_a_second_time_turns_around(tmp_path: Path) -> None:
    values = {"b": 0.7, "a": 0.9, "d": None, "c": 0.65}
    error = Column("generalization", "calibration_error", None, "Error")
    entries = [
        only(name, [auroc(value), scored("generalization", "calibration_error", value)])
        for name, value in values.items()
    ]
    write_site([plain(entries, [AUROC, error])], tmp_path)
    html = (tmp_path / "index.html").read_text("utf-8")
    for presses, order, sort in (
        ((), "abcd", "descending"),
        ((1,), "cbad", "ascending"),
        ((1, 1), "abcd", "descending"),
        ((2,), "cbad", "ascending"),
        ((2, 2), "abcd", "descending"),
        ((0,), "abcd", "ascending"),
        ((0, 0), "dcba", "descending"),
    ):
        click = "".join(f"document.querySelectorAll('th button')[{place}].click();" for place in presses)
        allowed = policy(SORTING) + policy(click or "0;").partition("script-src")[2]
        page = tmp_path / "pressed.html"
        changed = html.replace(policy(SORTING).replace("'", "&#39;"), allowed)
        assert changed != html
        page.write_text(changed.replace("</body>", f"<script>{click or '0;'}</script></body>"), "utf-8")
        shown = shown_by_browser(page, tmp_path / "profile")
        assert "".join(names(shown)) == order, presses
        heads = shown.all("table", class_="sortable")[0].all("thead")[0].all("th")
        place = presses[0] if presses else 1
        assert [head.attrs.get("aria-sort") for head in heads[:3]] == [
            sort if index == place else None for index in range(3)
        ]
        if presses:
            assert f", {sort}." in shown.all("p", role="status")[0].text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is at hand to run the script in")
def test_no_other_script_runs(tmp_path: Path) -> None:
    write_site([hostile()], tmp_path, title="Honest")
    index = tmp_path / "index.html"
    html = index.read_text("utf-8")
    index.write_text(html.replace("</body>", "<script>document.title = 'owned'</script></body>"), "utf-8")
    assert shown_by_browser(index, tmp_path / "profile").all("title")[0].text == "Honest"
