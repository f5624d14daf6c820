"""What may be sent where. Asked in the one sending loop, before anything is read or sent.

The rules: PhysioNet's "Responsible use of MIMIC data with online services" (news of 24 September 2025): an
online service may see credentialed data only where zero data retention, no training on the data and no human
review are all verified; models on one's own machines are recommended instead.
"""

import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date as Date
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cxr_max.errors import DataUseError, RequestError
from cxr_max.records import DataUse, Place

Outlet = Literal["hub", "physionet"]
"""Where a release can be published."""

_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""RFC 1918 and RFC 4193: what a laboratory's own network is made of."""
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")
_LONGEST: Final = 200
_MIMIC: Final = re.compile(r"(^|/)[0-9a-f]{8}(-[0-9a-f]{8}){4}\b|(^|/)p1\d/p1\d{7}/s5\d{7}(/|$)")
"""A dicom_id of MIMIC-CXR, or the folders of one of its studies."""
_LICENCES: Final = ("LICENSE.txt", "LICENSE", "license.txt")
_CREDENTIALED: Final = re.compile(rb"(?i)physionet\s+(contributor review|credentialed|restricted)\s+health")
_ABOVE: Final = 4
"""How many folders above a folder of images are looked at: MIMIC's images lie four below its licence."""
_FREE: Final = frozenset({"open", "registration"})
"""Classes that any service may see. Whatever is in no class is credentialed."""
_PROMISES = ("zero_retention", "no_training", "no_human_review")
_FIELDS = {"provider": str, "account": str, "date": Date, "expiry": Date, **dict.fromkeys(_PROMISES, bool)}
_KINDS: Final = {str: "a text", Date: "a date such as 2026-01-15, without quotes", bool: "true or false"}


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
    file_sha256: str
    """Of the file that it was read from."""

    def holds_on(self, day: Date) -> bool:
        """Whether it was made by then and has not expired."""
        return self.date <= day <= self.expiry


def credentialed_sign(root: Path, files: Iterable[str]) -> str | None:
    """What shows that a folder holds credentialed data of PhysioNet, whatever its own table says; ``None`` if
    nothing does. Files that were renamed and taken out of their folders show nothing any more.

    Args:
        files: paths below ``root``.
    """
    folders: dict[Path, str] = {}
    for file in files:
        path = root / file
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        real = os.path.realpath(path) if path.is_symlink() else f"{folders[path.parent]}/{path.name}"
        if _MIMIC.search(real):
            return f"{file} is named as MIMIC-CXR's images are, or lies among them"
    for folder in (root.resolve(), *islice(root.resolve().parents, _ABOVE)):
        for name in _LICENCES:
            with suppress(OSError):
                if _CREDENTIALED.search((folder / name).read_bytes()[:10_000]):
                    return f"{folder / name} is PhysioNet's licence for credentialed data"
    return None


@dataclass(frozen=True, slots=True)
class Recipient:
    """A teacher that the gate let pass, as the ledger and the manifest keep it."""

    teacher: str
    place: Place
    host: str | None
    """``None`` of a local one: a laboratory's addresses are nobody's business."""
    attestation: Attestation | None
    """What opened the gate; ``None`` where the data needed none."""


def host_of(endpoint: str) -> str:
    """The host of a URL in lower case; empty where it is not written so plainly that every client reads the same.

    A name and a password before it, a stray bracket or a control character are read in one way by one client and
    in another by the next.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    written = f"[{host}]" if ":" in host else host
    plain = endpoint.isascii() and endpoint.isprintable()
    return host if plain and parts.netloc.lower() in {written, f"{written}:{port}"} else ""


def place_of(endpoint: str, declared: Place | None = None) -> Place:
    """Where an endpoint is. ``local`` is believed only of loopback and of declared private addresses.

    ``remote`` is always believed: what listens on this machine may be a gateway that passes everything on.

    Raises:
        RequestError: the endpoint is declared local, but its host is a public address or a name.
    """
    host = host_of(endpoint)
    address = _address_of(host)
    if declared == "remote":
        return "remote"
    if address.is_loopback if address else _is_this_machine(host):
        return "local"
    if declared is None:
        return "remote"
    if address is None or not any(
        address in network for network in _PRIVATE if network.version == address.version
    ):
        raise RequestError(
            f"The endpoint {endpoint} is declared local, but {host or 'it'} is not a loopback or private"
            " address: write its private IP address, or take the declaration out."
        )
    return "local"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address_of(host: str) -> _Address | None:
    """The address that a host is written as; ``None`` for a name, which may resolve to anything.

    Shorter ways to write one (``127.1``, ``2130706433``) are names here: not every client reads them alike.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    # ::ffff:8.8.8.8 is a public address in a private dress.
    return getattr(address, "ipv4_mapped", None) or address


def _is_this_machine(host: str) -> bool:
    """Whether ``localhost`` means what it says here: a hosts file can send it anywhere."""
    if host != "localhost":
        return False
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def proxy_of(endpoint: str) -> str | None:
    """Host and port of the proxy that the environment names for an endpoint; ``None`` where it names none."""
    parts = urlsplit(endpoint)
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    return (urlsplit(proxy).netloc or proxy).rpartition("@")[2]


def load_attestations(path: Path, *, today: Date) -> tuple[Attestation, ...]:
    """Read one ``[[attestation]]`` table per provider.

    Raises:
        RequestError: the file is absent, incomplete, expired, or does not promise all three conditions.
    """
    try:
        content = path.read_bytes()
        tables = tomllib.loads(content.decode("utf-8")).get("attestation", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The attestation {path} cannot be read as TOML: {error}") from error
    if not isinstance(tables, list) or not tables:
        raise RequestError(f"The attestation {path} holds no [[attestation]] table: add one per provider.")
    if not all(isinstance(table, dict) for table in tables):
        raise RequestError(
            f"The attestation {path} has something else than [[attestation]] tables: see docs/data-use.md."
        )
    digest = sha256(content).hexdigest()
    return tuple(_attestation(table, path, today, digest) for table in tables)


def _attestation(table: Mapping[str, object], path: Path, today: Date, digest: str) -> Attestation:
    for name, kind in _FIELDS.items():
        if type(table.get(name)) is not kind:
            raise RequestError(f"The attestation {path} needs {name} = {_KINDS[kind]} in every table.")
    fields = {name: table[name] for name in _FIELDS}
    attestation = Attestation(**fields, file_sha256=digest)  # type: ignore[arg-type]
    host, account = attestation.provider, attestation.account
    if not _HOST.fullmatch(host):
        raise RequestError(
            f"The attestation {path} has provider = {host!r}: write the host alone, as in"
            ' "api.openai.com", without https:// and path, in lower case.'
        )
    if not account.strip() or not account.isprintable() or len(account) > _LONGEST:
        raise RequestError(
            f"The attestation for {host} needs account = the account's name in one line of at most {_LONGEST}"
            " characters."
        )
    _refuse_untimely(attestation, today)
    broken = [name for name in _PROMISES if not getattr(attestation, name)]
    if broken:
        raise RequestError(
            f"The attestation for {host} says {', '.join(broken)} = false: the data's terms ask for all three, so"
            " ask a local teacher, or agree on them with the provider first."
        )
    return attestation


def _refuse_untimely(attestation: Attestation, today: Date) -> None:
    if attestation.date > today:
        raise RequestError(
            f"The attestation for {attestation.provider} is dated in the future ({attestation.date}): wait until"
            " then, or correct its date."
        )
    if not attestation.holds_on(today):
        raise RequestError(
            f"The attestation for {attestation.provider} expired on {attestation.expiry}: renew it with the"
            " provider, or take its table out of the file."
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether what one source holds may be sent to a teacher: its images, labels and reports, and what others
    wrote about them. All of these are the source's data, so a prompt that gives more away needs no other leave.
    """

    source: str
    data_use: DataUse
    attestations: tuple[Attestation, ...] = ()
    today: Callable[[], Date] = Date.today
    """Replaced in tests."""

    def check(self, teacher: str, endpoint: str, place: Place) -> Recipient:
        """Let pass, or refuse.

        An attestation speaks for one host, not for a wire format: many services are compatible with OpenAI's.

        Raises:
            DataUseError: the terms forbid it; the message has the rule and the remedies.
        """
        if place == "local":
            return Recipient(teacher, place, None, None)
        host = host_of(endpoint)
        if self.data_use in _FREE:
            return Recipient(teacher, place, host, None)
        attested = [entry for entry in self.attestations if entry.provider == host]
        valid = next((entry for entry in attested if entry.holds_on(self.today())), None)
        if valid is None:
            raise DataUseError(self._refusal(teacher, host, attested))
        if not (endpoint.startswith("https://") or place_of(endpoint) == "local"):
            raise DataUseError(
                f"{self.source} is credentialed data, and {teacher} is asked over plain http, which everybody on"
                f" the way to {host} can read: write https:// into its endpoint."
            )
        return Recipient(teacher, place, host, valid)

    def check_batch(self, teacher: str, endpoint: str, place: Place) -> Recipient:
        """Let pass, or refuse what is sent in a batch: no attestation opens a batch interface.

        A batch's requests and results lie at the service until they are fetched and for weeks after, which is not
        zero retention, whatever was agreed for questions that are asked at once.

        Raises:
            DataUseError: the terms forbid it.
        """
        if place == "local" or self.data_use in _FREE:
            return self.check(teacher, endpoint, place)
        raise DataUseError(
            f"{self.source} is credentialed data, and the batch interface of {teacher} ({host_of(endpoint)}) keeps"
            " what it is sent for days, which no attestation covers: leave --batch out, or ask a local teacher."
        )

    def _refusal(self, teacher: str, host: str, attested: list[Attestation]) -> str:
        if attested:
            return (
                f"The attestation for {host} expired on {attested[0].expiry}, so {teacher} is not sent any more of"
                f" {self.source}, which is credentialed data: renew it with the provider and run the same command"
                " again."
            )
        counts = f"{self.source} is credentialed data"
        if self.source == "folder":
            counts = (
                "A folder without an open licence for each image, or with images of MIMIC, is credentialed data"
            )
        return (
            f"{counts} and {teacher} is a remote service ({host}). PhysioNet's terms (24 September 2025) allow"
            " that only where zero retention, no training and no human review are verified. Ask a local vLLM"
            f' teacher instead, or give --attestation FILE with a table for provider = "{host}".'
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
    if data_use not in _FREE and outlet == "hub":
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
