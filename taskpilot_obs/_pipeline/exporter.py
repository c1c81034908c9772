"""The interface of exporters, and what they report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from taskpilot_obs._support.hooks import settled
from taskpilot_obs.exceptions import restored
from taskpilot_obs.records import Invocation, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@runtime_checkable
class Exporter(Protocol):
    """Anything with `export(batch)`, a plain or a coroutine function.

    An exporter may also have `flush(timeout_s: float) -> bool` (everything handed over so far has been written) and
    `shutdown(timeout_s: float) -> None`. It runs on a thread of the library, never on the caller's, one batch at a
    time and in order; what it raises is counted and logged, and reaches neither the user's code nor other exporters.

    An exporter with `linger_s` above 0 gets full batches: its worker waits up to that many seconds for each to fill.
    One with `batch_size` gets up to so many records at once where more than a full batch waits.

    An exporter that keeps records for later has `set_account(account)`, which gets an `Account` before the first batch.
    """

    def export(self, batch: Sequence[Record], /) -> object:
        """Take a batch of finished records."""


class Account(Protocol):
    """What an exporter reports about records that it keeps for later: until settled, they are neither written nor lost.

    What still waits at a shutdown counts as written, because it is safe outside of the process.
    """

    def waits(self, records: int, /) -> None:
        """So many records of the batch at hand are kept for later."""

    def settles(self, records: int, /, *, is_written: bool) -> None:
        """Records that waited are written now, or refused for good.

        Args:
            records: how many.
            is_written: whether they are written.
        """

    def loses(self, records: int, /) -> None:
        """So many records that an earlier process left are refused for good."""


class PartialExportError(Exception):
    """An exporter wrote only the first part of a batch.

    Args:
        written: how many records of the batch were written; the rest is counted as dropped.
    """

    def __init__(self, written: int) -> None:
        self.written = written
        super().__init__(written)

    def __str__(self) -> str:
        return f"only {self.written} records of the batch were written"

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), self.args, self.__dict__)


class CallableExporter:
    """A function, plain or coroutine function, as an exporter: called with each finished `Invocation`."""

    def __init__(self, function: Callable[[Invocation], object]) -> None:
        self._function = function

    def export(self, batch: Sequence[Record], /) -> None:
        """Call the function with each invocation; a call that raises loses only that record."""
        done, failure = 0, None
        for record in batch:
            if isinstance(record, Invocation):
                try:
                    settled(self._function(record))
                except Exception as error:  # noqa: BLE001  a user's function; the failure is raised for the whole batch
                    failure = error
                    continue
            done += 1
        if failure is not None:
            raise PartialExportError(done) from failure
