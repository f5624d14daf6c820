"""The templates that pages are made of."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cxr_max.errors import RequestError

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(
    page: str, finalize: Callable[[Any], Any] | None = None, package: str = "cxr_max.eval"
) -> "Environment":
    """Where the templates are found; what they print is escaped, and an unknown name is an error.

    Args:
        page: who needs it, as the error says.
        finalize: applied to every value that a template prints.
        package: whose folder ``templates`` it is.

    Raises:
        RequestError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise RequestError(f"{page} needs jinja2, which is not installed: pip install 'cxr-max[eval]'.") from error
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
