"""A question and its reply in the ledger -> a row of the release.

A pure function: a better labeler is a rebuild away, and nothing is asked again.
"""

import hashlib
import json
from typing import Final

from cxr_max import labeler, prompts
from cxr_max.ledger import Answered
from cxr_max.records import Question, Reply, Status, Trajectory
from cxr_max.replies import read_comparison, read_reply


def trajectory_of(question: Question, answered: Answered) -> Trajectory:
    """The row that a reply becomes.

    ``findings`` are the labeler's reading of a reply that is whole and in the form that was asked for, ``None``
    of any other, and of one about changes. The labeler knows what the prompt gave away, and takes no echo of it
    for a finding.
    """
    reply = answered.reply
    status, labels = _read(question, reply)
    shared = {name: getattr(question, name) for name in _FROM_QUESTION}
    return Trajectory(
        trajectory_id=_identity(question),
        image_sha256=answered.image_sha256,
        model_reported=reply.model_reported,
        status=status,
        finish_reason=reply.finish_reason,
        text=reply.text,
        reasoning=reply.reasoning,
        findings=labels.states if labels else None,
        sides=labels.sides if labels else None,
        labeler=labeler.VERSION if labels else None,
        contradictions=labels.contradictions if labels else (),
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost_usd=answered.cost_usd,
        latency_s=answered.latency_s,
        created_at=answered.created_at,
        **shared,
    )


def _read(question: Question, reply: Reply) -> tuple[Status, labeler.Labels | None]:
    if prompts.compares(question.prompt_name):
        return read_comparison(reply.text, reply.ended), None
    return read_reply(
        reply.text, reply.ended, structured_answer=question.structured_answer, given=question.given_findings
    )


_FROM_QUESTION: Final = (
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
