"""What the tasks and verdicts of an experiment come to, one line for each unit that was assigned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, and_, case, cast, func, or_, select

from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, RowMapping, Table

_FETCH = 20_000


class UnitRuns(NamedTuple):
    """The tasks of one unit."""

    variant: str
    tasks: int
    counted: int
    """Tasks that succeeded or failed."""
    successes: int
    duration_ms: float
    """The sum of the durations."""
    cost_usd: float
    """The sum of the costs that are known."""
    unpriced: int
    """LLM calls without a known cost."""
    tokens: int
    violating: int
    """Tasks with at least one policy violation."""


class UnitVerdicts(NamedTuple):
    """The verdicts on the requests of one unit."""

    variant: str
    verdicts: int
    correct: int


class TaskFilter(NamedTuple):
    """Which tasks and verdicts: those of one experiment in [start, end), of one tenant or of all."""

    experiment: str
    start: datetime
    end: datetime
    organization_id: str | None = None
    """The empty text for those without a tenant; None for all."""


def runs_by_unit(connection: Connection, asked: TaskFilter) -> Iterator[UnitRuns]:
    """The tasks of an experiment by variant and unit; a task without a unit is a unit of its own."""
    run = AGENT_RUNS.c
    unit = _unit_of_run()
    sums = (
        func.count(),
        func.count(run.success),
        func.sum(_number(run.success)),
        func.sum(run.duration_ms),
        func.sum(run.cost_nano),
        func.sum(run.cost_rest),
        func.sum(run.unpriced_calls),
        func.sum(run.input_tokens + run.output_tokens),
        func.sum(case((run.violations > 0, 1), else_=0)),
    )
    query = select(run.variant, *sums).where(_belongs(AGENT_RUNS, asked), run.is_task)
    for variant, tasks, counted, good, ms, nano, rest, *others in _lines(connection, query.group_by(run.variant, unit)):
        cost = float(to_decimal(int(nano or 0), int(rest or 0)))
        yield UnitRuns(variant, tasks, counted, int(good or 0), float(ms or 0), cost, *map(int, others))


def verdicts_by_unit(connection: Connection, asked: TaskFilter) -> Iterator[UnitVerdicts]:
    """The verdicts of an experiment by variant and unit."""
    given = FEEDBACK.c
    unit = func.coalesce(given.experiment_unit, given.request_id)
    query = select(given.variant, func.count(), func.sum(_number(given.correct)))
    query = query.where(_belongs(FEEDBACK, asked)).group_by(given.variant, unit)
    for variant, verdicts, correct in _lines(connection, query):
        yield UnitVerdicts(variant, verdicts, int(correct or 0))


def experiments_seen(
    connection: Connection, start: datetime, end: datetime, tenant: str | None
) -> Sequence[RowMapping]:
    """The fields of `ExperimentSeen` of each experiment with tasks in [start, end), the most recent first.

    Args:
        connection: to the store.
        start: the first moment.
        end: the moment after the last one.
        tenant: as in `TaskFilter`.
    """
    run = AGENT_RUNS.c
    last = func.max(run.created_at)
    query = select(
        run.experiment,
        func.count(run.variant.distinct()).label("variants"),
        func.count(_unit_of_run().distinct()).label("units"),
        func.count().label("tasks"),
        func.min(run.created_at).label("first_seen"),
        last.label("last_seen"),
    ).where(*_when(AGENT_RUNS, start, end), *_whose(AGENT_RUNS, tenant), run.is_task, run.variant.is_not(None))
    query = query.where(run.experiment.is_not(None)).group_by(run.experiment).order_by(last.desc(), run.experiment)
    return connection.execute(query).mappings().all()


def _unit_of_run() -> ColumnElement[str]:
    return func.coalesce(AGENT_RUNS.c.experiment_unit, AGENT_RUNS.c.run_id)


def _belongs(table: Table, asked: TaskFilter) -> ColumnElement[bool]:
    column = table.c
    own = (column.experiment == asked.experiment, column.variant.is_not(None))
    return and_(*_when(table, asked.start, asked.end), *_whose(table, asked.organization_id), *own)


def _when(table: Table, start: datetime, end: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.created_at >= start, table.c.created_at < end


def _whose(table: Table, tenant: str | None) -> tuple[ColumnElement[bool], ...]:
    if tenant is None:
        return ()
    own = table.c.organization_id
    return (own == tenant,) if tenant else (or_(own.is_(None), own == ""),)


def _number(column: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(column, Integer)


def _lines(connection: Connection, query: Any) -> Iterator[Sequence[Any]]:
    return iter(connection.execution_options(yield_per=_FETCH).execute(query))
