"""A run's folder: its lock, its ``run.toml``, its ledger and its release."""

import fcntl
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cxr_max.builders.file_system import refuse_unsafe
from cxr_max.errors import RequestError, RunLockedError
from cxr_max.shards import disk_refusals_named, write_text


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run. Only ``release`` is ever published."""

    root: Path

    @property
    def ledger(self) -> Path:
        """Every reply."""
        return self.root / "ledger.sqlite"

    @property
    def settings(self) -> Path:
        """What all builds of the run have in common, local paths included."""
        return self.root / "run.toml"

    @property
    def lock(self) -> Path:
        """Held by whoever is at work in the folder."""
        return self.root / ".lock"

    @property
    def release(self) -> Path:
        """What Hugging Face loads."""
        return self.root / "release"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep other builds out of it; the lock ends with the process, however it ends.

        Raises:
            RequestError: the folder's place is taken by a file, or is on a network file system.
            RunLockedError: another build is at work in the folder.
            StorageError: the folder cannot be written.
        """
        if any(path.exists() and not path.is_dir() for path in (self.root, *self.root.parents)):
            raise RequestError(
                f"{self.root} cannot be a folder, because a file is in the way: choose another --out."
            )
        refuse_unsafe(self.root)
        with disk_refusals_named(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.lock)
            try:
                # Whoever asks whether somebody is at work holds the lock for an instant.
                lock.acquire(timeout=0.5, poll_interval=0.05)
            except Timeout:
                raise RunLockedError(
                    f"Another build is at work in {self.root}: wait for it, stop it, or choose another --out."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def at_work(self) -> bool:
        """Whether a job holds the lock of this folder now; nothing is written."""
        try:
            with self.lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def settle(self, settings: Mapping[str, str]) -> None:
        """Keep ``settings`` for the run's later builds, or check them against those of its first.

        Raises:
            RequestError: this run was begun with other settings, or its file is damaged.
        """
        if not self.settings.exists():
            if self.ledger.exists():
                raise RequestError(
                    f"{self.settings} is missing, so nothing says what this run is about: put it back, or choose"
                    " another --out."
                )
            # A JSON string is a TOML string.
            lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items()]
            write_text(self.settings, "".join(lines))
            return
        begun = self.begun()
        for name, value in settings.items():
            # A setting that is younger than the run was blank.
            if begun.get(name, "") != value:
                raise RequestError(
                    f"The run in {self.root} was begun with {name} = {begun.get(name, '')!r}, not {value!r}:"
                    " choose another --out, or ask for what it was begun with."
                )

    def begun(self) -> dict[str, str]:
        """The settings that the run was begun with.

        Raises:
            RequestError: they cannot be read.
        """
        try:
            return tomllib.loads(self.settings.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RequestError(f"{self.settings} cannot be read ({error}): put it right, or remove it.") from error


def release_in(folder: Path) -> Path:
    """The release that a user means by a run's folder, or by the release's own."""
    return folder / "release" if (folder / "release").is_dir() else folder
