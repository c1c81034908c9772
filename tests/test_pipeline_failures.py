"""Hooks and exporters that raise: each failure is counted under its place, and the pipeline goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._pipeline.pipeline import Pipeline
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.records import AuditEvent, Origin, Record
from taskpilot_obs.semconv import INTERNAL_ERRORS


class Item:
    """Something to put."""

    def droppable(self) -> bool:
        return True

    def freeze(self, records: list[Record]) -> None:
        records.append(AuditEvent("x", Origin(), 0))


class Failing:
    """An exporter that writes, and raises in one of its other methods."""

    def __init__(self, method: str = "") -> None:
        self.records: list[Record] = []
        if method:
            setattr(self, method, self._fail)

    def export(self, batch: Sequence[Record], /) -> None:
        self.records.extend(batch)

    def _fail(self, *_arguments: object) -> bool:
        raise RuntimeError


def internal_errors(counters: InternalCounters) -> dict[str, int]:
    counters.take()
    return {labels[0]: number for (metric, labels), number in counters.totals.items() if metric is INTERNAL_ERRORS}


def fail(*_arguments: object) -> None:
    raise RuntimeError


def test_a_flush_that_raises_is_no_flush() -> None:
    """`flush` returns False where an exporter's own `flush` raises, counts it, and flushes the others all the same."""
    failing, good, counters = Failing("flush"), Failing(), InternalCounters()
    batched = [Batched(each, name=name, counters=counters) for name, each in (("failing", failing), ("good", good))]
    pipeline = Pipeline({}, batched, counters=counters)
    pipeline.put(Item())
    assert pipeline.flush(5) is False
    assert (len(failing.records), len(good.records)) == (1, 1)
    assert internal_errors(counters) == {"flush failing": 1}
    assert pipeline.shutdown(5) is True


def test_the_threads_of_a_pipeline_keep_no_process() -> None:
    """Drainer and workers are daemons, whichever thread starts them: an exporter that hangs ends with the process."""
    counters = InternalCounters()
    batched = Batched(Failing(), name="any", counters=counters)
    assert batched.start()
    pipeline = Pipeline({}, [batched], counters=counters)
    pipeline.put(Item())
    assert batched._worker is not None
    assert pipeline._drainer is not None
    assert (batched._worker.daemon, pipeline._drainer.daemon) == (True, True)
    pipeline.shutdown(5)


def test_only_a_flush_within_a_flush_is_refused() -> None:
    """A flush by the thread that flushes already returns False at once; that of another thread does its work."""
    results: list[bool] = []

    class Nesting(Failing):
        def flush(self, _timeout_s: float) -> bool:
            if not results:
                results.append(pipeline.flush(5))
                other = threading.Thread(target=lambda: results.append(pipeline.flush(5)))
                other.start()
                other.join(10)
            return True

    counters = InternalCounters()
    pipeline = Pipeline({}, [Batched(Nesting(), name="nesting", counters=counters)], counters=counters)
    assert pipeline.flush(5) is True
    assert results == [False, True]
    pipeline.shutdown(5)


def test_a_flush_has_no_more_time_than_is_left() -> None:
    """An exporter's own `flush` gets what is left until the deadline, and never less than nothing."""
    left: list[float] = []

    class Flushing(Failing):
        def flush(self, timeout_s: float) -> bool:
            left.append(timeout_s)
            return True

    counters = InternalCounters()
    pipeline = Pipeline({}, [Batched(Flushing(), name="flushing", counters=counters)], counters=counters)
    assert pipeline.flush(0.0) is True
    assert pipeline.flush(60.0) is True
    assert left[0] == 0.0
    assert 0.0 < left[1] <= 60.0
    pipeline.shutdown(5)


def test_a_shutdown_that_raises_stops_no_other() -> None:
    """An exporter whose `shutdown` raises is counted, in memory or behind a queue, and the rest is shut down."""
    counters = InternalCounters()
    memory, behind, good = Failing("shutdown"), Failing("shutdown"), Failing()
    batched = [Batched(each, name=name, counters=counters) for name, each in (("behind", behind), ("good", good))]
    pipeline = Pipeline({"memory": memory}, batched, counters=counters)
    pipeline.put(Item())
    assert pipeline.shutdown(5) is True
    assert [len(each.records) for each in (memory, behind, good)] == [1, 1, 1]
    assert internal_errors(counters) == {"shutdown memory": 1, "shutdown behind": 1}


def test_exporters_in_memory_are_shut_down() -> None:
    """An exporter in memory that has a `shutdown` is shut down once; one that has none is left alone."""
    ended: list[str] = []

    class Closing(Failing):
        def shutdown(self) -> None:
            ended.append("closing")

    counters = InternalCounters()
    pipeline = Pipeline({"closing": Closing(), "plain": Failing()}, [], counters=counters)
    assert pipeline.shutdown(5) is True
    assert pipeline.shutdown(5) is True
    assert ended == ["closing"]
    assert internal_errors(counters) == {}


@pytest.mark.parametrize(("where", "hook"), [("drainer.poll", "on_poll"), ("self_telemetry", "on_counters")])
def test_a_hook_that_raises_is_counted(where: str, hook: str) -> None:
    """A hook that raises costs no record: it is counted under its place each time."""
    memory, counters = Failing(), InternalCounters()
    hooks: dict[str, Callable[..., None]] = {hook: fail}
    pipeline = Pipeline({"memory": memory}, [], counters=counters, **hooks)  # type: ignore[arg-type]
    pipeline.put(Item())
    pipeline._poll()
    assert len(memory.records) == 1
    assert internal_errors(counters).keys() == {where}
    pipeline.shutdown(5)


def test_a_queue_that_raises_stops_no_other() -> None:
    """An exporter whose own queue fails, also at the end, is counted by its name, and the others get the batch."""

    class Broken(Batched):
        def export(self, batch: Sequence[Record], /) -> None:
            raise MemoryError

        def shutdown(self, timeout_s: float, *, close: bool = True) -> bool:
            raise MemoryError

    memory, good, counters = Failing(), Failing(), InternalCounters()
    batched = [Broken(Failing(), name="broken", counters=counters), Batched(good, name="good", counters=counters)]
    pipeline = Pipeline({"memory": memory}, batched, counters=counters)
    pipeline.put(Item())
    assert pipeline.flush(5)
    assert (len(memory.records), len(good.records)) == (1, 1)
    assert pipeline.shutdown(5) is False
    assert internal_errors(counters) == {"broken": 1, "shutdown broken": 1}
