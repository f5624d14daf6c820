"""Every number has a definition, and the documentation holds the same."""

from pathlib import Path

from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.eval.scoring import score_all
from tests.eval import results

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
EVERYTHING = """
name = "everything"
version = 1
resamples = 100

[consistency]
[robustness]
[generalization]
[report]
"""


def test_the_documentation_has_every_metric_as_it_is_defined() -> None:
    text = DOCUMENT.read_text("utf-8").partition("## Metrics")[2]
    for name, one in DEFINITIONS.items():
        assert f"| `{name}` | {one.formula} | {one.source} | {one.better} |" in text
    assert text.count("\n| `") == len(DEFINITIONS)


def test_every_number_of_every_task_is_defined_and_within_its_bounds(tmp_path: Path) -> None:
    folder = results.write(tmp_path, "model")
    data = results.read_data(folder, member=True)
    seen = set()
    for _, scored in score_all(data, results.suite(EVERYTHING)):
        low, high = DEFINITIONS[scored.metric].bounds
        seen.add(scored.metric)
        value = scored.drawn.measured.value
        assert value is None or low - 1e-12 <= value <= high + 1e-12
    assert seen >= {"alpha", "image_gain", "loss", "verdicts_moved", "auroc", "f1_at_threshold"}
