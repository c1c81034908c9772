"""The broad `except` at the library's edges: it counts and logs our failures, and never raises them to users."""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.semconv import INTERNAL_ERRORS, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from taskpilot_obs._support.counters import InternalCounters

T = TypeVar("T")

logger = logging.getLogger("taskpilot_obs")

LOG_INTERVAL_S = 60.0
_MAX_CAUSES = 1_000
_last_logged: BoundedDict[tuple[str, type[BaseException]], float] = BoundedDict(_MAX_CAUSES)


class guarded:  # noqa: N801  reads as a statement: `with guarded("audit_log", counters):`
    """Suppress an `Exception` of the library: count it under `where`, log it at most once a minute per cause.

    Other exceptions (KeyboardInterrupt, SystemExit, CancelledError) pass, because they concern the user's code.

    Args:
        where: what failed, as a metric label.
        counters: where failures are counted; only logged when left out.
    """

    __slots__ = ("_counters", "_where")

    def __init__(self, where: str, counters: InternalCounters | None = None) -> None:
        self._where = where
        self._counters = counters

    def __enter__(self) -> None:
        """Enter the block. The failure is handled at its end."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.caught(error)
        return True

    def caught(self, error: Exception) -> None:
        """Count and log a failure."""
        if self._counters is not None:
            self._counters.add(INTERNAL_ERRORS, (self._where,))
        log_failure(self._where, error)

    def call(self, function: Callable[[T], object], argument: T) -> None:
        """Call a function guarded, at half the cost of the `with` statement; for the hot path.

        Args:
            function: what to call.
            argument: its only argument.
        """
        try:
            function(argument)
        except Exception as error:  # noqa: BLE001  this is the one
            self.caught(error)


def run_to_completion(action: Callable[[], object]) -> None:
    """Run `action`; if it is interrupted (a Ctrl-C, an exception of a signal handler), run it again, then re-raise.

    The action must be able to go on from where it was interrupted.
    """
    try:
        action()
    except BaseException:
        action()
        raise


def log_failure(where: str, error: BaseException) -> None:
    """Log a failure of the library, at most once a minute per component and class of error.

    The error's text is left out because it may quote prompts, except for errors of stores and options: the library
    wrote those, and they explain what to do.
    """
    cause = (where, type(error))
    now = time.monotonic()
    if now - _last_logged.get(cause, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
        return
    _last_logged[cause] = now
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    said = f": {error}" if isinstance(error, ConfigurationError | StoreError) else ""
    with suppress(Exception):  # a failing logging handler of the application must not end a thread of the library
        kind = type(error).__qualname__
        logger.error("taskpilot_obs: %s failed with %s%s%s [%s]", where, kind, place, said, WarningCode.INTERNAL_ERROR)


def forget_causes() -> None:
    """Reset the limits, so that every cause is logged again; for tests."""
    _last_logged.clear()
