"""``cxr-max withdraw``."""


def command() -> None:
    pass
