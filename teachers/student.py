"""A student in this process, asked like any other teacher: what waits is answered in one batch."""

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from cxr_max import progression
from cxr_max.errors import CxrMaxError, RequestError
from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec

if TYPE_CHECKING:
    from cxr_max.student.generation import Generated, Request
    from cxr_max.student.model import Student

_GATHER_S: Final = 0.05
"""How long a batch that is not full waits for company; replies take seconds."""
_HEADING: Final = "ANSWER"
"""A prompt that says this word asks for a structured answer, whose findings are scored."""


class StudentTeacher:
    """A checkpoint of the student, loaded at the first question.

    Raises:
        RequestError: what the student needs is not installed.
    """

    def __init__(self, spec: TeacherSpec) -> None:
        if any(find_spec(name) is None for name in ("torch", "transformers", "peft")):
            raise RequestError(f'{spec.name} needs torch and transformers: pip install "cxr-max[train]".')
        self.spec = spec
        self._waiting: asyncio.Queue[tuple[Request, asyncio.Future[Reply]]] = asyncio.Queue()
        self._batcher: asyncio.Task[None] | None = None
        self._at_most = spec.concurrency
        self._student: Student | None = None
        self._closed = threading.Event()

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``. The same key gets the same reply, up to rounding."""
        from cxr_max.student.generation import Request

        sampling = self.spec.sampling
        # The key tells samples and questions apart; one seed for all would draw all with the same noise.
        seed = int.from_bytes(hashlib.sha256(f"{sampling.seed} {key}".encode()).digest()[:4])
        request = Request(tuple(images), prompt, sampling.temperature, sampling.top_p, sampling.max_tokens, seed)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((request, answer))
        if self._batcher is None:
            self._batcher = asyncio.create_task(self._serve())
        return await answer

    async def close(self) -> None:
        """See ``Teacher.close``. A batch on its way is given up at its next token."""
        self._closed.set()
        if self._batcher is not None:
            self._batcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._batcher
        while not self._waiting.empty():
            self._waiting.get_nowait()[1].cancel()
        if self._student is not None:
            from cxr_max.student.generation import free_memory

            self._student = None
            free_memory()

    async def _serve(self) -> None:
        while True:
            batch = await self._gathered()
            try:
                answers = await asyncio.to_thread(self._answers, [request for request, _ in batch])
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, TeacherError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _gathered(self) -> "list[tuple[Request, asyncio.Future[Reply]]]":
        batch = [await self._waiting.get()]
        if self._waiting.qsize() + 1 < self._at_most:
            await asyncio.sleep(_GATHER_S)
        while len(batch) < self._at_most and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch

    def _answers(self, requests: "list[Request]") -> list[Reply | TeacherError]:
        """An answer or an error for every request; runs in a thread."""
        try:
            student = self._opened()
        # Whatever a library says of the weights concerns this teacher alone.
        except Exception as error:  # noqa: BLE001
            said = str(error) if isinstance(error, CxrMaxError) else f"{type(error).__name__}: {error}"
            return [TeacherError("model", said) for _ in requests]
        return self._generated(student, requests)

    def _opened(self) -> "Student":
        from cxr_max.student.model import open_student

        if self._student is None:
            assert self.spec.weights is not None
            student = open_student(self.spec.weights)
            if not self.spec.model.endswith(f"@{student.fingerprint[:12]}"):
                raise RequestError(
                    f"The weights of {self.spec.name} changed since this run began: start it again."
                )
            self._student = student
        return self._student

    def _generated(self, student: "Student", requests: "list[Request]") -> list[Reply | TeacherError]:
        """In one batch, or where that fails in halves: one bad request must not fail its neighbours."""
        from cxr_max.student.generation import free_memory, generate

        half = len(requests) // 2
        try:
            made = generate(student, requests, cancelled=self._closed.is_set)
        except MemoryError:
            self._at_most = max(1, min(self._at_most, half))
            failed = TeacherError(
                "bad_request", f"{self.spec.name} ran out of memory on a single request: lower max_tokens."
            )
        # And whatever it says of a batch, that batch alone.
        except Exception as error:  # noqa: BLE001
            failed = TeacherError("bad_request", f"{type(error).__name__}: {error}")
        else:
            return [
                _reply(one, student.fingerprint, self._scored(student, request, one.text))
                for one, request in zip(made, requests, strict=True)
            ]
        free_memory()
        if not half:
            return [failed]
        return self._generated(student, requests[:half]) + self._generated(student, requests[half:])

    def _scored(self, student: "Student", request: "Request", text: str) -> str:
        """How sure the student is of its answer, as JSON; empty where none was asked for."""
        from cxr_max.student.finding_scores import finding_scores
        from cxr_max.student.generation import free_memory

        asks_for_findings = _HEADING in request.prompt and not progression.asked_in(request.prompt)
        if not asks_for_findings or self._closed.is_set():
            return ""
        try:
            [scores] = finding_scores(student, [request], [text])
            reason = "The reply has no ANSWER heading."
        # The reply is there, and is worth keeping without its scores.
        except Exception as error:  # noqa: BLE001
            scores, reason = None, f"{type(error).__name__}: {error}"
            free_memory()
        return json.dumps({"finding_scores": scores} if scores else {"finding_scores": None, "reason": reason})


def _reply(made: "Generated", fingerprint: str, raw: str) -> Reply:
    return Reply(
        text=made.text,
        reasoning=None,
        ended=made.ended,
        finish_reason=made.ended,
        model_reported=fingerprint,
        input_tokens=made.input_tokens,
        output_tokens=made.output_tokens,
        request_id=None,
        raw=raw,
    )
