"""Records as a store gets them, and stores on both engines to put them in."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _clickhouse import new_clickhouse
from _postgres import Server
from sqlalchemy import create_engine, delete, text

from taskpilot_obs.records import (
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Origin,
    Rollup,
    Status,
    Usage,
    Verdict,
)
from taskpilot_obs.store import Store, aggregate_summaries, clickhouse_sums, clickhouse_tables, upgrade
from taskpilot_obs.store.clickhouse_upkeep import PATIENCE_S
from taskpilot_obs.store.marks import server_clock
from taskpilot_obs.store.tables import LLM_SERIES, SUMMARY_WORK, metadata

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_numbers = itertools.count(1)


def unix_ns(moment: datetime) -> int:
    """Nanoseconds since the Unix epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def llm_call(at: datetime = NOON, **given: Any) -> Invocation:
    """A finished LLM call that ended at `at`; every field can be given."""
    number = next(_numbers)
    duration: float = given.setdefault("duration_s", 0.5)
    fields: dict[str, Any] = {
        "operation": Operation.CHAT,
        "name": "chat",
        "status": Status.SUCCESS,
        "request_id": f"request-{number}",
        "invocation_id": f"call-{number}",
        "parent_id": None,
        "workflow": "triage",
        "agent": "planner",
        "start_unix_ns": unix_ns(at) - round(duration * 1e9),
        "usage": Usage(1_000, 200, 100, None, None, None, None, 50, None),
        "cost": Decimal("0.0105"),
        "cost_source": "price_table",
        "request_model": given.get("response_model", "gpt-4o"),  # the one that rows are grouped by
        "response_model": "gpt-4o-2024-08-06",
        "provider": "openai",
        "tenant": "acme",
        "user": "ann",
        "attributes": {"prompt_name": "plan"},
        **given,
    }
    return Invocation(**fields)


def task(at: datetime = NOON, **given: Any) -> Invocation:
    """A finished task that ended at `at`."""
    number = next(_numbers)
    duration: float = given.setdefault("duration_s", 1.5)
    fields: dict[str, Any] = {
        "operation": Operation.WORKFLOW,
        "name": "triage",
        "status": Status.SUCCESS,
        "request_id": f"request-{number}",
        "invocation_id": f"run-{number}",
        "parent_id": None,
        "workflow": "triage",
        "agent": None,
        "start_unix_ns": unix_ns(at) - round(duration * 1e9),
        "tenant": "acme",
        "rollup": Rollup(1_000, 200, Decimal("0.0105"), 1, 0, 2, 0),
        "is_task": True,
        **given,
    }
    return Invocation(**fields)


def verdict(at: datetime = NOON, *, correct: bool = True, revision: bool = False, tenant: str = "acme") -> Feedback:
    """A user's word on a request."""
    return Feedback(f"request-{next(_numbers)}", correct, revision, Origin(tenant=tenant), unix_ns(at))


def denial(at: datetime = NOON) -> Decision:
    """A policy that said no."""
    return Decision(
        DecisionKind.POLICY, "no-secrets", Verdict.DENY, CheckResult.BLOCKED, Origin(tenant="acme"), unix_ns(at)
    )


def new_database(server: Server, encoding: str = "UTF8") -> str:
    """The URL of an empty database of its own."""
    name = f"t{next(_numbers)}"
    engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"))
    finally:
        engine.dispose()
    return server.url(name)


def sqlite_url(folder: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{folder / 'telemetry.db'}"


def new_store(request: pytest.FixtureRequest, folder: Path, engine: str | None = None) -> str:
    """The URL of an empty store on this engine, or on the one that the parameter of a fixture names."""
    engine = engine or request.param
    if engine == "sqlite":
        return sqlite_url(folder)
    return new_clickhouse() if engine == "clickhouse" else new_database(request.getfixturevalue("server"))


def url_of(store: Store) -> str:
    """The URL that a store was opened with, its password included."""
    return store.target.name if store.is_clickhouse else store.url.render_as_string(hide_password=False)


def run_processes(target: Callable[..., None], *arguments: tuple[object, ...]) -> list[int | None]:
    """Run the same function in one new process for each of the arguments, all at once; returns their exit codes.

    They are forked from a server that has imported the library already, and share nothing with this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["taskpilot_obs.store", "taskpilot_obs.stats"])
    processes = [context.Process(target=target, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


_WITH_TTL = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine_full LIKE '% TTL %'"


def clear(store: Store) -> None:
    """Empty every table but that of the series."""
    with store.writing() as connection:
        if store.is_clickhouse:
            for table in clickhouse_tables.TABLES:
                if table not in (LLM_SERIES, SUMMARY_WORK):  # which is a view there
                    connection.execute(text(f"TRUNCATE TABLE {table.name}"))
            for name in connection.execute(text(_WITH_TTL)).scalars():
                connection.execute(text(f"ALTER TABLE {name} REMOVE TTL"))
            return
        for table in metadata.tables.values():
            if table is not LLM_SERIES:
                connection.execute(delete(table))


@contextmanager
def after_erasure(store: Store) -> Iterator[None]:
    """In ClickHouse, after the hour that the server may take to delete rows: their hours are summed up again then."""
    with pytest.MonkeyPatch.context() as patch:
        if store.is_clickhouse:
            later = timedelta(seconds=PATIENCE_S + 1)
            patch.setattr(clickhouse_sums, "server_clock", lambda connection: server_clock(connection) + later)
            aggregate_summaries("daily", None, store=store)
        yield


@contextmanager
def store_at(url: str) -> Iterator[Store]:
    """A store with its tables, closed at the end."""
    store = Store(url, create=True)
    try:
        upgrade(store)
        yield store
    finally:
        store.close()
