"""A limit on what a run may spend. It is never passed, whatever the order in which replies come back.

Before a request is sent, the most that it can cost is set aside; when its reply is in the ledger, its real cost
takes that place. What is charged for a request that never got a reply, a service alone knows: it is not counted.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from math import fsum
from typing import TYPE_CHECKING, Final

from cxr_max.costs import usd
from cxr_max.errors import RequestError
from cxr_max.image_tokens import image_tokens
from cxr_max.jpeg import size_of
from cxr_max.records import Question
from cxr_max.teachers.base import TeacherSpec

if TYPE_CHECKING:
    from cxr_max.teachers.asking import Batch

MARGIN: Final = 2
"""What an image may count for, by its formula: services have been seen to count up to 1.4 times what they say."""
AROUND: Final = 64
"""Tokens that a service puts around a message."""
CHARACTERS_PER_TOKEN: Final = 4
"""Of English text, about; no token is shorter than a byte."""
LARGEST: Final = (1024, 1024)
"""Pixels of what is sent at most."""


class Budget:
    """US dollars that may be spent, those of earlier runs included. For one thread.

    Args:
        limit_usd: never passed.
        teachers: with their prices.
        spent_usd: by earlier runs.

    Raises:
        RequestError: a price is unknown, so nothing could be promised; all such teachers are named.
    """

    def __init__(self, limit_usd: float, teachers: Sequence[TeacherSpec], spent_usd: float = 0.0) -> None:
        require_prices(teachers)
        self.limit_usd = limit_usd
        self.refused = False
        """Whether a request had to be left out because of the limit."""
        self._specs = {spec.name: spec for spec in teachers}
        self._spent = spent_usd
        self._reserved: dict[str, tuple[float, float]] = {}
        """By request, of those in flight: what is set aside, and what that would be by the formulas alone."""
        self._excess: defaultdict[str, float] = defaultdict(lambda: 1.0)
        """By teacher: how much more than what was set aside a reply has cost."""
        self._turned_away = 0.0
        """What was last too much."""
        self._freed = asyncio.Event()

    @property
    def spent_usd(self) -> float:
        """By replies that are there, earlier runs' included."""
        return self._spent

    @property
    def message(self) -> str:
        """Why nothing more is sent, and what to do."""
        return (
            f"{usd(self._spent)} of --max-cost-usd {self.limit_usd:g} is spent, and the next request could cost"
            f" {usd(self._turned_away)}: raise it and run the same command again to go on."
        )

    def reserve(self, question: Question, batch: "Batch", prompt: str) -> bool:
        """Set aside the most that a request can cost. False: sending it might pass the limit."""
        expected = most_usd(self._specs[question.teacher], question, batch, prompt)
        assert expected is not None
        most = expected * self._excess[question.teacher]
        # What is free is never refused, not even where earlier runs spent more than this one may.
        if most == 0:
            return True
        # Exact, so that neither the limit is passed nor the last request that fits refused by a rounding.
        if fsum((self._spent, most, *(aside for aside, _ in self._reserved.values()))) > self.limit_usd:
            self._turned_away = most
            return False
        self._reserved[question.request_sha256] = (most, expected)
        return True

    async def admitted(self, question: Question, batch: "Batch", prompt: str) -> bool:
        """``reserve``, but wait for replies in flight where they may leave enough: most cost less than set aside.

        False: nothing is in flight, and sending it might pass the limit.
        """
        while not self.reserve(question, batch, prompt):
            if not self._reserved:
                self.refused = True
                return False
            self._freed.clear()
            await self._freed.wait()
        return True

    def settle(self, question: Question, cost_usd: float | None) -> None:
        """Replace what was set aside by what was charged; ``None`` where the reply does not say, so all of it."""
        most, expected = self._reserved.pop(question.request_sha256, (0.0, 0.0))
        cost = most if cost_usd is None else cost_usd
        self._spent += cost
        if cost > most > 0:
            self._excess[question.teacher] = max(self._excess[question.teacher], cost / expected)
        self._freed.set()

    def hold(self, request_sha256: str, usd: float) -> None:
        """Set aside what an earlier run sent and has no reply yet: it waits in a batch at the service."""
        self._reserved.setdefault(request_sha256, (usd, usd))

    def settle_held(self, request_sha256: str, cost_usd: float | None) -> None:
        """``settle`` for a request of a batch, of which only the key is known; 0 where it got no reply."""
        most, _ = self._reserved.pop(request_sha256, (0.0, 0.0))
        self._spent += most if cost_usd is None else cost_usd
        self._freed.set()


def most_usd(spec: TeacherSpec, question: Question, batch: "Batch", prompt: str) -> float | None:
    """The most that a request can cost, by the services' formulas; ``None`` where the price is unknown."""
    if spec.price is None:
        return None
    sizes = [size_of(picture.jpeg) or LARGEST for picture in batch.pictures]
    images = sum(image_tokens_of(spec, *size) for size in sizes)
    inputs = MARGIN * images + len(prompt.encode()) + AROUND
    return (inputs * spec.price.input + question.sampling.max_tokens * spec.price.output) / 1e6


def require_limit(limit_usd: float | None, teachers: Sequence[TeacherSpec]) -> None:
    """Let pass no limit, or one that can be kept.

    Raises:
        RequestError: it is no amount of money, or a teacher's price is unknown.
    """
    if limit_usd is None:
        return
    # Not a number is no limit.
    if not limit_usd >= 0:
        raise RequestError(f"--max-cost-usd is {limit_usd:g}: give US dollars, 0 or more.")
    require_prices(teachers)


def require_prices(teachers: Sequence[TeacherSpec]) -> None:
    """Let pass if every teacher's price is known.

    Raises:
        RequestError: one is not, so no limit could be promised; all such teachers are named.
    """
    unknown = [spec.name for spec in teachers if spec.price is None]
    if unknown:
        raise RequestError(
            f"The price of {', '.join(unknown)} is unknown, so --max-cost-usd cannot be kept: write"
            " price = { input = ..., output = ... } (US dollars per million tokens) into their tables of"
            " --roster FILE, or choose other --teachers."
        )


def image_tokens_of(spec: TeacherSpec, width: int, height: int) -> int:
    """What one image counts as for this teacher."""
    return image_tokens(width, height, endpoint=spec.endpoint, wire=spec.wire, model=spec.model).tokens


def prompt_tokens(prompt: str) -> int:
    """About how many tokens a prompt is."""
    return len(prompt) // CHARACTERS_PER_TOKEN + AROUND
