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
        ("http://127.0.0.1@evil.example/v1", None, "remote"),
        ("http://evil.example@127.0.0.1/v1", None, "remote"),
        ("http://evil.example\\@127.0.0.1/v1", None, "remote"),
        ("http://127.0.0.1\\.evil.example/v1", None, "remote"),
        ("http://127.0.0.1\t.evil.example/v1", None, "remote"),
        ("http://[::1].evil.example/v1", None, "remote"),
        ("http://evil.example[::1]/v1", None, "remote"),
        ("http://127.0.0.1:80:evil.example/v1", None, "remote"),
        ("http://127.0.0.1:notaport/v1", None, "remote"),
        ("HTTP://LOCALHOST:8000/v1", None, "local"),
        ("http://localhost./v1", None, "remote"),
        ("http://127.0.0.1./v1", None, "remote"),
        ("http://127.9.8.7/v1", None, "local"),
        ("http://127.1/v1", None, "remote"),
        ("http://2130706433/v1", None, "remote"),
        ("http://0x7f000001/v1", None, "remote"),
        ("http://0177.0.0.1/v1", None, "remote"),
        ("http://0.0.0.0:8000/v1", None, "remote"),
        ("http://[::]:8000/v1", None, "remote"),
        ("http://[::ffff:127.0.0.1]:8000/v1", None, "local"),
        ("http://[0:0:0:0:0:0:0:1]:8000/v1", None, "local"),
        ("http://[::ffff:10.0.0.7]:8000/v1", "local", "local"),
        ("http://[fd00::7]:8000/v1", None, "remote"),
        ("http://[fd00::7]:8000/v1", "local", "local"),
        ("http://\u2460\u2461\u2466.0.0.1/v1", None, "remote"),
        ("http://127\u30020\u30020\u30021/v1", None, "remote"),
        ("unix:///run/vllm.sock", None, "remote"),
        ("http+unix://%2Frun%2Fvllm.sock/v1", None, "remote"),
        ("http:///v1", None, "remote"),
        ("http://rebinding.example/v1", None, "remote"),
        ("", None, "remote"),
        ("http://localhost:8000/v1", "remote", "remote"),
        ("http://10.0.0.7:8000/v1", "remote", "remote"),
    ],
)
def test_place(endpoint: str, declared: str | None, place: str) -> None:
    assert place_of(endpoint, declared) == place  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "api.openai.com", "8.8.8.8", "gpu-box:8000", "[::ffff:8.8.8.8]", "0.0.0.0:8000", "192.0.2.2", "198.18.0.1",
        "169.254.169.254", "134744072", "240.0.0.1", "[2001:0:1::1]", "127.1", "localhost.", "10.1", "[::]",
        "[fe80::1]", "[64:ff9b::a00:7]", "[2002:a00:7::1]", "172.32.0.1", "100.64.0.1", "user@10.0.0.7",
        "[::1].evil.example", "\u2461.example",
    ],
)  # fmt: skip
def test_a_public_endpoint_cannot_be_declared_local(host: str) -> None:
    with pytest.raises(RequestError, match="declared local"):
        place_of(f"http://{host}/v1", "local")


@pytest.mark.parametrize(
    ("found", "place"),
    [
        (["127.0.0.1"], "local"),
        (["::1", "127.0.0.1"], "local"),
        (["127.0.0.1", "93.184.216.34"], "remote"),
        (["10.0.0.7"], "remote"),
        (None, "remote"),
    ],
)
def test_localhost_is_here_only_where_it_resolves_to_here(
    monkeypatch: pytest.MonkeyPatch, found: list[str] | None, place: str
) -> None:
    def resolved(*_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if found is None:
            raise OSError("no such name")
        return [(0, 0, 0, "", (address, 0)) for address in found]

    monkeypatch.setattr("socket.getaddrinfo", resolved)
    assert place_of("http://localhost:8000/v1") == place
    if place == "remote":
        with pytest.raises(RequestError, match="declared local"):
            place_of("http://localhost:8000/v1", "local")


def test_no_name_is_resolved_to_find_out_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name resolves to now says nothing about the next time it is asked for."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("resolved"))
    for host in ("api.openai.com", "127.0.0.1", "localhost.", "gpu-box"):
        place_of(f"http://{host}/v1")


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
        ({"account": '"  "'}, "needs account"),
        ({"account": '"two\\nlines"'}, "needs account"),
        ({"account": f'"{"x" * 201}"'}, "needs account"),
        ({"provider": '""'}, "the host alone"),
        ({"provider": '"*"'}, "the host alone"),
        ({"provider": '"https://api.openai.com/v1"'}, "the host alone"),
        ({"provider": '"API.OpenAI.com"'}, "lower case"),
        ({"provider": '["api.openai.com", "api.x.ai"]'}, "needs provider"),
        ({"date": "2026-01-15T10:00:00"}, "needs date"),
        ({"zero_retention": "1"}, "needs zero_retention"),
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


def test_the_first_and_the_last_day_count(tmp_path: Path) -> None:
    for day in (date(2026, 1, 15), date(2027, 1, 15)):
        attested = load_attestations(write(tmp_path), today=day)
        Gate("mimic", "credentialed", attested, lambda day=day: day).check("a", "https://api.openai.com", "remote")
    gate = Gate("mimic", "credentialed", attested, lambda: date(2027, 1, 16))
    with pytest.raises(DataUseError, match="expired on 2027-01-15"):
        gate.check("a", "https://api.openai.com", "remote")


def test_attested_data_do_not_travel_in_the_open(tmp_path: Path) -> None:
    gate = Gate("mimic", "credentialed", load_attestations(write(tmp_path), today=TODAY))
    with pytest.raises(DataUseError, match="plain http"):
        gate.check("a", "http://api.openai.com/v1", "remote")


def test_a_gateway_on_this_machine_may_be_attested(tmp_path: Path) -> None:
    gate = Gate("mimic", "credentialed", load_attestations(write(tmp_path, provider='"127.0.0.1"'), today=TODAY))
    passed = gate.check("a", "http://127.0.0.1:4000/v1", "remote")
    assert passed.host == "127.0.0.1" and passed.attestation == gate.attestations[0]
