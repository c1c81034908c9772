"""What the telemetry store takes in a second, what a call takes on disk, and how long a question takes.

Run: python benchmarks/bench_store.py [--full]   (100,000 calls; with --full a million, as the figures in the docs)

PostgreSQL is measured where Debian's package is installed, with its default settings, waiting for the disk.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from _postgres import postgres_server

from taskpilot_obs.records import Invocation, Operation, Status, Usage
from taskpilot_obs.stats import get_cost_breakdown, get_stats, get_tenants_report
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, upgrade

BATCH = 1_024
NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
START_NS = int((NOW - timedelta(days=30)).timestamp()) * 1_000_000_000
LIMIT_BYTES = 600
MODELS = (
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-4o-mini-2024-07-18"),
    ("anthropic", "claude-sonnet-4-20250514"),
    ("google", "gemini-2.0-flash"),
)


def calls(amount: int) -> Iterator[list[Invocation]]:
    """Batches of calls, evenly over the last 30 days: 4 models, 5 agents, 20 tenants, 1,000 users."""
    step = 30 * 86_400 * 1_000_000_000 // amount
    random.seed(1)
    for first in range(0, amount, BATCH):
        yield [_call(number, START_NS + number * step) for number in range(first, min(first + BATCH, amount))]


def _call(number: int, at: int) -> Invocation:
    provider, model = MODELS[number % 4]
    tokens_in, tokens_out = random.randrange(200, 6_000), random.randrange(20, 900)
    latency = random.lognormvariate(0.0, 0.7)
    failed = random.random() < 0.02
    return Invocation(
        Status.ERROR if failed else Status.SUCCESS,
        latency,
        Operation.CHAT,
        "chat",
        f"{random.getrandbits(128):032x}",
        f"9f86d081884c7d65{number:010x}",
        f"9f86d081884c7d65{number // 4:010x}",
        "support-triage",
        f"PlannerAgent{number % 5}",
        at,
        error_type="openai.RateLimitError" if failed else None,
        error_category="rate_limit" if failed else None,
        usage=Usage(tokens_in, tokens_out, tokens_in // 3, None, None, None, None, 0, None),
        cost=Decimal(tokens_in * 25 + tokens_out * 100).scaleb(-7),
        cost_source="price_table",
        request_model=model,
        response_model=model,
        provider=provider,
        streaming=number % 2 == 0,
        ttft_s=latency * random.uniform(0.1, 0.5) if number % 2 == 0 else None,
        trace_id=f"{random.getrandbits(128):032x}",
        tenant=f"tenant-{number % 20}",
        user=f"user-{number % 997}",
        attributes={"prompt_name": "plan-v2"},
    )


@contextmanager
def timed(what: str, limit_ms: float | None = None) -> Iterator[None]:
    """Print how long something took."""
    began = time.perf_counter()
    yield
    took = (time.perf_counter() - began) * 1_000
    bar = "" if limit_ms is None else f"   (bar {limit_ms:,.0f} ms)"
    print(f"  {what:<46} {took:>10,.1f} ms{bar}", flush=True)


def ingest(exporter: StoreExporter, amount: int, bar: int) -> None:
    """Write all calls; what it takes to make them is left out."""
    spent = 0.0
    memory = 0
    for number, batch in enumerate(calls(amount)):
        began = time.perf_counter()
        exporter.export(batch)
        spent += time.perf_counter() - began
        if number == amount // BATCH // 10:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1_024
    print(f"  {'ingest, written and committed':<46} {amount / spent:>10,.0f} calls/s   (bar {bar:,})")
    print(f"  {'memory grown over the last nine tenths':<46} {grown:>10,.1f} MB")


def ask(store: Store, bars: tuple[float, float]) -> None:
    """The same questions without summaries and with."""
    questions: tuple[tuple[str, Callable[[], object]], ...] = (
        ("get_stats(30d)", lambda: get_stats("30d", store=store, now=NOW)),
        ("get_stats(30d, tenant)", lambda: get_stats("30d", store=store, now=NOW, tenant_id="tenant-7")),
        ("get_cost_breakdown(30d)", lambda: get_cost_breakdown("30d", store=store, now=NOW)),
        ("get_tenants_report(30d)", lambda: get_tenants_report("30d", store=store, now=NOW)),
    )
    answers = []
    for state, bar in zip(("rows", "summaries"), bars, strict=True):
        for number, (name, question) in enumerate(questions):
            question()
            with timed(f"{name} from {state}", None if number else bar):
                answers.append(question())
        if state == "rows":
            with timed("aggregate_summaries('daily'), all"):
                aggregate_summaries("daily", None, store=store)
    first, again = answers[0], answers[len(questions)]
    assert (first.requests, first.cost_usd) == (again.requests, again.cost_usd)  # type: ignore[attr-defined]  # Stats


def sqlite(amount: int) -> None:
    """One file."""
    print(f"SQLite, {amount:,} calls")
    with tempfile.TemporaryDirectory() as folder:
        exporter = StoreExporter(f"sqlite:///{folder}/telemetry.db")
        ingest(exporter, amount, 20_000)
        with exporter.store.engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        size = Path(folder, "telemetry.db").stat().st_size / amount
        print(f"  {'size with indexes':<46} {size:>10,.0f} bytes/call   (bar {LIMIT_BYTES})")
        ask(exporter.store, (1_500.0, 100.0))
        exporter.shutdown(5.0)
    assert size <= LIMIT_BYTES


def postgresql(amount: int) -> None:
    """A server of its own."""
    print(f"PostgreSQL, {amount:,} calls")
    with postgres_server(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        store = Store(server.url())
        upgrade(store)
        store.close()
        exporter = StoreExporter(server.url(), spool_dir=folder)
        ingest(exporter, amount, 10_000)
        with exporter.store.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        ask(exporter.store, (1_500.0, 100.0))
        exporter.shutdown(5.0)


def main() -> None:
    """Measure both engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="a million calls")
    amount = 1_000_000 if parser.parse_args().full else 100_000
    sqlite(amount)
    if any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        postgresql(amount)


if __name__ == "__main__":
    main()
