"""What the tasks and verdicts of an experiment come to, one line for each unit that was assigned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, and_, case, cast, func, select

from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Table

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


def runs_by_unit(connection: Connection, name: str, start: datetime, end: datetime) -> Iterator[UnitRuns]:
    """The tasks of an experiment in [start, end), by variant and unit; a task without a unit is a unit of its own."""
    run = AGENT_RUNS.c
    unit = func.coalesce(run.experiment_unit, run.run_id)
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
    query = select(run.variant, *sums).where(_belongs(AGENT_RUNS, name, start, end), run.is_task)
    for variant, tasks, counted, good, ms, nano, rest, *others in _lines(connection, query.group_by(run.variant, unit)):
        cost = float(to_decimal(int(nano or 0), int(rest or 0)))
        yield UnitRuns(variant, tasks, counted, int(good or 0), float(ms or 0), cost, *map(int, others))


def verdicts_by_unit(connection: Connection, name: str, start: datetime, end: datetime) -> Iterator[UnitVerdicts]:
    """The verdicts of an experiment in [start, end), by variant and unit."""
    given = FEEDBACK.c
    unit = func.coalesce(given.experiment_unit, given.request_id)
    query = select(given.variant, func.count(), func.sum(_number(given.correct)))
    query = query.where(_belongs(FEEDBACK, name, start, end)).group_by(given.variant, unit)
    for variant, verdicts, correct in _lines(connection, query):
        yield UnitVerdicts(variant, verdicts, int(correct or 0))


def names_seen(connection: Connection, start: datetime, end: datetime) -> list[str]:
    """The experiments with tasks in [start, end), in alphabetical order."""
    run = AGENT_RUNS.c
    query = select(run.experiment).where(run.created_at >= start, run.created_at < end, run.experiment.is_not(None))
    return sorted(name for (name,) in connection.execute(query.distinct()))


def _belongs(table: Table, name: str, start: datetime, end: datetime) -> ColumnElement[bool]:
    column = table.c
    times = and_(column.created_at >= start, column.created_at < end)
    return and_(times, column.experiment == name, column.variant.is_not(None))


def _number(column: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(column, Integer)


def _lines(connection: Connection, query: Any) -> Iterator[Sequence[Any]]:
    return iter(connection.execution_options(yield_per=_FETCH).execute(query))
