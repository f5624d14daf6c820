"""The data-use gate, case by case, through the real command line: who is sent what, and who hears nothing.

``docs/data-use.md`` holds this table; a test keeps the two alike.
"""

import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from cxr_max.cli import app
from cxr_max.errors import CxrMaxError
from tests.builders.test_build import built
from tests.gate.listening import (
    HOST,
    OFFICIAL,
    OTHER,
    PRIVATE,
    Listener,
    certified,
    images_opened,
    listening,
    mapped,
    server_context,
)
from tests.mimic_fixture import write_mimic

Where = Literal["loopback", "private", "loopback, declared remote", "remote", "remote over http"]
State = Literal["none", "valid", "expired", "future", "incomplete", "other host", "a promise is false"]


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    data_use: Literal["open", "registration", "credentialed"]
    where: Where
    state: State
    given: Literal["nothing", "findings", "trajectories"]
    kind: Literal["chat", "batch", "redirect"]
    outcome: Literal["sent", "refused", "not followed"]
    why: str = ""
    """What the refusal says."""

    def row(self, number: int) -> str:
        cells = (str(number), self.data_use, self.where, self.state, self.given, self.kind, self.outcome)
        return "| " + " | ".join(cells) + " |"


KEY = 'key = "GATE_KEY"\n'
NO_BATCH = "no attestation covers"
VERIFIED = "24 September 2025"
CASES = (
    Case("open", "loopback", "none", "nothing", "chat", "sent"),
    Case("open", "remote", "none", "nothing", "chat", "sent"),
    Case("open", "remote", "none", "findings", "chat", "sent"),
    Case("open", "remote over http", "none", "nothing", "chat", "sent"),
    Case("open", "remote", "expired", "nothing", "chat", "refused", "expired on"),
    Case("registration", "loopback", "none", "nothing", "chat", "sent"),
    Case("registration", "remote", "none", "nothing", "chat", "sent"),
    Case("credentialed", "loopback", "none", "nothing", "chat", "sent"),
    Case("credentialed", "loopback", "none", "findings", "chat", "sent"),
    Case("credentialed", "loopback", "none", "trajectories", "chat", "sent"),
    Case("credentialed", "private", "none", "nothing", "chat", "sent"),
    Case("credentialed", "private", "none", "findings", "chat", "sent"),
    Case("credentialed", "remote", "none", "nothing", "chat", "refused", VERIFIED),
    Case("credentialed", "remote", "none", "findings", "chat", "refused", VERIFIED),
    Case("credentialed", "remote", "none", "trajectories", "chat", "refused", VERIFIED),
    Case("credentialed", "remote over http", "none", "nothing", "chat", "refused", VERIFIED),
    Case("credentialed", "loopback, declared remote", "none", "nothing", "chat", "refused", VERIFIED),
    Case("credentialed", "loopback, declared remote", "none", "findings", "chat", "refused", VERIFIED),
    Case("credentialed", "remote", "valid", "nothing", "chat", "sent"),
    Case("credentialed", "remote", "valid", "findings", "chat", "sent"),
    Case("credentialed", "remote", "valid", "trajectories", "chat", "sent"),
    Case("credentialed", "remote over http", "valid", "nothing", "chat", "refused", "plain http"),
    Case("credentialed", "remote", "expired", "nothing", "chat", "refused", "expired on"),
    Case("credentialed", "remote", "expired", "findings", "chat", "refused", "expired on"),
    Case("credentialed", "remote", "expired", "trajectories", "chat", "refused", "expired on"),
    Case("credentialed", "remote", "future", "nothing", "chat", "refused", "dated in the future"),
    Case("credentialed", "remote", "incomplete", "nothing", "chat", "refused", "needs no_training"),
    Case("credentialed", "remote", "other host", "nothing", "chat", "refused", VERIFIED),
    Case("credentialed", "remote", "other host", "trajectories", "chat", "refused", VERIFIED),
    Case("credentialed", "remote", "a promise is false", "nothing", "chat", "refused", "no_training = false"),
    Case("credentialed", "remote", "none", "nothing", "batch", "refused", NO_BATCH),
    Case("credentialed", "remote", "valid", "nothing", "batch", "refused", NO_BATCH),
    Case("credentialed", "remote", "valid", "findings", "batch", "refused", NO_BATCH),
    Case("credentialed", "remote", "expired", "nothing", "batch", "refused", "expired on"),
    Case("credentialed", "loopback", "none", "nothing", "redirect", "not followed", OTHER),
    Case("credentialed", "loopback", "none", "findings", "redirect", "not followed", OTHER),
    Case("credentialed", "private", "none", "nothing", "redirect", "not followed", OTHER),
    Case("credentialed", "remote", "valid", "nothing", "redirect", "not followed", OTHER),
    Case("open", "loopback", "none", "nothing", "redirect", "not followed", OTHER),
)


@dataclass
class World:
    """Where a case is acted out."""

    folder: Path
    mimic: Path
    open: Path
    run: Path
    """Of MIMIC's images, with two simulated teachers."""
    pem: Path
    ports: dict[int, int]


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("gate")
    _, mimic = write_mimic(folder / "data")
    images = folder / "open"
    images.mkdir()
    first = next(path for path in sorted(mimic.rglob("*.jpg")))
    shutil.copy(first, images / "chest.jpg")
    (images / "manifest.csv").write_text("file,view,licence,Edema\nchest.jpg,PA,CC0,1\n")
    built(f"mimic-cxr-jpg:{mimic}", folder / "run", "sim-grok-4,sim-gpt-5-nano,sim-qwen-vl-max", studies=2)
    return World(folder, mimic, images, folder / "run", certified(folder), {})


@pytest.fixture
def world(lent: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("SSL_CERT_FILE", str(lent.pem))
    monkeypatch.setenv("GATE_KEY", "secret-key-0123456789")
    shutil.copytree(lent.run, tmp_path / "run")
    with mapped() as ports:
        yield World(tmp_path, lent.mimic, lent.open, tmp_path / "run", lent.pem, ports)


def attest(path: Path, state: State, host: str = HOST) -> Path:
    day, one = date.today(), timedelta(days=1)
    fields: dict[str, Any] = {
        "provider": f'"{OTHER if state == "other host" else host}"', "account": '"our lab"',
        "date": day + one if state == "future" else day - 2 * one,
        "expiry": day - one if state == "expired" else day + 30 * one,
        "zero_retention": "true", "no_training": "false" if state == "a promise is false" else "true",
        "no_human_review": "true",
    }  # fmt: skip
    if state == "incomplete":
        del fields["no_training"]
    path.write_text("[[attestation]]\n" + "".join(f"{name} = {value}\n" for name, value in fields.items()))
    return path


def roster(path: Path, where: Where, port: int) -> Path:
    host = {"remote": HOST, "remote over http": HOST, "private": PRIVATE}.get(where, "127.0.0.1")
    place = {"private": 'place = "local"\n', "loopback, declared remote": 'place = "remote"\n'}.get(where, "")
    scheme = "https" if where == "remote" else "http"
    path.write_text(f'[mine]\nprovider = "vllm"\nmodel = "m"\nendpoint = "{scheme}://{host}:{port}"\n{KEY}{place}')
    return path


def command(world: World, case: Case, port: int) -> list[str]:
    file, batch = roster(world.folder / "r.toml", case.where, port), case.kind == "batch"
    if batch:
        # Only the services' own endpoints are known to have batches.
        file.write_text(f'[mine]\nprovider = "openai"\nmodel = "m"\n{KEY}')
        world.ports[443] = port
    mine = ["--teachers" if case.given != "trajectories" else "--teacher", "mine", "--roster", str(file)]
    if case.state != "none":
        mine += ["--attestation", str(attest(world.folder / "a.toml", case.state, OFFICIAL if batch else HOST))]
    if case.given == "trajectories":
        return ["consensus", str(world.run), "--method", "student", *mine]
    source = f"mimic-cxr-jpg:{world.mimic}" if case.data_use == "credentialed" else f"folder:{world.open}"
    prompt = "rationale" if case.given == "findings" else "diagnose"
    out = ["--studies", "1", "--out", str(world.folder / "out"), *(["--batch"] if batch else [])]
    return ["build", "--source", source, "--prompt", prompt, *out, *mine]


def ran(arguments: list[str]) -> tuple[int, str]:
    """The exit code of a command, and what its refusal says."""
    try:
        return int(app(arguments, standalone_mode=False) or 0), ""
    except CxrMaxError as error:
        return error.exit_code, str(error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row(0)[6:-2].replace(" | ", "-"))
def test_the_gate(case: Case, world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if case.data_use == "registration":
        monkeypatch.setattr("cxr_max.builders.sources.folder._data_use", lambda _: "registration")
    context = server_context(world.pem) if case.where == "remote" else None
    with listening(context) as service, listening() as target, images_opened(world.mimic) as opened:
        if case.kind == "redirect":
            service.moved = (307, f"http://{OTHER}:{target.port}/v1/chat/completions")
        code, said = ran(command(world, case, service.port))
        said += capsys.readouterr().err
        outcome(case, code, said, service, opened)
        assert target.silent
    assert "secret-key" not in said


def outcome(case: Case, code: int, said: str, service: Listener, opened: list[str]) -> None:
    assert case.why in said
    if case.outcome == "refused":
        assert code == 2 and service.silent and opened == []
    elif case.outcome == "not followed":
        assert code == 3 and len(service.bodies) >= 1
    else:
        assert opened or case.data_use != "credentialed", "or else that none was opened would say nothing"
        assert code in {0, 3} and service.bodies and all(b"image/jpeg;base64" in one for one in service.bodies)


@pytest.mark.parametrize("prompt", ["diagnose", "rationale", "report"])
def test_no_word_of_a_report_is_sent(world: World, prompt: str) -> None:
    """Not even to this machine: no prompt gives one, whatever lies beside the images."""
    dicom = world.mimic.parents[1] / "mimic-cxr" / "2.1.0"
    assert (dicom / "mimic-cxr-reports.zip").is_file()
    with listening() as service:
        arguments = [
            "--teachers",
            "mine",
            "--roster",
            str(roster(world.folder / "r.toml", "loopback", service.port)),
        ]
        source = ["--source", f"mimic-cxr:{dicom}", "--prompt", prompt, "--out", str(world.folder / "out")]
        code, _ = ran(["build", *source, *arguments])
    assert code in {0, 3} and service.bodies
    for body in service.bodies:
        for words in (
            b"FINAL REPORT",
            b"INDICATION",
            b"year old with cough",
            b"The heart is enlarged",
            b"pacemaker is",
        ):
            assert words not in body


def test_the_listener_hears_whoever_comes(world: World) -> None:
    """Or else that nobody came would say nothing."""
    with listening() as service:
        world.ports[443] = service.port
        for host, port in ((HOST, service.port), (OTHER, service.port), (PRIVATE, service.port), (OFFICIAL, 443)):
            socket.create_connection((host, port)).close()
        while service.connections < 4:
            threading.Event().wait(0.01)
        assert not service.silent


def test_there_are_enough_cases_and_none_twice() -> None:
    assert len(CASES) >= 24 and len(set(CASES)) == len(CASES)
    for name in ("data_use", "where", "state", "given", "kind", "outcome"):
        assert len({getattr(case, name) for case in CASES}) > 2 or name == "outcome"


def test_the_documentation_has_the_table() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data-use.md").read_text("utf-8")
    for number, case in enumerate(CASES, start=1):
        assert case.row(number) in text
