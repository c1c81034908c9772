"""Why the operating system refused something, in its own words."""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """The reason without the number and the path that `str()` of an `OSError` adds.

    Messages name the path themselves, and `[Errno 2]` is of no help to a reader.
    """
    stated = getattr(error, "strerror", None)
    return stated if isinstance(stated, str) and stated else str(error)
