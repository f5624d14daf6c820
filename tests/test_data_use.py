"""Where an endpoint is, what an attestation must say, and who is let through."""

from datetime import date
from pathlib import Path

import pytest

from cxr_max.data_use import Gate, load_attestations, place_of
from cxr_max.errors import DataUseError, RequestError

TODAY = date(2026, 6, 1)
GOOD = {
    "provider": '"api.openai.com"',
    "account": '"lab"',
    "date": "2026-01-15",
    "expiry": "2027-01-15",
    "zero_retention": "true",
    "no_training": "true",
    "no_human_review": "true",
}


def write(folder: Path, **changes: str | None) -> Path:
    fields = {**GOOD, **changes}
    lines = [f"{name} = {value}" for name, value in fields.items() if value is not None]
    path = folder / "attestation.toml"
    path.write_text("[[attestation]]\n" + "\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("endpoint", "declared", "place"),
    [
        ("http://127.0.0.1:8000/v1", None, "local"),
        ("http://localhost:8000/v1", None, "local"),
        ("http://[::1]:8000/v1", None, "local"),
        ("http://127.0.0.1:8000/v1", "remote", "remote"),
        ("https://api.openai.com/v1", None, "remote"),
        ("http://192.168.1.5:8000/v1", None, "remote"),
        ("http://192.168.1.5:8000/v1", "local", "local"),
        ("http://10.0.0.7:8000/v1", "local", "local"),
        ("http://127.0.0.1.evil.example/v1", None, "remote"),
        ("http://localhost.evil.example/v1", None, "remote"),
        ("http://user@127.0.0.1@evil.example/v1", None, "remote"),
    ],
)
def test_place(endpoint: str, declared: str | None, place: str) -> None:
    assert place_of(endpoint, declared) == place  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "api.openai.com", "8.8.8.8", "gpu-box:8000", "[::ffff:8.8.8.8]", "0.0.0.0:8000", "192.0.2.2", "198.18.0.1",
        "169.254.169.254", "134744072", "240.0.0.1", "[2001:0:1::1]",
    ],
)  # fmt: skip
def test_a_public_endpoint_cannot_be_declared_local(host: str) -> None:
    with pytest.raises(RequestError, match="declared local"):
        place_of(f"http://{host}/v1", "local")


def test_a_good_attestation(tmp_path: Path) -> None:
    (attestation,) = load_attestations(write(tmp_path), today=TODAY)
    assert attestation.provider == "api.openai.com" and attestation.expiry == date(2027, 1, 15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expiry": "2026-05-31"}, "expired on 2026-05-31"),
        ({"date": "2026-06-02"}, "in the future"),
        ({"zero_retention": "false"}, "zero_retention = false"),
        ({"no_human_review": None}, "needs no_human_review"),
        ({"no_training": '"yes"'}, "needs no_training"),
        ({"account": '""'}, "needs account"),
        ({"expiry": '"2027-01-15"'}, "needs expiry"),
    ],
)
def test_a_bad_attestation_is_refused(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_attestations(write(tmp_path, **changes), today=TODAY)


@pytest.mark.parametrize(
    "content", [None, "not toml [", "[attestation]\nprovider = 1", "x = 1", "attestation = ['x']", "\xff\xfe"]
)
def test_an_unreadable_attestation_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "attestation.toml"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(RequestError, match="attestation"):
        load_attestations(path, today=TODAY)


@pytest.mark.parametrize(
    ("data_use", "place", "host", "allowed"),
    [
        ("open", "remote", "api.x.ai", True),
        ("registration", "remote", "api.x.ai", True),
        ("credentialed", "local", "127.0.0.1", True),
        ("credentialed", "remote", "api.openai.com", True),
        ("credentialed", "remote", "api.x.ai", False),
        ("credentialed", "remote", "api.openai.com.evil.example", False),
    ],
)
def test_the_gate(tmp_path: Path, data_use: str, place: str, host: str, allowed: bool) -> None:
    attested = load_attestations(write(tmp_path), today=TODAY)
    gate = Gate("mimic-cxr", data_use, attested)  # type: ignore[arg-type]
    if allowed:
        gate.check("a-teacher", f"https://{host}/v1", place)  # type: ignore[arg-type]
        return
    with pytest.raises(DataUseError, match=r"24 September 2025.*local vLLM.*--attestation"):
        gate.check("a-teacher", f"https://{host}/v1", place)  # type: ignore[arg-type]
