"""A telemetry store after years: questions, reports and erasures over millions of calls.

Run: python benchmarks/bench_store_years.py [--calls 1000000] [--engine sqlite | postgresql]

The calls are spread over 30 days, 20 tenants, 20 series of models and agents and about 1,000 users. The report is
measured on a second store with 500 models and 50,000 tenants (as many calls as tenants, twice).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from _postgres import postgres_server
from _stored import llm_call, new_database
from bench_store import BATCH, NOW, calls, timed  # type: ignore[import-not-found]  # beside this file

from taskpilot_obs.stats import get_stats, write_report
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, erase, upgrade
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

TENANTS, MODELS = 50_000, 500


def fill(store: Store, amount: int) -> None:
    """Write the calls, and sum them up."""
    writer = Writer(store)
    with timed(f"{amount:,} calls written"):
        for batch in calls(amount):
            writer.write(rows_of(batch))
    with timed("aggregate_summaries('daily'), all"):
        aggregate_summaries("daily", None, store=store)
    if not store.is_sqlite:
        with store.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()


def ask(store: Store) -> None:
    """The questions of the issue, warm."""
    for name, limit_ms, asked in (
        ("get_stats('30d') from summaries", 150, {}),
        ("get_stats('30d', user=…)", 300, {"user": "user-7"}),
        ("get_stats('30d', tenant=…)", 300, {"tenant": "tenant-7"}),
        ("get_stats('30d', service=…)", 300, {"service": "billing"}),
    ):
        get_stats("30d", store=store, now=NOW, **asked)
        with timed(name, limit_ms):
            get_stats("30d", store=store, now=NOW, **asked)


@contextmanager
def writing(url: str, spool: str) -> Iterator[list[float]]:
    """Write a call every five milliseconds meanwhile; how long each took, in milliseconds."""
    waits: list[float] = []
    done = threading.Event()
    exporter = StoreExporter(url, spool_dir=spool)

    def keep_writing() -> None:
        while not done.is_set():
            began = time.perf_counter()
            exporter.export([llm_call(NOW, user="another")])
            waits.append((time.perf_counter() - began) * 1_000)
            time.sleep(0.005)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    yield waits
    done.set()
    thread.join()
    exporter.shutdown(5.0)


def forget(store: Store, url: str, folder: str) -> None:
    """Erase one user beside a writer."""
    with writing(url, folder) as waits, timed("erase(user=…)", 10_000):
        done = erase(user="user-8", store=store, spool_dir=folder)
    ordered = sorted(waits)
    print(
        f"  {done.erased['llm_call_telemetry']:,} calls erased; a writer beside waited "
        f"{ordered[len(ordered) // 2]:.1f} ms (median), {ordered[int(len(ordered) * 0.99)]:.1f} ms (p99), "
        f"{ordered[-1]:.1f} ms (most) of {len(ordered):,} writes   (bar 50 ms)"
    )


def report(store: Store, folder: str) -> None:
    """A report on many models and tenants."""
    writer = Writer(store)
    for first in range(0, 2 * TENANTS, BATCH):
        batch = [
            llm_call(
                NOW - timedelta(seconds=(n * 26) % 2_592_000),
                response_model=f"model-{n % MODELS}",
                tenant=f"tenant-{n % TENANTS}",
                agent=f"agent-{n % 10}",
            )
            for n in range(first, min(first + BATCH, 2 * TENANTS))
        ]
        writer.write(rows_of(batch))
    for state in ("rows", "summaries"):
        with timed(f"report: {MODELS} models, {TENANTS:,} tenants, {state}", 5_000):
            write_report(Path(folder) / "report.html", "30d", store=store, now=NOW)
        if state == "rows":
            aggregate_summaries("daily", None, store=store)


def measure(name: str, urls: tuple[str, str], amount: int, folder: str) -> None:
    """One engine."""
    print(f"{name}, {amount:,} calls", flush=True)
    stores = [Store(url, create=True) for url in urls]
    for store in stores:
        upgrade(store)
    fill(stores[0], amount)
    ask(stores[0])
    forget(stores[0], urls[0], folder)
    report(stores[1], folder)
    for store in stores:
        store.close()


def main() -> None:
    """Measure one engine or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.engine != "postgresql":
            measure("SQLite", (f"sqlite:///{folder}/a.db", f"sqlite:///{folder}/b.db"), given.calls, folder)
        if given.engine != "sqlite" and any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
            with postgres_server(durable=True) as server:
                measure("PostgreSQL", (new_database(server), new_database(server)), given.calls, folder)


if __name__ == "__main__":
    main()
