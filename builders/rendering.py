"""Images rendered ahead of who needs them: in order, as many at a time as there are cores."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Made = TypeVar("Made")


def rendered_ahead(
    tasks: Iterable[Task], render: Callable[[Task], Made], workers: int | None = None
) -> Generator[tuple[Task, Future[Made]], None, None]:
    """Each task with its finished or running result, in order.

    At most three tasks per worker are drawn before they are asked for, so memory stays bounded, however long
    the source and however slow the teachers. Threads do, because decoders and OpenCV let go of Python's lock.
    """
    workers = workers or os.cpu_count() or 1
    waiting: deque[tuple[Task, Future[Made]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="render") as pool:
        try:
            for task in tasks:
                waiting.append((task, pool.submit(render, task)))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
