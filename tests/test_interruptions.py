"""Ctrl-C, and other exceptions of a signal handler, in the middle of work of the library."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from taskpilot_obs import observe_agent, track_agent, track_llm
from taskpilot_obs._recording.invocation import ActiveInvocation, current_running
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.snapshots import end_of, start_of
from taskpilot_obs.exporters.prometheus.exporter import PrometheusExporter
from taskpilot_obs.exporters.window import RollingWindow, _Tier
from taskpilot_obs.records import Invocation, Record, Started, Status
from taskpilot_obs.safety import Rule
from taskpilot_obs.semconv import RECORDS, RECORDS_DROPPED
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

CALLS = 20


class Keeping:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def export(self, batch: Sequence[Record], /) -> None:
        self.records.extend(batch)


@observe_agent
def agent() -> str:
    return "done"


@pytest.fixture
def press() -> Iterator[Callable[[CodeType, int], None]]:
    """Press Ctrl-C when a line of this function is executed for the n-th time on this thread."""

    def arm(code: CodeType, lines: int) -> None:
        left = lines

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code is not code:
                return None if event == "call" else trace
            left -= event == "line"
            if not left:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)

    before = sys.gettrace()
    yield arm
    sys.settrace(before)


def counted(recorder: Recorder, name: str) -> float:
    recorder.drain()
    assert recorder.registry is not None
    return sum(s.value for family in recorder.registry.collect() for s in family.samples if s.name == name)


@pytest.mark.parametrize("lines", [1, 3, 7])
@pytest.mark.parametrize(
    "code",
    [
        ActiveInvocation.freeze.__code__,
        start_of.__code__,
        end_of.__code__,
        RollingWindow._count_rest.__code__,
        _Tier.add.__code__,
        PrometheusExporter._finish.__code__,
    ],
    ids=lambda code: code.co_qualname,
)
def test_a_read_that_is_interrupted_loses_nothing(
    press: Callable[[CodeType, int], None], code: CodeType, lines: int
) -> None:
    """Ctrl-C in a drain is raised to the reader, and each record reaches each exporter once all the same."""
    kept = Keeping()
    gc.collect()  # what a Ctrl-C of an earlier test left open is abandoned now, and does not reach this recorder
    with fresh_recorder(exporters=[kept]) as recorder:
        agent()
        recorder.drain()
        with recorder.pipeline._lock:  # the drainer has to wait
            for _ in range(CALLS):
                agent()
            press(code, lines)
            with pytest.raises(KeyboardInterrupt):
                recorder.pipeline._process(2 * CALLS)
        assert recorder.flush()
        records = 2 * (CALLS + 1)
        totals = recorder.counters.totals
        assert [totals[RECORDS, (name,)] for name in ("window", "prometheus", "exporter_1")] == [records] * 3
        assert not any(amount for (metric, _), amount in totals.items() if metric is RECORDS_DROPPED)
        for kind in (Started, Invocation):
            ids = [record.invocation_id for record in kept.records if isinstance(record, kind)]
            assert len(ids) == len(set(ids)) == CALLS + 1
        assert counted(recorder, "agent_active_runs") == 0


def test_a_caller_that_is_interrupted_while_it_waits_leaves_its_records(recorder: Recorder) -> None:
    """Ctrl-C while a call waits for room ends that call: as cancelled, with both its records, and not current."""
    gate, entered = threading.Event(), threading.Event()

    class Slow(Keeping):
        def export(self, batch: Sequence[Record], /) -> None:
            entered.set()
            gate.wait(30)
            super().export(batch)

    kept = Slow()
    with fresh_recorder(exporters=[kept], on_full="block", queue_capacity=64) as small:
        agent()
        small.drain()
        assert entered.wait(30)  # it makes no room any more
        while small.pipeline.high_water or not any(each.must_wait for each in small.pipeline.batched):
            agent()
            small.drain()
        timer = threading.Timer(0.2, _press_and, (gate.set,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            agent()
        timer.join()
        assert current_running.get() is None
        assert small.flush()
        runs = [record for record in kept.records if isinstance(record, Invocation)]
        assert len(runs) == sum(isinstance(record, Started) for record in kept.records)
        assert runs[-1].status is Status.CANCELLED
        assert counted(small, "agent_active_runs") == 0


def _press_and(act: Callable[[], None]) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    act()


class Interrupting(SpanProcessor):
    """Takes so long to take a span that somebody presses Ctrl-C."""

    def on_end(self, span: ReadableSpan) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_while_a_span_is_closed() -> None:
    """Ctrl-C in a span processor is the user's to see, and the call's record is there all the same."""
    provider = TracerProvider()
    provider.add_span_processor(Interrupting())
    with fresh_recorder(tracer_provider=provider) as recorder, capture_invocations(recorder) as seen:
        with pytest.raises(KeyboardInterrupt):
            agent()
        with pytest.raises(KeyboardInterrupt), track_agent("block"):
            pass
        assert [(run.name, run.status) for run in seen] == [("agent", Status.SUCCESS), ("block", Status.SUCCESS)]
        assert current_running.get() is None
        assert counted(recorder, "agent_active_runs") == 0


def test_ctrl_c_while_a_result_is_redacted() -> None:
    """Ctrl-C while a result or an exception is made fit to be kept ends the call, which is over anyway."""

    def press(_: str) -> Iterable[tuple[int, int]]:
        raise KeyboardInterrupt

    with (
        fresh_recorder(capture_content=True, redaction_rules=[Rule("own", press)]) as recorder,
        capture_invocations(recorder) as seen,
    ):
        with pytest.raises(KeyboardInterrupt):
            agent()
        with pytest.raises(KeyboardInterrupt), track_agent("block"):
            raise ValueError("no")
        assert [(run.name, run.status) for run in seen] == [("agent", Status.CANCELLED), ("block", Status.ERROR)]
        assert current_running.get() is None
        assert counted(recorder, "agent_active_runs") == 0


def test_ctrl_c_while_a_budget_is_asked(seen: Captured[Invocation], recorder: Recorder) -> None:
    """Ctrl-C while an LLM call waits to be allowed ends the call, and leaves nothing current."""

    class Asking:
        tokens = None

        def before_block(self, *_: object) -> None:
            raise KeyboardInterrupt

        def after(self, _: object) -> None: ...

    recorder.runtime.limits = Asking()  # type: ignore[assignment]  # the Ctrl-C is the point
    block = track_llm(model="gpt-4o")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), block:
            pytest.fail("it was not allowed")
    recorder.runtime.limits = None
    with block:
        pass
    assert [call.status for call in seen] == [Status.CANCELLED, Status.CANCELLED, Status.SUCCESS]
    assert not block._runs
    assert current_running.get() is None


def test_ctrl_c_in_one_exporter_keeps_nothing_from_the_others() -> None:
    """Ctrl-C in an exporter in memory keeps no batch from those behind it."""

    class Pressed(Keeping):
        pressed = False

        def export(self, batch: Sequence[Record], /) -> None:
            super().export(batch)
            if not self.pressed:
                self.pressed = True
                raise KeyboardInterrupt

    first, second = Pressed(), Keeping()
    with fresh_recorder() as recorder:
        pipeline = recorder.pipeline
        pipeline.add("first", first)
        pipeline.add("second", second)
        pipeline.high_water, pipeline._drainer = 1_000, threading.current_thread()  # no other thread drains
        agent()
        with pytest.raises(KeyboardInterrupt):
            recorder.drain()
        assert len(first.records) == len(second.records) == 2
        assert pipeline._lock.acquire(timeout=1)
        pipeline._lock.release()
