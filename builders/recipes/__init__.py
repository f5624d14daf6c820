"""Shipped recipes, and how any recipe is read: the options of ``cxr-max build`` as a TOML file."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cxr_max.errors import RequestError


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a shipped recipe, or of the TOML file at the path ``name``.

    Raises:
        RequestError: there is no such recipe, or an option in it is unknown or of the wrong kind.
    """
    from cxr_max.builders.build import BuildRequest

    shipped = files(__package__) / f"{name}.toml"
    path = shipped if shipped.is_file() else Path(name)
    try:
        options = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"The recipe {name} cannot be read as TOML: {error}") from error
    kinds = get_type_hints(BuildRequest)
    unknown = [option for option in options if option not in kinds]
    if unknown:
        raise RequestError(f"The recipe {name} has an option {unknown[0]!r}: choose from {', '.join(kinds)}.")
    try:
        return {option: TypeAdapter(kinds[option]).validate_python(value) for option, value in options.items()}
    except ValidationError as error:
        raise RequestError(f"The recipe {name} is wrong: {error.errors()[0]['msg']}.") from error
