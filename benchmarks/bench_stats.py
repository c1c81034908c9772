"""What statistics without a store cost: on the caller, in memory and per question, and what `record_llm_call` costs.

The caller's share is the difference between recording with the calls held and without, in turns, of which the median
counts. Times are those of the asking thread's own work, the least of many passes.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median

from prometheus_client import CollectorRegistry

from taskpilot_obs import Usage, configure, get_recorder, observe_llm, record_llm_call
from taskpilot_obs._telemetry.window import MAX_CALLS, CallWindow
from taskpilot_obs.records import Invocation, Operation, Status
from taskpilot_obs.stats import get_cost_breakdown, get_cost_summary, get_stats, get_tenant_stats

PASSES = 40
CALLS = 1_000
USAGE = Usage(1_000, 200)


def row(name: str, value: float, unit: str, bar: str) -> None:
    """Print a figure beside its bar."""
    print(f"{name:<58} {value:>10.2f} {unit:<8} {bar}", flush=True)


def fresh(held: int) -> None:
    """Configure from nothing."""
    configure(registry=CollectorRegistry(), tracing=False, stats_calls=held)


def best(work: Callable[[], object]) -> float:
    """The least time of a call, in microseconds, with the queue empty before each pass."""
    found = []
    for _ in range(PASSES):
        get_recorder().drain()
        began = time.thread_time()
        for _ in range(CALLS):
            work()
        found.append((time.thread_time() - began) / CALLS * 1e6)
    return min(found)


def record() -> object:
    """Record a call after the fact."""
    return record_llm_call(model="gpt-4o", provider="openai", usage=USAGE, duration_seconds=0.5, agent="planner")


@observe_llm(model="gpt-4o", provider="openai")
def call() -> None:
    """A live call."""


def caller() -> None:
    """On the thread of the caller."""
    shares = []
    for _ in range(5):
        fresh(0)
        without = best(call)
        fresh(MAX_CALLS)
        shares.append(best(call) - without)
    row("in-process statistics, on the caller", median(shares), "µs", "<= 0.2")
    row("record_llm_call", best(record), "µs", "<= 8")


def stranger(number: int) -> Invocation:
    """A finished call that shares no value with another."""
    name = f"{number:08d}"
    duration_s = number / 3_333
    return Invocation(
        status=Status.SUCCESS,
        duration_s=duration_s,
        operation=Operation.CHAT,
        name="chat",
        request_id=f"{name}{'f' * 24}",
        invocation_id=name,
        parent_id=None,
        workflow=f"workflow {number % 20}",
        agent=f"agent {number % 30}",
        start_unix_ns=time.time_ns() - int(duration_s * 1e9),
        tenant=f"tenant {number % 500}",
        user=f"user-{name}-{'x' * 24}",
        session=f"session-{name}-{'x' * 24}",
        request_model=f"model-{number % 20}",
        provider=f"provider-{number % 5}",
        usage=Usage(number * 99, number * 77, number, number, reasoning_tokens=number),
        cost=Decimal(number) / 999_983,
        ttft_s=number / 7_777,
    )


def memory_and_questions() -> None:
    """At the default bound, with values of their own for every call."""
    fresh(MAX_CALLS)
    parts = get_recorder().parts
    assert parts is not None
    assert isinstance(parts.calls, CallWindow)
    tracemalloc.start()
    for number in range(MAX_CALLS):
        parts.calls.export((stranger(number),))
    row("memory of 10,000 held calls", tracemalloc.get_traced_memory()[0] / 1e6, "MB", "<= 20")
    tracemalloc.stop()
    assert get_stats("24h").requests == MAX_CALLS
    questions: dict[str, Callable[[], object]] = {
        "get_stats": lambda: get_stats("24h"),
        "get_tenant_stats": lambda: get_tenant_stats("tenant 7"),
        "get_cost_breakdown": lambda: get_cost_breakdown("24h"),
        "get_cost_summary": lambda: get_cost_summary("day", now=datetime.now(UTC)),
    }
    for name, ask in questions.items():
        took = []
        for _ in range(15):
            began = time.thread_time()
            ask()
            took.append((time.thread_time() - began) * 1e3)
        row(f"{name} over 10,000 held calls", min(took), "ms", "<= 50")


def main() -> None:
    """Print all figures."""
    caller()
    memory_and_questions()
    get_recorder().shutdown()


if __name__ == "__main__":
    main()
