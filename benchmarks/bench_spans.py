"""What observing costs beyond a bare span, and where it goes: `python -m benchmarks spans`.

Run: python benchmarks/bench_spans.py [--quick]

Everything is processor time of the process in microseconds a call, measured in one run, and given beside the bare span
of that run: `start_as_current_span` with the same three attributes and a batch processor. Calls come in a burst, and in
groups of 500 that are written before the next ones come, as where agents wait for models. The least work is what any
code in Python must do for the same result: the bare span, an append, two lines of JSON, hashed in a chain and written.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench_core import Discard, fresh, nothing, settle  # type: ignore[import-not-found]  # beside this file
from bench_stages import (  # type: ignore[import-not-found]  # beside this file
    CollectorTime,
    provider_with,
    row,
    stages_of,
    without_drainer,
)
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from taskpilot_obs import get_recorder, observe_agent, request_context
from taskpilot_obs.semconv import Attr

QUICK = "--quick" in sys.argv
CALLS = 4_000 if QUICK else 20_000
ROUNDS = 3 if QUICK else 7
GROUP = 500
ATTRIBUTES = {Attr.OPERATION: "invoke_agent", Attr.AGENT_NAME: "A", Attr.REQUEST_ID: "req-1"}
BAR = 15.0

Work = Callable[[], object]


class Cost(NamedTuple):
    """What a call costs the process, and how much of it the garbage collector takes."""

    call: float
    collector: float


class Contestant(NamedTuple):
    """A call, and what waits until everything of it is written."""

    work: Work
    finish: Work


def cost(of: Contestant, group: int) -> Cost:
    """The median of some rounds, in groups of so many calls."""
    spent = []
    with CollectorTime() as collector:
        for _ in range(ROUNDS):
            began = time.process_time()
            for _ in range(CALLS // group):
                for _ in range(group):
                    of.work()
                of.finish()
            spent.append((time.process_time() - began) / CALLS * 1e6)
    return Cost(median(spent), collector.seconds / ROUNDS / CALLS * 1e6)


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect no garbage."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class LeastWork:
    """Two sealed lines for each call, with nothing that a library needs: no bounds, no redaction, no failures."""

    def __init__(self, path: Path, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("least")
        self._queue: deque[tuple[int, int, trace.SpanContext]] = deque()
        self._file = path.open("ab", buffering=0)
        self._seal = "0" * 64
        self._wake, self._done = threading.Event(), threading.Event()
        self.lines = 0
        threading.Thread(target=self._drain, daemon=True).start()

    def work(self) -> None:
        """One call."""
        began = time.time_ns()
        with self._tracer.start_as_current_span("invoke_agent A", attributes=ATTRIBUTES) as span:
            nothing()
        self._queue.append((began, time.time_ns(), span.get_span_context()))

    def finish(self) -> None:
        """Wait until every line is written."""
        self._done.clear()
        self._wake.set()
        self._done.wait()

    def _drain(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._queue:
                some = [self._queue.popleft() for _ in range(min(len(self._queue), 256))]
                os.write(self._file.fileno(), "".join([line for each in some for line in self._lines(*each)]).encode())
            self._done.set()

    def _lines(self, began: int, ended: int, context: trace.SpanContext) -> Iterator[str]:
        ids = f'"request_id":"req-1","trace_id":"{context.trace_id:032x}","span_id":"{context.span_id:016x}"'
        for event, moment in (("agent_input", began), ("agent_output", ended)):
            text = f'{{"timestamp":{moment},"log_type":"audit","event":"{event}","agent":"A",{ids}'
            self._seal = hashlib.sha256(f"{self._seal}{text}".encode()).hexdigest()
            self.lines += 1
            yield f'{text},"seq":{self.lines},"hash":"{self._seal}"}}\n'


def contestants(folder: Path) -> Iterator[tuple[str, Contestant]]:
    """Each is the only one at work while it is measured."""
    bare, least, ours = (provider_with(Discard()) for _ in range(3))
    tracer = bare.get_tracer("bare")

    def by_api() -> None:
        with tracer.start_as_current_span("invoke_agent A", attributes=ATTRIBUTES):
            nothing()

    yield "the bare span", Contestant(by_api, bare.force_flush)
    by_hand = LeastWork(folder / "least.jsonl", least)

    def finish_least() -> None:
        by_hand.finish()
        least.force_flush()

    yield "with the least work for two sealed lines", Contestant(by_hand.work, finish_least)
    fresh(folder, "plain")
    yield "ours, no tracer provider", Contestant(observe_agent("A")(nothing), settle)
    fresh(folder, "spans", tracer_provider=ours)

    def finish() -> None:
        settle()
        ours.force_flush()

    yield "ours with spans", Contestant(observe_agent("A")(nothing), finish)


def whole(folder: Path) -> None:
    """The whole process: in a burst and in groups, with the collector and without."""
    found: dict[tuple[int, bool], dict[str, Cost]] = {}
    for name, contestant in contestants(folder):
        for group in (CALLS, GROUP):
            found.setdefault((group, True), {})[name] = cost(contestant, group)
            with collector_off():
                found.setdefault((group, False), {})[name] = cost(contestant, group)
    for (group, collects), costs in found.items():
        print(f"{'in a burst' if group == CALLS else f'in groups of {group}'}, collector {'on' if collects else 'off'}")
        bare = costs["the bare span"].call
        for name, each in costs.items():
            beyond = (
                "" if each.call == bare else f"beyond the bare span {each.call - bare:5.1f}, {each.call / bare:.2f} x"
            )
            row(f"  {name}", each.call, f"collector {each.collector:.1f}   {beyond}")
    row("to reach beyond the bare span", BAR)


def free_spans() -> tuple[float, float]:
    """The caller's part, where a span itself costs nothing: ours, and `start_as_current_span`."""
    tracer = trace.NoOpTracerProvider().get_tracer("free")
    agent = observe_agent("A")(nothing)
    return thread_time(agent), thread_time(lambda: _by(tracer))


def _by(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("invoke_agent A", attributes=ATTRIBUTES):
        nothing()


def thread_time(work: Work) -> float:
    """Processor time of this thread, the least of some rounds."""
    took = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(CALLS):
            work()
        took.append((time.thread_time() - began) / CALLS * 1e6)
    return min(took)


def parts(folder: Path) -> None:
    """What spans add to each stage by itself, without the collector."""
    stages = {}
    for spans in (False, True):
        recorder = fresh(folder, f"parts-{spans}", **({"tracer_provider": provider_with(Discard())} if spans else {}))
        pipeline = without_drainer(recorder)
        (batched,) = pipeline.batched
        agent = observe_agent("A")(nothing)
        with collector_off():
            rounds = [stages_of(pipeline, batched.exporter, agent) for _ in range(ROUNDS)]
        stages[spans] = {stage: median(each[stage] for each in rounds) for stage in rounds[0]}
    fresh(folder, "free", tracer_provider=trace.NoOpTracerProvider())
    pipeline = without_drainer(get_recorder())
    ours, theirs = free_spans()
    pipeline.queue.clear()
    print("what spans add to each stage, each by itself, collector off")
    row("  around a span that costs nothing, on the caller's thread", ours, f"start_as_current_span {theirs:.2f}")
    names = {
        "on the caller's thread": "on the caller's thread, the SDK's span included",
        "freezing a start and an end into records": "reading the span's IDs into records",
        "prometheus": "exemplars of the histograms",
        "the text of two audit lines": "IDs in the text of two lines",
        "sealing and writing them": "longer lines to hash and to write",
    }
    for stage, name in names.items():
        row(f"  {name}", stages[True][stage] - stages[False][stage], f"{stages[False][stage]:.2f} without spans")


def main() -> None:
    """Print the tables."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"calls": CALLS, "rounds": ROUNDS}))
    with tempfile.TemporaryDirectory() as name, request_context("req-1"):
        whole(Path(name))
        parts(Path(name))
        get_recorder().shutdown()  # while its folder is still there


if __name__ == "__main__":
    main()
