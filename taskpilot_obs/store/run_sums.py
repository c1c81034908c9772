"""What the runs of agents, or the calls of tools, add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, cast, func, or_, select, text

from taskpilot_obs._telemetry.counts import joined
from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs.store.marks import deleted_from
from taskpilot_obs.store.tables import AGENT_RUNS
from taskpilot_obs.store.wide import wide_sum

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from sqlalchemy import ColumnElement

    from taskpilot_obs.records import Operation
    from taskpilot_obs.store.questions import Question

_run = AGENT_RUNS.c
BENEATH: Final = ("llm_calls", "unpriced_calls", "tool_calls", "violations", "input_tokens", "output_tokens")
"""Counts of what happened beneath a run. `unpriced_calls` are LLM calls without a known cost."""


class RunSums(NamedTuple):
    """The finished runs of one name."""

    runs: int
    successes: int
    failures: int
    beneath: dict[str, int]
    """What happened beneath them, by the columns of `BENEATH`."""
    duration_total_ms: float
    cost: Decimal
    """In USD, of the LLM calls beneath with a known cost."""


class RunsFound(NamedTuple):
    """The runs of a period, by name."""

    sums: dict[str, RunSums]
    durations: dict[str, Counter[int]]
    """By bin of the sketch."""
    errors: dict[str, Counter[str]]
    """Failed runs by class of error, or by status where none is known."""
    incomplete_before: datetime | None
    """Runs before this moment were deleted by age; None: the answer is complete."""


def run_sums(question: Question, operation: Operation) -> RunsFound:
    """The runs of an operation in the period of a question.

    Raises:
        StoreVersionError: the tables have no column for a filter.
    """
    where = _where(question, operation)
    ask = question.connection.execute
    durations: dict[str, Counter[int]] = defaultdict(Counter)
    for name, number, amount in ask(
        select(_run.name, _run.duration_bin, func.count()).where(*where).group_by(_run.name, _run.duration_bin)
    ):
        durations[name][number] = amount
    errors: dict[str, Counter[str]] = defaultdict(Counter)
    kind = func.coalesce(_run.error_type, _run.status)
    failed = select(_run.name, kind, func.count()).where(*where, text("NOT success")).group_by(_run.name, kind)
    for name, error, amount in ask(failed):
        errors[name][error] = amount
    sums = {line[0]: _sums_of(line[1:]) for line in ask(select(_run.name, *_SUMS).where(*where).group_by(_run.name))}
    deleted = deleted_from(question.connection, AGENT_RUNS.name)
    return RunsFound(sums, durations, errors, deleted.missing_in(question.start, question.end))


_SUMS = (
    func.count(),
    func.count(_run.success),
    func.sum(cast(_run.success, Integer)),
    *(func.sum(_run[column]) for column in BENEATH),
    func.sum(_run.duration_ms),
    func.sum(_run.cost_rest),
    *wide_sum(_run.cost_nano),
)


def _sums_of(values: Any) -> RunSums:
    runs, counted, successes, *beneath, duration_ms, rest, high, low = (value or 0 for value in values)
    return RunSums(
        runs=int(runs),
        successes=int(successes),
        failures=int(counted - successes),
        beneath=dict(zip(BENEATH, map(int, beneath), strict=True)),
        duration_total_ms=float(duration_ms),
        cost=to_decimal(joined(high, low), rest),
    )


def _where(question: Question, operation: Operation) -> list[ColumnElement[bool]]:
    found = [
        _run.created_at >= question.start,
        _run.created_at < question.end,
        _run.operation == operation.value,
    ]
    for name, value in question.filters.items():
        question.needs(AGENT_RUNS, name)
        column = _run[name]
        found.append(column == value if value else or_(column.is_(None), column == ""))
    return found
