"""What may be sent where. Asked in the one sending loop, before anything is read or sent.

The rules: PhysioNet's "Responsible use of MIMIC data with online services" (news of 24 September 2025): an
online service may see credentialed data only where zero data retention, no training on the data and no human
review are all verified; models on one's own machines are recommended instead.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cxr_max.errors import DataUseError, RequestError
from cxr_max.records import DataUse, Place

Outlet = Literal["hub", "physionet"]
"""Where a release can be published."""

_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""RFC 1918 and RFC 4193: what a laboratory's own network is made of."""
_PROMISES = ("zero_retention", "no_training", "no_human_review")
_FIELDS = {"provider": str, "account": str, "date": Date, "expiry": Date, **dict.fromkeys(_PROMISES, bool)}


@dataclass(frozen=True, slots=True)
class Attestation:
    """A researcher's signed-off statement of what one provider's account guarantees."""

    provider: str
    """The host that is asked, for instance ``api.openai.com``."""
    account: str
    date: Date
    expiry: Date
    zero_retention: bool
    no_training: bool
    no_human_review: bool


def place_of(endpoint: str, declared: Place | None = None) -> Place:
    """Where an endpoint is. ``local`` is believed only of loopback and of declared private addresses.

    Raises:
        RequestError: the endpoint is declared local, but its host is a public address or a name.
    """
    host = urlsplit(endpoint).hostname or ""
    address = _address_of(host)
    if address is not None and address.is_loopback:
        return "local"
    if declared != "local":
        return "remote"
    if address is None or not any(
        address in network for network in _PRIVATE if network.version == address.version
    ):
        raise RequestError(
            f"The endpoint {endpoint} is declared local, but {host or 'it'} is not a loopback or private"
            " address: write its private IP address, or take the declaration out."
        )
    return "local"


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as; ``None`` for a name, which may resolve to anything."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None
    # ::ffff:8.8.8.8 is a public address in a private dress.
    return getattr(address, "ipv4_mapped", None) or address


def load_attestations(path: Path, *, today: Date) -> tuple[Attestation, ...]:
    """Read one ``[[attestation]]`` table per provider.

    Raises:
        RequestError: the file is absent, incomplete, expired, or does not promise all three conditions.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8")).get("attestation", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The attestation {path} cannot be read as TOML: {error}") from error
    if not isinstance(tables, list) or not tables:
        raise RequestError(f"The attestation {path} holds no [[attestation]] table: add one per provider.")
    if not all(isinstance(table, dict) for table in tables):
        raise RequestError(
            f"The attestation {path} has something else than [[attestation]] tables: see the README."
        )
    return tuple(_attestation(table, path, today) for table in tables)


def _attestation(table: Mapping[str, object], path: Path, today: Date) -> Attestation:
    for name, kind in _FIELDS.items():
        if type(table.get(name)) is not kind or table[name] == "":
            raise RequestError(f"The attestation {path} needs {name} = a {kind.__name__} in every table.")
    attestation = Attestation(**{name: table[name] for name in _FIELDS})  # type: ignore[arg-type]
    if attestation.expiry < today:
        raise RequestError(f"The attestation for {attestation.provider} expired on {attestation.expiry}.")
    if attestation.date > today:
        raise RequestError(f"The attestation for {attestation.provider} is dated in the future.")
    broken = [name for name in _PROMISES if not getattr(attestation, name)]
    if broken:
        raise RequestError(
            f"The attestation for {attestation.provider} says {', '.join(broken)} = false:"
            " the data's terms ask for all three."
        )
    return attestation


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the images of one source may be sent to a teacher."""

    source: str
    data_use: DataUse
    attestations: tuple[Attestation, ...] = ()

    def check(self, teacher: str, endpoint: str, place: Place) -> None:
        """Let pass, or refuse.

        An attestation speaks for one host, not for a wire format: many services are compatible with OpenAI's.

        Raises:
            DataUseError: the terms forbid it; the message has the rule and the remedies.
        """
        if place == "local" or self.data_use != "credentialed":
            return
        host = urlsplit(endpoint).hostname
        if any(entry.provider == host for entry in self.attestations):
            return
        raise DataUseError(
            f"{self.source} is credentialed data and {teacher} is a remote service ({host}). PhysioNet's terms"
            " (24 September 2025) allow that only where zero retention, no training and no human review are"
            " verified. Ask a local vLLM teacher instead, or give --attestation FILE with a table for provider"
            f' = "{host}".'
        )

    def check_batch(self, teacher: str, endpoint: str, place: Place) -> None:
        """Let pass, or refuse what is sent in a batch: no attestation opens a batch interface.

        A batch's requests and results lie at the service until they are fetched and for weeks after, which is
        not zero retention, whatever was agreed for questions that are asked at once.

        Raises:
            DataUseError: the terms forbid it.
        """
        if place == "local" or self.data_use != "credentialed":
            return
        host = urlsplit(endpoint).hostname
        raise DataUseError(
            f"{self.source} is credentialed data, and the batch interface of {teacher} ({host}) keeps what it is"
            " sent for days, which no attestation covers: leave --batch out, or ask a local teacher."
        )


def check_outlet(source: str, data_use: DataUse, outlet: Outlet) -> None:
    """Whether a release of texts derived from a data set may be published at an outlet; refuse, or let pass.

    PhysioNet (24 April 2024): data sets derived from credentialed data are sensitive themselves and are shared on
    PhysioNet under the same agreement. A private or gated repository of a hub is no substitute for the agreement.

    Raises:
        DataUseError: the terms forbid it; the message has the rule and the way that is open.
    """
    if data_use == "open" and outlet == "physionet":
        raise DataUseError(f"{source} is open data, which needs no agreement: cxr-max push publishes the release.")
    if data_use == "credentialed" and outlet == "hub":
        raise DataUseError(
            f"{source} is credentialed data, and so is what is derived from it. PhysioNet's guideline (24 April"
            " 2024) asks that it be shared on PhysioNet under the same agreement; a private or gated repository is"
            " no substitute. cxr-max package prepares the submission."
        )
    if data_use == "registration":
        raise DataUseError(
            f"{source} is given to registered users under an agreement of its own, which says who may pass on what"
            " is derived from it: ask its owners."
        )
