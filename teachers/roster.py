"""Who the teachers are: ``roster.toml``, a user's additions, and the choice of a run."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_max.costs import FREE, Price
from cxr_max.data_use import host_of, place_of
from cxr_max.errors import RequestError
from cxr_max.records import Place, Sampling
from cxr_max.student.weights import ADAPTER, fingerprint
from cxr_max.teachers.base import TIMEOUT_S, Teacher, TeacherSpec, Wire
from cxr_max.teachers.prices import priced

SIMULATED: Final = "simulated:"
"""The endpoint of every persona, whatever port the simulator got this time."""
STUDENT: Final = "student:"
"""The endpoint of every student in this process: nothing leaves it, wherever the weights lie."""

OFFICIAL_ENDPOINTS: Final = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "simulated": SIMULATED,
    "student": STUDENT,
}
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]+")
_SIMULATOR_PATHS: Final = {"openai": "/openai/v1", "anthropic": "/anthropic", "gemini": "/gemini"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Price(_Strict):
    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


class _SamplingTable(_Strict):
    temperature: float | None = Field(default=None, ge=0, le=2, strict=False)
    top_p: float | None = Field(default=None, gt=0, le=1, strict=False)
    max_tokens: int = Field(default=2048, gt=0)
    seed: int | None = None


class _Entry(_Strict):
    provider: Literal["openai", "anthropic", "gemini", "vllm", "simulated", "student"]
    model: str = Field(min_length=1)
    endpoint: str | None = None
    wire: Literal["openai", "anthropic", "gemini"] | None = None
    key: str | None = None
    place: Place | None = None
    concurrency: int = Field(default=8, gt=0)
    rpm: int | None = Field(default=None, gt=0)
    tpm: int | None = Field(default=None, gt=0)
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False, strict=False)
    sampling: _SamplingTable = Field(default_factory=_SamplingTable)
    price: _Price | None = None


def load(extra: Path | None = None) -> dict[str, TeacherSpec]:
    """Every teacher of the shipped roster, changed and extended by ``extra``.

    A table of ``extra`` whose name is in the shipped roster replaces the settings it names.

    Raises:
        RequestError: a table is wrong; the message names it.
    """
    tables = tomllib.loads((files("cxr_max.teachers") / "roster.toml").read_text("utf-8"))
    for name, table in (_user_tables(extra) if extra else {}).items():
        tables[name] = {**tables.get(name, {}), **table}
    return {name: _spec(name, table) for name, table in tables.items()}


def _user_tables(path: Path) -> Mapping[str, dict[str, object]]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The roster {path} cannot be read as TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise RequestError(f"The roster {path} has {name} outside a table: write [{name}] above its settings.")
    return tables


def _spec(name: str, table: Mapping[str, object]) -> TeacherSpec:
    try:
        entry = _Entry.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"The roster's [{name}] is wrong at {where!r}: {first['msg']}.") from error
    endpoint = entry.endpoint or OFFICIAL_ENDPOINTS.get(entry.provider)
    if endpoint is None:
        raise RequestError(f"The roster's [{name}] needs endpoint, for instance http://127.0.0.1:8000/v1.")
    inside = endpoint in {SIMULATED, STUDENT}
    if entry.provider in {"simulated", "student"}:
        if endpoint != OFFICIAL_ENDPOINTS[entry.provider]:
            raise RequestError(f"The roster's [{name}] is {entry.provider}, so it has no endpoint: take it out.")
    else:
        _refuse_odd(name, endpoint)
    return TeacherSpec(
        name=name,
        provider=entry.provider,
        model=_published_name(entry.model) if entry.provider == "student" else entry.model,
        endpoint=endpoint.rstrip("/"),
        place="local" if inside else place_of(endpoint, entry.place),
        wire=_wire(entry),
        key=entry.key,
        sampling=Sampling(**entry.sampling.model_dump()),
        concurrency=entry.concurrency,
        rpm=entry.rpm,
        tpm=entry.tpm,
        timeout_s=_timeout_s(entry),
        price=_price(entry),
        weights=_weights(name, entry.model) if entry.provider == "student" else None,
    )


def student_spec(path: Path, name: str | None = None, max_tokens: int = 1024) -> TeacherSpec:
    """The teacher that a student's folder is: greedy, on this machine.

    Args:
        name: the teacher's name in rows; by default the folder's.

    Raises:
        RequestError: there is no student in the folder.
    """
    if not path.expanduser().is_dir():
        raise RequestError(f"There is no folder {path}: --model takes the folder of a student.")
    name = name or path.expanduser().resolve().name
    sampling = {"temperature": 0.0, "max_tokens": max_tokens}
    return _pinned(_spec(name, {"provider": "student", "model": str(path), "sampling": sampling}))


def _weights(name: str, model: str) -> str:
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not any((folder / kind).is_file() for kind in ("config.json", ADAPTER)):
            raise RequestError(
                f"{folder} holds no model: a training writes one to the folder student within its own."
            )
        return str(folder.resolve())
    if folder.exists() or not _HUB_NAME.fullmatch(model):
        raise RequestError(f"The roster's [{name}] has model = {model!r}, and there is no such folder.")
    return model


def _published_name(model: str) -> str:
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def _pinned(spec: TeacherSpec) -> TeacherSpec:
    """A student's ``model`` with its weights' fingerprint, so that other weights are asked anew.

    Hashing takes seconds per 10 GB, so it is done of chosen teachers only.
    """
    if spec.weights is None:
        return spec
    return replace(spec, model=f"{spec.model}@{fingerprint(spec.weights)[:12]}")


def _refuse_odd(name: str, endpoint: str) -> None:
    wrong = RequestError(f"The roster's [{name}] has an endpoint that is no plain http or https URL.")
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise wrong
    if parts.username is not None or parts.password is not None:
        raise RequestError(
            f"The roster's [{name}] has a password in its endpoint: give key = the name of a variable."
        )
    if not host_of(endpoint):
        raise wrong


def _wire(entry: _Entry) -> Wire:
    if entry.provider in {"vllm", "simulated"}:
        return entry.wire or "openai"
    return entry.provider  # type: ignore[return-value]


def _timeout_s(entry: _Entry) -> float | None:
    """A student answers in its own time: what waits for its next batch has not stalled."""
    return TIMEOUT_S if entry.timeout_s is None and entry.provider != "student" else entry.timeout_s


def _price(entry: _Entry) -> Price | None:
    if entry.provider in {"simulated", "student"}:
        return FREE
    return Price(entry.price.input, entry.price.output) if entry.price else None


def choose(roster: Mapping[str, TeacherSpec], wanted: str) -> tuple[TeacherSpec, ...]:
    """The teachers of ``--teachers``, priced: ``all`` real ones, all ``simulated`` ones, or names with commas.

    Raises:
        RequestError: a name is not in the roster, or nothing is named.
    """
    if wanted in {"all", "simulated"}:
        simulated = wanted == "simulated"
        chosen = [spec for spec in roster.values() if (spec.provider == "simulated") == simulated]
        return tuple(priced(_pinned(spec)) for spec in chosen)
    names = dict.fromkeys(part.strip() for part in wanted.split(",") if part.strip())
    unknown = [name for name in names if name not in roster]
    if unknown or not names:
        raise RequestError(
            f"There is no teacher {', '.join(unknown) or wanted!r} in the roster: choose all, simulated, or"
            f" from {', '.join(roster)}; --roster FILE adds your own."
        )
    return tuple(priced(_pinned(roster[name])) for name in names)


def keys_of(specs: tuple[TeacherSpec, ...]) -> dict[str, str]:
    """The API key of every teacher, by the teacher's name, from the environment.

    Raises:
        RequestError: a key is missing; all missing ones are named at once.
    """
    missing = sorted({spec.key for spec in specs if spec.key and not os.environ.get(spec.key)})
    if missing:
        raise RequestError(
            f"No API key in {', '.join(missing)}: export it, or choose other --teachers"
            " (simulated ones need no key)."
        )
    for spec in specs:
        if spec.key and not _HEADER_SAFE.fullmatch(os.environ[spec.key]):
            raise RequestError(
                f"{spec.key} holds characters that no API key has, a space or a newline perhaps: export it again."
            )
    # A server without a key still gets the header that the SDKs insist on.
    return {spec.name: os.environ[spec.key] if spec.key else "none" for spec in specs}


def base_url(spec: TeacherSpec, simulator: str | None = None) -> str:
    """Where a teacher is reached, by the SDK of its wire format.

    Args:
        simulator: the running simulator's address, for personas.
    """
    return f"{simulator}{_SIMULATOR_PATHS[spec.wire]}" if spec.endpoint == SIMULATED else spec.endpoint


def connect(spec: TeacherSpec, api_key: str, simulator: str | None = None) -> Teacher:
    """Make the teacher; call it inside a running event loop.

    Args:
        simulator: the running simulator's address, for personas.
    """
    if spec.endpoint == STUDENT:
        from cxr_max.teachers.student import StudentTeacher

        return StudentTeacher(spec)
    url = base_url(spec, simulator)
    # Each SDK takes up to a second to import: only those of the chosen teachers are.
    if spec.wire == "anthropic":
        from cxr_max.teachers.anthropic import AnthropicTeacher

        return AnthropicTeacher(spec, url, api_key)
    if spec.wire == "gemini":
        from cxr_max.teachers.gemini import GeminiTeacher

        return GeminiTeacher(spec, url, api_key)
    from cxr_max.teachers.openai import OpenAITeacher

    return OpenAITeacher(spec, url, api_key)
