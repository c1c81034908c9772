"""The bounded queue between callers and exporters.

A caller appends one object and continues. One polling daemon thread per process, the drainer, freezes the objects into
records, feeds the in-memory exporters (metrics, window) itself, and passes batches to the exporters that do I/O, each
behind its own worker. Readers drain first, so that reads see earlier writes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from taskpilot_obs._pipeline.batched import WakeSignal
from taskpilot_obs._pipeline.lifecycle import pipelines, shut_down_with_child
from taskpilot_obs._support.fork import HeldOverFork
from taskpilot_obs._support.guarded import guarded, run_to_completion
from taskpilot_obs._support.locks import acquire_into, is_current_lock
from taskpilot_obs.semconv import EXPORT_ERRORS, RECORDS, RECORDS_DROPPED, DropReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taskpilot_obs._pipeline.batched import Batched
    from taskpilot_obs._pipeline.exporter import Exporter
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.records import Record

CAPACITY = 65_536
POLL_S = 0.05
HELP = 64
"""How many records a caller processes when the queue is at its high-water mark."""
HELP_WAIT_S = 0.0005
"""How long such a caller waits for the draining thread, or for an exporter that is catching up."""
READ_PATIENCE_S = 0.25
"""How long a reader with a full queue waits for exporters that are catching up before they drop records."""
DRAIN_CHUNK = 1_024
DRAIN_TIMEOUT_S = 5.0
"""A reader that cannot take the lock in time (a signal handler that interrupted the drain) reads current values."""
CHUNK = 128
"""How many records the drainer takes at a time: about a third of a millisecond of work."""
LARGE_CHUNK = 8_192
"""The chunk while the queue is more than half full: a batch costs about 30 µs besides its records, during which callers
wait."""
BREATH_S = 0.0002
"""The drainer's pause after each chunk: without it an event loop could not get the interpreter lock."""
EXIT_TIMEOUT_S = 5.0
_LAST_DRAIN_S = 0.1
_SETTLE = 1_024
"""After a shutdown, how many counts of drops collect before a caller takes them."""


class QueueItem(Protocol):
    """An object that callers queue and the drainer freezes into records."""

    def freeze(self, records: list[Record], /) -> None:
        """Append this object's records; the drainer calls it once per `put`."""

    def droppable(self) -> bool:
        """Whether the pipeline may drop it. Not an end whose start was taken, because its gauge must go down."""


class Pipeline:
    """Queue, drainer and exporters of one recorder.

    Args:
        in_memory: name -> exporter that only computes; runs in the drainer, and in callers that read or help draining.
        batched: exporters that do I/O, each behind its own worker.
        counters: what the library counts about itself; `on_counters` exports it after each batch.
        capacity: high-water mark. At it callers help draining; at twice that, records are dropped and counted. An end
            whose start was taken is never dropped, so the true bound is twice the capacity plus the runs in progress.
    """

    def __init__(
        self,
        in_memory: dict[str, Exporter],
        batched: Iterable[Batched],
        *,
        counters: InternalCounters,
        capacity: int = CAPACITY,
        on_counters: Callable[[InternalCounters, Pipeline], None] | None = None,
        on_poll: Callable[[], None] | None = None,
        exit_timeout_s: float = EXIT_TIMEOUT_S,
    ) -> None:
        self._in_memory = in_memory
        self.batched = tuple(batched)
        self._counters = counters
        self._capacity = capacity
        self._on_counters = on_counters
        self._on_poll = on_poll
        self.exit_timeout_s = exit_timeout_s
        self._blocking = tuple(exporter for exporter in self.batched if exporter.on_full == "block")
        self._guard_freeze = guarded("freeze", counters)
        self._closed = False
        self._paused = False
        self._successor: Pipeline | None = None
        self._reset()
        pipelines.add(self)

    def _reset(self) -> None:
        self.queue: deque[QueueItem] = deque()
        """Waiting items. The hot path reads it and `high_water`, and appends directly while there is room."""
        self._lock = threading.Lock()
        self._owner = 0
        self._flusher = 0
        self._over_fork = HeldOverFork()
        self._drainer: threading.Thread | None = None
        self._unstarted = deque([None])
        """The thread that pops its one item starts the drainer; popping is atomic and needs no lock."""
        self._wake = WakeSignal()
        self.high_water = 0
        """0 until the drainer runs, so that the first `put` takes the slow path, which starts it."""

    def add(self, name: str, exporter: Exporter) -> None:
        """Add an in-memory exporter, which gets all records from now on."""
        self.drain()
        with self._lock:
            self._in_memory[name] = exporter

    def add_batched(self, *batched: Batched) -> None:
        """Add exporters ahead of the existing ones, so that records that they produce reach those too."""
        self.drain()
        with self._lock:
            self.batched = (*batched, *self.batched)

    def remove(self, name: str) -> None:
        """Remove an in-memory exporter."""
        self.drain()
        with self._lock:
            self._in_memory.pop(name, None)

    @property
    def backlog(self) -> int:
        """How many items wait for the drainer."""
        return len(self.queue)

    def put(self, item: QueueItem) -> None:
        """Queue an item; never blocks on a lock, so finalizers and signal handlers may call it."""
        queue = self.queue
        if len(queue) >= self.high_water:
            self._put_slowly(item)
        else:
            queue.append(item)

    def _put_slowly(self, item: QueueItem) -> None:
        if self._closed:
            self._put_late(item)
            return
        if self._paused:
            self._put_bounded(item)
            return
        try:
            self._make_room()
        finally:  # a Ctrl-C that ends the waiting must not lose the record
            if self._closed:  # a shutdown ended meanwhile: what is queued now, no drainer would take
                self._put_late(item)
            else:
                self._put_bounded(item)

    def _make_room(self) -> None:
        if self._drainer is None:
            self._start()
        elif self._blocking and (len(self.queue) >= 2 * self._capacity or self._must_wait()):
            self._wait_for_room()
        elif len(self.queue) >= self.high_water:
            self._help()

    def _put_bounded(self, item: QueueItem) -> None:
        if len(self.queue) >= 2 * self._capacity and not self._blocking and item.droppable():
            self._count_dropped(1, DropReason.QUEUE_FULL)
            return
        self.queue.append(item)

    def _put_late(self, item: QueueItem) -> None:
        if self._successor is not None:
            self._successor.put(item)
        else:
            self._count_dropped(1, DropReason.SHUTDOWN)
            if self._counters.pending >= _SETTLE and self._lock.acquire(blocking=False):
                try:  # the drainer has ended, so callers must take the counts to keep them bounded
                    self._pass_counters_on()
                finally:
                    self._lock.release()

    def _start(self) -> None:
        try:
            self._unstarted.pop()
        except IndexError:
            return
        if not is_current_lock(self._lock):
            self._lock, self._wake = threading.Lock(), WakeSignal()
        self.high_water = self._capacity
        shut_down_with_child()
        thread = threading.Thread(target=self._run, name="taskpilot_obs-drainer", daemon=True)
        self._drainer = thread
        with guarded("drainer.start", self._counters):  # threads cannot be started while the interpreter ends
            thread.start()

    def _must_wait(self) -> bool:
        return any(exporter.must_wait for exporter in self._blocking)

    def _wait_for_room(self) -> None:
        if threading.current_thread().name.startswith("taskpilot_obs-"):
            return
        while self._must_wait():
            time.sleep(0.001)
        self._wait_for_drainer()

    def _wait_for_drainer(self) -> None:
        """Wait for room in this queue too, if the user chose to wait rather than to lose records."""
        me = threading.get_ident()
        while len(self.queue) >= 2 * self._capacity and not (self._closed or self._paused or self._owner == me):
            self._help()

    def _help(self) -> None:
        if self._should_pace():
            time.sleep(HELP_WAIT_S)
            return
        held: list[bool] = []
        try:
            acquire_into(held, self._lock, HELP_WAIT_S)
            if held[0]:
                self._owner = threading.get_ident()
                self._process(HELP)
        finally:
            if held and held[0]:
                self._owner = 0
                self._lock.release()

    def _should_pace(self) -> bool:
        """Whether to yield the interpreter to exporters that are catching up: only while this queue has room."""
        there_is_room = len(self.queue) < self._capacity * 7 // 4
        return there_is_room and not self._closed and any(exporter.is_catching_up for exporter in self.batched)

    def _count_dropped(self, amount: int, reason: str) -> None:
        for name in (*self._in_memory, *(exporter.name for exporter in self.batched)):
            self._counters.add(RECORDS_DROPPED, (name, reason), amount)

    def _run(self) -> None:
        with self._lock:
            for exporter in self.batched:  # now, because Python 3.12 forbids new threads during the exit
                exporter.start()
        while not self._closed:
            self._wake.wait(POLL_S)
            with guarded("drainer", self._counters):
                self._poll()

    def _poll(self) -> None:
        if self._on_poll is not None:
            with guarded("drainer.poll", self._counters):
                self._on_poll()
        backlog = len(self.queue)
        while backlog > 0:
            if self._should_pace():
                time.sleep(BREATH_S)
                continue
            chunk = CHUNK if len(self.queue) < self._capacity // 2 else LARGE_CHUNK
            with self._lock:
                self._owner = threading.get_ident()
                try:
                    self._process(chunk)
                finally:
                    self._owner = 0
            backlog -= chunk
            time.sleep(BREATH_S)
        self._adjust_high_water()

    def _adjust_high_water(self) -> None:
        """While a blocking exporter is full, every `put` takes the slow path, where the caller waits."""
        if self._blocking and not (self._closed or self._paused):  # then every `put` takes the slow path anyway
            self.high_water = 0 if any(exporter.must_wait for exporter in self._blocking) else self._capacity

    def drain(self) -> None:
        """Process everything queued before this call. Returns immediately on a thread that is already draining."""
        self._drain(READ_PATIENCE_S)

    def _drain(self, patience_s: float, deadline: float | None = None) -> None:
        """Process the items that are queued now.

        Args:
            patience_s: how long to pause for exporters that are catching up.
            deadline: when to stop in any case, in monotonic time, because producers may never stop at the exit.
        """
        me = threading.get_ident()
        if self._owner == me:
            return
        held: list[bool] = []
        try:
            timeout_s = DRAIN_TIMEOUT_S if deadline is None else max(0.0, deadline - time.monotonic())
            acquire_into(held, self._lock, min(DRAIN_TIMEOUT_S, timeout_s))
            if held[0]:
                self._owner = me
                self._process_all(time.monotonic() + patience_s, deadline)
                if deadline is None:
                    self._process(len(self.queue))  # ends of runs whose last reference the first round released
                else:
                    self._process_all(0.0, deadline)
                    self._pass_counters_on()  # with an empty queue too: workers have counted since
        finally:
            if held and held[0]:
                self._owner = 0
                self._lock.release()

    def _process_all(self, patient_until: float, deadline: float | None = None) -> None:
        """Process the queued items in chunks, pausing in between for exporters that do I/O until `patient_until`."""
        left = len(self.queue)
        while left > 0:
            self._process(min(left, DRAIN_CHUNK))
            left -= DRAIN_CHUNK
            if deadline is not None and time.monotonic() > deadline:
                return
            while any(exporter.is_catching_up for exporter in self.batched) and time.monotonic() < patient_until:
                time.sleep(BREATH_S)

    def _process(self, limit: int) -> None:
        """Freeze and export up to `limit` items; the lock is held."""
        if self._paused:
            return
        records: list[Record] = []
        left = iter(range(limit))
        finished = False
        try:
            while not finished:  # one guard per chunk, because one per item doubles the cost; a failure loses one item
                with self._guard_freeze:
                    self._freeze(left, records)
                    finished = True
        finally:  # after a Ctrl-C the remaining items wait for the next drain; records that are frozen would be lost
            if records:
                self._export(records)
        self._pass_counters_on()

    def _pass_counters_on(self) -> None:
        if self._on_counters is not None:
            with guarded("self_telemetry", self._counters):
                self._on_counters(self._counters, self)

    def _freeze(self, left: Iterator[int], records: list[Record]) -> None:
        queue = self.queue
        for _ in left:
            if not queue:
                return
            try:
                queue[0].freeze(records)
            except Exception:
                queue.popleft()
                raise
            queue.popleft()

    def _export(self, records: list[Record]) -> None:
        in_memory, batched = iter(tuple(self._in_memory.items())), iter(self.batched)
        batch = tuple(records)
        run_to_completion(lambda: self._feed(in_memory, batched, batch))
        self._adjust_high_water()

    def _feed(
        self, in_memory: Iterator[tuple[str, Exporter]], batched: Iterator[Batched], records: Sequence[Record]
    ) -> None:
        """Pass the records to the exporters that are left in these iterators."""
        for name, exporter in in_memory:
            self._feed_in_memory(name, exporter, records)
        for each in batched:
            with guarded(each.name, self._counters):
                each.export(records)

    def _feed_in_memory(self, name: str, exporter: Exporter, records: Sequence[Record]) -> None:
        failed = True
        try:
            with guarded(name, self._counters):
                exporter.export(records)
                failed = False
        except BaseException:  # a Ctrl-C: an in-memory exporter finishes its batch before it re-raises
            failed = False
            raise
        finally:
            if failed:
                self._counters.add(EXPORT_ERRORS, (name,))
                self._counters.add(RECORDS_DROPPED, (name, DropReason.EXPORT_FAILED), len(records))
            else:
                self._counters.add(RECORDS, (name,), len(records))

    def flush(self, timeout_s: float = EXIT_TIMEOUT_S) -> bool:
        """Drain, then wait until every exporter has written; return False on a timeout."""
        me = threading.get_ident()
        if me in (self._owner, self._flusher):  # called by a signal handler that interrupted this flush
            return False
        self._flusher, before = me, self._flusher
        try:
            return self._flush(timeout_s)
        finally:
            self._flusher = before

    def _flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        self._drain(timeout_s)
        flushed = True
        for exporter in self.batched:
            written = False
            with guarded(f"flush {exporter.name}", self._counters):
                written = exporter.flush(max(0.0, deadline - time.monotonic()))
            flushed = flushed and written
        self.drain()
        return flushed

    def shutdown(self, timeout_s: float | None = None, *, keep: Sequence[Exporter] = ()) -> bool:
        """Drain, write queued records for at most `timeout_s`, and stop the threads. Repeated calls do nothing.

        Args:
            timeout_s: how long to wait for exporters; by default as configured.
            keep: exporters that another pipeline still uses.
        """
        if self._closed:
            return True
        timeout_s = self.exit_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        self._drain(timeout_s, deadline)
        for exporter in self.batched:
            if exporter.reports:
                with guarded(f"flush {exporter.name}", self._counters):
                    exporter.flush(max(0.0, deadline - time.monotonic()))
        self._drain(0.0, deadline)
        self._closed = True
        self.high_water = 0
        self._wake.ring()
        self._drain(0.0, deadline)
        done = True
        try:
            for exporter in self.batched:
                ended = False
                with guarded(f"shutdown {exporter.name}", self._counters):
                    left_s = max(0.0, deadline - time.monotonic())
                    ended = exporter.shutdown(left_s, close=exporter.exporter not in keep)
                done = done and ended
        finally:  # runs after a second Ctrl-C too, so that lost records are counted
            self._count_left()
        for name, in_memory in self._in_memory.items():
            with guarded(f"shutdown {name}", self._counters):
                getattr(in_memory, "shutdown", _nothing)()
        return done

    def _drop_queue(self) -> None:
        """Count as dropped the items left at the deadline, because producers may continue during the exit."""
        dropped = 0
        with suppress(IndexError):
            while True:
                self.queue.popleft()
                dropped += 1
        if dropped:
            self._count_dropped(dropped, DropReason.SHUTDOWN)

    def _count_left(self) -> None:
        self._drain(0.0, time.monotonic() + _LAST_DRAIN_S)  # taking the lock waits for the export in progress
        for exporter in self.batched:
            exporter.count_left()
        self._drop_queue()
        self._drain(0.0, time.monotonic() + _LAST_DRAIN_S)

    def pause(self) -> None:
        """Write queued records, then hold new ones until `resume` or `hand_over`."""
        self.flush(self.exit_timeout_s)
        with self._lock:
            self._paused = True
            self.high_water = 0

    def resume(self) -> None:
        """Continue after `pause`; the drainer is not started if it was not running."""
        with self._lock:
            self._paused = False
            self.high_water = 0 if self._drainer is None else self._capacity

    def hand_over(self, successor: Pipeline) -> None:
        """Shut down in favour of another pipeline, which gets the queued items and late ones.

        Exporters that the other pipeline also feeds are not shut down.
        """
        kept = [batched.exporter for batched in successor.batched]
        self._successor = successor
        waiting = self.queue if self._paused else deque()
        for _ in range(len(waiting)):  # threads that go on recording must not keep it here
            successor.put(waiting.popleft())
        self._paused = False
        self.shutdown(keep=kept)

    def _before_fork(self) -> None:
        self._over_fork.hold(self._lock)  # waits for the batch in progress: milliseconds

    def _after_fork_in_parent(self) -> None:
        self._over_fork.let_go(self._lock)

    def _after_fork_in_child(self) -> None:
        self._reset()
        for exporter in self.batched:
            exporter.after_fork()


def _nothing() -> None:
    """The `shutdown` of an exporter that has none."""
