"""A telemetry store after years: questions, reports and erasures over millions of calls, beside their bars.

Run: python benchmarks/bench_store_years.py [--calls 1000000] [--engine sqlite | postgresql] [--keep FOLDER] [--build]

The calls are spread over 30 days, 20 tenants, 20 series of models and agents in two services and about 1,000 users. The
report is measured on a second store with 500 models, 1,000 series and 50,000 tenants. `--keep` builds both where the
folder lacks them, and else measures what is there; a user is erased in a copy. `--build` measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from _postgres import Server, hand_over
from _stored import llm_call
from _years import FEW, MANY, analyze, fill  # type: ignore[import-not-found]  # beside this file
from bench_store import NOW, timed  # type: ignore[import-not-found]  # beside this file
from sqlalchemy import create_engine, make_url, text

from taskpilot_obs.stats import get_stats, write_report
from taskpilot_obs.store import Store, StoreExporter, erase, upgrade

REPEATS = 5
_USER = "user-500"


class Stores(NamedTuple):
    """Where the two stores of an engine are."""

    few: str
    many: str
    now: datetime
    is_built: bool


def build(stores: Stores, amount: int) -> None:
    """Fill both."""
    for url, shape in ((stores.few, FEW), (stores.many, MANY)):
        print(f"  filled: {shape}", flush=True)
        store = Store(url, create=True)
        fill(store, amount, stores.now, shape)
        store.close()


def ask(store: Store, now: datetime) -> None:
    """The questions of the issue: the median of some, warm."""
    for name, limit_ms, asked in (
        ("get_stats('30d') from summaries", 150, {}),
        ("get_stats('30d', user=…)", 300, {"user_id": "user-7"}),
        ("get_stats('30d', tenant=…)", 300, {"tenant_id": "tenant-7"}),
        ("get_stats('30d', service=…)", 300, {"service": "billing"}),
    ):
        _time_stats(store, now, name, limit_ms, asked)


def _time_stats(store: Store, now: datetime, name: str, limit_ms: int, asked: dict[str, str]) -> None:
    taken = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        found = get_stats("30d", store=store, now=now, **asked)
        taken.append((time.perf_counter() - began) * 1_000)
    assert found.requests
    first, *others = taken
    middle = sorted(others)[REPEATS // 2]
    print(f"  {name:<46} {middle:>10,.1f} ms   (bar {limit_ms:,} ms; the first {first:,.1f} ms)", flush=True)


@contextmanager
def writing(url: str, spool: str, now: datetime) -> Iterator[list[float]]:
    """Write a call every five milliseconds meanwhile; how long each took, in milliseconds."""
    waits: list[float] = []
    done = threading.Event()
    exporter = StoreExporter(url, spool_dir=spool)

    def keep_writing() -> None:
        while not done.is_set():
            began = time.perf_counter()
            exporter.export([llm_call(now, user="another", invocation_id=os.urandom(16).hex())])
            waits.append((time.perf_counter() - began) * 1_000)
            time.sleep(0.005)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()
        exporter.shutdown(5.0)


@contextmanager
def copied(url: str) -> Iterator[str]:
    """A copy of a store, in which something is erased: the summaries of the store itself stay as they are."""
    known = make_url(url)
    if known.drivername == "sqlite":
        path = Path(str(known.database))
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        with copy.open("rb+") as file:  # or the first checkpoint would wait for all of it
            os.fsync(file.fileno())
        try:
            yield f"sqlite:///{copy}"
        finally:
            for each in path.parent.glob("copy.db*"):
                each.unlink()
        return
    engine = create_engine(known.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE copy TEMPLATE {known.database}"))
        try:
            yield known.set(database="copy").render_as_string(hide_password=False)
        finally:
            connection.execute(text("DROP DATABASE copy"))
    engine.dispose()


def forget(url: str, now: datetime, folder: str) -> None:
    """Erase one user beside a writer."""
    os.sync()  # the copy of the store is still being written to the disk, and commits would wait for that
    gc.collect()
    gc.freeze()  # a collection among what the questions before have left stops the writer for 60 ms
    store = Store(url)
    with writing(url, folder, now) as waits:
        time.sleep(1.0)
        alone = len(waits)
        with timed("erase(user=…)", 10_000):
            done = erase(user=_USER, store=store, spool_dir=folder)
        beside = sorted(waits[alone:])
    assert done.erased["llm_call_telemetry"]
    _time_stats(store, now, "get_stats('30d') after it, without aggregate", 150, {})
    store.close()
    before = sorted(waits[:alone])
    print(
        f"  {done.erased['llm_call_telemetry']:,} calls erased; a writer beside waited "
        f"{beside[len(beside) // 2]:.1f} ms (median), {beside[int(len(beside) * 0.99)]:.1f} ms (p99), "
        f"{beside[-1]:.1f} ms (most) of {len(beside):,} writes   (bar 50 ms; without erasure "
        f"{before[len(before) // 2]:.1f} ms and {before[-1]:.1f} ms)"
    )


def report(url: str, now: datetime, folder: str) -> None:
    """A report on many models and tenants."""
    store = Store(url)
    for _ in range(2):
        with timed("report: 500 models, 50,000 tenants", 5_000):
            write_report(Path(folder) / "report.html", "30d", store=store, now=now)
    store.close()


def measure(name: str, stores: Stores, amount: int, *, only_build: bool) -> None:
    """One engine."""
    print(f"{name}, {amount:,} calls", flush=True)
    if not stores.is_built:
        build(stores, amount)
    if only_build:
        return
    with tempfile.TemporaryDirectory() as folder:
        store = Store(stores.few)
        upgrade(store)
        analyze(store)
        ask(store, stores.now)
        store.close()
        report(stores.many, stores.now, folder)
        with copied(stores.few) as copy:
            forget(copy, stores.now, folder)


def _now_of(folder: Path) -> tuple[datetime, bool]:
    """The present of the stores in a folder, and whether they are there."""
    mark = folder / "now"
    if mark.exists():
        return datetime.fromisoformat(mark.read_text()), True
    return NOW, False


def sqlite(folder: Path, amount: int, *, only_build: bool) -> None:
    """Two files."""
    folder.mkdir(parents=True, exist_ok=True)
    now, is_built = _now_of(folder)
    stores = Stores(f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/many.db", now, is_built)
    measure("SQLite", stores, amount, only_build=only_build)
    (folder / "now").write_text(now.isoformat())


@contextmanager
def kept_server(folder: Path) -> Iterator[Server]:
    """A server whose cluster is there afterwards."""
    server = Server(folder, durable=True)
    if not server.data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        hand_over(folder)
        server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def database(server: Server, name: str) -> str:
    """The URL of a database, made where it is missing."""
    engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if not connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}).first():
            connection.execute(text(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"))
    engine.dispose()
    return server.url(name)


def postgresql(folder: Path, amount: int, *, only_build: bool) -> None:
    """Two databases of a server with its default settings."""
    with kept_server(folder) as server:
        now, is_built = _now_of(folder)
        stores = Stores(database(server, "few"), database(server, "many"), now, is_built)
        measure("PostgreSQL", stores, amount, only_build=only_build)
        (folder / "now").write_text(now.isoformat())


def main() -> None:
    """Measure one engine or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the server runs as another user
        if given.engine != "postgresql":
            sqlite(folder / "sqlite", given.calls, only_build=given.build)
        if given.engine != "sqlite" and any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
            postgresql(folder / "postgresql", given.calls, only_build=given.build)


if __name__ == "__main__":
    main()
