"""What budgets cost the caller of an LLM call: none, alerts only, enforced in this process, on SQLite, on PostgreSQL.

python benchmarks/bench_budgets.py                      (PostgreSQL where Debian's package is installed)
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from _postgres import postgres_server

from taskpilot_obs import track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.config import build_recorder
from taskpilot_obs.store import Store, upgrade

CALLS = 2_000
ROUNDS = 5
TARGETS_US = {"enforced in this process": 50, "enforced on SQLite": 1_000, "enforced on PostgreSQL": 3_000}


def budget(action: Any) -> Budget:
    """One that is never used up."""
    return Budget("team", limit_usd=1_000_000, action=action)


def measure(**options: Any) -> float:
    """Median microseconds of a `track_llm` block, of the best round."""
    recorder = build_recorder(registry=CollectorRegistry(), tracing=False, **options)
    medians = []
    for _ in range(ROUNDS):
        times = []
        for _ in range(CALLS):
            started = time.perf_counter_ns()
            with track_llm(model="gpt-4o", input_tokens=1_000, max_output_tokens=500, recorder=recorder) as call:
                call.record_usage(input_tokens=1_000, output_tokens=400)
            times.append(time.perf_counter_ns() - started)
        recorder.flush(30)
        medians.append(statistics.median(times) / 1e3)
    recorder.shutdown()
    return min(medians)


def main() -> None:
    """Print one line a case, beside what it may cost."""
    cases: dict[str, dict[str, Any]] = {
        "no budgets": {},
        "alerts only": {"budgets": [budget("alert")]},
        "enforced in this process": {"budgets": [budget("enforce")]},
    }
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = f"sqlite:///{folder}/telemetry.db"
        cases["enforced on SQLite"] = {"budgets": [budget("enforce")], "budget_store": url}
        if any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
            server = stack.enter_context(postgres_server(durable=True))
            store = Store(server.url())
            upgrade(store)
            store.close()
            cases["enforced on PostgreSQL"] = {"budgets": [budget("enforce")], "budget_store": server.url()}
        floor = measure()
        for name, options in cases.items():
            took = measure(**options)
            target = f"   target {TARGETS_US[name]:,} µs for the check" if name in TARGETS_US else ""
            print(f"{name:<28} {took:9.1f} µs a call   check {max(0.0, took - floor):9.1f} µs{target}", flush=True)


if __name__ == "__main__":
    main()
