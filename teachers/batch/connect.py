"""Which teachers can be asked in batches, and through which interface."""

from typing import Final

from cxr_max.errors import RequestError
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.batch.base import BatchService
from cxr_max.teachers.roster import OFFICIAL_ENDPOINTS, SIMULATED, base_url

_WIRES: Final = frozenset({"openai", "anthropic", "gemini"})


def refuse_without_batches(specs: tuple[TeacherSpec, ...]) -> None:
    """Let pass if every teacher has a batch interface that is known here.

    Services that are compatible with OpenAI's for single questions have batches of their own kinds, or none. An
    endpoint on this machine is taken for a gateway to the service whose format it speaks.

    Raises:
        RequestError: the message names those without one.
    """
    without = [spec.name for spec in specs if not _has_batches(spec)]
    if without:
        raise RequestError(
            f"There is no known batch interface for {', '.join(without)}: leave {_them(without)} out here, and ask"
            f" {_them(without)} without --batch into the same --out."
        )


def _has_batches(spec: TeacherSpec) -> bool:
    if spec.endpoint == SIMULATED:
        return True
    known = spec.wire in _WIRES and spec.endpoint == OFFICIAL_ENDPOINTS.get(spec.provider)
    return known or (spec.provider in _WIRES and spec.place == "local")


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def connect(spec: TeacherSpec, api_key: str, simulator: str | None = None) -> BatchService:
    """Make the interface; call it inside a running event loop.

    Args:
        simulator: the running simulator's address, for personas.
    """
    url = base_url(spec, simulator)
    # Each SDK takes up to a second to import: only those of the chosen teachers are.
    if spec.wire == "anthropic":
        from cxr_max.teachers.batch.anthropic import AnthropicBatches

        return AnthropicBatches(spec, url, api_key)
    if spec.wire == "gemini":
        from cxr_max.teachers.batch.gemini import GeminiBatches

        return GeminiBatches(spec, url, api_key)
    from cxr_max.teachers.batch.openai import OpenAIBatches

    return OpenAIBatches(spec, url, api_key)
