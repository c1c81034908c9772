"""The hand-off: nothing is lost, nothing waits, whatever an exporter does."""

from __future__ import annotations

import gc
import logging
import multiprocessing.process
import multiprocessing.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from prometheus_client import CollectorRegistry

from taskpilot_obs._pipeline import lifecycle
from taskpilot_obs._pipeline.batched import Batched, IdleEvent, OnFull, WakeSignal
from taskpilot_obs._pipeline.exporter import CallableExporter, Exporter, PartialExportError
from taskpilot_obs._pipeline.pipeline import CAPACITY, Pipeline
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.config import build_recorder
from taskpilot_obs.records import AuditEvent, Origin
from taskpilot_obs.semconv import EXPORT_ERRORS, INTERNAL_ERRORS, RECORDS, RECORDS_DROPPED, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from taskpilot_obs.records import Record


def event(name: str) -> AuditEvent:
    return AuditEvent(name, Origin(), 0)


class Item:
    """Something to put."""

    def __init__(self, name: str = "x", *, fails: bool = False) -> None:
        self.name = name
        self.fails = fails

    def droppable(self) -> bool:
        return True

    def freeze(self, records: list[Record]) -> None:
        if self.fails:
            raise RuntimeError(self.name)
        records.append(event(self.name))


class Listing:
    """Keeps what it gets; may be set to fail, to wait, or to write only a part."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None

    def export(self, batch: Sequence[Record], /) -> None:
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.records.extend(batch)


class Limits(TypedDict, total=False):
    """What may be said about an exporter that does I/O."""

    capacity: int
    on_full: OnFull


def make(
    in_memory: dict[str, Exporter] | None = None,
    batched: Sequence[tuple[str, Exporter, Limits]] = (),
    *,
    capacity: int = CAPACITY,
) -> tuple[Pipeline, InternalCounters]:
    counters = InternalCounters()
    pipeline = Pipeline(
        in_memory if in_memory is not None else {},
        [Batched(exporter, name=name, counters=counters, **limits) for name, exporter, limits in batched],
        counters=counters,
        on_counters=take,
        capacity=capacity,
    )
    return pipeline, counters


def test_taking_counts_ends_beside_threads_that_go_on_counting() -> None:
    """`take` returns what was counted before it, although others count as fast as it takes."""
    counters, meanwhile = InternalCounters(), iter(range(1_000))

    class Busy(str):
        __slots__ = ()

        def __hash__(self) -> int:
            counters.add(RECORDS, (str(next(meanwhile)),))
            return super().__hash__()

    counters.add(RECORDS, (Busy("busy"),))
    assert counters.take() == {(RECORDS, ("busy",)): 1}
    assert counters.pending


def take(counters: InternalCounters, _pipeline: Pipeline) -> None:
    counters.take()


def count(counters: InternalCounters, metric: Metric, *labels: str) -> int:
    counters.take()
    return counters.totals[metric, labels]


def events(records: Sequence[Record]) -> list[str]:
    """The names of audit events, which is all that these tests put."""
    found = [record for record in records if isinstance(record, AuditEvent)]
    assert len(found) == len(records)
    return [record.event for record in found]


def test_reads_see_writes() -> None:
    """After `drain` everything put before is there, in order; nothing runs before the first `put`."""
    memory = Listing()
    pipeline, counters = make({"memory": memory})
    assert pipeline._drainer is None
    for number in range(100):
        pipeline.put(Item(str(number)))
    pipeline.drain()
    assert events(memory.records) == [str(number) for number in range(100)]
    assert count(counters, RECORDS, "memory") == 100
    pipeline.shutdown()


def test_the_drainer_polls_by_itself() -> None:
    """What is put arrives without anybody reading."""
    memory = Listing()
    pipeline, _ = make({"memory": memory})
    pipeline.put(Item())
    deadline = time.monotonic() + 5
    while not memory.records and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(memory.records) == 1
    pipeline.shutdown()


def test_a_record_that_cannot_be_frozen_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A failure of the library is counted once per event, logged once, and the other records are exported."""
    memory = Listing()
    pipeline, counters = make({"memory": memory})
    for number in range(10):
        pipeline.put(Item(str(number), fails=number % 2 == 0))
    pipeline.drain()
    assert len(memory.records) == 5
    assert count(counters, INTERNAL_ERRORS, "freeze") == 5
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    pipeline.shutdown()


def test_one_exporters_failure_does_not_touch_the_others() -> None:
    """An exporter that raises loses its own records, counted to the unit; the others have them all."""
    good, bad, memory = Listing(), Listing(), Listing()
    bad.error = OSError("disk full")
    pipeline, counters = make({"memory": memory}, [("good", good, {}), ("bad", bad, {})])
    for _ in range(50):
        pipeline.put(Item())
    assert pipeline.flush(5)
    assert (len(good.records), len(memory.records)) == (50, 50)
    assert count(counters, RECORDS, "good") == 50
    assert count(counters, RECORDS, "bad") == 0
    assert count(counters, RECORDS_DROPPED, "bad", "export_failed") == 50
    assert count(counters, EXPORT_ERRORS, "bad") >= 1
    pipeline.shutdown()


def test_an_in_memory_exporter_that_raises_is_counted() -> None:
    """Also an in-memory exporter's failure stays ours."""
    broken, memory = Listing(), Listing()
    broken.error = MemoryError()
    pipeline, counters = make({"broken": broken, "memory": memory})
    pipeline.put(Item())
    pipeline.drain()
    assert len(memory.records) == 1
    assert count(counters, INTERNAL_ERRORS, "broken") == 1
    assert count(counters, RECORDS_DROPPED, "broken", "export_failed") == 1
    assert count(counters, RECORDS, "broken") == 0
    pipeline.shutdown()


def test_a_partial_write_is_counted_to_the_unit() -> None:
    """An exporter that says how much it wrote has only the rest counted as dropped."""
    listing = Listing()
    listing.error = PartialExportError(3)
    pipeline, counters = make({}, [("partial", listing, {})])
    for _ in range(10):
        pipeline.put(Item())
    pipeline.flush(5)
    assert count(counters, RECORDS, "partial") == 3
    assert count(counters, RECORDS_DROPPED, "partial", "export_failed") == 7
    pipeline.shutdown()


@pytest.mark.parametrize(("stated", "written"), [("3", 0), (None, 0), (True, 0), (-1, 0), (11, 10)])
def test_a_partial_write_of_an_invalid_number_is_bounded(stated: Any, written: int) -> None:
    """An invalid number counts as nothing written, and one beyond the batch as all of it."""
    listing = Listing()
    listing.error = PartialExportError(stated)
    pipeline, counters = make({}, [("partial", listing, {})])
    for _ in range(10):
        pipeline.put(Item())
    pipeline.flush(5)
    assert count(counters, RECORDS, "partial") == written
    assert count(counters, RECORDS_DROPPED, "partial", "export_failed") == 10 - written
    pipeline.shutdown()


def test_an_exporter_that_hangs_fills_only_its_own_queue() -> None:
    """Past its capacity the hanging exporter's records are dropped and counted; lost always equals counted."""
    hanging, memory = Listing(), Listing()
    hanging.gate.clear()
    pipeline, counters = make({"memory": memory}, [("hanging", hanging, {"capacity": 100})])
    for _ in range(1000):
        pipeline.put(Item())
    pipeline.drain()
    assert len(memory.records) == 1000
    assert not pipeline.flush(0.05)
    hanging.gate.set()
    assert pipeline.flush(5)
    dropped = count(counters, RECORDS_DROPPED, "hanging", "queue_full")
    assert dropped > 0
    assert len(hanging.records) + dropped == 1000
    pipeline.shutdown()


def test_an_exporter_that_waits_for_the_processor_is_given_way_to() -> None:
    """One that takes some tenths of a second for a batch, as on a busy machine, gets all records of a burst."""

    class Busy(Listing):
        def export(self, batch: Sequence[Record], /) -> None:
            time.sleep(0.25)
            super().export(batch)

    busy = Busy()
    pipeline, counters = make({}, [("busy", busy, {"capacity": 2_048})])
    pipeline.put(Item())
    assert pipeline.flush(5)
    for _ in range(6_000):
        pipeline.put(Item())
    assert pipeline.flush(30)
    assert len(busy.records) == 6_001
    assert count(counters, RECORDS_DROPPED, "busy", "queue_full") == 0
    pipeline.shutdown()


def test_blocking_makes_the_caller_wait_and_loses_nothing() -> None:
    """With `on_full="block"` callers wait for the exporter, and every record arrives."""
    slow = Listing()
    slow.gate.clear()
    pipeline, counters = make({}, [("slow", slow, {"capacity": 64, "on_full": "block"})])

    def call() -> None:
        for _ in range(2000):
            pipeline.put(Item())
            time.sleep(0)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(0.5)
    waited = thread.is_alive()
    slow.gate.set()
    thread.join(10)
    assert pipeline.flush(5)
    assert waited
    assert len(slow.records) == 2000
    assert count(counters, RECORDS_DROPPED, "slow", "queue_full") == 0
    pipeline.shutdown()


def test_a_caller_that_waits_leaves_the_queue_at_twice_its_capacity() -> None:
    """While the drainer is busy, a caller that may lose nothing adds no item beyond that bound."""
    pipeline, _ = make(batched=[("slow", Listing(), {"on_full": "block"})], capacity=4)
    pipeline.put(Item())  # starts the drainer
    assert pipeline.flush(5)
    helped, help_out, busy = threading.Semaphore(0), pipeline._help, pipeline._lock

    def help_and_tell() -> None:
        helped.release()
        help_out()

    pipeline._help = help_and_tell  # type: ignore[method-assign]  # only to see that the caller waits

    def put_some() -> None:
        for _ in range(20):
            pipeline.put(Item())

    with busy:
        caller = threading.Thread(target=put_some)
        caller.start()
        while pipeline.backlog < 8:
            assert helped.acquire(timeout=10)
        for _ in range(8):  # of which up to four were told before
            assert helped.acquire(timeout=10)
        assert pipeline.backlog == 8
    caller.join(10)
    assert pipeline.shutdown(5) is True


def test_callers_help_at_the_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the drainer sleeps, callers that add to a full queue drain it; nothing is dropped."""
    monkeypatch.setattr("taskpilot_obs._pipeline.pipeline.POLL_S", 3_600.0)
    memory = Listing()
    pipeline, counters = make({"memory": memory}, capacity=64)
    for _ in range(5000):
        pipeline.put(Item())
    pipeline.drain()
    assert len(memory.records) == 5000
    assert count(counters, RECORDS_DROPPED, "memory", "queue_full") == 0
    pipeline.shutdown()


def test_past_twice_the_capacity_records_are_dropped_and_counted() -> None:
    """While no thread can drain, the queue stays bounded and every lost record is counted for each exporter."""
    memory, other = Listing(), Listing()
    pipeline, counters = make({"memory": memory}, [("other", other, {})], capacity=64)
    pipeline.put(Item())
    pipeline.drain()
    with pipeline._lock:
        for _ in range(1000):
            pipeline.put(Item())
        assert pipeline.backlog == 128
    pipeline.flush(5)
    for name, exporter in (("memory", memory), ("other", other)):
        assert len(exporter.records) + count(counters, RECORDS_DROPPED, name, "queue_full") == 1001
    pipeline.shutdown()


def test_put_from_a_signal_handler_while_the_lock_is_held() -> None:
    """A signal handler may put, and even drain, while the interrupted thread holds the pipeline's lock."""
    memory = Listing()
    pipeline, _ = make({"memory": memory}, capacity=64)

    class Interrupted(Item):
        def freeze(self, records: list[Record]) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            super().freeze(records)

    def handler(_signum: int, _frame: object) -> None:
        for _ in range(100):
            pipeline.put(Item("from handler"))
        pipeline.drain()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        pipeline.put(Interrupted())
        pipeline.drain()
        pipeline.drain()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert Counter(events(memory.records)) == {"x": 1, "from handler": 100}
    pipeline.shutdown()


def test_put_from_a_finalizer() -> None:
    """A finalizer that runs in the middle of a drain may put."""
    memory = Listing()
    pipeline, _ = make({"memory": memory})

    class Dying:
        me: object = None

        def __del__(self) -> None:
            pipeline.put(Item("last words"))

    class Collects(Item):
        def freeze(self, records: list[Record]) -> None:
            gc.collect()
            super().freeze(records)

    dying = Dying()
    dying.me = dying  # a cycle, which only the collector ends
    del dying
    pipeline.put(Collects())
    pipeline.drain()
    pipeline.drain()
    assert set(events(memory.records)) == {"x", "last words"}
    pipeline.shutdown()


def test_shutdown_is_harmless_when_repeated_and_counts_what_comes_late() -> None:
    """After a shutdown records are counted as dropped; a second shutdown does nothing."""
    memory = Listing()
    pipeline, counters = make({"memory": memory})
    pipeline.put(Item())
    assert pipeline.shutdown()
    assert pipeline.shutdown()
    pipeline.put(Item())
    assert len(memory.records) == 1
    assert count(counters, RECORDS_DROPPED, "memory", "shutdown") == 1


def test_shutdown_does_not_wait_for_ever() -> None:
    """An exporter that never returns is given up in time, and all that it is not known to have written is counted."""
    hanging = Listing()
    hanging.gate.clear()
    pipeline, counters = make({}, [("hanging", hanging, {})])
    for _ in range(3000):
        pipeline.put(Item())
    pipeline.drain()
    begun = time.monotonic()
    assert not pipeline.shutdown(0.2)
    assert time.monotonic() - begun < 5
    assert count(counters, RECORDS_DROPPED, "hanging", "shutdown") == 3000
    hanging.gate.set()


def test_a_long_queue_does_not_keep_a_shutdown_beyond_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long to freeze is counted as dropped, and everything is written or dropped."""

    class Slow(Item):
        def freeze(self, records: list[Record]) -> None:
            time.sleep(0.02)
            super().freeze(records)

    monkeypatch.setattr("taskpilot_obs._pipeline.pipeline.DRAIN_CHUNK", 1)
    memory = Listing()
    pipeline, counters = make({"memory": memory})
    pipeline.high_water = CAPACITY  # no drainer is started
    for _ in range(200):
        pipeline.put(Slow())
    pipeline.shutdown(0.0)
    dropped = count(counters, RECORDS_DROPPED, "memory", "shutdown")
    assert dropped > 100
    assert len(memory.records) + dropped == 200


def test_a_successor_takes_what_comes_late() -> None:
    """What still holds a replaced pipeline puts into its successor; nothing queued is lost."""
    old_memory, new_memory = Listing(), Listing()
    old, _ = make({"memory": old_memory})
    new, _ = make({"memory": new_memory})
    old.put(Item("before"))
    old.hand_over(new)
    old.put(Item("after"))
    new.drain()
    assert events(old_memory.records) == ["before"]
    assert events(new_memory.records) == ["after"]
    new.shutdown()


def test_exporters_may_be_added_and_removed() -> None:
    """An exporter that is added sees what comes from then on, until it is removed."""
    pipeline, _ = make()
    listing = Listing()
    pipeline.put(Item("before"))
    pipeline.add("listing", listing)
    pipeline.put(Item("during"))
    pipeline.remove("listing")
    pipeline.put(Item("after"))
    pipeline.drain()
    assert events(listing.records) == ["during"]
    pipeline.shutdown()


def test_a_plain_function_is_an_exporter(recorder: Recorder) -> None:
    """A function is called with each finished invocation; one call that raises costs one record."""
    from taskpilot_obs.records import Invocation, Started

    got: list[Invocation] = []

    def take(run: Invocation) -> None:
        if run.name == "bad":
            raise ValueError
        got.append(run)

    from taskpilot_obs.testing import capture_records

    with capture_records(Invocation, recorder) as runs, capture_records(Started, recorder) as starts:
        for name in ("a", "bad", "b"):
            recorder.start("invoke_agent", name).stop()
        batch: list[Record] = [*starts, *runs]
    with pytest.raises(PartialExportError) as partial:
        CallableExporter(take).export(batch)
    assert [run.name for run in got] == ["a", "b"]
    assert partial.value.written == len(batch) - 1
    assert isinstance(partial.value.__cause__, ValueError)


def test_an_exporter_that_is_stopped_counts_what_comes() -> None:
    """What reaches an exporter after its shutdown is counted as dropped, and not written."""
    listing, counters = Listing(), InternalCounters()
    batched = Batched(listing, name="listing", counters=counters)
    batched.export([event("before")])
    assert batched.shutdown(5)
    batched.export([event("late"), event("later")])
    assert events(listing.records) == ["before"]
    assert count(counters, RECORDS, "listing") == 1
    assert count(counters, RECORDS_DROPPED, "listing", "shutdown") == 2


def test_what_comes_while_a_worker_goes_idle_is_written() -> None:
    """A record that comes at the moment at which the worker finds nothing to do waits for no further wake-up."""
    listing = Listing()

    class Interrupted(IdleEvent):
        late = True

        def set(self) -> None:
            if self.late and listing.records:
                self.late = False
                batched._queue.append(event("late"))
            super().set()

    batched = Batched(listing, name="listing", counters=InternalCounters())
    batched._idle = Interrupted()
    batched.export([event("first")])
    assert batched.flush(5)
    assert events(listing.records) == ["first", "late"]
    assert batched.shutdown(5)


def test_an_exporter_that_records_does_not_wait_for_itself() -> None:
    """With `on_full="block"`, what a full exporter records in its own export is taken; it would wait for ever."""
    entered, full = threading.Event(), threading.Event()

    class Recording(Listing):
        def export(self, batch: Sequence[Record], /) -> None:
            super().export(batch)
            if not entered.is_set():
                entered.set()
                full.wait(10)
                pipeline.put(Item("own"))

    exporter = Recording()
    pipeline, _ = make({}, [("recording", exporter, {"capacity": 1, "on_full": "block"})])
    pipeline.put(Item("first"))
    pipeline.drain()
    assert entered.wait(10)
    pipeline.put(Item("fills"))
    pipeline.drain()
    assert pipeline.batched[0].must_wait
    full.set()
    assert pipeline.flush(10)
    assert pipeline.flush(10)
    assert sorted(events(exporter.records)) == ["fills", "first", "own"]
    pipeline.shutdown()


def test_locks_that_were_made_before_a_patch_are_renewed() -> None:
    """Gevent may replace `threading.Lock` after a pipeline was made: its threads begin with locks of the new type."""
    listing = Listing()
    pipeline, _ = make({}, [("listing", listing, {})])
    (batched,) = pipeline.batched
    wakes = pipeline._wake, batched._wake
    pipeline._lock = batched._taking = threading.RLock()  # type: ignore[assignment]  # another type than today's locks
    pipeline.put(Item())
    assert pipeline.flush(5)
    assert len(listing.records) == 1
    assert type(pipeline._lock) is type(batched._taking) is type(threading.Lock())
    assert pipeline._wake is not wakes[0]
    assert batched._wake is not wakes[1]
    pipeline.shutdown(5)


def test_of_two_callers_that_are_first_one_starts_the_drainer() -> None:
    """A caller that comes while another one starts the drainer puts its item, and starts no second one."""
    memory = Listing()
    pipeline, _ = make({"memory": memory})
    pipeline._unstarted.pop()  # what the other caller has taken
    pipeline.put(Item())
    assert pipeline._drainer is None
    pipeline.drain()
    assert events(memory.records) == ["x"]


def test_while_paused_everything_waits_bounded() -> None:
    """What comes during a pause is kept, no drain takes it, and past twice the capacity it is dropped and counted."""
    memory = Listing()
    pipeline, counters = make({"memory": memory}, capacity=64)
    pipeline.put(Item("before"))
    pipeline.pause()
    for _ in range(200):
        pipeline.put(Item("during"))
    pipeline.drain()
    assert (events(memory.records), pipeline.backlog) == (["before"], 128)
    pipeline.resume()
    pipeline.drain()
    assert Counter(events(memory.records)) == {"before": 1, "during": 128}
    assert count(counters, RECORDS_DROPPED, "memory", "queue_full") == 72
    pipeline.shutdown()


def test_a_successor_takes_what_waited_during_the_pause() -> None:
    """What came between a pause and the hand-over is the successor's."""
    old_memory, new_memory = Listing(), Listing()
    old, _ = make({"memory": old_memory})
    new, _ = make({"memory": new_memory})
    old.put(Item("before"))
    old.pause()
    old.put(Item("during"))
    old.hand_over(new)
    new.drain()
    assert (events(old_memory.records), events(new_memory.records)) == (["before"], ["during"])
    new.shutdown()


def run_script(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_script_that_never_flushes_loses_nothing(tmp_path: Path) -> None:
    """At the end of a script that calls neither `flush` nor `shutdown`, everything is written."""
    done = run_script(f"""
        from taskpilot_obs import configure, observe_agent
        configure(audit_log={str(tmp_path / "audit.jsonl")!r})
        @observe_agent
        def agent(): pass
        for _ in range(2000): agent()
        """)
    assert (done.returncode, done.stderr) == (0, "")
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 4000


def test_what_is_first_recorded_at_the_exit_is_written(tmp_path: Path) -> None:
    """An exit handler's records come to the log too: Python 3.12 lets no thread be started by then."""
    done = run_script(f"""
        import atexit
        from taskpilot_obs import configure, observe_agent
        configure(audit_log={str(tmp_path / "audit.jsonl")!r})
        @observe_agent
        def agent(): pass
        atexit.register(lambda: [agent() for _ in range(200)])
        """)
    assert done.returncode == 0
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 400


def test_where_no_thread_may_be_started_the_caller_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is so at the exit, on Python 3.12: what was recorded is written all the same, and counted."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    written: list[object] = []
    recorder = build_recorder(exporters=[written.append], registry=CollectorRegistry())
    recorder.record_llm_call(model="gpt-4o", cost="0.01")
    assert recorder.shutdown()
    assert len(written) == 1


@pytest.mark.promise("exit-in-time")
def test_a_hanging_exporter_does_not_keep_the_process(tmp_path: Path) -> None:
    """A process with an exporter that never returns ends within its exit timeout, with an empty stderr."""
    begun = time.monotonic()
    done = run_script("""
        import time
        from taskpilot_obs import configure, observe_agent
        configure(exporters=[lambda run: time.sleep(3600)], exit_timeout_s=0.3)
        @observe_agent
        def agent(): pass
        agent()
        """)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun < 20


@pytest.mark.promise("fork")
def test_a_forked_child_has_a_queue_of_its_own(tmp_path: Path) -> None:
    """After a fork the child writes what it records, and nothing that the parent had queued."""
    done = run_script("""
        import os, sys
        from taskpilot_obs import configure, observe_agent, flush, get_recorder
        seen = []
        def tell(run):  # a line in one piece, whichever process is first
            os.write(1, f"{os.getpid()} {run.name} {run.invocation_id}\\n".encode())
        configure(exporters=[tell])
        @observe_agent("parent")
        def parent(): pass
        @observe_agent("child")
        def child(): pass
        for _ in range(3): parent()
        pid = os.fork()
        if pid == 0:
            for _ in range(2): child()
            flush()
            os._exit(0)
        os.waitpid(pid, 0)
        flush()
        """)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert Counter(name for _, name, _ in lines) == {"parent": 3, "child": 2}
    assert len({pid for pid, _, _ in lines}) == 2
    assert len({invocation_id for _, _, invocation_id in lines}) == 5


def test_ctrl_c_cuts_the_waiting_at_the_exit_short() -> None:
    """After Ctrl-C the exit waits for neither of two hanging exporters any longer."""
    begun = time.monotonic()
    done = run_script("""
        import os, signal, threading, time
        from prometheus_client import CollectorRegistry
        from taskpilot_obs import track_agent
        from taskpilot_obs.config import build_recorder

        def hang(run):
            time.sleep(3600)

        def press():
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGINT)

        recorders = [
            build_recorder(exporters=[hang], exit_timeout_s=50, registry=CollectorRegistry()) for _ in range(2)
        ]
        for recorder in recorders:
            with track_agent("a", recorder=recorder):
                pass
        threading.Thread(target=press, daemon=True).start()
        """)
    assert "KeyboardInterrupt" in done.stderr
    assert time.monotonic() - begun < 30


def test_only_a_child_of_multiprocessing_has_a_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a child skips the interpreter's own exit handlers; it gets one finalizer however often it is asked for."""
    monkeypatch.setattr(lifecycle, "_finalizers", {})
    lifecycle.shut_down_with_child()
    assert lifecycle._finalizers == {}
    monkeypatch.setattr(multiprocessing.process, "parent_process", object)
    lifecycle.shut_down_with_child()
    (finalizer,) = lifecycle._finalizers.values()
    lifecycle.shut_down_with_child()
    assert list(lifecycle._finalizers.values()) == [finalizer]
    assert finalizer.still_active()
    finalizer.cancel()


def test_a_child_of_multiprocessing_writes_what_it_has(tmp_path: Path) -> None:
    """A child process that ends by returning from its function writes its records, without exit handlers."""
    done = run_script(f"""
        import multiprocessing
        from taskpilot_obs import configure, observe_agent
        configure(exporters=[lambda run: open({str(tmp_path / "runs")!r}, "a").write(run.name + "\\n")])
        @observe_agent
        def child(): pass
        def work():
            for _ in range(100): child()
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
        """)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs").read_text().splitlines() == ["child"] * 100


def test_a_child_of_multiprocessing_that_configures_often_ends_once(tmp_path: Path) -> None:
    """However often a child configures, its end looks for open runs once; so does that of a fork of it."""
    done = run_script(f"""
        import gc, multiprocessing, os
        from taskpilot_obs import configure, observe_agent
        @observe_agent
        def child(): pass
        def work():
            for _ in range(5):
                configure(exporters=[lambda run: open({str(tmp_path / "runs")!r}, "a").write(run.name + "\\n")])
                child()
            if pid := os.fork():
                os.waitpid(pid, 0)
            child()
            find = gc.get_objects
            gc.get_objects = lambda: (open({str(tmp_path / "looks")!r}, "a").write("."), find())[1]
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
        """)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs").read_text().splitlines() == ["child"] * 7
    assert (tmp_path / "looks").read_text() == ".."


def test_flush_from_a_signal_handler_that_interrupts_a_flush() -> None:
    """A signal handler that flushes in the midst of a flush gets an answer at once."""
    answers: list[bool] = []

    class Interrupting(Listing):
        def flush(self, _timeout_s: float) -> bool:
            os.kill(os.getpid(), signal.SIGUSR1)
            return True

    pipeline, _ = make({}, [("interrupting", Interrupting(), {})])
    before = signal.signal(signal.SIGUSR1, lambda *_: answers.append(pipeline.flush(5)))
    try:
        pipeline.put(Item())
        assert pipeline.flush(5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [False]
    pipeline.shutdown()


class Gathering:
    """An exporter that waits for full batches, and keeps the size of each."""

    linger_s = 60.0

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def export(self, batch: Sequence[Record]) -> None:
        self.sizes.append(len(batch))


def test_after_flushes_of_many_threads_batches_are_full_again() -> None:
    """Flushes that interrupt each other at any step leave the worker waiting for full batches, as before."""
    exporter = Gathering()
    batched = Batched(exporter, name="gathering", counters=InternalCounters())

    def pause(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        if frame.f_code is not Batched.flush.__code__:
            return None
        frame.f_trace_opcodes = True
        time.sleep(0.0001)  # another thread may go on here
        return pause

    def flush() -> None:
        sys.settrace(pause)
        for _ in range(10):
            batched.flush(0.0)

    threads = [threading.Thread(target=flush) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        batched.export([event(str(number))])
        time.sleep(0.01)  # the worker may take what is there
    assert batched.shutdown(5.0)
    assert exporter.sizes == [3]


class Holding:
    """An exporter that takes large batches, and is held up at its first one."""

    batch_size = 3_000

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.began, self.go_on = threading.Event(), threading.Event()

    def export(self, batch: Sequence[Record]) -> None:
        self.sizes.append(len(batch))
        self.began.set()
        assert self.go_on.wait(30)


def test_an_exporter_that_states_no_linger_does_not_wait() -> None:
    """Its worker writes what is there at once; only `linger_s` above 0 lets it wait for more."""
    waits: list[float] = []

    class Noting(WakeSignal):
        def wait(self, timeout_s: float) -> None:
            waits.append(timeout_s)

    class Lingering(Listing):
        linger_s = 0.001

    for exporter, waited in ((Listing(), False), (Lingering(), True)):
        batched = Batched(exporter, name="noted", counters=InternalCounters())
        batched._wake = Noting()
        batched._gather()
        assert bool(waits) is waited


def test_an_exporter_gets_as_large_batches_as_it_asks_for() -> None:
    """What gathered while it wrote comes in batches of its size."""
    exporter = Holding()
    batched = Batched(exporter, name="holding", counters=InternalCounters())
    batched.export([event("first")])
    assert exporter.began.wait(30)
    batched.export([event(str(number)) for number in range(4_000)])
    exporter.go_on.set()
    assert batched.shutdown(30.0)
    assert exporter.sizes == [1, 3_000, 1_000]


@pytest.mark.parametrize(
    "value",
    [None, True, "3000", -3_000, float("nan"), lambda: 3_000],
    ids=["none", "bool", "text", "negative", "nan", "function"],
)
def test_attributes_that_an_exporter_uses_otherwise(value: object) -> None:
    """`batch_size` and `linger_s` that are invalid count as the default: they may mean another thing."""
    exporter = Holding()
    vars(exporter).update(batch_size=value, linger_s=value)
    batched = Batched(exporter, name="holding", counters=InternalCounters())
    batched.export([event("first")])
    assert exporter.began.wait(30)
    batched.export([event(str(number)) for number in range(1_500)])
    exporter.go_on.set()
    assert batched.shutdown(30.0)
    assert exporter.sizes == [1, 1_024, 476]
