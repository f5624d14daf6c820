"""What replies cost, in US dollars. A price that is not known is ``None``, never zero."""

import json
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from cxr_max.records import Reply

Spent = tuple[float, int]
"""US dollars that are known to be spent, and how many replies there are whose cost is not."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float
    """Reasoning included: every service charges it as output."""
    cached_input: float | None = None
    """Of input tokens that the service had at hand from an earlier request; ``None`` where they cost the same."""
    source: str = "roster"
    """Who says so: ``roster``, or a table with its version, such as ``genai-prices 0.2.3``."""

    def times(self, factor: float) -> "Price":
        """The same price with a discount: batch interfaces charge half."""
        cached = None if self.cached_input is None else self.cached_input * factor
        return replace(self, input=self.input * factor, output=self.output * factor, cached_input=cached)


FREE = Price(0.0, 0.0, source="nothing is charged")
"""Of what is computed on this machine."""


def total(*several: Spent) -> Spent:
    """All of it together."""
    return fsum(usd for usd, _ in several), sum(unknown for _, unknown in several)


def cost_of(reply: Reply, price: Price | None) -> float | None:
    """The cost of one reply; ``None`` where the price or the number of tokens is unknown."""
    if price is None:
        return None
    if price.input == price.output == 0:
        return 0.0
    if reply.input_tokens is None or reply.output_tokens is None:
        return None
    cost = reply.input_tokens * price.input + reply.output_tokens * price.output
    if price.cached_input is not None:
        cost -= min(cached_input_tokens(reply.raw), reply.input_tokens) * (price.input - price.cached_input)
    return cost / 1e6


def cached_input_tokens(raw: str) -> int:
    """How many of a reply's input tokens its usage says were cached; 0 where it says nothing.

    Read where they are a part of the input tokens: in OpenAI's and Gemini's formats. Anthropic caches only what
    it is asked to, which nothing here does.
    """
    if "ached" not in raw:
        return 0
    try:
        body = json.loads(raw)
        counts = [_part(body.get("usage")), (body.get("usageMetadata") or {}).get("cachedContentTokenCount")]
    except (ValueError, AttributeError, RecursionError):
        return 0
    return next((count for count in counts if type(count) is int and count > 0), 0)


def _part(usage: Any) -> Any:
    """OpenAI's ``prompt_tokens_details``; Moonshot writes the count beside the others."""
    usage = usage or {}
    return (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or usage.get("cached_tokens")


def usd(amount: float) -> str:
    """For people: two places, more where there would be nothing to see."""
    return f"${amount:,.2f}" if amount == 0 or amount >= 0.1 else f"${amount:.4f}"


def add_cost(total: float | None, more: float | None) -> float | None:
    """The sum, which is unknown as soon as one part is."""
    return None if total is None or more is None else total + more
