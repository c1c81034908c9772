"""Writing benchmark runs and their calls into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from taskpilot_obs._telemetry.money import from_decimal
from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.store.ledger_tables import BENCHMARK_CALLS, BENCHMARK_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from taskpilot_obs.store.engine import Store

RUNNING = "running"
_R = BENCHMARK_RUNS.c
_C = BENCHMARK_CALLS.c


def begin_run(store: Store, run_id: str, **columns: Any) -> None:
    """Write that a run began, or that it goes on.

    Args:
        store: which has the newest tables.
        run_id: of the run.
        columns: `created_at`, `name`, `service`, `environment`, `seed`, `settings`.

    Raises:
        StoreError: the store cannot be used.
    """
    with store.writing() as connection:
        there = connection.execute(select(_R.run_id).where(_R.run_id == run_id)).first()
        values = {**columns, "status": RUNNING, "finished_at": None, "summary": None}
        if there is None:
            connection.execute(insert(BENCHMARK_RUNS).values(run_id=run_id, **values))
        else:
            connection.execute(update(BENCHMARK_RUNS).where(_R.run_id == run_id).values(values))


def finish_run(store: Store, run_id: str, *, status: str, finished_at: datetime, summary: str) -> None:
    """Write how a run ended.

    Args:
        store: which has the run.
        run_id: of the run.
        status: `finished`, `stopped` or `cancelled`.
        finished_at: when.
        summary: the report, as JSON.

    Raises:
        StoreError: the store cannot be used.
    """
    values = {"status": status, "finished_at": finished_at, "summary": summary}
    with store.writing() as connection:
        connection.execute(update(BENCHMARK_RUNS).where(_R.run_id == run_id).values(values))


def write_calls(store: Store, run_id: str, calls: Iterable[Mapping[str, Any]]) -> None:
    """Write calls of a run; those that are there already stay as they are.

    Args:
        store: which has the run.
        run_id: of the run.
        calls: the columns of each, with `cost_usd` in place of the two columns of money.

    Raises:
        StoreError: the store cannot be used.
    """
    rows = [_row(run_id, call) for call in calls]
    with store.writing() as connection:
        wanted = [row["call_id"] for row in rows]
        there = set(connection.execute(select(_C.call_id).where(_C.call_id.in_(wanted))).scalars())
        new = [row for row in rows if row["call_id"] not in there]
        if new:
            connection.execute(insert(BENCHMARK_CALLS), new)


def _row(run_id: str, call: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: stored_text(value) if isinstance(value, str) else value for name, value in call.items()
    }
    cost = row.pop("cost_usd")
    nano, rest = (None, None) if cost is None else from_decimal(cost)
    return {**row, "run_id": run_id, "cost_nano": nano, "cost_rest": rest}
