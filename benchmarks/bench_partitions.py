"""Monthly partitions of PostgreSQL beside their bars: a year's store, dropping a month, and a migration in use.

Run: python benchmarks/bench_partitions.py [--calls 10000000] [--moved 300000] [--keep FOLDER] [--build]

The first store has its calls spread over 12 months, 20 tenants and 20 series, with a partition a month. Each run drops
its oldest month. The second one is filled for each run, without partitions, and gets them while it is written and read.
`--keep` builds the first store where the folder lacks it; `--build` measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from _postgres import Server, lock_waits
from _years import FEW, analyze, fill  # type: ignore[import-not-found]  # beside this file
from bench_store import NOW, calls  # type: ignore[import-not-found]  # beside this file
from bench_store_years import database, kept_server, writing  # type: ignore[import-not-found]  # beside this file
from sqlalchemy import create_engine, text

from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, partitioning, prune, upgrade
from taskpilot_obs.store.months import layout_of
from taskpilot_obs.store.partitioning import partition
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tables import LLM_CALLS
from taskpilot_obs.store.writer import Writer

REPEATS = 7
MONTHS = 12
WAIT_BAR_MS = 50


def told(what: str, figure: float, unit: str, bar: str = "") -> None:
    """One line: a figure beside its bar."""
    print(f"  {what:<58} {figure:>10,.1f} {unit}{f'   (bar {bar})' if bar else ''}", flush=True)


def ask(store: Store, now: datetime) -> None:
    """The median of some questions, warm."""
    taken = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        assert get_stats("30d", store=store, now=now).requests
        taken.append((time.perf_counter() - began) * 1_000)
    told("get_stats('30d') from summaries", sorted(taken[1:])[REPEATS // 2], "ms", "150 ms")


@contextmanager
def batches(url: str) -> Iterator[list[float]]:
    """Write batches of a thousand calls, one after the other; how long each took, in milliseconds."""
    waits: list[float] = []
    done = threading.Event()

    def write() -> None:
        store = Store(url)
        writer = Writer(store)
        while not done.is_set():
            for batch in calls(10_240):
                began = time.perf_counter()
                writer.write(rows_of(call._replace(invocation_id=f"{time.time_ns():x}") for call in batch))
                waits.append((time.perf_counter() - began) * 1_000)
                if done.is_set():
                    break
        store.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(write)
        try:
            yield waits
        finally:
            done.set()
            running.result()


def drop(server: Server, url: str, now: datetime, folder: str) -> None:
    """Drop the oldest month beside a writer of single calls."""
    store = Store(url)
    with store.reading() as connection:
        layout = layout_of(connection, LLM_CALLS)
        assert layout is not None
        piece = layout.pieces[0]
    with lock_waits(server, url) as locks, writing(url, folder, now) as waits:
        time.sleep(2.0)
        alone = len(waits)
        began = time.perf_counter()
        days = (now - piece.end - timedelta(seconds=1)) / timedelta(days=1)  # whole hours are deleted
        deleted = prune({LLM_CALLS.name: days}, store=store, now=now)[LLM_CALLS.name]
        told(f"dropping {piece.name}, {deleted:,} calls", (time.perf_counter() - began) * 1_000, "ms", "1,000 ms")
        time.sleep(0.5)
    with store.reading() as connection:
        after = layout_of(connection, LLM_CALLS)
    assert after is not None
    assert piece not in after.pieces
    told("  a writer's longest write beside it", max(waits[alone:]), "ms")
    told("  and before it", max(waits[:alone]), "ms")
    told(
        f"  the longest of {len(locks)} waits of writers and readers for a lock",
        max(locks, default=0.0),
        "ms",
        f"{WAIT_BAR_MS} ms",
    )
    store.close()


def migrate(server: Server, amount: int, now: datetime) -> None:
    """Put partitions under a store that is written, in batches, and asked."""
    url = database(server, "moved")
    store = Store(url)
    upgrade(store)
    fill(store, amount, now, FEW, days=60)
    asked = (now - timedelta(days=60), now - timedelta(days=31))  # writers add to the last 30
    before = get_stats(asked, store=store)
    answers: set[Any] = set()
    with lock_waits(server, url) as locks, batches(url) as waits:
        time.sleep(2.0)
        alone, done = len(waits), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(_keep_asking, store, asked, answers, done)
            began = time.perf_counter()
            try:
                months = partition(store=store)
            finally:
                done.set()
            took = time.perf_counter() - began
            asking.result()
    told(f"{amount:,} calls moved into {months[LLM_CALLS.name]} months, in use", took, "s")
    told("  a batch's longest write beside it", max(waits[alone:]), "ms")
    told("  and before it", max(waits[:alone]), "ms")
    told(
        f"  the longest of {len(locks)} waits of writers and readers for a lock",
        max(locks, default=0.0),
        "ms",
        "1,000 ms",
    )
    assert answers <= {(before.requests, before.cost_usd)}, answers
    print(f"  every answer meanwhile was that of before: {before.requests:,} calls, {before.cost_usd} USD")
    store.close()
    engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE moved"))
    engine.dispose()


def _keep_asking(store: Store, asked: tuple[datetime, datetime], answers: set[Any], done: threading.Event) -> None:
    while not done.is_set():
        found = get_stats(asked, store=store)
        answers.add((found.requests, found.cost_usd))


def build(url: str, amount: int, now: datetime) -> None:
    """A year of calls in partitions."""
    store = Store(url)
    upgrade(store)
    partitioning.partition(store=store)
    fill(store, amount, now, FEW, days=MONTHS * 30, partitions=True)
    store.close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--moved", type=int, default=300_000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the server runs as another user
        with kept_server(folder / "postgresql") as server:
            mark = folder / "now"
            now = datetime.fromisoformat(mark.read_text()) if mark.exists() else NOW
            url = database(server, "year")
            if not mark.exists():
                build(url, given.calls, now)
                mark.write_text(now.isoformat())
            if not given.build:
                print(f"PostgreSQL, {given.calls:,} calls in {MONTHS} months", flush=True)
                store = Store(url)
                analyze(store)
                ask(store, now)
                store.close()
                drop(server, url, now, temporary)
                migrate(server, given.moved, NOW)


if __name__ == "__main__":
    main()
