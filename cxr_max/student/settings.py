"""How a student is trained: TOML recipes, the paper's as default."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_max.errors import RequestError

Stage = Literal["sft", "apo"]
Tracker = Literal["tensorboard", "wandb", "trackio"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Strict):
    """A low-rank adapter (Hu et al. 2021) over all linear layers of the language model."""

    rank: int = Field(default=8, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    vision: bool = False
    """Over the vision tower's too."""


class Model(_Strict):
    """What is trained of a model, and how it sees."""

    lora: Lora | None = None
    """``None`` trains all weights."""
    vision: bool = True
    """Without an adapter: the vision tower is trained too. A new adapter leaves it alone unless told otherwise."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_pixels: int = Field(default=1024 * 1024, ge=784)
    """Pixels of an image at most; larger ones are scaled down."""
    gradient_checkpointing: bool = False


class Course(_Strict):
    """What both stages have in common."""

    epochs: int = Field(default=1, gt=0)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises; it then falls as a cosine to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(gt=0)
    """Tokens of a prompt with one reply at most; a longer reply is cut, which is counted and reported."""
    images_per_step: int = Field(gt=0)
    """Image sets per optimizer step, over all processes: a step is the same step, however many share it."""
    images_per_pass: int = Field(default=1, gt=0)
    """Image sets per forward pass of one process, at most."""
    seed: int = 0
    save_every: int = Field(default=50, gt=0)
    """Steps between checkpoints; the last two are kept."""
    log_every: int = Field(default=1, gt=0)


class Sft(Course):
    """Supervised fine-tuning on all teachers' trajectories."""

    teacher_smoothing: float = Field(default=0.1, ge=0, le=1)
    """Share of the draws that goes to all teachers alike, the rest by how many trajectories each has."""
    refusals: bool = False
    """Learn from refusals too."""


class Apo(Course):
    """Autonomous Preference Optimization: ``apo.apo_loss``, with an optional anchor."""

    beta: float = Field(default=0.1, gt=0)
    anchor: float = Field(default=0.0, ge=0)
    """Weight of the preferred reply's mean negative log-likelihood per token, added to the loss."""
    agreeing: Literal["drop", "keep"] = "drop"
    """A negative that claims exactly what the consensus claims: left out, or kept as in the paper's formula."""
    teacher_weights: dict[str, float] = Field(default_factory=dict)
    """How much each teacher's negatives count; 1 where not named."""
    stop_below: float | None = Field(default=None, gt=0)
    """Stop as soon as the preferred log-prob has fallen this many nats below the reference on average."""


class Log(_Strict):
    """Where the course of a training is logged, besides ``metrics.jsonl`` and ``curves.png``."""

    to: tuple[Tracker, ...] = ("tensorboard",)


class Recipe(_Strict):
    """A file of settings."""

    model: Model
    sft: Sft
    apo: Apo
    log: Log = Log()


def log_to(names: str) -> Log:
    """Trackers from their names with commas between them; ``none`` is none.

    Raises:
        RequestError: a name is unknown.
    """
    wanted = () if names == "none" else tuple(name.strip() for name in names.split(","))
    try:
        return Log.model_validate({"to": wanted})
    except ValidationError as error:
        known = ", ".join(get_args(Tracker))
        raise RequestError(
            f"--log {names} names no tracker that is known: choose from {known}, or none."
        ) from error


def read_recipe(name: str = "paper") -> Recipe:
    """A shipped recipe (``paper``, ``tiny``), or the TOML file at the path ``name``.

    Raises:
        RequestError: there is none, or a setting in it is unknown or wrong.
    """
    shipped = files("cxr_max.student") / "recipes" / f"{name}.toml"
    path = shipped if shipped.is_file() else Path(name)
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The recipe {name} cannot be read as TOML: {error}") from error
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"The recipe {name} is wrong at {where!r}: {first['msg']}.") from error
