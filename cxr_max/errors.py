"""What can go wrong, and which exit code it ends with. Every message says what to do next."""


class CxrMaxError(Exception):
    """Base of every error this package raises on purpose. The command line ends with ``exit_code``."""

    exit_code = 1


class RequestError(CxrMaxError):
    """The request is wrong or not allowed: nothing was sent, and asking again unchanged will not help."""

    exit_code = 2


class DataUseError(RequestError):
    """The terms of the data forbid what was asked."""


class RunLockedError(RequestError):
    """Another build holds the lock of this run."""


class UnfinishedError(CxrMaxError):
    """A service broke off or cannot be reached: the same command goes on where it stopped."""

    exit_code = 3


class StorageError(CxrMaxError):
    """The disk refused a write. Everything committed before is safe."""


class ImageError(CxrMaxError):
    """One image cannot be read or rendered. Its study becomes a named gap; the build goes on."""


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that started it: groups are how tasks fail, not how people are told."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
