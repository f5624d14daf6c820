"""Whom the gate let pass, and under what, stands in the ledger and in the manifest."""

import hashlib
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.merge import merge_runs
from cxr_max.data_use import Recipient, proxy_of
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from tests.builders.test_build import Quiet, built
from tests.gate.listening import HOST, certified, listening, mapped, server_context
from tests.gate.test_table import KEY, attest
from tests.mimic_fixture import write_mimic

PROMISES = ("zero_retention", "no_training", "no_human_review")


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimic(tmp_path_factory.mktemp("mimic"))[1]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Options of a build that asks a remote service, on loopback under its name."""
    pem = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("GATE_KEY", "secret-key-0123456789")
    with mapped(), listening(server_context(pem)) as heard:
        roster = tmp_path / "roster.toml"
        roster.write_text(
            f'[mine]\nprovider = "vllm"\nmodel = "m"\nendpoint = "https://{HOST}:{heard.port}"\n{KEY}'
        )
        yield {"teachers": "mine", "roster": roster, "attestation": attest(tmp_path / "a.toml", "valid")}


def manifest(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "release" / "manifest.json").read_text())
    return loaded


def test_the_manifest_holds_the_whole_attestation(mimic: Path, service: dict[str, Any], tmp_path: Path) -> None:
    built(f"mimic-cxr-jpg:{mimic}", tmp_path / "out", studies=1, **service)
    (entry,) = manifest(tmp_path / "out")["recipients"]
    file, today = service["attestation"], date.today()
    assert entry == {
        "teacher": "mine", "place": "remote", "host": HOST,
        "attestation": {
            "provider": HOST, "account": "our lab", "date": str(today - timedelta(days=2)),
            "expiry": str(today + timedelta(days=30)), **dict.fromkeys(PROMISES, True),
            "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
    }  # fmt: skip
    for path in (tmp_path / "out" / "release").rglob("*"):
        assert path.is_dir() or b"secret-key-0123456789" not in path.read_bytes()


def test_a_resumed_run_lists_both_attestations_and_stops_at_one_that_expired(
    mimic: Path, service: dict[str, Any], tmp_path: Path
) -> None:
    out, file = tmp_path / "out", service["attestation"]
    built(f"mimic-cxr-jpg:{mimic}", out, studies=1, **service)
    first, before = file.read_bytes(), manifest(out)
    attest(file, "expired")
    with pytest.raises(RequestError, match="expired on"):
        built(f"mimic-cxr-jpg:{mimic}", out, studies=2, **service)
    assert manifest(out) == before
    file.write_bytes(first.replace(b"our lab", b"our other account"))
    built(f"mimic-cxr-jpg:{mimic}", out, studies=2, **service)
    accounts = [entry["attestation"]["account"] for entry in manifest(out)["recipients"]]
    assert accounts == ["our lab", "our other account"]


def test_merged_runs_list_the_recipients_of_all(mimic: Path, service: dict[str, Any], tmp_path: Path) -> None:
    source = f"mimic-cxr-jpg:{mimic}"
    built(source, tmp_path / "one", "sim-grok-4", studies=1)
    built(source, tmp_path / "two", studies=1, **service)
    merge_runs(tmp_path / "one", [tmp_path / "two"])
    built(source, tmp_path / "one", "sim-grok-4", studies=1)
    listed = manifest(tmp_path / "one")["recipients"]
    assert [(entry["teacher"], entry["place"]) for entry in listed] == [
        ("mine", "remote"),
        ("sim-grok-4", "local"),
    ]
    assert listed[0] == manifest(tmp_path / "two")["recipients"][0] and listed[1]["attestation"] is None


def test_a_key_in_account_is_refused_and_kept_nowhere(
    mimic: Path, service: dict[str, Any], tmp_path: Path
) -> None:
    for key in ("secret-key-0123456789", "sk-proj-abcdef1234567890"):
        file = service["attestation"]
        file.write_text(attest(file, "valid").read_text().replace("our lab", key))
        with pytest.raises(RequestError, match="has a key in account") as refused:
            built(f"mimic-cxr-jpg:{mimic}", tmp_path / "out", studies=1, **service)
        assert key not in str(refused.value)
        for path in (tmp_path / "out").rglob("*"):
            assert path.is_dir() or key.encode() not in path.read_bytes(), path


def test_a_remote_request_under_an_attestation_names_its_proxy(
    mimic: Path, service: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:password@127.0.0.1:{proxy.port}")
        assert proxy_of(f"https://{HOST}/v1") == f"127.0.0.1:{proxy.port}"
        monkeypatch.setenv("NO_PROXY", HOST)
        assert proxy_of(f"https://{HOST}/v1") is None
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setattr("cxr_max.teachers.asking.ATTEMPTS", 1)
        watch = Quiet()
        from cxr_max.builders.build import BuildRequest, build

        build(BuildRequest(source=f"mimic-cxr-jpg:{mimic}", out=tmp_path / "out", studies=1, **service), watch)
    (said,) = [warning for warning in watch.warnings if "proxy" in warning]
    assert f"127.0.0.1:{proxy.port}" in said and "password" not in said
    assert not any(b"image" in body for body in proxy.bodies)


def test_who_is_known_is_kept_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for _ in range(2):
            ledger.keep_recipients([Recipient("b", "local", None, None), Recipient("a", "remote", "x", None)])
        assert ledger.recipients() == [
            {"teacher": "a", "place": "remote", "host": "x", "attestation": None},
            {"teacher": "b", "place": "local", "host": None, "attestation": None},
        ]
