"""Which model a service says answered: a change in the middle of a run is noticed, and said once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Versions:
    """The model versions that every teacher has reported so far.

    Args:
        before: those of the run's earlier replies, by teacher; a resumed run is held against them.
    """

    before: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _known: dict[str, dict[str, None]] = field(init=False, default_factory=dict)
    """By teacher, in the order in which they were first reported."""

    def __post_init__(self) -> None:
        self._known = {teacher: dict.fromkeys(reported) for teacher, reported in self.before.items()}

    def seen(self, teacher: str, model_reported: str | None) -> str | None:
        """The sentence to say when a teacher reports a version that it has not reported before; else ``None``.

        The first version that a teacher reports is no news, and neither is a reply that names none.
        """
        known = self._known.setdefault(teacher, {})
        if model_reported is None or model_reported in known:
            return None
        earlier = ", ".join(known)
        known[model_reported] = None
        if not earlier:
            return None
        return (
            f"{teacher} now answers as {model_reported}, and answered as {earlier} before: every row names the"
            " version it came from (model_reported), and cxr-max status counts them."
        )
