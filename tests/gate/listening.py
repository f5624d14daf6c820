"""A service on loopback that counts what reaches it, under a name or an address that is not this machine's."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.teachers.scripted import body

HOST = "api.teacher.example"
OTHER = "elsewhere.example"
PRIVATE = "10.11.12.13"
OFFICIAL = "api.openai.com"
"""Whose batch interface is known; at port 443, as everybody."""
GOOD = {wire: bytes(body(wire).body) for wire in ("openai", "anthropic", "gemini")}  # type: ignore[arg-type]


@dataclass
class Listener:
    """What reached a socket: connections as they are accepted, and the bodies of whole requests."""

    port: int = 0
    connections: int = 0
    bodies: list[bytes] = field(default_factory=list)
    moved: tuple[int, str] | None = None
    """The status and the Location that every request is answered with."""
    says: Callable[[str], tuple[dict[str, str], bytes]] | None = None
    """Headers and body of the answer to a path; by default a good reply."""

    @property
    def silent(self) -> bool:
        """Nobody so much as connected, so not one byte came."""
        return self.connections == 0 and not self.bodies


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        heard: Listener = self.server.heard  # type: ignore[attr-defined]
        heard.bodies.append(self._body())
        wire = "gemini" if "generateContent" in self.path else "anthropic" if "messages" in self.path else "openai"
        status, headers, answer = 200, dict[str, str](), GOOD[wire]
        if heard.moved:
            status, headers, answer = heard.moved[0], {"Location": heard.moved[1]}, b""
        elif heard.says is not None:
            headers, answer = heard.says(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size + 2)[:-2])
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_CONNECT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, heard: Listener, context: ssl.SSLContext | None) -> None:
        self.heard, self.context = heard, context
        super().__init__(("127.0.0.1", 0), _Handler)
        heard.port = self.server_address[1]

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.heard.connections += 1
        if self.context is None:
            return connection, address
        return self.context.wrap_socket(connection, server_side=True), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    heard = Listener()
    server = _Server(heard, context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certified(folder: Path) -> Path:
    """A key and a certificate for the names above, in one PEM that is also its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST), x509.DNSName(OTHER)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    encoding = serialization.Encoding.PEM
    plain = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "service.pem"
    path.write_bytes(plain + made.public_bytes(encoding))
    return path


def server_context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@contextmanager
def mapped() -> Iterator[dict[int, int]]:
    """The names and the private address above lead to loopback: the resolver says so, in this test only.

    Yields:
        Ports that are others here, such as 443.
    """
    names, ports = {HOST, OTHER, OFFICIAL}, dict[int, int]()
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def resolved(host: Any, *args: Any, **named: Any) -> Any:
        return look_up("127.0.0.1" if host in names else host, *args, **named)

    def connected(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            host = "127.0.0.1" if address[0] == PRIVATE else address[0]
            address = (host, ports.get(address[1], address[1]), *address[2:])
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolved)
        patch.setattr(socket.socket, "connect", connected)
        yield ports


_opened: list[str] = []
_watched: list[Path] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _watched:
        with suppress(Exception):
            path = str(args[0])
            if path.lower().endswith((".jpg", ".png", ".dcm")) and path.startswith(str(_watched[-1])):
                _opened.append(path)


sys.addaudithook(_hook)


@contextmanager
def images_opened(below: Path) -> Iterator[list[str]]:
    """Every image file below a folder that Python opens meanwhile."""
    _opened.clear()
    _watched.append(below)
    try:
        yield _opened
    finally:
        _watched.pop()
