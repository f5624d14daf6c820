"""A trained student answers like any other teacher, in this process."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxr_max.errors import RequestError
from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec

if TYPE_CHECKING:
    from cxr_max.student.generation import Generated, Request
    from cxr_max.student.model import Student


class StudentTeacher:
    """Answers what has gathered, up to ``spec.concurrency`` questions at once.

    The model is loaded with the first question. A seed that is not given is made of the request's key, so that the
    same request has the same reply.
    """

    def __init__(self, spec: TeacherSpec) -> None:
        self.spec = spec
        self._student: Student | None = None
        self._waiting: list[tuple[Request, asyncio.Future[Generated]]] = []
        self._busy = asyncio.Lock()

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        try:
            from cxr_max.student.generation import Request
        except ModuleNotFoundError as error:
            raise TeacherError("model", f'A student needs {error.name}: pip install "cxr-max[train]".') from error
        sampling = self.spec.sampling
        seed = sampling.seed if sampling.seed is not None else int(key[:15], 16)
        request = Request(tuple(images), prompt, sampling.max_tokens, sampling.temperature, sampling.top_p, seed)
        answer: asyncio.Future[Generated] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        async with self._busy:
            if not answer.done():
                await self._answer_waiting()
        generated = await answer
        return Reply(
            text=generated.text,
            reasoning=None,
            ended=generated.ended,
            finish_reason=generated.ended,
            model_reported=self.spec.model,
            input_tokens=generated.input_tokens,
            output_tokens=generated.output_tokens,
            request_id=None,
            raw="",
        )

    async def _answer_waiting(self) -> None:
        batch = self._waiting[: self.spec.concurrency]
        del self._waiting[: len(batch)]
        try:
            answers = await asyncio.to_thread(self._generate, [request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever torch raises concerns this batch only
            kind = "model" if isinstance(error, RequestError) else "bad_request"
            for _, answer in batch:
                answer.set_exception(TeacherError(kind, f"{type(error).__name__}: {error}"))  # type: ignore[arg-type]
            return
        for (_, answer), generated in zip(batch, answers, strict=True):
            answer.set_result(generated)

    def _generate(self, requests: "list[Request]") -> "list[Generated]":
        from cxr_max.student.generation import generate
        from cxr_max.student.model import open_student

        if self._student is None:
            assert self.spec.weights is not None
            self._student = open_student(self.spec.weights)
        return generate(self._student, requests)

    async def close(self) -> None:
        """Release the model's memory."""
        self._student = None
