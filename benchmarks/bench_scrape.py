"""What a scrape of 2,000 series costs, and what booking a record costs. Run: python benchmarks/bench_scrape.py"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from statistics import median

from prometheus_client import CollectorRegistry, generate_latest

from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.records import Invocation, Operation, Record, Rollup, Started, Status
from taskpilot_obs.usage import Usage

SERIES = 2_000
LIMIT_MS = 30.0
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
BATCH = 64


def run(operation: Operation, name: str, **fields: object) -> tuple[Record, Record]:
    """A start and an end."""
    start = Started(operation, name, "req-1", "inv-1", None, None, name, 1)
    end = Invocation(Status.SUCCESS, 0.02, operation, name, "req-1", "inv-1", None, None, name, 1)
    is_task = fields.get("is_task", False)
    return start._replace(is_task=bool(is_task)), end._replace(**fields)  # type: ignore[arg-type]  # its own fields


def llm_call(agent: str, model: str) -> tuple[Record, Record]:
    """A priced LLM call with usage."""
    return run(
        Operation.CHAT,
        f"chat {model}",
        agent=agent,
        response_model=model,
        provider="openai",
        usage=Usage(1000, 200, cache_read_tokens=500),
        cost=Decimal("0.0045"),
        ttft_s=0.2,
    )


def lines(exposition: bytes) -> int:
    """Series in an exposition."""
    return sum(not line.startswith(b"#") for line in exposition.splitlines())


def filled() -> tuple[CollectorRegistry, PrometheusExporter]:
    """A registry with at least `SERIES` series: workflows, agents, tools and models as an application has them."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, service="bench", version="1")
    for number in count():
        agent = f"agent-{number}"
        exporter.export(run(Operation.AGENT, agent))
        exporter.export(run(Operation.TOOL, f"tool-{number}", agent=agent))
        exporter.export(llm_call(agent, f"model-{number % 5}"))
        if number % 5 == 0:
            exporter.export(run(Operation.WORKFLOW, f"workflow-{number}", is_task=True))
        if lines(render(registry)[0]) >= SERIES:
            return registry, exporter
    raise AssertionError


def milliseconds(action: Callable[[], object], repeat: int = 40) -> tuple[float, float]:
    """Best and median of an action."""
    took = []
    for _ in range(repeat):
        began = time.perf_counter()
        action()
        took.append((time.perf_counter() - began) * 1e3)
    return min(took), median(took)


def microseconds_per_run(exporter: PrometheusExporter, pair: tuple[Record, Record]) -> float:
    """CPU to book a start and an end, in batches as the drainer makes them; best of many."""
    batch = [record for _ in range(BATCH // 2) for record in pair]
    best = min(_cpu(lambda: exporter.export(batch)) for _ in range(400))
    return best * 1e6 / (BATCH // 2)


def _cpu(action: Callable[[], object]) -> float:
    began = time.thread_time()
    action()
    return time.thread_time() - began


def main() -> None:
    """Print the table."""
    registry, exporter = filled()
    print(f"{lines(render(registry)[0])} series                              best ms   median ms")
    for name, action in (
        ("our /metrics, classic text", lambda: render(registry)),
        ("our /metrics, OpenMetrics", lambda: render(registry, OPEN_METRICS)),
        ("prometheus_client, classic text", lambda: generate_latest(registry)),
    ):
        best, typical = milliseconds(action)
        verdict = "" if name.startswith("prometheus") else f"   (bar: {LIMIT_MS:g}, {best / LIMIT_MS:.2f} of it)"
        print(f"{name:<36} {best:>10.1f} {typical:>11.1f}{verdict}")
    print("\nbooking one start and its end                µs of CPU")
    for name, pair in (
        ("agent", run(Operation.AGENT, "agent-0")),
        ("agent as a task", run(Operation.AGENT, "agent-0", is_task=True, rollup=Rollup(cost=Decimal("0.01")))),
        ("tool", run(Operation.TOOL, "tool-0", agent="agent-0")),
        ("LLM call", llm_call("agent-0", "model-0")),
    ):
        print(f"{name:<36} {microseconds_per_run(exporter, pair):>17.2f}")


if __name__ == "__main__":
    main()
