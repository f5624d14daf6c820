"""Whether teachers can be asked: one tiny question each about a generated picture, all at once, with a deadline.

Nothing is tried twice and nothing is kept. The picture shows no patient, so no data-use rule is asked.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cxr_max.costs import Price, cost_of
from cxr_max.errors import CxrMaxError
from cxr_max.records import Limits, Reply
from cxr_max.teachers import roster
from cxr_max.teachers.base import ErrorKind, Teacher, TeacherError, TeacherSpec
from cxr_max.teachers.secrets import cleaned, redact
from cxr_max.teachers.student_folder import defect_of

if TYPE_CHECKING:
    from cxr_max.teachers.simulator import Simulator

DEADLINE_S: Final = 60.0
MAX_TOKENS: Final = 512
"""Room for a reasoning model to think about one word; with fewer, some services refuse instead of cutting off."""
QUESTION: Final = "Is this picture a chest radiograph? Answer with one word: yes or no."
_TEXT_ONLY_TOKENS: Final = 50
"""The question alone is below; a picture adds 64 tokens or more on every service that documents its count."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one teacher."""

    teacher: str
    model: str
    place: str
    price: Price | None
    """``None``: unknown."""
    problem: str | None
    """Why it cannot be asked, and what to do about it; ``None`` where it can."""
    note: str | None = None
    """What a user should know although it can be asked."""
    asked: bool = True
    """Whether a request was sent."""
    text: str | None = None
    """The start of its reply."""
    model_reported: str | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    """Of this request."""
    limits: Limits | None = None
    """What the service's headers say may be asked; ``None`` where they say nothing."""


def check(specs: Sequence[TeacherSpec], jpeg: bytes, deadline_s: float = DEADLINE_S) -> tuple[Check, ...]:
    """Ask every teacher, all at once, and say what came of it, in the same order.

    Args:
        jpeg: a picture that shows nobody.
        deadline_s: how long one may take.
    """
    if not any(spec.endpoint == roster.SIMULATED for spec in specs):
        return asyncio.run(_check_all(specs, jpeg, deadline_s, None))
    from cxr_max.teachers.simulator import Simulator, Truth

    with Simulator() as simulator:
        simulator.learn(sha256(jpeg).hexdigest(), Truth(None))
        return asyncio.run(_check_all(specs, jpeg, deadline_s, simulator))


async def _check_all(
    specs: Sequence[TeacherSpec], jpeg: bytes, deadline_s: float, simulator: "Simulator | None"
) -> tuple[Check, ...]:
    # All are connected before the first is asked: importing an SDK takes a second that is nobody's latency.
    desks = [_desk(spec, simulator.address if simulator else None) for spec in specs]
    return tuple(await asyncio.gather(*(_checked(desk, jpeg, deadline_s) for desk in desks)))


@dataclass(frozen=True, slots=True)
class _Desk:
    """A teacher that is ready to be asked; ``teacher`` is ``None`` where it is not to be."""

    spec: TeacherSpec
    unasked: Check
    key: str = ""
    teacher: Teacher | None = None


def _desk(spec: TeacherSpec, simulator: str | None) -> _Desk:
    unasked = Check(spec.name, spec.model, spec.place, spec.price, None, asked=False)
    if spec.weights is not None:
        note = "It is a student: its files were looked at, and it was not asked."
        return _Desk(spec, replace(unasked, problem=defect_of(spec.weights), note=note))
    if spec.key and not os.environ.get(spec.key):
        return _Desk(
            spec, replace(unasked, problem=f"No API key in {spec.key}: export it, or leave this one out.")
        )
    few = replace(spec.sampling, max_tokens=min(spec.sampling.max_tokens, MAX_TOKENS))
    try:
        key = roster.keys_of((spec,))[spec.name]
        return _Desk(spec, unasked, key, roster.connect(replace(spec, sampling=few), key, simulator))
    except CxrMaxError as error:
        return _Desk(spec, replace(unasked, problem=str(error)))


async def _checked(desk: _Desk, jpeg: bytes, deadline_s: float) -> Check:
    if desk.teacher is None:
        return desk.unasked
    base, started = replace(desk.unasked, asked=True), time.perf_counter()
    try:
        reply = await _reply(desk.teacher, jpeg, deadline_s)
    except TeacherError as error:
        return replace(base, problem=redact(_problem(desk.spec, error), [desk.key]), limits=error.limits)
    return _answered(base, desk.spec, cleaned(reply, [desk.key]), time.perf_counter() - started)


async def _reply(teacher: Teacher, jpeg: bytes, deadline_s: float) -> Reply:
    try:
        async with asyncio.timeout(deadline_s):
            # A new key each time: a service that honours it would else answer from memory.
            return await teacher.ask([jpeg], QUESTION, sha256(f"check {time.time_ns()}".encode()).hexdigest())
    except TeacherError:
        raise
    except TimeoutError as error:
        raise TeacherError("timeout", f"no reply within {deadline_s:g} s") from error
    # SDKs raise whatever their next version likes; the other teachers are checked all the same.
    except Exception as error:
        raise TeacherError("bad_request", f"{type(error).__name__}: {error}") from error
    finally:
        await teacher.close()


def _answered(base: Check, spec: TeacherSpec, reply: Reply, latency_s: float) -> Check:
    return replace(
        base,
        note=_note(spec, reply),
        text=" ".join(reply.text.split())[:80],
        model_reported=reply.model_reported,
        latency_s=latency_s,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_usd=cost_of(reply, spec.price),
        limits=reply.limits,
    )


def _note(spec: TeacherSpec, reply: Reply) -> str | None:
    if reply.input_tokens is not None and reply.input_tokens < _TEXT_ONLY_TOKENS:
        return (
            f"It counts {reply.input_tokens} input tokens, too few for a picture: see whether {spec.model} takes"
            " images, since some services leave them out without a word."
        )
    if reply.ended in {"filtered", "refused"}:
        return f"It declines to look at the picture ({reply.finish_reason}), as it may with others."
    return None


_REMEDIES: Final[dict[ErrorKind, str]] = {
    "auth": "The key in {key} is not accepted ({message}): export a valid one, with access to {model}.",
    "model": "There is no model {model} at {host} ({message}): correct model or endpoint in its roster table.",
    "moved": "{host} does not answer itself ({message}): correct its roster table, or the service.",
    "quota": "The account behind {key} has nothing left to spend ({message}): top it up, or leave it out.",
    "rate_limit": "It takes no more requests for now ({message}): wait, or lower rpm and concurrency.",
    "server": "{host} is in trouble ({message}): try again later.",
    "timeout": "{host} did not answer in time ({message}): try again later, or see whether the server is up.",
    "transport": "{host} cannot be reached ({message}): check the endpoint and the network, or start the server.",
    "bad_reply": "{host} answers in another format ({message}): correct endpoint or provider in its roster table.",
    "bad_request": (
        "{host} refuses the request ({message}): see whether {model} takes images, and what sampling it allows."
    ),
}


def _problem(spec: TeacherSpec, error: TeacherError) -> str:
    host = "the simulator" if spec.endpoint == roster.SIMULATED else urlsplit(spec.endpoint).netloc
    key = spec.key or "no variable (its table has no key)"
    sentence = _REMEDIES[error.kind].format(key=key, model=spec.model, host=host, message=str(error).rstrip("."))
    return sentence[0].upper() + sentence[1:]
