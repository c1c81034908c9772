"""The worker that runs an exporter which does I/O."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.hooks import settled
from taskpilot_obs._support.locks import is_current_lock
from taskpilot_obs.semconv import EXPORT_ERRORS, INTERNAL_ERRORS, RECORDS, RECORDS_DROPPED, DropReason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import UnionType

    from taskpilot_obs._pipeline.exporter import Exporter
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.records import Record

OnFull = Literal["drop", "block"]
POLL_S = 0.1
BATCH_SIZE = 1_024
_LOOK_S = 0.0005
QUICK_S = 1.0
"""The drainer pauses for an exporter that writes a batch within this time: on a busy machine even a fast exporter waits
that long for the interpreter."""


class WakeSignal:
    """Wakes the one thread that waits.

    Each step is a single C call, because a Ctrl-C inside `threading.Event`, which is written in Python, can leave its
    lock held, and the next caller would wait for ever.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """End the current or the next wait. Callable from any thread; repeated calls do nothing."""
        with suppress(RuntimeError):  # it is ringing already
            self._silent.release()

    def wait(self, timeout_s: float) -> None:
        """Wait until it rings or `timeout_s` has passed."""
        self._silent.acquire(timeout=timeout_s)


class IdleEvent:
    """An event for few waiters; it takes no Python lock, for the reason that `WakeSignal` gives."""

    def __init__(self) -> None:
        self.is_up = True

    def set(self) -> None:
        """Set the event."""
        self.is_up = True

    def clear(self) -> None:
        """Clear the event."""
        self.is_up = False

    def wait(self, timeout_s: float) -> bool:
        """Wait until the event is set; return False on a timeout."""
        deadline = time.monotonic() + timeout_s
        while not self.is_up and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return self.is_up


class Batched:
    """An exporter that does I/O, behind a worker thread and a bounded queue of its own.

    Args:
        exporter: the exporter that gets the batches.
        name: its label in the self-telemetry.
        counters: where records, drops and errors are counted.
        capacity: how many records may wait. Beyond it, records for this exporter are dropped and counted, or, with
            `on_full="block"`, callers wait.
    """

    def __init__(
        self,
        exporter: Exporter,
        *,
        name: str,
        counters: InternalCounters,
        capacity: int = 65_536,
        on_full: OnFull = "drop",
    ) -> None:
        self.exporter = exporter
        self.name = name
        self.capacity = capacity
        self.on_full = on_full
        self.reports = bool(getattr(exporter, "reports", False))
        """Whether the exporter produces records itself, which other exporters must get."""
        self._linger_s = float(_stated(exporter, "linger_s", int | float) or 0.0)
        self._most = max(BATCH_SIZE, int(_stated(exporter, "batch_size", int) or 0))
        self._counters = counters
        self._reset()
        set_account = getattr(exporter, "set_account", None)
        if set_account is not None:
            set_account(self)

    def _reset(self) -> None:
        self._queue: deque[Record] = deque()
        self._wake = WakeSignal()
        self._flushing: set[object] = set()
        """One object for each flush that waits. A set, because `+= 1` of two threads can lose one, and a lock could be
        held by the caller that a signal handler interrupted in order to flush."""
        self._idle = IdleEvent()
        self._ended = IdleEvent()
        """Whether the worker has nothing more to do, its exporter's `shutdown` included."""
        self._close_by: float | None = None
        """Deadline of the worker's last step, the exporter's `shutdown`; None if it is not requested."""
        self._worker: threading.Thread | None = None
        self._stopping = False
        self._given_up = False
        self._in_flight = 0
        self._waiting = 0
        """How many records the exporter keeps for later: neither written nor lost yet."""
        self._batch_waits = 0
        """How many of them are of the batch at hand."""
        self._batch_s = self._wrote_at = 0.0
        self._taking = threading.Lock()
        """Held by the worker while it takes a batch or records its end, and by `shutdown` while it counts the rest."""

    def after_fork(self) -> None:
        """Start with an empty queue in a forked child, because the parent writes what was queued before."""
        self._reset()

    @property
    def backlog(self) -> int:
        """How many records wait."""
        return len(self._queue)

    @property
    def must_wait(self) -> bool:
        """Whether callers wait for this exporter while its queue is full (`on_full="block"`)."""
        return self.on_full == "block" and len(self._queue) >= self.capacity and not self._stopping

    @property
    def is_catching_up(self) -> bool:
        """Whether the queue is nearly full, and the exporter fast enough to make room soon.

        Exporters that hang or are slow get no pause: their queues fill up, and then their records are dropped.
        """
        if len(self._queue) <= self.capacity * 3 // 4 or self._stopping:
            return False
        return self._batch_s < QUICK_S and time.monotonic() - self._wrote_at < QUICK_S

    def export(self, batch: Sequence[Record], /) -> None:
        """Queue a batch for the worker. Called by the drainer only; never waits."""
        room = len(batch)
        if self._stopping:
            self._drop(len(batch), DropReason.SHUTDOWN)
            return
        if self.on_full == "drop":
            room = max(0, self.capacity - len(self._queue))
        self._queue.extend(batch[:room])
        if room < len(batch):
            self._drop(len(batch) - room, DropReason.QUEUE_FULL)
        self._idle.clear()
        self._wake.ring()
        if not self.start():
            self._write_here()

    def start(self) -> bool:
        """Start the worker if it is not running; return False if the interpreter is ending and forbids new threads."""
        if self._worker is not None:
            return True
        if not is_current_lock(self._taking):
            self._taking, self._wake = threading.Lock(), WakeSignal()
        self._ended.clear()
        worker = threading.Thread(target=self._run, name=f"taskpilot_obs-{self.name}", daemon=True)
        try:
            worker.start()
        except RuntimeError:
            self._ended.set()
            return False
        self._worker = worker
        return True

    def _write_here(self) -> None:
        while self._queue:
            self._write(self._take())
        self._idle.set()

    def _run(self) -> None:
        queue = self._queue
        while not (self._stopping and not queue):
            if not queue:
                self._idle.set()
                if queue:  # the drainer started it meanwhile
                    self._idle.clear()
                    continue
                self._wake.wait(POLL_S)
                continue
            self._gather()
            self._write(self._take())
        self._idle.set()
        self._close_exporter()
        self._ended.set()

    def _gather(self) -> None:
        """Wait for a full batch, as long as the exporter wants; not while a flush or a shutdown waits."""
        deadline = time.monotonic() + self._linger_s
        while len(self._queue) < BATCH_SIZE and not (self._stopping or self._flushing):
            if (left := deadline - time.monotonic()) <= 0:
                return
            self._wake.wait(min(left, POLL_S))

    def _close_exporter(self) -> None:
        """Shut the exporter down on the worker thread, so that one that never returns cannot block the exit."""
        close_by, shutdown = self._close_by, getattr(self.exporter, "shutdown", None)
        if close_by is None or shutdown is None:
            return
        self._close_by = None
        try:
            settled(shutdown(max(0.0, close_by - time.monotonic())))
        except BaseException as error:  # noqa: BLE001  as in `_write`
            self._counters.add(INTERNAL_ERRORS, (f"shutdown {self.name}",))
            log_failure(f"shutdown {self.name}", error)

    def _take(self) -> tuple[Record, ...]:
        """The next batch, as a tuple, because an exporter that emptied a list would lose records."""
        with self._taking:
            batch = tuple([self._queue.popleft() for _ in range(min(self._most, len(self._queue)))])
            self._in_flight = len(batch)
            return batch

    def _write(self, batch: tuple[Record, ...]) -> None:
        written, began = len(batch), time.monotonic()
        try:
            settled(self.exporter.export(batch))
        except PartialExportError as error:
            written = _count_stated(error, len(batch))
            self._failed(error if error.__cause__ is None else error.__cause__)
        except BaseException as error:  # noqa: BLE001  the worker's own boundary: it must count what was lost, and go on
            written = 0
            self._failed(error)
        self._wrote_at = time.monotonic()
        self._batch_s = self._wrote_at - began
        with self._taking:
            self._in_flight = 0
            waits, self._batch_waits = self._batch_waits, 0
            if self._given_up:  # counted as dropped already, because it was unknown whether this export would end
                return
            self._counters.add(RECORDS, (self.name,), max(0, written - waits))
            if written < len(batch):
                self._drop(len(batch) - written, DropReason.EXPORT_FAILED)

    def waits(self, records: int, /) -> None:
        """See `Account`. Called by the exporter within `export`."""
        with self._taking:
            self._waiting += records
            self._batch_waits += records

    def settles(self, records: int, /, *, is_written: bool) -> None:
        """See `Account`. Called by the exporter, on any thread."""
        with self._taking:
            settled = min(records, self._waiting)  # a shutdown has counted the rest
            self._waiting -= settled
            if is_written:
                self._counters.add(RECORDS, (self.name,), settled)
            else:
                self._drop(settled, DropReason.EXPORT_FAILED)

    def loses(self, records: int, /) -> None:
        """See `Account`. Called by the exporter, on any thread."""
        self._drop(records, DropReason.EXPORT_FAILED)

    def count_left(self) -> None:
        """Count as dropped the queued records and the batch of an exporter that does not return; what waits is kept."""
        with self._taking:
            self._given_up = self._given_up or self._in_flight > 0
            left = len(self._queue) + self._in_flight - self._batch_waits
            self._counters.add(RECORDS, (self.name,), self._waiting)
            self._in_flight = self._batch_waits = self._waiting = 0
            self._queue.clear()
            if left:
                self._drop(left, DropReason.SHUTDOWN)

    def _failed(self, error: BaseException) -> None:
        self._counters.add(EXPORT_ERRORS, (self.name,))
        log_failure(f"exporter {self.name}", error)

    def _drop(self, amount: int, reason: str) -> None:
        self._counters.add(RECORDS_DROPPED, (self.name, reason), amount)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued so far is written; return False on a timeout."""
        deadline = time.monotonic() + timeout_s
        waiter = object()
        try:
            self._flushing.add(waiter)
            self._wake.ring()
            if not self._idle.wait(timeout_s):
                return False
        finally:
            self._flushing.discard(waiter)
        flush = getattr(self.exporter, "flush", None)
        return flush is None or settled(flush(max(0.0, deadline - time.monotonic()))) is not False

    def shutdown(self, timeout_s: float, *, close: bool = True) -> bool:
        """Write queued records for at most `timeout_s`, count the rest as dropped, and stop the worker.

        Args:
            timeout_s: how long to wait.
            close: whether to shut the exporter itself down as well.
        """
        self._close_by = time.monotonic() + timeout_s if close else None
        self._stopping = True
        self._wake.ring()
        if self._worker is None:
            self._close_exporter()
        finished = self._ended.wait(timeout_s)
        self.count_left()
        return finished


def _stated(exporter: Exporter, name: str, kind: type[int] | UnionType) -> Any:
    """The exporter's own number above 0; None for another value, because its author may use the name otherwise."""
    value = getattr(exporter, name, None)
    return value if isinstance(value, kind) and not isinstance(value, bool) and value > 0 else None


def _count_stated(error: PartialExportError, total: int) -> int:
    """How many records a `PartialExportError` reports as written; 0 if its number is invalid."""
    written = getattr(error, "written", None)
    return min(max(0, written), total) if isinstance(written, int) and not isinstance(written, bool) else 0
