"""The recorder under any order of starts, ends, flushes, forks and reconfigurations, on any thread."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from _differences import SHOWN, differences, mapping_differences
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from prometheus_client import CollectorRegistry

from taskpilot_obs import configure, flush, track_agent
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs.records import Invocation, Record, Started
from taskpilot_obs.testing import fresh_recorder

THREADS = 3
BURST_THREADS, BURST_RUNS = 4, 40
OPERATIONS = ("invoke_workflow", "invoke_agent", "execute_tool")
THREAD = st.integers(0, THREADS)
"""0 is the thread of the test."""


class Sink:
    """Keeps what it gets; shared by all configurations, as a user's exporter may be."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: dict[str, list[str]] = {}

    def export(self, batch: Sequence[Record], /) -> None:
        for record in batch:
            if isinstance(record, Started):
                self.begun[record.invocation_id] += 1
            elif isinstance(record, Invocation):
                self.ended.setdefault(record.invocation_id, []).append(record.status)


class Recording(RuleBasedStateMachine):
    """What was started and ended is exported once, whatever else happens."""

    running: Bundle[ActiveInvocation] = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.registry = CollectorRegistry()
        self.sink = Sink()
        self.recorder = self.stack.enter_context(fresh_recorder(registry=self.registry, exporters=[self.sink]))
        self.threads = [self.stack.enter_context(ThreadPoolExecutor(1)) for _ in range(THREADS)]
        self.begun: set[str] = set()
        self.open: list[ActiveInvocation] = []
        self.ended: dict[str, str] = {}

    def on(self, thread: int, action: Callable[[], object]) -> object:
        """Act on one of the threads."""
        return action() if thread == 0 else self.threads[thread - 1].submit(action).result(60)

    @rule(target=running, operation=st.sampled_from(OPERATIONS), name=st.sampled_from("abc"), thread=THREAD)
    def start(self, operation: str, name: str, thread: int) -> ActiveInvocation:
        """Begin a root."""
        run = self.on(thread, lambda: self.recorder.start(operation, name, parent=None))
        assert isinstance(run, ActiveInvocation)
        self.begun.add(run.invocation_id)
        self.open.append(run)
        return run

    @rule(target=running, parent=running, operation=st.sampled_from(OPERATIONS), thread=THREAD)
    def start_below(self, parent: ActiveInvocation, operation: str, thread: int) -> ActiveInvocation:
        """Begin a child; its parent may have ended already."""
        run = self.on(thread, lambda: self.recorder.start(operation, "child", parent=parent))
        assert isinstance(run, ActiveInvocation)
        self.begun.add(run.invocation_id)
        self.open.append(run)
        return run

    @rule(run=consumes(running), thread=THREAD)
    def stop(self, run: ActiveInvocation, thread: int) -> None:
        """End as success."""
        self.on(thread, run.stop)
        self.ended[run.invocation_id] = "success"

    @rule(run=consumes(running), error=st.sampled_from((ValueError, TimeoutError)), thread=THREAD)
    def fail(self, run: ActiveInvocation, error: type[Exception], thread: int) -> None:
        """End with an exception, and once more, which is harmless."""
        self.on(thread, lambda: run.fail(error()))
        run.stop()
        self.ended[run.invocation_id] = "timeout" if error is TimeoutError else "error"

    @rule()
    def burst(self) -> None:
        """Many runs at once."""

        def work() -> None:
            for _ in range(BURST_RUNS):
                with track_agent("burst") as run:
                    mine.append(run.invocation_id)

        mine: list[str] = []
        threads = [threading.Thread(target=work) for _ in range(BURST_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.begun.update(mine)
        self.ended.update(dict.fromkeys(mine, "success"))

    @rule(capacity=st.sampled_from((64, 65_536)), service=st.sampled_from("xy"))
    def reconfigure(self, capacity: int, service: str) -> None:
        """Replace the configuration, with runs in progress and records queued."""
        configure(
            registry=self.registry, exporters=[self.sink], service=service, queue_capacity=capacity, on_full="block"
        )

    @rule(runs=st.integers(0, 20))
    def fork(self, runs: int) -> None:
        """A child records its own runs, and exports nothing that its parent had queued."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            self.in_child(writer, runs)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            begun, ended = json.loads(pipe.read())
        assert os.waitpid(child, 0)[1] == 0
        assert len(begun) == len(ended) == runs
        assert set(begun.values()) <= {1}
        assert sorted(self.begun & set(begun))[:SHOWN] == []

    def in_child(self, writer: int, runs: int) -> None:
        """Record, tell what was exported, and end at once."""
        self.sink.begun.clear()
        self.sink.ended.clear()
        for _ in range(runs):
            with track_agent("forked"):
                pass
        flushed = flush(30)
        os.write(writer, json.dumps([self.sink.begun, self.sink.ended]).encode())
        os._exit(0 if flushed else 1)

    @rule(thread=THREAD)
    def look(self, thread: int) -> None:
        """After a flush, what was recorded is exported, each once."""
        assert self.on(thread, lambda: flush(60))
        assert differences(self.sink.begun, self.begun) == ""
        assert set(self.sink.begun.values()) <= {1}
        assert mapping_differences(self.sink.ended, {run: [status] for run, status in self.ended.items()}) == ""

    @invariant()
    def gauges_and_counters_agree(self) -> None:
        """The metrics know how many run and how many have ended."""
        names = ("workflow_active_runs", "workflow_runs_total")
        found = dict.fromkeys(names, 0.0)
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name in found:
                    found[sample.name] += sample.value
        assert found["workflow_active_runs"] >= 0
        assert found["workflow_runs_total"] <= len(self.ended)

    def teardown(self) -> None:
        """Nothing is left behind that would be abandoned in the next example."""
        for run in self.open:
            if not run.ended:
                self.stop(run, 0)
        self.look(0)
        pipeline = self.recorder.pipeline
        self.stack.close()
        pipeline.shutdown()


# A child that is forked while other threads run is what is tested here.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
class TestRecording(Recording.TestCase):  # type: ignore[valid-type, misc]  # made at run time
    """Any order, any thread."""

    settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
