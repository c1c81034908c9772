"""Why the operating system refused something, in its own words."""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """The reason without the number and the path that `str()` of an `OSError` adds.

    Messages name the path themselves, and `[Errno 2]` is of no help to a reader.
    """
    stated = getattr(error, "strerror", None)
    return stated if isinstance(stated, str) and stated else str(error)


def reason_with_path(error: BaseException) -> str:
    """The reason, and the path that an `OSError` holds, for messages that do not name it themselves."""
    path = getattr(error, "filename", None)
    return reason_of(error) if path is None else f"{path}: {reason_of(error)}"
