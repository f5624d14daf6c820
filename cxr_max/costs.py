"""What replies cost, in US dollars. A price that is not known is ``None``, never zero."""

from cxr_max.records import Reply


def cost_of(reply: Reply, usd_per_million: tuple[float, float] | None) -> float | None:
    """The price of one reply; ``None`` where the price or the number of tokens is unknown.

    Args:
        usd_per_million: of input and of output tokens.
    """
    if usd_per_million is None or reply.input_tokens is None or reply.output_tokens is None:
        return None
    return (reply.input_tokens * usd_per_million[0] + reply.output_tokens * usd_per_million[1]) / 1e6


def add_cost(total: float | None, more: float | None) -> float | None:
    """The sum, which is unknown as soon as one part is."""
    return None if total is None or more is None else total + more
