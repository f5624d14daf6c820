"""A job's own run of the batch loop: interfaces connected, signals heeded, a stop told apart from an end."""

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxr_max.builders.batch_asking import BatchAsking, OpenRound, Wanted
from cxr_max.builders.batch_desk import BatchWatch, Patience
from cxr_max.builders.plan import Work
from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.sending import Interrupted, stopped
from cxr_max.data_use import Gate
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from cxr_max.ledger_summary import models_reported
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.batch.base import PRICE_SHARE
from cxr_max.teachers.batch.connect import connect, refuse_without_batches
from cxr_max.teachers.budget import Budget
from cxr_max.teachers.versions import Versions

if TYPE_CHECKING:
    from cxr_max.teachers.simulator import Simulator

PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True)
class Parties:
    """Who is asked about whose data."""

    specs: Sequence[TeacherSpec]
    keys: Mapping[str, str]
    """API keys, by teacher."""
    gate: Gate
    simulator: str | None = None
    """The running simulator's address, for personas."""


def at_batch_price(specs: Iterable[TeacherSpec]) -> tuple[TeacherSpec, ...]:
    """The same teachers at what their batch interfaces charge."""
    return tuple(
        spec if spec.price is None else replace(spec, price=spec.price.times(PRICE_SHARE)) for spec in specs
    )


def refuse_unbatched(specs: tuple[TeacherSpec, ...], gate: Gate) -> None:
    """Let pass if all may be asked in batches.

    Raises:
        RequestError: a teacher has no batch interface.
        DataUseError: the data may not be sent to one of them in batches.
    """
    refuse_without_batches(specs)
    for spec in specs:
        gate.check_batch(spec.name, spec.endpoint, spec.place)


def only(planned: Generator[Work, None, None], wanted: Wanted) -> Generator[Work, None, None]:
    """Leave out questions that are not wanted, before anything is rendered for them."""
    with closing(planned):
        for work in planned:
            questions = tuple((question, prompt) for question, prompt in work.questions if wanted(question))
            if questions:
                yield replace(work, questions=questions)


def send_in_batches(
    open_round: OpenRound | None,
    parties: Parties,
    ledger: Ledger,
    watch: BatchWatch,
    stopping: Callable[[], None],
    budget: Budget | None = None,
    *,
    cancel: bool = False,
    patience: Patience | None = None,
) -> None:
    """Collect what is at the services and ask what is open; all is in the ledger when this returns.

    Args:
        open_round: see ``OpenRound``; ``None`` for nothing to ask.
        stopping: told when a stop is asked for.
        budget: what may be spent.
        cancel: ask the services to stop, and keep what is finished by then.

    Raises:
        DataUseError: the data may not be sent to one of the teachers in batches; nothing was sent to any.
        StorageError: the ledger or a file cannot be written.
        Interrupted: the user stopped it; the batches stay at the services.
    """

    async def run() -> bool:
        stop = asyncio.Event()
        asking = BatchAsking(
            services=[connect(spec, parties.keys[spec.name], parties.simulator) for spec in parties.specs],
            gate=parties.gate,
            ledger=ledger,
            watch=watch,
            keys=[parties.keys[spec.name] for spec in parties.specs if spec.key],
            stop=stop,
            folder=ledger.path.parent / "batches",
            patience=patience or PATIENCE,
            budget=budget,
            versions=Versions(models_reported(ledger.path)),
            cancel=cancel,
        )
        return await stopped(asking.run(open_round), stop, stopping)

    if asyncio.run(run()):
        raise Interrupted(_left(ledger))


def _left(ledger: Ledger) -> str:
    left = len(ledger.open_batches())
    if left == 0:
        return f"Stopped: all replies received are kept in {ledger.path}; the same command goes on from there."
    return (
        f"Stopped: {left} {'batch goes' if left == 1 else 'batches go'} on at the services, and the same command"
        f" collects what they bring; cxr-max batches {ledger.path.parent} --cancel stops them."
    )


def cancel_batches(out: Path, roster_file: Path | None, watch: BatchWatch, stopping: Callable[[], None]) -> None:
    """Stop every open batch of a run, and keep what is finished by then.

    Raises:
        RequestError: a batch's teacher is not in the roster with the endpoint that the batch went to, or its key
            is missing; nothing was cancelled.
        Interrupted: the user did not want to wait until the services have stopped.
    """
    folder = RunFolder(out)
    with folder.locked(), Ledger(folder.ledger) as ledger:
        named = {(batch.teacher, batch.endpoint) for batch in ledger.open_batches()}
        known = roster.load(roster_file)
        for teacher, endpoint in sorted(named):
            if teacher not in known or known[teacher].endpoint != endpoint:
                raise RequestError(
                    f"A batch of {teacher} runs at {endpoint}, and the roster has no such teacher: give the"
                    " --roster that it was submitted with."
                )
        if named:
            chosen = roster.choose(known, ",".join(sorted(teacher for teacher, _ in named)))
            specs = at_batch_price(chosen)
            # Nothing is sent here but ids, so the gate is not asked; it would let nothing pass.
            gate = Gate("the batches' data", "credentialed")
            with simulator_for(specs) as simulator:
                address = simulator.address if simulator else None
                parties = Parties(specs, roster.keys_of(specs), gate, address)
                send_in_batches(None, parties, ledger, watch, stopping, cancel=True)


def simulator_for(specs: Iterable[TeacherSpec]) -> "AbstractContextManager[Simulator | None]":
    """A simulator while the context lasts, if a persona is among the teachers."""
    if not any(spec.provider == "simulated" for spec in specs):
        return nullcontext()
    from cxr_max.teachers.simulator import Simulator

    return Simulator()
