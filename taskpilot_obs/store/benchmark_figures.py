"""The runs of the benchmark, newest first, and the figures of their arms, read from the rows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, and_, case, cast, func, or_, select

from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs.store.ledger_tables import BENCHMARK_CALLS, BENCHMARK_RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from sqlalchemy import ColumnElement, Connection, Subquery

_LATENCY_QUANTILES: Final = (50, 95)
_RANKED: Final = {"latency": "latency_ms", "ttft": "time_to_first_token_ms"}


class RunRow(NamedTuple):
    """One run as its row has it; `settings` and `summary` are JSON."""

    run_id: str
    created_at: datetime
    finished_at: datetime | None
    name: str | None
    status: str
    service: str | None
    environment: str | None
    seed: int | None
    settings: str | None
    summary: str | None


class ArmRow(NamedTuple):
    """The calls of one arm of one run, those to warm up left out."""

    arm: str
    provider: str | None
    model_name: str | None
    calls: int
    successes: int
    failures: int
    checked: int
    """Calls whose answer was checked, and those that failed; 0 where no answer was checked."""
    correct: int
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p50_time_to_first_token_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal | None
    """In USD, of the calls with a known cost."""
    priced: int


def newest_runs(connection: Connection, start: datetime | None, end: datetime | None, limit: int) -> list[RunRow]:
    """At most `limit` runs that began in [start, end), the newest first."""
    run = BENCHMARK_RUNS.c
    query = select(*(run[name] for name in RunRow._fields))
    if start is not None:
        query = query.where(run.created_at >= start)
    if end is not None:
        query = query.where(run.created_at < end)
    newest_first = (run.created_at.desc(), run.run_id.desc())
    return [RunRow(*line) for line in connection.execute(query.order_by(*newest_first).limit(limit))]


def arms_of(connection: Connection, run_ids: Sequence[str]) -> Mapping[str, Sequence[ArmRow]]:
    """The arms of these runs, by the run's ID, in the order of their names."""
    found: defaultdict[str, list[ArmRow]] = defaultdict(list)
    ranked = _ranked(run_ids)
    call = ranked.c
    query = select(call.run_id, call.arm, *_sums(call)).group_by(call.run_id, call.arm)
    for run_id, arm, *line in connection.execute(query.order_by(call.run_id, call.arm)):
        *figures, nano, rest, priced = line
        cost = to_decimal(nano, rest) if priced else None
        found[run_id].append(ArmRow._make((arm, *figures, cost, priced)))
    return found


def _ranked(run_ids: Sequence[str]) -> Subquery:
    """The calls of these runs, each with its rank by latency and by time to first token within its arm."""
    call = BENCHMARK_CALLS.c
    arm = (call.run_id, call.arm)
    ranks: list[ColumnElement[Any]] = []
    for name, column in _RANKED.items():
        known = cast(and_(call.success.is_(True), call[column].is_not(None)), Integer)
        # Other calls sort last on both engines, so that the known values have the ranks from 1 on.
        rank = func.row_number().over(partition_by=arm, order_by=(known.desc(), call[column]))
        ranks += [rank.label(f"{name}_rank"), func.sum(known).over(partition_by=arm).label(f"{name}_known")]
    query = select(*BENCHMARK_CALLS.c, *ranks).where(call.run_id.in_(run_ids), call.warm_up.is_(False))
    return query.subquery()


def _sums(call: Any) -> list[ColumnElement[Any]]:
    def how_many(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

    return [
        func.min(call.provider),
        func.min(call.model_name),
        func.count(),
        how_many(call.success.is_(True)),
        how_many(call.success.is_(False)),
        # A call that failed has no right answer, but only where answers are checked at all.
        case(
            (func.count(call.correct) == 0, 0), else_=how_many(or_(call.correct.is_not(None), call.success.is_(False)))
        ),
        how_many(call.correct.is_(True)),
        *(_quantile(call, "latency", percent) for percent in _LATENCY_QUANTILES),
        _quantile(call, "ttft", _LATENCY_QUANTILES[0]),
        func.sum(call.input_tokens),
        func.sum(call.output_tokens),
        func.sum(call.cost_nano),
        func.sum(call.cost_rest),
        func.count(call.cost_nano),
    ]


def _quantile(call: Any, name: str, percent: int) -> ColumnElement[float]:
    """The smallest value that at least so many percent of the known ones do not exceed."""
    known = call[f"{name}_known"]
    return func.max(case((call[f"{name}_rank"] == (known * percent + 99) // 100, call[_RANKED[name]])))
