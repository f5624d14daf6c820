"""A question about images that others were asked about before."""

from cxr_max.ledger import request_key
from cxr_max.prompts import Prompt
from cxr_max.records import Asked, Question, Trajectory
from cxr_max.teachers.base import TeacherSpec


def question_like(
    pattern: Trajectory | Asked,
    spec: TeacherSpec,
    prompt: Prompt,
    text: str,
    *,
    changed: str = "",
    sample_index: int = 0,
) -> Question:
    """Ask ``spec`` about the images of ``pattern``, rendered as they were then.

    Args:
        text: the prompt, filled in.
        changed: what was done to the pictures after rendering, such as ``+noise-3.1``; part of the request's key.
    """
    rendering = pattern.rendering + changed
    key = request_key(
        provider=spec.provider,
        endpoint=spec.endpoint,
        model=spec.model,
        sampling=spec.sampling,
        prompt_text=text,
        images=[(source, rendering) for source in pattern.source_sha256],
        sample_index=sample_index,
    )
    return Question(
        study_id=pattern.study_id,
        subject_id=pattern.subject_id,
        source=pattern.source,
        split=pattern.split,
        image_ids=pattern.image_ids,
        source_sha256=pattern.source_sha256,
        rendering=rendering,
        teacher=spec.name,
        provider=spec.provider,
        model=spec.model,
        prompt_name=prompt.name,
        prompt_version=prompt.version,
        prompt_sha256=prompt.sha256,
        prompt_given=prompt.given,
        structured_answer=prompt.structured_answer,
        sampling=spec.sampling,
        sample_index=sample_index,
        request_sha256=key,
    )
