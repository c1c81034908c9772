"""What exporting the metrics to a meter provider costs a record, off the caller's thread, and whether all arrive.

Run: python benchmarks/bench_otel_metrics.py [--quick]

Batches of records of runs, tools and LLM calls go through the metrics exporter alone, and through it with a meter
provider of the SDK; the difference of all rounds, taken in turn, and the collection at the end is the cost. Beside it:
the SDK's own `record`, which an observation would cost without adding in bulk. The collection must show every run.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from taskpilot_obs import semconv, track_agent, track_llm, track_tool
from taskpilot_obs.exporters.otel_metrics import OtelMetricsExporter
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.records import Invocation, Record, Started
from taskpilot_obs.testing import fresh_recorder

ROUNDS = 50 if "--quick" in sys.argv else 200
BATCH = 512


class Kept:
    """Keeps the records of a few tasks, as the benchmark's input."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def export(self, batch: Sequence[Record]) -> None:
        """Keep those of runs."""
        self.records += [record for record in batch if isinstance(record, Invocation | Started)]


def workload() -> list[Record]:
    """A batch of records: agents, each with a tool and an LLM call."""
    kept = Kept()
    with fresh_recorder(registry=CollectorRegistry(), exporters=[kept]) as recorder:
        for number in range(BATCH // 6):
            with track_agent(f"agent-{number % 4}"), track_tool("search"):
                pass
            with track_llm(model="gpt-4o", provider="openai") as call:
                call.record_usage(input_tokens=100 + number, output_tokens=number)
        recorder.flush()
    return kept.records


def seconds(action: Callable[[], object]) -> float:
    """Processor time of this thread."""
    before = time.thread_time()
    action()
    return time.thread_time() - before


def shown(reader: InMemoryMetricReader, name: str) -> int:
    """How many observations of a histogram a collection has."""
    data: Any = reader.get_metrics_data()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    return sum(point.count for metric in metrics if metric.name == name for point in metric.data.data_points)


def main() -> None:
    """Print the figures beside their marks."""
    records = workload()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    alone = PrometheusExporter(CollectorRegistry())
    followed = PrometheusExporter(CollectorRegistry())
    otel = OtelMetricsExporter(provider, followed)

    def with_otel() -> None:
        followed.export(records)
        otel.export(records)

    gc.disable()
    pairs = [(seconds(lambda: alone.export(records)), seconds(with_otel)) for _ in range(ROUNDS)]
    collecting = seconds(reader.get_metrics_data)
    gc.enable()
    less, more = (sum(column) / ROUNDS for column in zip(*pairs, strict=True))
    each = (more - less + collecting / ROUNDS) / len(records) * 1e6
    runs = sum(isinstance(record, Invocation) and record.operation == "invoke_agent" for record in records) * ROUNDS
    counted = shown(reader, semconv.AGENT_DURATION.name)
    histogram = provider.get_meter("bare").create_histogram("bare", unit="s")
    bare = min(seconds(lambda: [histogram.record(0.3, {"agent": "a"}) for _ in range(1_000)]) for _ in range(20)) * 1e3
    mark = 3 * max(1.0, bare / 5)  # a slow machine is measured by the SDK's own `record`
    print(f"metrics alone                      {less / len(records) * 1e6:8.2f} µs a record")
    print(f"added by the meter provider        {each:8.2f} µs a record   mark <= {mark:.1f}")
    print(f"one `record` of the SDK            {bare:8.2f} µs")
    print(f"one collection                     {collecting * 1e3:8.2f} ms")
    print(f"lost                               {runs - counted:8d} of {runs} runs   mark 0")
    provider.shutdown()
    if counted != runs or each > mark:
        sys.exit("a mark is missed")


if __name__ == "__main__":
    main()
