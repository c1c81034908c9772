"""Where the processor time of a call goes: each stage by itself, and the whole process, with and without spans.

Run: python benchmarks/bench_stages.py [--quick]

A stage is timed alone, on one thread and without the collector, over the records of real calls in batches of the
drainer's size; the figures are medians in microseconds of processor time a call. The floor of a stage is what any
implementation in Python must do for the same bytes: hash them, join the lines, pass them to the operating system. The
whole process is timed with the library's own threads, until everything is written; the bare span has the same three
attributes and a batch processor.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

from bench_core import Discard, fresh, nothing, settle  # type: ignore[import-not-found]  # beside this file
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from taskpilot_obs import get_recorder, observe_agent, request_context
from taskpilot_obs._pipeline.pipeline import CHUNK
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.semconv import Attr

QUICK = "--quick" in sys.argv
CALLS = 4_000 if QUICK else 20_000
ROUNDS = 3 if QUICK else 9
BATCH = 1_024
"""How many records the audit log's worker takes at a time."""

Work = Callable[[], object]


class Whole(NamedTuple):
    """What a call costs the whole process, in microseconds of processor time."""

    call: float
    collector: float
    """The part of it in which the garbage collector runs."""


def row(name: str, value: float, note: str = "") -> None:
    """Print one line of the table."""
    print(f"{name:<58} {value:>8.2f} µs   {note}", flush=True)


def provider_with(spans: Discard) -> TracerProvider:
    """A tracer provider with a batch processor, as an application has it."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(spans))
    return provider


# --- the stages, each by itself --------------------------------------------------------------------------------------


def without_drainer(recorder: Recorder) -> Any:
    """The pipeline of a recorder, whose queue fills up because nothing drains it."""
    pipeline: Any = recorder.pipeline
    pipeline._unstarted.clear()  # noqa: SLF001  no drainer is started
    pipeline._drainer = object()  # noqa: SLF001
    pipeline.high_water = sys.maxsize
    return pipeline


def timed(work: Work) -> float:
    """Processor time of this thread, in microseconds a call."""
    began = time.thread_time()
    work()
    return (time.thread_time() - began) / CALLS * 1e6


def batches(items: list[Any], size: int) -> list[tuple[Any, ...]]:
    """The items in batches."""
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def stages_of(pipeline: Any, exporter: AuditLogExporter, work: Work) -> dict[str, float]:
    """Time one round: calls, then each stage over what they queued."""
    costs = {"on the caller's thread": timed(lambda: [work() for _ in range(CALLS)])}
    items = batches(list(pipeline.queue), CHUNK)
    pipeline.queue.clear()
    frozen: list[list[Any]] = [[] for _ in items]

    def freeze() -> None:
        for batch, records in zip(items, frozen, strict=True):
            for item in batch:
                item.freeze(records)

    costs["freezing a start and an end into records"] = timed(freeze)
    for name, each in pipeline._in_memory.items():  # noqa: SLF001
        exported = [tuple(records) for records in frozen]
        costs[name] = timed(lambda each=each, exported=exported: [each.export(batch) for batch in exported])  # type: ignore[misc]
    written = batches([record for records in frozen for record in records], BATCH)
    texts: list[list[str]] = []
    costs["the text of two audit lines"] = timed(
        lambda: texts.extend(exporter._texts(batch)[0] for batch in written)  # noqa: SLF001
    )
    costs["sealing and writing them"] = timed(lambda: [exporter._append(batch) for batch in texts])  # noqa: SLF001
    costs["  of which a floor: hashing, joining and writing the bytes"] = floor([t for batch in texts for t in batch])
    return costs


def floor(texts: list[str]) -> float:
    """Hash, join and write lines of this size, with nothing around it."""
    lines = [f"{text}{'0' * 170}\n" for text in texts]

    def write() -> None:
        with tempfile.TemporaryFile() as file:
            for batch in batches(lines, 32):
                for line in batch:
                    hashlib.sha256(line.encode()).hexdigest()
                os.write(file.fileno(), "".join(batch).encode())

    return timed(write)


def stages(folder: Path, *, spans: bool) -> None:
    """Print what each stage costs a call."""
    name = "spans" if spans else "plain"
    recorder = fresh(folder, name, **({"tracer_provider": provider_with(Discard())} if spans else {}))
    pipeline = without_drainer(recorder)
    (exporter,) = (batched.exporter for batched in pipeline.batched)
    agent = observe_agent("A")(nothing)
    gc.disable()  # the whole process shows its part; here it would depend on how much the round keeps
    with request_context("req-1"):
        rounds = [stages_of(pipeline, exporter, agent) for _ in range(ROUNDS)]
    gc.enable()
    total = 0.0
    for stage in rounds[0]:
        cost = median(each[stage] for each in rounds)
        total += 0 if stage.startswith(" ") else cost
        row(f"  {stage}", cost)
    row("  all stages", total)


# --- the whole process -----------------------------------------------------------------------------------------------


class CollectorTime:
    """Sums the processor time that the garbage collector takes, while it is entered."""

    def __enter__(self) -> Self:
        self.seconds = self._began = 0.0
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._began


def whole(work: Work, finish: Work) -> Whole:
    """Processor time of the process a call, until everything is written."""
    spent: list[float] = []
    with CollectorTime() as collector:
        for _ in range(ROUNDS):
            began = time.process_time()
            for _ in range(CALLS):
                work()
            finish()
            spent.append((time.process_time() - began) / CALLS * 1e6)
    return Whole(median(spent), collector.seconds / ROUNDS / CALLS * 1e6)


def whole_process(folder: Path) -> None:
    """Print what a call costs the process: the bare span, ours without spans, and ours with spans."""
    ours, theirs = Discard(), Discard()
    provider, other = provider_with(ours), provider_with(theirs)
    tracer = other.get_tracer("bare")
    attributes = {Attr.OPERATION: "invoke_agent", Attr.AGENT_NAME: "A", Attr.REQUEST_ID: "req-1"}

    def by_api() -> None:
        with tracer.start_as_current_span("invoke_agent A", attributes=attributes):
            nothing()

    def finish() -> None:
        settle()
        provider.force_flush()

    with request_context("req-1"):
        bare = whole(by_api, other.force_flush)
        fresh(folder, "without")
        plain = whole(observe_agent("A")(nothing), settle)
        fresh(folder, "with", tracer_provider=provider)
        both = whole(observe_agent("A")(nothing), finish)
    assert ours.count, "not recorded"
    assert theirs.count, "not recorded"
    row("the bare span with a batch processor", bare.call, f"collector {bare.collector:.1f}")
    row("ours, no tracer provider", plain.call, f"collector {plain.collector:.1f}; bar 15, to reach 10")
    row("ours with spans", both.call, f"collector {both.collector:.1f}; to reach: the bare span + 15")
    row("ours with spans, less the bare span", both.call - bare.call, f"{both.call / bare.call:.2f} x")
    row("ours with spans, less both by themselves", both.call - bare.call - plain.call)


def main() -> None:
    """Print the tables."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole_process(folder)
        for spans in (False, True):
            print("each stage, with spans" if spans else "each stage, no tracer provider")
            stages(folder, spans=spans)
        get_recorder().shutdown()  # while its folder is still there


if __name__ == "__main__":
    main()
