"""A small job for the batch loop: a few pictures, a simulator on a real socket, a ledger, and quick patience."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cxr_max.builders.batch_asking import Wanted
from cxr_max.builders.batch_desk import Patience
from cxr_max.builders.batches import Parties, send_in_batches
from cxr_max.costs import Price
from cxr_max.data_use import Gate
from cxr_max.ledger import Ledger
from cxr_max.records import Question, Sampling
from cxr_max.teachers.asking import Batch, Picture
from cxr_max.teachers.base import TeacherSpec, Wire
from cxr_max.teachers.budget import Budget
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.batches import BatchFate
from tests.teachers.scripted import JPEG, spec

QUICK = Patience(first_s=0.002, longest_s=0.01, settle_s=0.01)
PATHS: dict[Wire, str] = {"openai": "/openai/v1", "anthropic": "/anthropic", "gemini": "/gemini"}
MODELS: dict[Wire, str] = {
    "openai": "sim-gpt-5-nano", "anthropic": "sim-claude-sonnet-4", "gemini": "sim-gemini-2.5-flash-lite",
}  # fmt: skip
PROMPT = "What do you see?\nFindings: Cardiomegaly, Edema\nEnd with ANSWER and one line per finding."


class Log:
    """A watch that remembers everything."""

    def __init__(self) -> None:
        self.answered_by: list[tuple[str, float | None]] = []
        self.failures: list[tuple[str, str]] = []
        self.stops: list[tuple[str, str]] = []
        self.states: list[str] = []
        self.warnings: list[str] = []
        self.on_state: Callable[[], object] = lambda: None

    def answered(self, teacher: str, status: str, cost_usd: float | None) -> None:
        self.answered_by.append((teacher, cost_usd))

    def failed(self, teacher: str, message: str) -> None:
        self.failures.append((teacher, message))

    def stopped(self, teacher: str, message: str) -> None:
        self.stops.append((teacher, message))

    def batches(self, state: str) -> None:
        self.states.append(state)
        self.on_state()

    def warned(self, message: str) -> None:
        self.warnings.append(message)


def pictures(count: int) -> list[Picture]:
    jpegs = [JPEG + bytes([number]) for number in range(count)]
    return [Picture(jpeg, sha256(jpeg).hexdigest()) for jpeg in jpegs]


def question(teacher: TeacherSpec, picture: Picture) -> Question:
    key = sha256(f"{teacher.name}/{picture.sha256}".encode()).hexdigest()
    return Question(
        study_id=f"s-{picture.sha256[:8]}", subject_id="p1", source="test", split="train", image_ids=("i1",),
        source_sha256=("f1",), rendering="mimic_jpg-1@1024", teacher=teacher.name, provider=teacher.provider,
        model=teacher.model, prompt_name="diagnose", prompt_version="1", prompt_sha256="t", prompt_given="nothing",
        structured_answer=True, sampling=Sampling(max_tokens=64), sample_index=0, request_sha256=key,
    )  # fmt: skip


@dataclass
class Job:
    """What is asked, and where it goes."""

    simulator: Simulator
    path: Path
    wires: Sequence[Wire]
    count: int = 6
    log: Log = field(default_factory=Log)

    @property
    def specs(self) -> list[TeacherSpec]:
        def one(wire: Wire) -> TeacherSpec:
            endpoint = self.simulator.address + PATHS[wire]
            return spec(wire, endpoint, name=wire, model=MODELS[wire], price=Price(1.0, 2.0))

        return [one(wire) for wire in self.wires]

    @property
    def keys(self) -> set[str]:
        return {question(s, picture).request_sha256 for s in self.specs for picture in pictures(self.count)}

    def run(self, ledger: Ledger, *, ask: bool = True, data_use: Any = "open", **options: Any) -> None:
        """One run of the loop, as a build does it."""
        specs, asked = self.specs, pictures(self.count)
        for picture in asked:
            self.simulator.learn(picture.sha256, Truth(None))

        @contextmanager
        def open_round(wanted: Wanted, number: int) -> Iterator[Iterator[Batch]]:
            answered = ledger.answered()

            def batches() -> Iterator[Batch]:
                for picture in asked:
                    questions = [question(one, picture) for one in specs]
                    left = [q for q in questions if q.request_sha256 not in answered and wanted(q)]
                    if left:
                        ledger.plan(left)
                        yield Batch((picture,), tuple((q, PROMPT) for q in left))

            yield batches()

        parties = Parties(specs, {one.name: "secret-key-123" for one in specs}, Gate("test", data_use))
        options = {"patience": QUICK, **options}
        send_in_batches(open_round if ask else None, parties, ledger, self.log, lambda: None, **options)

    def once(self, **options: Any) -> set[str]:
        """Open the ledger, run, close it; the keys that are answered then."""
        with Ledger(self.path) as ledger:
            self.run(ledger, **options)
            return ledger.answered()

    def budget(self, limit_usd: float, spent_usd: float = 0.0) -> Budget:
        return Budget(limit_usd, self.specs, spent_usd)


@contextmanager
def job(path: Path, *wires: Wire, fates: Sequence[BatchFate] = (), count: int = 6) -> Iterator[Job]:
    """A job on a simulator that runs until the block ends."""
    with Simulator(batches=fates) as simulator:
        yield Job(simulator, path / "ledger.sqlite", wires, count)
