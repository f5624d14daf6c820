"""What goes wrong at a simulated service: a small language of rules and limits, and who decides by it.

    Faults(
        Rule("rate_limit", share=0.3, each_time=True, window_s=(0, 60)),     # a storm of a minute
        Rule("reset", persona="sim-grok-4", share=0.1, times=1),             # once, then fine
        Rule("revoked", persona="sim-glm-4.5v", first=31),                   # from the 31st request on
        limits=(Limit(requests_per_minute=600),),
    )

The first rule that applies is acted out (by ``acting``); without one the request is answered. Who is hit depends
on the seed and the request's key, not on the order of arrival, except where a rule counts requests or seconds.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal, get_args

from cxr_max.teachers.simulator.world import uniform

ErrorReply = Literal[
    "rate_limit", "server_error", "bad_gateway", "unavailable", "overloaded", "no_model", "revoked", "forbidden",
    "exhausted", "refused_input",
]  # fmt: skip
"""An HTTP error, worded as the service words it (``errors.toml``): 429, 500, 502, 503, 529, 404, the status of a
key that is no longer valid, 403, an account without money, and 400 for a picture that is not accepted."""
LostReply = Literal["reset", "reset_midway", "stalled", "truncated", "half_json", "not_json", "other_shape"]
"""Nothing that could be read: the connection reset before or in the middle of the body; headers, then nothing; a
body shorter than its announced length; JSON that ends early; HTML; JSON that says something else."""
OddReply = Literal["slow", "empty", "filtered", "cut", "refused", "new_version"]
"""A reply all the same: its first byte late; without content; stopped by the content filter; out of tokens; a
refusal in the service's own form; or from a model that reports another version."""
Kind = ErrorReply | LostReply | OddReply

ERROR_REPLIES: Final[tuple[ErrorReply, ...]] = get_args(ErrorReply)
LOST_REPLIES: Final[tuple[LostReply, ...]] = get_args(LostReply)
ODD_REPLIES: Final[tuple[OddReply, ...]] = get_args(OddReply)
KINDS: Final[tuple[Kind, ...]] = (*ERROR_REPLIES, *LOST_REPLIES, *ODD_REPLIES)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens, to whom, and how often. All conditions must hold."""

    kind: Kind
    persona: str | None = None
    """``None``: every persona."""
    share: float = 1.0
    """The share of the requests that are hit, chosen by their keys."""
    each_time: bool = False
    """Choose anew each time a request is sent, so that a repeated one may pass."""
    times: int | None = None
    """A request is hit at most so often, then it passes; ``None``: every time."""
    first: int = 1
    last: int | None = None
    """Of the requests a persona receives, repeated ones counted again, from which to which (both included)."""
    window_s: tuple[float, float] = (0.0, inf)
    """From when to when (excluded), in seconds since the simulator started."""
    retry_after_s: float | None = None
    """What a 429 asks for, in the service's own way; ``None``: it does not say."""
    delay_s: float = 1.0
    """How late the first byte of a slow reply is."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it must lie between 0 and 1")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times is {self.times}; leave the rule out instead")


@dataclass(frozen=True, slots=True)
class Limit:
    """What a service allows per minute, as a bucket that is refilled all the time; beyond it, 429."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of input and output together."""
    persona: str | None = None
    """``None``: every persona, each by itself."""
    burst_s: float = 60.0
    """How many seconds' worth the bucket holds."""
    retry_after: bool = True
    """Whether a 429 says when to come again."""


@dataclass(frozen=True, init=False, slots=True)
class Faults:
    """All that goes wrong at one simulator."""

    rules: tuple[Rule, ...]
    limits: tuple[Limit, ...]
    seed: int

    def __init__(self, *rules: Rule, limits: tuple[Limit, ...] = (), seed: int = 0) -> None:
        # Written out, so that rules are named one after the other.
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "seed", seed)


@dataclass(slots=True)
class Served:
    """What one persona received and sent, counted on the server's side."""

    received: Counter[str] = field(default_factory=Counter)
    """How often each request came, by its key."""
    answered: Counter[str] = field(default_factory=Counter)
    """How often each request got a whole reply, by its key."""
    faults: Counter[Kind] = field(default_factory=Counter)
    """What was acted out; a 429 of a limit counts as ``rate_limit``."""
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def requests(self) -> int:
        """All that came, repeated ones counted again."""
        return self.received.total()


class Script:
    """Decides by the rules and limits.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, faults: Faults, clock: Callable[[], float]) -> None:
        self._faults = faults
        self._clock = clock
        self._started = clock()
        self._hits: Counter[tuple[int, str, str]] = Counter()
        self._gauges: dict[str, Gauge | None] = {}

    def rule(self, persona: str, key: str, served: Served) -> Rule | None:
        """The rule that the request which was just counted falls under."""
        now = self._clock() - self._started
        for index, rule in enumerate(self._faults.rules):
            if self._applies(index, rule, persona, key, served, now):
                self._hits[index, persona, key] += 1
                return rule
        return None

    def _applies(self, index: int, rule: Rule, persona: str, key: str, served: Served, now: float) -> bool:
        if rule.persona not in (None, persona):
            return False
        if not rule.first <= served.requests <= (inf if rule.last is None else rule.last):
            return False
        if not rule.window_s[0] <= now < rule.window_s[1]:
            return False
        if rule.times is not None and self._hits[index, persona, key] >= rule.times:
            return False
        drawn = [str(self._faults.seed), "fault", str(index), persona, key]
        return uniform(*drawn, str(served.received[key]) if rule.each_time else "") < rule.share

    def gauge(self, persona: str) -> "Gauge | None":
        """How full the persona's limit is; ``None`` where it has none."""
        if persona not in self._gauges:
            limits = (limit for limit in self._faults.limits if limit.persona in (None, persona))
            limit = next(limits, None)
            self._gauges[persona] = Gauge(limit, self._clock) if limit else None
        return self._gauges[persona]


class Gauge:
    """One persona's limit, in use."""

    def __init__(self, limit: Limit, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.requests = _bucket(limit.requests_per_minute, limit, clock)
        self.tokens = _bucket(limit.tokens_per_minute, limit, clock)

    def take(self, tokens: int) -> float:
        """Take one request of so many tokens, or nothing; the seconds until it could be had, 0 if it was."""
        wanted = [(bucket, n) for bucket, n in ((self.requests, 1), (self.tokens, tokens)) if bucket is not None]
        wait = max((bucket.wait_s(amount) for bucket, amount in wanted), default=0.0)
        if wait == 0:
            for bucket, amount in wanted:
                bucket.level -= amount
        return wait


class Bucket:
    """A token bucket."""

    def __init__(self, per_minute: int, capacity: float, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.capacity = capacity
        self.level = capacity
        self._clock = clock
        self._filled = clock()

    def wait_s(self, amount: float) -> float:
        """Seconds until ``amount`` can be taken. A full bucket gives what it has to whoever wants more."""
        self.fill()
        return max(0.0, (min(amount, self.capacity) - self.level) * 60 / self.per_minute)

    def reset_s(self) -> float:
        """Seconds until the bucket is full."""
        self.fill()
        return (self.capacity - self.level) * 60 / self.per_minute

    def fill(self) -> None:
        """Let in what has gathered since the last look."""
        now = self._clock()
        self.level = min(self.capacity, self.level + (now - self._filled) * self.per_minute / 60)
        self._filled = now


def _bucket(per_minute: int | None, limit: Limit, clock: Callable[[], float]) -> Bucket | None:
    if per_minute is None:
        return None
    return Bucket(per_minute, max(1.0, per_minute * limit.burst_s / 60), clock)
