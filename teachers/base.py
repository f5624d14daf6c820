"""What every teacher offers, and how its errors are told apart. Nobody here waits: see ``pacing``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cxr_max.costs import Price
from cxr_max.errors import CxrMaxError
from cxr_max.records import Limits, Place, Reply, Sampling

ErrorKind = Literal[
    "auth", "bad_reply", "bad_request", "model", "moved", "quota", "rate_limit", "server", "timeout", "transport"
]

Wire = Literal["openai", "anthropic", "gemini", "student"]
"""How a teacher is spoken to; ``student`` is a call in this process."""

TIMEOUT_S: Final = 300.0
"""A reply of a reasoning model can take minutes; one that takes longer is not coming."""

_RETRIED: frozenset[ErrorKind] = frozenset({"bad_reply", "rate_limit", "server", "timeout", "transport"})
_OVERRUN: frozenset[ErrorKind] = frozenset({"rate_limit", "timeout"})
_FATAL: frozenset[ErrorKind] = frozenset({"auth", "model", "moved", "quota"})


class TeacherError(CxrMaxError):
    """A request that got no reply."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        retry_after_s: float | None = None,
        limits: Limits | None = None,
        *,
        overrun: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
        """How long the service asks to be left alone, in seconds."""
        self.limits = limits
        """What the answer's headers said of the service's rate limits."""
        self.overrun = overrun or kind in _OVERRUN
        """Whether the service has more to do than it can: fewer requests at once are called for."""

    @property
    def retried(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in _RETRIED

    @property
    def fatal(self) -> bool:
        """Whether no request to this teacher can succeed until somebody acts."""
        return self.kind in _FATAL


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher of the roster, resolved: everything but its key's value."""

    name: str
    provider: str
    model: str
    endpoint: str
    """The service's URL; the literal ``simulated:`` for personas, whose port changes with every start, and
    ``student:`` for a student in this process."""
    place: Place
    wire: Wire
    key: str | None
    """The name of the environment variable that holds the key."""
    sampling: Sampling
    concurrency: int
    rpm: int | None
    """Requests per minute that may be started."""
    price: Price | None
    """``None`` where unknown."""
    weights: str | None = None
    """A student's folder or name on the Hub. Never published: ``model`` says which weights they are."""
    tpm: int | None = None
    """Tokens per minute, of input and output together, that may be asked for."""
    timeout_s: float | None = TIMEOUT_S
    """When a request without a reply is given up, in seconds; ``None`` for never."""


class Teacher(Protocol):
    """A model that can be asked about images."""

    spec: TeacherSpec

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """Ask once, without waiting or retrying.

        Args:
            images: JPEG files, in the order in which the prompt may speak of them.
            key: the request's key, sent as ``Idempotency-Key``: a service that honours it answers a repeated
                request without charging twice.

        Raises:
            TeacherError: there is no reply.
        """
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...
