"""TensorBoard, Weights & Biases and trackio, where asked for: numbers and settings, nothing of the machine."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cxr_max.errors import RequestError
from cxr_max.shards import write_text
from cxr_max.student.settings import Tracker

_PROJECT: Final = "cxr-max"


def require(names: Sequence[Tracker]) -> None:
    """See that what is asked for can be had.

    Raises:
        RequestError: a tracker is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise RequestError(f"Logging to {name} needs it: pip install {name}, or leave it out of --log.")


class Tracking(TrainerCallback):
    """Hands every logged step to the trackers; only the main process calls it.

    Not transformers' own callbacks: those send the Trainer's arguments and the model's settings, with their paths.
    """

    def __init__(self, names: Sequence[Tracker], out: Path, settings: Mapping[str, Any]) -> None:
        self._names, self._out, self._settings = names, out, settings
        self._trackers: list[GeneralTracker] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """See ``TrainerCallback``."""
        for name in self._names:
            tracker = _open(name, self._out, state.global_step)
            if state.global_step == 0:
                tracker.store_init_configuration(dict(flat(self._settings)))
            self._trackers.append(tracker)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: Any,
    ) -> None:
        """See ``TrainerCallback``."""
        if "loss" in logs:
            for tracker in self._trackers:
                tracker.log(
                    {name: value for name, value in logs.items() if name != "epoch"}, step=state.global_step
                )

    def close(self) -> None:
        """Send what is left, however the training ended."""
        for tracker in self._trackers:
            tracker.finish()


def _open(name: Tracker, out: Path, step: int) -> GeneralTracker:
    if name == "wandb":
        return _wandb(out)
    tracker: GeneralTracker
    if name == "tensorboard":
        # After an interruption, what was logged past the last checkpoint comes again.
        tracker = TensorBoardTracker("runs", logging_dir=out, purge_step=step + 1)
    else:
        silent = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        tracker = TrackioTracker(_PROJECT, name=_run(out), resume="allow", **silent)
    tracker.start()
    return tracker


def _wandb(out: Path) -> WandBTracker:
    import wandb
    from wandb.errors import Error

    # What wandb collects by itself: command line, paths, host, user, installed packages, console, load.
    silent = wandb.Settings(
        host=_PROJECT,
        console="off",
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    tracker = WandBTracker(_PROJECT, id=_run(out), resume="allow", dir=out, settings=silent)
    try:
        tracker.start()
    except Error as error:
        raise RequestError(
            f"Weights & Biases refuses ({str(error).splitlines()[0]}): log in with wandb login, set"
            " WANDB_MODE=offline, or leave wandb out of --log."
        ) from error
    return tracker


def _run(out: Path) -> str:
    """The run's name, the same at every start in this folder."""
    path = out / "run.txt"
    if not path.exists():
        write_text(path, f"{uuid4().hex[:12]}\n")
    return path.read_text("utf-8").strip()


def flat(settings: Mapping[str, Any], prefix: str = "") -> "list[tuple[str, str | int | float | bool]]":
    """Nested settings as ``course/learning_rate``, without those that are not set."""
    items: list[tuple[str, str | int | float | bool]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            items += flat(value, f"{prefix}{name}/")
        elif value is not None:
            items.append((f"{prefix}{name}", value))
    return items
