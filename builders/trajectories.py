"""A question and its reply in the ledger -> a row of the release. A pure function: a better reader of replies
is a rebuild away, and nothing is asked again."""

import hashlib
import json

from cxr_max import answers
from cxr_max.ledger import Answered
from cxr_max.records import Question, Trajectory


def trajectory_of(question: Question, answered: Answered) -> Trajectory:
    """The row that a reply becomes.

    ``findings`` come from the structured answer where the prompt asks for one and the reply is whole; they are
    ``None`` otherwise. Text that was given the diagnoses echoes them, so nothing is read from it.
    """
    reply = answered.reply
    status = answers.status_of(reply.text, reply.ended, structured_answer=question.structured_answer)
    answer = answers.read(reply.text) if question.structured_answer and status == "ok" else None
    shared = {name: getattr(question, name) for name in _FROM_QUESTION}
    return Trajectory(
        trajectory_id=_identity(question),
        image_sha256=answered.image_sha256,
        model_reported=reply.model_reported,
        status=status,
        finish_reason=reply.finish_reason,
        text=reply.text,
        reasoning=reply.reasoning,
        findings=answer.findings if answer else None,
        sides=answer.sides if answer else None,
        labeler=answers.VERSION if answer else None,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_usd=answered.cost_usd,
        latency_s=answered.latency_s,
        created_at=answered.created_at,
        **shared,
    )


_FROM_QUESTION = (
    "study_id", "subject_id", "source", "split", "image_ids", "source_sha256", "rendering", "teacher", "provider",
    "model", "prompt_name", "prompt_version", "prompt_sha256", "prompt_given", "sampling", "sample_index",
    "request_sha256",
)  # fmt: skip


def _identity(question: Question) -> str:
    parts = [
        question.study_id, question.image_ids, question.teacher, question.prompt_name, question.prompt_sha256,
        question.sample_index,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
