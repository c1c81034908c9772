"""A store in ClickHouse beside its bars: calls written a second, bytes a call, and a question over millions of calls.

Run: python benchmarks/bench_clickhouse.py [--calls 1000000] [--written 400000] [--keep FOLDER] [--build]

The engine is the embedded one of the package chdb. Calls are spread over 30 days, 20 tenants and 20 series; each has a
random ID, request, trace and span, so that the figure of bytes is that of data which do not compress. `--keep` fills
the store of the question where the folder lacks it; `--build` measures nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from _clickhouse import IS_INSTALLED
from bench_partitions import told  # type: ignore[import-not-found]  # beside this file
from bench_store import NOW, calls  # type: ignore[import-not-found]  # beside this file
from sqlalchemy import text

from taskpilot_obs.records import Invocation, Source
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, aggregate_summaries, clickhouse_sums, upgrade
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tables import LLM_CALLS
from taskpilot_obs.store.writer import Writer

BATCH = 8_192
PATTERN = 100_000
"""Calls that are written one by one; the server repeats them with other times and identifiers."""
STEP = 5
"""So many repetitions are one statement."""
REPEATS = 7
SOURCE = Source("billing", "production")
IDS = {"telemetry_id": 32, "request_id": 32, "trace_id": 32, "span_id": 16}
"""Columns that every call has its own value of, and how many hexadecimal digits it has."""


def batches(amount: int) -> Iterator[list[Invocation]]:
    """Calls in the order in which they ended, each with identifiers of its own."""
    held: list[Invocation] = []
    for part in calls(amount):
        held += [call._replace(invocation_id=_hex(32), span_id=_hex(16)) for call in part]
        while len(held) >= BATCH:
            yield held[:BATCH]
            del held[:BATCH]
    if held:
        yield held


def _hex(digits: int) -> str:
    return f"{random.getrandbits(4 * digits):0{digits}x}"


def write(store: Store, amount: int) -> None:
    """Write calls, and tell how many a second."""
    upgrade(store)
    writer, made_s, written_s, first = Writer(store), 0.0, 0.0, True
    for batch in batches(amount):
        began = time.perf_counter()
        rows = rows_of(batch, SOURCE)
        made = time.perf_counter()
        writer.write(rows)
        if not first:  # which names the series
            made_s, written_s = made_s + made - began, written_s + time.perf_counter() - made
        first = False
    counted = amount - BATCH
    told("rows written", counted / written_s, "calls/s", "50,000")
    told("  records made to rows, and written, by one thread", counted / (made_s + written_s), "calls/s")


def fill(store: Store, amount: int) -> None:
    """Fill an empty store with calls of 30 days, and sum them up."""
    upgrade(store)
    writer = Writer(store)
    for batch in batches(PATTERN):
        writer.write(rows_of(batch, SOURCE))
    asked = text(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = :name "
        "AND default_kind = '' SETTINGS final = 0"
    )
    with store.writing() as connection:
        names = [*connection.execute(asked, {"name": LLM_CALLS.name}).scalars()]
        values = {
            name: f"substring(lower(hex(MD5(concat({name}, toString(n))))), 1, {long})" for name, long in IDS.items()
        }
        values["created_at"] = "addMicroseconds(created_at, n * 17)"
        chosen = ", ".join(values.get(name, name) for name in names)
        connection.execute(
            text(f"CREATE TABLE pattern ENGINE = Memory AS SELECT {', '.join(names)} FROM {LLM_CALLS.name}")  # noqa: S608  our names
        )
        copy = (
            f"INSERT INTO {LLM_CALLS.name} ({', '.join(names)}) SELECT {chosen} FROM pattern "  # noqa: S608  our names
            "CROSS JOIN (SELECT number AS n FROM numbers(:first, :some)) AS numbered"
        )
        copies = amount // PATTERN
        for first in range(1, copies, STEP):
            connection.execute(text(copy), {"first": first, "some": min(STEP, copies - first)})
        connection.execute(text("DROP TABLE pattern"))
    clickhouse_sums.SETTLE = timedelta(0)  # type: ignore[misc]  # nothing else writes
    began = time.perf_counter()
    periods = aggregate_summaries("daily", None, store=store)
    print(f"  {periods:,} hours and days summed up in {time.perf_counter() - began:,.0f} s", flush=True)


def measure(store: Store) -> None:
    """Bytes a call, and how long a question takes."""
    asked = text(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() AND table = :name "
        "SETTINGS final = 0"
    )
    taken = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        found = get_stats("30d", store=store, now=NOW)
        taken.append((time.perf_counter() - began) * 1_000)
    with store.reading() as connection:
        size = int(connection.execute(asked, {"name": LLM_CALLS.name}).scalar_one())
        rows = int(connection.execute(text(f"SELECT count() FROM {LLM_CALLS.name}")).scalar_one())  # noqa: S608
    told(f"on the disk, of {rows:,} calls", size / rows, "bytes a call", "120")
    told(f"get_stats('30d') over {found.requests:,} calls", sorted(taken[1:])[REPEATS // 2], "ms", "300 ms")
    told("  the first time", taken[0], "ms")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--written", type=int, default=400_000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", action="store_true")
    given = parser.parse_args()
    if not IS_INSTALLED:
        print("  ClickHouse is NOT measured: chdb is not installed (pip install chdb clickhouse-connect)")
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = (given.keep or Path(folder)).absolute()
        store = Store(f"clickhouse+chdb:///{kept}?database=asked{given.calls}")
        with store.writing() as connection:
            is_new = not connection.execute(text("EXISTS TABLE llm_summary_work")).scalar_one()
        if is_new:
            fill(store, given.calls)
        if not given.build:
            written = Store(f"clickhouse+chdb:///{kept}?database=written")
            with written.writing() as connection:
                connection.execute(text("DROP DATABASE IF EXISTS written"))
                connection.execute(text("CREATE DATABASE written"))
            write(written, given.written)
            written.close()
            measure(store)
        store.close()


if __name__ == "__main__":
    main()
