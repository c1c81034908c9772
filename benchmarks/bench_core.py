"""What observing a call costs, beside doing it by hand and beside the bare span, in the same process.

Run: python benchmarks/bench_core.py [--quick]

W1 a function that does nothing, W2 the same as a coroutine, W3 a workflow of three agents with a tool each (7 calls),
W6 eight threads of W1. Times are microseconds added on the caller's thread: warm, best of many short rounds, less the
bare function; "paced" is the median of single calls at 2,000 a second. Every contestant is checked to have recorded.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, Unpack

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Histogram
from pythonjsonlogger.json import JsonFormatter

from taskpilot_obs import configure, get_recorder, observe_agent, observe_tool, observe_workflow, request_context
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.semconv import RUN_BUCKETS, Attr
from taskpilot_obs.settings import Options

QUICK = "--quick" in sys.argv
RESULTS = Path(__file__).with_name("results.json")
"""What docs/performance.md states, which `--keep` writes again."""
KEPT: dict[str, float] = {}
ROUNDS = 30 if QUICK else 150
CALLS = 200
PASSES = 1 if QUICK else 3
BURST = 20_000 if QUICK else 200_000
SOAK = 50_000 if QUICK else 500_000

Work = Callable[[], object]


class Discard(SpanExporter):
    """Counts spans and throws them away."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count."""
        self.count += len(spans)
        return SpanExportResult.SUCCESS


class ByHand:
    """What one writes without a library: a span, a counter and a histogram with bound children, a JSON line."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        runs = Counter("hand_runs", "Runs.", ["agent", "status"], registry=self.registry)
        self.good, self.bad = runs.labels("A", "success"), runs.labels("A", "error")
        duration = Histogram("hand_seconds", "Duration.", ["agent"], buckets=RUN_BUCKETS, registry=self.registry)
        self.duration = duration.labels("A")
        self.spans = Discard()
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(self.spans))
        self.tracer = provider.get_tracer("hand")
        self.stream = io.StringIO()
        self.logger = logging.getLogger("hand")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(JsonFormatter("{message}{levelname}", style="{", timestamp=True))
        self.logger.addHandler(handler)

    def __call__(self, function: Work) -> Work:
        """Decorate."""

        @functools.wraps(function)
        def wrapper() -> object:
            began = time.perf_counter()
            attributes = {Attr.OPERATION: "invoke_agent", Attr.AGENT_NAME: "A", Attr.REQUEST_ID: "req-1"}
            with self.tracer.start_as_current_span("invoke_agent A", attributes=attributes):
                result = function()
            seconds = time.perf_counter() - began
            self.good.inc()
            self.duration.observe(seconds)
            self.logger.info(
                "[AUDIT] A Output", extra={"agent": "A", "duration_ms": seconds * 1e3, "status": "success"}
            )
            return result

        return wrapper

    def asynchronous(self, function: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """Decorate a coroutine function."""

        @functools.wraps(function)
        async def wrapper() -> object:
            began = time.perf_counter()
            attributes = {Attr.OPERATION: "invoke_agent", Attr.AGENT_NAME: "A", Attr.REQUEST_ID: "req-1"}
            with self.tracer.start_as_current_span("invoke_agent A", attributes=attributes):
                result = await function()
            seconds = time.perf_counter() - began
            self.good.inc()
            self.duration.observe(seconds)
            self.logger.info(
                "[AUDIT] A Output", extra={"agent": "A", "duration_ms": seconds * 1e3, "status": "success"}
            )
            return result

        return wrapper


def nothing() -> None:
    """The work."""


async def nothing_later() -> None:
    """The work, as a coroutine."""


def settle() -> None:
    """Let everything recorded be written, so that the drainer does not run in the next round."""
    recorder = get_recorder()
    if recorder.parts is not None:
        recorder.flush(30)


def best(work: Work, calls: int = CALLS) -> float:
    """Microseconds of one call, the best of many rounds."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for _ in range(calls):
            work()
        fastest = min(fastest, (time.perf_counter_ns() - began) / calls)
        settle()
    return fastest / 1e3


def best_async(work: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of one awaited call, the best of many rounds."""

    async def rounds() -> float:
        fastest = float("inf")
        for _ in range(ROUNDS):
            began = time.perf_counter_ns()
            for _ in range(CALLS):
                await work()
            fastest = min(fastest, (time.perf_counter_ns() - began) / CALLS)
            settle()
        return fastest / 1e3

    return asyncio.run(rounds())


def paced(work: Work, calls: int = 2_000) -> float:
    """Median microseconds of single calls, 2,000 a second."""
    times = []
    for _ in range(calls if not QUICK else 500):
        began = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - began)
        time.sleep(0.0005)
    return median(times) / 1e3


def fresh(folder: Path, name: str, **options: Unpack[Options]) -> Recorder:
    """The default recorder with an audit log and a registry of its own."""
    options["audit_log"] = folder / f"{name}.jsonl"
    options["registry"] = CollectorRegistry()
    return configure(**options)


def row(name: str, value: float, unit: str, bar: str, *more: str) -> None:
    """Print one line of the table."""
    print(f"{name:<58} {value:>10.2f} {unit:<8} {bar:<14} {' '.join(more)}", flush=True)


def caller_cost(folder: Path) -> None:
    """W1, W2, W3 without a tracer provider, beside doing it by hand."""
    recorder = fresh(folder, "caller")
    agent, later = observe_agent("A")(nothing), observe_agent("A")(nothing_later)
    tool = observe_tool("t")(nothing)
    inner = observe_agent("A")(tool)
    workflow = observe_workflow("w")(lambda: (inner(), inner(), inner()))
    bare, bare_later = best(nothing), best_async(nothing_later)
    ours, ours_later = best(agent) - bare, best_async(later) - bare_later
    nested = best(workflow, 50) - 3 * bare
    steady = paced(agent) - paced(nothing)
    hand = ByHand()
    by_hand, by_hand_later = best(hand(nothing)) - bare, best_async(hand.asynchronous(nothing_later)) - bare_later
    recorder.drain()
    assert recorder.registry is not None
    assert recorder.registry.get_sample_value("agent_runs_total", {"agent": "A", "status": "success"}), "not recorded"
    assert hand.registry.get_sample_value("hand_runs_total", {"agent": "A", "status": "success"}), "not recorded"
    row(
        "W1 sync, metrics + audit + window",
        ours,
        "µs",
        "<= 1.2, 0.8",
        f"by hand {by_hand:.1f} µs, 1/{by_hand / ours:.0f}",
    )
    KEPT["caller_us"] = round(ours, 2)
    row(
        "W2 async, the same",
        ours_later,
        "µs",
        "<= 1.5, 1.0",
        f"by hand {by_hand_later:.1f} µs, 1/{by_hand_later / ours_later:.0f}",
    )
    row("W1 against by hand", by_hand / ours, "x", ">= 30")
    row("W1 paced at 2,000/s, median", steady, "µs", "")
    row("W3, 7 nested calls", nested, "µs", "<= 8, 6")


def disabled_cost(folder: Path) -> None:
    """A decorated call while switched off."""
    fresh(folder, "off", enabled=False)
    row("W1 with enabled=False", best(observe_agent("A")(nothing)) - best(nothing), "µs", "<= 0.2")


def span_cost(folder: Path) -> None:
    """W1 with the SDK and a batch processor, beside the bare span with the same attributes."""
    ours, bare = Discard(), Discard()
    provider, other = TracerProvider(), TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(ours))
    other.add_span_processor(BatchSpanProcessor(bare))
    fresh(folder, "span", tracer_provider=provider)
    agent = observe_agent("A")(nothing)
    tracer = other.get_tracer("bare")
    attributes = {Attr.OPERATION: "invoke_agent", Attr.AGENT_NAME: "A", Attr.REQUEST_ID: "req-1"}

    def by_api() -> None:
        with tracer.start_as_current_span("invoke_agent A", attributes=attributes):
            nothing()

    with request_context("req-1"):
        pairs = [(best(agent), best(by_api)) for _ in range(3)]
    mine, theirs = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    provider.force_flush()
    other.force_flush()
    assert ours.count, "not recorded"
    assert bare.count, "not recorded"
    row("W1 with an SDK, batch processor", mine, "µs", "", f"bare start_as_current_span {theirs:.1f} µs")
    row("W1 with an SDK against the bare span", mine / theirs, "x", "<= 1.0")


def cpu_cost(folder: Path) -> None:
    """Processor time of the whole process, every record written."""
    recorder = fresh(folder, "cpu")
    agent = observe_agent("A")(nothing)
    calls, spent = 20_000 if QUICK else 100_000, float("inf")
    for _ in range(PASSES):
        began = time.process_time()
        for _ in range(calls):
            agent()
        settle()
        spent = min(spent, (time.process_time() - began) / calls * 1e6)
    recorder.shutdown()
    lines = sum(1 for path in folder.glob("cpu.jsonl*") for _ in path.open())
    assert lines == 2 * calls * PASSES, f"{lines} lines"
    by_hand = cpu_by_hand(calls // 10)
    row(
        "process CPU per call, two audit lines written and chained",
        spent,
        "µs",
        "<= 15, 10",
        f"by hand, one line {by_hand:.1f} µs, 1/{by_hand / spent:.1f}",
    )


def cpu_by_hand(calls: int) -> float:
    """Processor time of a call under the decorator by hand: one line, unchained, into memory."""
    hand = ByHand()
    work = hand(nothing)
    began = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - began) / calls * 1e6


def hammer(work: Work, calls: int, look: Callable[[], None] = nothing) -> float:
    """Seconds that eight threads take for so many calls."""

    def share() -> None:
        for _ in range(calls // 8):
            work()

    threads = [threading.Thread(target=share) for _ in range(8)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        look()
        time.sleep(0.01)
    return time.perf_counter() - began


class Burst(NamedTuple):
    """What became of many calls on eight threads: seconds, and what was lost."""

    accepted_s: float
    written_s: float
    lost: int
    lost_lines: int
    largest: int
    """How much has waited."""


def burst(folder: Path) -> Burst:
    """Eight threads, timed until everything is flushed."""
    recorder = fresh(folder, "burst")
    largest = 0

    def look() -> None:
        nonlocal largest
        largest = max(largest, recorder.pipeline.backlog)

    began = time.perf_counter()
    accepted = hammer(observe_agent("A")(nothing), BURST, look)
    assert recorder.flush(120)
    written = time.perf_counter() - began
    recorder.drain()
    assert recorder.registry is not None
    counted = recorder.registry.get_sample_value("agent_runs_total", {"agent": "A", "status": "success"})
    recorder.shutdown()
    lines = sum(1 for path in folder.glob("burst.jsonl*") for _ in path.open())
    return Burst(accepted, written, BURST - int(counted or 0), 2 * BURST - lines, largest)


def throughput(folder: Path) -> None:
    """W6, the best of a few bursts, and what was lost in any."""
    bursts = []
    for number in range(PASSES):
        (folder / f"burst{number}").mkdir()
        bursts.append(burst(folder / f"burst{number}"))
    accepted, written = (BURST / min(values) for values in list(zip(*bursts, strict=True))[:2])
    by_hand = BURST // 10 / hammer(ByHand()(nothing), BURST // 10)
    row("W6, 8 threads: calls accepted", accepted, "1/s", "150000", f"queue at most {max(b.largest for b in bursts)}")
    row(
        "W6, 8 threads: calls written",
        written,
        "1/s",
        ">= 60000, 100000",
        f"by hand {by_hand:.0f}, {written / by_hand:.1f} x",
    )
    lines = sum(each.lost_lines for each in bursts)
    row("W6 lost (metrics / audit lines)", sum(each.lost for each in bursts), "", "0", f"/ {lines}")


def memory(folder: Path) -> None:
    """Growth over many runs with unique request IDs, after the queue was full once."""
    recorder = fresh(folder, "memory")
    agent = observe_agent("A")(nothing)

    def run(count: int) -> None:
        for number in range(count):
            with request_context(f"req-{number}"):
                agent()

    run(140_000)
    recorder.flush(60)
    gc.collect()
    before = rss()
    run(SOAK)
    recorder.flush(60)
    gc.collect()
    row(f"memory, {SOAK:,} runs with unique request IDs", (rss() - before) / 1e6, "MB", "< 15")


def rss() -> int:
    """Resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def import_time() -> None:
    """What the import adds to that of its dependencies, once it is compiled."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = (
        "import time, prometheus_client, pydantic, opentelemetry.trace, opentelemetry.context; t = time.perf_counter();"
        "import taskpilot_obs; print(time.perf_counter() - t)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout)  # noqa: S603  ourselves
        for _ in range(3 if QUICK else 9)
    ]
    row("import taskpilot_obs, beyond its dependencies", min(times) * 1e3, "ms", "<= 40")
    KEPT["import_ms"] = round(min(times) * 1e3, 1)


def main() -> None:
    """Print the table."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"rounds": ROUNDS, "burst": BURST, "soak": SOAK}))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (caller_cost, disabled_cost, span_cost, cpu_cost, throughput, memory):
            part(folder)
        get_recorder().shutdown()  # while its folder is still there
    import_time()
    if "--keep" in sys.argv:
        RESULTS.write_text(json.dumps(KEPT, indent=1) + "\n", encoding="utf-8")
        print(f"kept in {RESULTS.name}: `make docs` writes them into the pages")


if __name__ == "__main__":
    main()
