"""Costs: the arithmetic, and that unknown stays unknown."""

from cxr_max.costs import add_cost, cost_of
from cxr_max.records import Reply


def reply(inputs: int | None, outputs: int | None) -> Reply:
    return Reply("", None, "stop", None, None, inputs, outputs, None, "")


def test_costs() -> None:
    assert cost_of(reply(1_000_000, 500_000), (1.0, 4.0)) == 3.0
    assert cost_of(reply(None, 5), (1.0, 4.0)) is None
    assert cost_of(reply(1, 5), None) is None
    assert add_cost(1.0, 2.0) == 3.0
    assert add_cost(None, 2.0) is None and add_cost(1.0, None) is None
