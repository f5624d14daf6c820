"""What both sending loops do first: ask the data-use gate about every teacher, and keep its answer."""

from collections.abc import Callable, Iterable, Sequence

from cxr_max.data_use import Recipient, proxy_of
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from cxr_max.records import Place
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.desk import Watch
from cxr_max.teachers.secrets import redact
from cxr_max.teachers.wire import heeds_environment

Check = Callable[[str, str, Place], Recipient]
"""``Gate.check`` or ``Gate.check_batch``."""


def admit(check: Check, specs: Iterable[TeacherSpec], ledger: Ledger, keys: Sequence[str], watch: Watch) -> None:
    """Let nothing be sent unless everything may; who is let pass is in the ledger before anything is.

    Raises:
        DataUseError: the terms forbid it for one of them.
        RequestError: an attestation, which is published, holds a key.
        StorageError: the disk refused.
    """
    admitted = [(spec, check(spec.name, spec.endpoint, spec.place)) for spec in specs]
    for _, recipient in admitted:
        _refuse_keys(recipient, keys)
    ledger.keep_recipients(recipient for _, recipient in admitted)
    for spec, recipient in admitted:
        if recipient.attestation is not None and heeds_environment(spec) and (proxy := proxy_of(spec.endpoint)):
            watch.warned(
                f"What {spec.name} is sent passes the proxy {proxy}, which the environment names: it sees nothing"
                f" of it unless this machine trusts its certificates; NO_PROXY={recipient.host} goes round it."
            )


def _refuse_keys(recipient: Recipient, keys: Sequence[str]) -> None:
    attestation = recipient.attestation
    if attestation is not None and redact(attestation.account, keys) != attestation.account:
        raise RequestError(
            f"The attestation for {attestation.provider} has a key in account, and it would be published: write"
            " the account's name there, and make a new key."
        )
