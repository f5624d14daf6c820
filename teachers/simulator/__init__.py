"""Simulated teachers: a loopback server that speaks the services' wire formats, with known truth behind it.

    with Simulator(seed=7) as simulator:
        simulator.learn(image_sha256, Truth(findings, sides, difficulty))
        client = openai.AsyncOpenAI(base_url=f"{simulator.address}/openai/v1", api_key="any")

``personas.toml`` says who they are, ``world`` what they claim, ``prose`` how they say it, ``wires`` in which
format, and ``server`` serves it. ``faults`` says what goes wrong, and ``acting`` acts it out, in the words of
``errors.toml``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr_max.teachers.simulator.server import Simulator
    from cxr_max.teachers.simulator.world import Truth

__all__ = ["Simulator", "Truth"]


def __getattr__(name: str) -> Any:
    """Import on first use: naming the package must not cost an HTTP server."""
    if name == "Simulator":
        from cxr_max.teachers.simulator.server import Simulator

        return Simulator
    if name == "Truth":
        from cxr_max.teachers.simulator.world import Truth

        return Truth
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
