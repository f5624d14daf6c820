"""What all tests share: no network but loopback, no key in the environment; real data may be there."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Two tests run at a time, each with children of its own: torch's threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """The one switch: a test that reaches for any host but this one fails, whatever library it uses."""
    original = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in {socket.AF_INET, socket.AF_INET6} and not host.startswith(("127.", "::1", "localhost")):
            raise AssertionError(f"a test reached for {host}")
        original(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", connect)
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def no_cache() -> Iterator[None]:
    """No test reads or fills the user's cache of rendered images."""
    patch = pytest.MonkeyPatch()
    patch.setenv("CXR_MAX_CACHE_GB", "0")
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may spend somebody's money."""
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.endswith("_BASE_URL"):
            monkeypatch.delenv(name)


@pytest.fixture
def shared() -> Path:
    """The folder of real radiographs and reports."""
    if not SHARED.is_dir():
        pytest.skip("real radiographs are not at hand (../shared/data)")
    return SHARED
