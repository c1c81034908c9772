"""Stores of millions of calls, filled within minutes: the database repeats some thousand real rows over 30 days."""

from __future__ import annotations

import random
import time
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from bench_store import calls  # type: ignore[import-not-found]  # beside this file
from sqlalchemy import Connection, TextClause, text

from taskpilot_obs.records import Invocation, Source
from taskpilot_obs.store import Store, aggregate_summaries, upgrade
from taskpilot_obs.store.aggregate import mark_all_changed
from taskpilot_obs.store.months import MonthsOnDemand, layout_of
from taskpilot_obs.store.on_sqlite import use_wal
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tables import LLM_CALLS, SQLITE_SUMS
from taskpilot_obs.store.writer import Writer

PATTERN: Final = 5_000
"""Rows that are written one by one, and then repeated."""
_TABLE: Final = LLM_CALLS.name
_PATTERN_TABLE: Final = "pattern"
_DAYS: Final = 30
_NEW_IDS: Final = ("telemetry_id", "request_id", "trace_id")


class Shape(NamedTuple):
    """How many names the calls of a store have."""

    models: int
    agents_of_a_model: int
    tenants: int
    users: int = 997


FEW: Final = Shape(models=4, agents_of_a_model=5, tenants=20)
MANY: Final = Shape(models=500, agents_of_a_model=2, tenants=50_000)


def fill(
    store: Store, amount: int, now: datetime, shape: Shape, *, days: int = _DAYS, partitions: bool = False
) -> None:
    """Fill an empty store with calls of the days before a moment, and sum them up."""
    upgrade(store)
    if partitions:
        MonthsOnDemand(store).cover(LLM_CALLS, [now - timedelta(days=day) for day in range(days + 1)])
    writer = Writer(store)
    for number, part in enumerate(calls(PATTERN)):
        batch = [_named(call, number * len(part) + n, shape) for n, call in enumerate(part)]
        writer.write(rows_of(batch, Source(("billing", "search")[number % 2], "production")))
    if store.is_sqlite:
        _pragma(store, "cache_size=-2000000", "synchronous=OFF", "journal_mode=MEMORY")
    _repeat(store, amount, now, shape, days)
    if store.is_sqlite:
        use_wal(store)
    mark_all_changed(store)
    began = time.perf_counter()
    made = aggregate_summaries("daily", None, store=store)
    print(f"  {made:,} hours and days summed up in {time.perf_counter() - began:,.0f} s", flush=True)
    analyze(store)


def _named(call: Invocation, number: int, shape: Shape) -> Invocation:
    model = number % shape.models
    agent = (model + random.randrange(shape.agents_of_a_model)) % 10
    if shape is not FEW:
        call = call._replace(request_model=f"model-{model}", response_model=f"model-{model}")
    return call._replace(agent=f"agent-{agent}")


def _repeat(store: Store, amount: int, now: datetime, shape: Shape, days: int) -> None:
    """Move the rows into a table of their own, and copy them back with other times and identifiers."""
    began = time.perf_counter()
    indexes = [index for index in LLM_CALLS.indexes if store.is_sqlite or index.name != SQLITE_SUMS]
    names = ", ".join(column.name for column in LLM_CALLS.columns)
    with store.writing() as connection:
        number = "row_number() OVER (ORDER BY created_at, telemetry_id) - 1"
        connection.execute(text(f"CREATE TABLE {_PATTERN_TABLE} AS SELECT {names}, {number} AS n FROM {_TABLE}"))  # noqa: S608  our names
        for statement in (f"DELETE FROM {_TABLE}", "DELETE FROM llm_summary_work"):  # noqa: S608  our names
            connection.execute(text(statement))
        for index in indexes:
            index.drop(connection)
        pieces = _pieces(connection)
        for piece in pieces:
            connection.execute(text(f"ALTER TABLE {piece} DROP CONSTRAINT {piece}_pkey"))
        copied = _copy(connection, names, shape)
        step = timedelta(days=days) / amount
        start = now - timedelta(days=days)
        for first in range(0, amount, PATTERN):
            at = start + first * step
            moment = (
                (at - datetime.fromtimestamp(0, now.tzinfo)) // timedelta(microseconds=1) if store.is_sqlite else at
            )
            connection.execute(copied, {"at": moment, "step": step / timedelta(microseconds=1), "first": first})
        print(f"  {amount:,} calls in {time.perf_counter() - began:,.0f} s", flush=True)
        connection.execute(text(f"DROP TABLE {_PATTERN_TABLE}"))
        for piece in pieces:
            connection.execute(text(f"ALTER TABLE {piece} ADD PRIMARY KEY (telemetry_id)"))
        for index in indexes:
            index.create(connection)
    print(f"  and their indexes after {time.perf_counter() - began:,.0f} s", flush=True)


def _pieces(connection: Connection) -> tuple[str, ...]:
    """The tables that have a primary key on PostgreSQL: each partition, or the whole."""
    layout = layout_of(connection, LLM_CALLS)
    if layout is not None:
        return layout.names
    return (_TABLE,) if connection.dialect.name == "postgresql" else ()


def _copy(connection: Connection, names: str, shape: Shape) -> TextClause:
    """The statement that adds the rows once more from a moment on."""
    if connection.dialect.name == "sqlite":
        random_id, moment = "lower(hex(randomblob(16)))", ":at + CAST(n * :step AS INTEGER)"
    else:
        random_id = "md5(random()::text || n::text)"
        moment = "CAST(:at AS timestamptz) + n * CAST(:step AS float8) * interval '1 microsecond'"
    place = "CAST(:first AS bigint) + n"
    other = {
        **dict.fromkeys(_NEW_IDS, random_id),
        "created_at": moment,
        "organization_id": f"'tenant-' || (({place}) * 7919 / 13 % {shape.tenants})",
        "user_id": f"'user-' || (({place}) * 31 / 7 % {shape.users})",
    }
    values = ", ".join(other.get(name.strip(), name) for name in names.split(","))
    return text(f"INSERT INTO {_TABLE} ({names}) SELECT {values} FROM {_PATTERN_TABLE} ORDER BY n")  # noqa: S608  our names


def _pragma(store: Store, *settings: str) -> None:
    store.engine.dispose()
    with store.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")
        for setting in settings:
            connection.exec_driver_sql(f"PRAGMA {setting}").close()


def analyze(store: Store) -> None:
    """What autovacuum does on a server that is left alone."""
    if not store.is_sqlite:
        with store.engine.connect() as connection:
            connection.commit()
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
