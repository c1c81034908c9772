"""What an exception says about the operation that it ended: status and class name, worked out once per class."""

from __future__ import annotations

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.exceptions import RefusedError
from taskpilot_obs.records import Status

_MAX_CLASSES = 2_000
_BY_NAME = {
    "builtins.GeneratorExit": Status.ABANDONED,
    "builtins.KeyboardInterrupt": Status.CANCELLED,
    "builtins.SystemExit": Status.CANCELLED,
    "asyncio.exceptions.CancelledError": Status.CANCELLED,
    "concurrent.futures._base.CancelledError": Status.CANCELLED,
    "trio.Cancelled": Status.CANCELLED,
    "builtins.TimeoutError": Status.TIMEOUT,
}
_TIMEOUT_SUFFIXES = ("Timeout", "TimeoutError", "TimeoutException")
_known: BoundedDict[type[BaseException], tuple[Status, str]] = BoundedDict(_MAX_CLASSES)
"""Bounded, because classes that are made at run time must not be kept for ever."""


def register_status(class_name: str, status: Status) -> None:
    """Let an exception class, and all that derive from it, end operations with this status.

    For integrations: a framework's control flow (LangGraph's interrupts and handoffs) is no error.

    Args:
        class_name: module and qualified name, so that the framework need not be imported.
        status: how the operation ended.
    """
    _BY_NAME[class_name] = status
    _known.clear()


def classify(kind: type[BaseException]) -> tuple[Status, str]:
    """Status, and the name for `error.type`: qualified with the module, builtins bare (as OpenTelemetry does)."""
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = (_status(kind), error_type(kind))
    return found


def error_type(kind: type[BaseException]) -> str:
    """`openai.RateLimitError`, `ValueError`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _status(kind: type[BaseException]) -> Status:
    if issubclass(kind, RefusedError):
        return Status.BLOCKED
    for ancestor in kind.__mro__:
        status = _BY_NAME.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if status is not None:
            return status
        if ancestor.__name__.endswith(_TIMEOUT_SUFFIXES):
            return Status.TIMEOUT
    return Status.ERROR
