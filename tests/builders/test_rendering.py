"""Rendering ahead keeps the order, the bound and the faults, and stops when nobody listens any more."""

import threading
from collections.abc import Iterator

import pytest

from cxr_max.builders.rendering import rendered_ahead
from cxr_max.errors import ImageError


def test_results_come_in_order_whatever_takes_longest() -> None:
    first_may_end = threading.Event()

    def render(task: int) -> int:
        if task == 0:
            assert first_may_end.wait(60)
        elif task == 3:
            first_may_end.set()
        return task * 10

    pairs = [(task, made.result()) for task, made in rendered_ahead(range(20), render, workers=4)]
    assert pairs == [(task, task * 10) for task in range(20)]


def test_no_more_than_three_tasks_per_worker_are_drawn_ahead() -> None:
    drawn = []

    def tasks() -> Iterator[int]:
        for task in range(1000):
            drawn.append(task)
            yield task

    made = rendered_ahead(tasks(), str, workers=2)
    for taken in range(1, 50):
        next(made)
        assert len(drawn) - taken < 6
    made.close()
    assert len(drawn) < 60


def test_a_fault_is_that_of_its_own_task() -> None:
    def render(task: int) -> int:
        if task == 2:
            raise ImageError("2 is damaged.")
        return task

    results = []
    for task, made in rendered_ahead(range(5), render, workers=2):
        try:
            results.append(made.result())
        except ImageError as fault:
            results.append(f"{task}: {fault}")
    assert results == [0, 1, "2: 2 is damaged.", 3, 4]


def test_whoever_stops_early_leaves_no_task_behind() -> None:
    done = []
    made = rendered_ahead(range(100), done.append, workers=1)
    next(made)[1].result()
    made.close()
    assert len(done) <= 4


def test_a_source_that_fails_ends_the_rendering() -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise ValueError("the table ends here")

    with pytest.raises(ValueError, match="the table"):
        list(rendered_ahead(tasks(), str))
