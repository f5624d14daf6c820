"""What teachers charge: the roster's word, else the table that genai-prices keeps and ships. No network."""

from dataclasses import replace
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from cxr_max.costs import Price
from cxr_max.teachers.base import TeacherSpec

_SERVICES: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "api.x.ai": "x-ai",
    "api.moonshot.ai": "moonshotai",
    "api.z.ai": "zai",
    "api.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "openrouter.ai": "openrouter",
}
"""The table's names of services that charge in US dollars. By host, because the table's own patterns match the
beginning of an address, and so other hosts and other currencies too."""


def priced(spec: TeacherSpec) -> TeacherSpec:
    """The teacher with its price of today, if its roster table names none and the table knows it."""
    if spec.price is not None or spec.place == "local":
        return spec
    return replace(spec, price=listed_price(spec.endpoint, spec.model))


def listed_price(endpoint: str, model: str) -> Price | None:
    """What the service at this address charges for this model; ``None`` where the table does not know both.

    By the address, never by the model's name alone: resellers charge as they like. The table's first tier is
    meant: a request of this package is far below the 128,000 tokens or more where the others begin.
    """
    service = _SERVICES.get(urlsplit(endpoint).hostname or "")
    if service is None:
        return None
    import genai_prices

    try:
        usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
        table = genai_prices.calc_price(usage, model, provider_id=service).model_price
    except LookupError:
        return None
    charged, said = _usd(table, "input_mtok"), _usd(table, "output_mtok")
    if charged is None or said is None:
        return None
    cached = _usd(table, "cache_read_mtok")
    return Price(charged, said, cached, f"genai-prices {genai_prices.__version__}")


def _usd(table: Any, name: str) -> float | None:
    value = getattr(table, name, None)
    base = value if isinstance(value, Decimal) else getattr(value, "base", None)
    return None if base is None else float(base)
