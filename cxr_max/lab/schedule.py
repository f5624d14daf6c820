"""Runs the stages as processes, as many at once as the machine has room for, and remembers what is done.

A stage is done when ``OUT/done/STAGE.json`` is there, which is written last. Stages go on by themselves where they
were interrupted, so a lab that was killed at any time loses seconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.sending import Interrupted
from cxr_max.errors import CxrMaxError, RequestError
from cxr_max.lab.plan import Stage, stages
from cxr_max.lab.settings import RECIPE, Settings
from cxr_max.shards import canonical_json, sha256_of, write_text

_LOOK_EVERY_S: Final = 0.2
_PATIENCE_S: Final = 60.0
"""For a stage to end once it was told to."""
_LAST: Final = 400
"""Characters of a failed stage's last words."""


class StageFailed(CxrMaxError):
    """A stage ended with an error."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the lab is."""

    done: int
    total: int
    running: Mapping[str, str]
    """Stage -> what it is doing."""
    left_s: float | None


Watch = Callable[[Progress], None]
Start = Callable[[Path, str], "subprocess.Popen[str]"]


def marker(out: Path, stage: Stage) -> Path:
    """There once the stage is done."""
    return out / "done" / f"{stage.name.replace(':', '-')}.json"


def seconds(out: Path, stage: Stage) -> float:
    """What a finished stage took."""
    return float(json.loads(marker(out, stage).read_text("utf-8"))["seconds"])


def run_lab(out: Path, lab: Settings, watch: Watch, workers: int, start: Start | None = None) -> None:
    """Do every stage that is not done.

    Args:
        workers: stages at once.
        start: how a stage becomes a process.

    Raises:
        RequestError: the folder holds a lab with other settings.
        RunLockedError: another lab is at work in it.
        StageFailed: a stage ended with an error; its last words are in the message.
        Interrupted: the user stopped it.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise RequestError(f"{out} is a file: choose a folder for --out.")
    with RunFolder(out).locked():
        settle(out, lab)
        _Runs(out, stages(lab), watch, workers, start or started).all()


def settle(out: Path, lab: Settings) -> None:
    """Keep the settings, or check them against those that it was begun with. Seeds and ablations may be added.

    Raises:
        RequestError: they differ.
    """
    path, wanted = out / "lab.json", {**lab.as_json(), "recipe_sha256": sha256_of(RECIPE)}
    if path.exists():
        begun = json.loads(path.read_text("utf-8"))
        added = {"seeds": lab.seeds, "ablations": wanted["ablations"]}
        if {**begun, **added} != wanted or not set(begun["ablations"]) <= set(lab.ablations):
            raise RequestError(
                f"{out} holds a lab with other settings: choose another --out, or the same settings."
            )
    write_text(path, canonical_json(wanted))


def started(out: Path, name: str) -> "subprocess.Popen[str]":
    """A stage as a process of its own, whose words go to ``OUT/logs``.

    One thread each: a small model is slower on two, and the denormal numbers that slow a CPU down are flushed in
    the main thread alone.
    """
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name.replace(':', '-')}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cxr_max.lab.stages", str(out), name],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            start_new_session=True,  # Ctrl-C is ours to pass on
        )


@dataclass(slots=True)
class _Runs:
    out: Path
    stages: Sequence[Stage]
    watch: Watch
    workers: int
    start: Start

    def all(self) -> None:
        running: dict[str, tuple[subprocess.Popen[str], float]] = {}
        try:
            while len(done := self._done()) < len(self.stages):
                for stage in self._ready(done, running)[: self.workers - len(running)]:
                    running[stage.name] = (self.start(self.out, stage.name), time.monotonic())
                self.watch(self._progress(done, running))
                time.sleep(_LOOK_EVERY_S)
                self._reap(running)
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped: what is done is kept in {self.out}; the same command goes on.") from None
        finally:
            _end([process for process, _ in running.values()])
            for name, (_, since) in running.items():
                self._spend(name, since)
        self.watch(self._progress(self._done(), {}))

    def _done(self) -> set[str]:
        return {stage.name for stage in self.stages if marker(self.out, stage).is_file()}

    def _ready(self, done: set[str], running: Mapping[str, object]) -> list[Stage]:
        return [s for s in self.stages if s.name not in done and s.name not in running and set(s.needs) <= done]

    def _reap(self, running: "dict[str, tuple[subprocess.Popen[str], float]]") -> None:
        by_name = {stage.name: stage for stage in self.stages}
        for name, (process, since) in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[name]
            if code:
                raise StageFailed(f"The stage {name} failed ({code}): {self._words(name)[-_LAST:]}")
            took = self._spend(name, since)
            write_text(marker(self.out, by_name[name]), canonical_json({"stage": name, "seconds": took}))

    def _spend(self, name: str, since: float) -> float:
        """Add up what all starts of a stage took, in seconds."""
        path = self.out / "logs" / f"{name.replace(':', '-')}.seconds"
        before = float(path.read_text("utf-8")) if path.is_file() else 0.0
        took = round(before + time.monotonic() - since, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{took}\n")
        return took

    def _words(self, name: str) -> str:
        log = self.out / "logs" / f"{name.replace(':', '-')}.log"
        return log.read_text("utf-8", errors="replace").strip() if log.is_file() else "it said nothing"

    def _progress(self, done: set[str], running: Mapping[str, object]) -> Progress:
        """The time left is what is not done by weight, at the pace of what is done, by whichever start."""
        made = [stage for stage in self.stages if stage.name in done]
        rest = sum(stage.weight for stage in self.stages if stage.name not in done)
        took = sum(seconds(self.out, stage) for stage in made)
        left = rest * took / sum(stage.weight for stage in made) / self.workers if made else None
        return Progress(len(done), len(self.stages), {name: self._doing(name) for name in running}, left)

    def _doing(self, name: str) -> str:
        lines = [line for line in self._words(name).splitlines() if line.startswith('{"what"')]
        if not lines:
            return "starting"
        try:
            said = json.loads(lines[-1])
        except ValueError:
            return "at work"
        return f"{said['what']} {said['done']}/{said['total']}"


def _end(processes: "Sequence[subprocess.Popen[str]]") -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
