"""Against the public gold on Open-I (Peng et al. 2018), where the data are at hand."""

import pytest

from benchmarks import labeler as benchmark

DATA = benchmark.DATA
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the Open-I reports in {DATA}")


@pytest.mark.parametrize("half", ["A", "B"])
def test_findings_agree_with_the_gold(half: str) -> None:
    table = benchmark.score(benchmark.half(benchmark.reports(), half))
    assert table.micro >= 0.87
    assert table.macro >= 0.83
