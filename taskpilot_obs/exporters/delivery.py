"""How records reach an exporter of yours: which of them, and how long a failed export is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from taskpilot_obs._pipeline.exporter import Account, CallableExporter, Exporter, PartialExportError
from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.hooks import refuse_generator, settled
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Record

_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_RETRY_S: Final = 24 * 3600.0


def as_exporter(given: Any) -> Exporter:
    """Take an entry of `exporters=[…]` as an exporter.

    Raises:
        ConfigurationError: it is neither an object with `export(batch)` nor a function.
    """
    if isinstance(given, Exporter):
        refuse_generator("exporters", given.export)
        return given
    if callable(given):
        refuse_generator("exporters", given)
        return CallableExporter(given)
    raise ConfigurationError(
        f"exporters: given an object of type {type(given).__name__}; allowed is one with export(batch), or a function"
    )


class Delivery:
    """Wraps an exporter of yours that wants LLM calls only, or that wants failed exports to be tried again.

    While an export is tried again, later records wait in order, in the queue that each exporter has (`queue_capacity`).
    Records beyond it, those that are given up, and those that are left when the process ends count as dropped.

    Args:
        to: an object with `export(batch)`, or a function that gets each finished `Invocation`; both may be coroutine
            functions.
        llm_only: hand over finished LLM calls only (`chat` and `embeddings`).
        retry_for_s: for how many seconds what failed is tried again, counted from the first failure after a success; 0
            tries once. A function is called again with the record that failed, an exporter with the records that it
            has not reported as written.
        first_pause_s: the pause before the second attempt; it doubles up to 30 s, and is shortened at random.

    Raises:
        ConfigurationError: `to` is not an exporter, or a time is out of its range.
    """

    def __init__(
        self, to: object, *, llm_only: bool = False, retry_for_s: float = 0.0, first_pause_s: float = 0.5
    ) -> None:
        _check("retry_for_s", retry_for_s, _LONGEST_RETRY_S)
        _check("first_pause_s", first_pause_s, _LONGEST_PAUSE_S)
        self._to = as_exporter(to)
        self._one_by_one = isinstance(self._to, CallableExporter)
        self._llm_only = llm_only
        self._retry_for_s = retry_for_s
        self._first_pause_s = first_pause_s
        self.reports = bool(getattr(to, "reports", False))

    def export(self, batch: Sequence[Record], /) -> None:
        """Hand the wanted records over.

        Raises:
            PartialExportError: some records were given up.
        """
        wanted = [record for record in batch if self._wants(record)]
        parts = [[record] for record in wanted] if self._one_by_one else [wanted] if wanted else []
        lost, failure, deadline = 0, None, _Deadline(self._retry_for_s)
        for part in parts:
            left, error = self._deliver(part, deadline)
            lost, failure = lost + left, error or failure
        if failure is not None:
            raise PartialExportError(len(batch) - lost) from failure

    def _wants(self, record: Record) -> bool:
        if self._llm_only or self._one_by_one:
            return isinstance(record, Invocation) and (not self._llm_only or record.operation in LLM_OPERATIONS)
        return True

    def _deliver(self, part: Sequence[Record], deadline: _Deadline) -> tuple[int, Exception | None]:
        """Export until it succeeds or the time is over; return how many records are lost, and the last failure."""
        pause_s = self._first_pause_s
        while True:
            try:
                settled(self._to.export(part))
            except Exception as error:  # noqa: BLE001  a user's exporter; the failure is raised for the whole batch
                if isinstance(error, PartialExportError) and not self._one_by_one and error.written > 0:
                    part, pause_s = part[error.written :], self._first_pause_s
                    deadline.put_off()
                if not part:
                    return 0, None
                cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
                left_s = deadline.left_s()
                if left_s <= 0:
                    return len(part), cause
                log_failure("exporter, to be tried again", cause)
                pause_s = min(pause_s, _LONGEST_PAUSE_S)
                time.sleep(min(pause_s * random.uniform(0.5, 1.0), left_s))  # noqa: S311  no secret
                pause_s *= 2
            else:
                deadline.put_off()
                return 0, None

    @property
    def wrapped(self) -> Exporter:
        """The exporter that gets the records."""
        return self._to

    def set_account(self, account: Account, /) -> None:
        """Hand the account on to an exporter that keeps records for later."""
        set_account: Callable[[Account], None] | None = getattr(self._to, "set_account", None)
        if set_account is not None:
            set_account(account)

    def flush(self, timeout_s: float) -> bool:
        """Flush the exporter, if it can be flushed."""
        return self._call("flush", timeout_s) is not False

    def shutdown(self, timeout_s: float) -> None:
        """Shut the exporter down, if it can be shut down."""
        self._call("shutdown", timeout_s)

    def _call(self, name: str, timeout_s: float) -> Any:
        method: Callable[[float], Any] | None = getattr(self._to, name, None)
        return None if method is None else settled(method(timeout_s))


class _Deadline:
    """The end of the attempts, counted from the first failure, which asks for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at: float | None = None

    def left_s(self) -> float:
        """How many seconds are left; 0 or less when it is over."""
        now = time.monotonic()
        if self._at is None:
            self._at = now + self._seconds
        return self._at - now

    def put_off(self) -> None:
        """Count from the next failure, because an export succeeded."""
        self._at = None


def _check(name: str, seconds: Any, longest: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= longest:
        raise ConfigurationError(f"{name}: given {seconds!r}; allowed are 0 to {longest:g} seconds")
