"""Finished tasks, denials and ratings of a stretch of time: what golden signals are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select, text

from taskpilot_obs.records import Status
from taskpilot_obs.store.counts import joined, wide_sum
from taskpilot_obs.store.money import to_decimal
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, VIOLATIONS

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from sqlalchemy import Connection

_run = AGENT_RUNS.c


class Tasks(NamedTuple):
    """The finished tasks of one name."""

    runs: dict[Status, int]
    durations: Counter[int]
    """By bin of the sketch."""
    cost: Decimal
    """In USD, of all LLM calls beneath them."""
    runs_with_violations: int


def tasks(connection: Connection, start: datetime, end: datetime) -> dict[str, Tasks]:
    """The tasks that ended in [start, end), by name."""
    # As text: SQLite uses the index of tasks only for the very condition that it was made with.
    where = (text("is_task"), _run.created_at >= start, _run.created_at < end)
    durations: dict[str, Counter[int]] = defaultdict(Counter)
    for name, number, amount in connection.execute(
        select(_run.name, _run.duration_bin, func.count()).where(*where).group_by(_run.name, _run.duration_bin)
    ):
        durations[name][number] = amount
    sums = select(
        _run.name,
        _run.status,
        func.count(),
        func.count().filter(_run.violations > 0),
        func.sum(_run.cost_rest),
        *wide_sum(_run.cost_nano),
    )
    lines: dict[str, list[Any]] = defaultdict(list)
    for line in connection.execute(sums.where(*where).group_by(_run.name, _run.status)):
        lines[line[0]].append(line)
    return {
        name: Tasks(
            {Status(line[1]): line[2] for line in held},
            durations[name],
            to_decimal(sum(joined(*line[5:]) for line in held), sum(line[4] or 0 for line in held)),
            sum(line[3] for line in held),
        )
        for name, held in lines.items()
    }


def statuses(connection: Connection, start: datetime, end: datetime) -> dict[Status, int]:
    """How the tasks that ended in [start, end) ended."""
    query = select(_run.status, func.count()).where(text("is_task"), _run.created_at >= start, _run.created_at < end)
    return {Status(status): amount for status, amount in connection.execute(query.group_by(_run.status))}


def denials(connection: Connection, start: datetime, end: datetime) -> int:
    """How often policies denied in [start, end)."""
    denied = select(func.count()).where(VIOLATIONS.c.created_at >= start, VIOLATIONS.c.created_at < end)
    found: int = connection.execute(denied).scalar_one()
    return found


def verdicts(connection: Connection, start: datetime, end: datetime) -> dict[bool, int]:
    """How many requests that were rated in [start, end) were rated correct, and how many incorrect, in the end.

    A request counts once, by its latest rating, whichever processes took its ratings.
    """
    rating = FEEDBACK.c
    order = (rating.created_at.desc(), rating.feedback_id.desc())
    rank = func.row_number().over(partition_by=rating.request_id, order_by=order).label("rank")
    ranked = select(rating.correct, rank).where(rating.created_at >= start, rating.created_at < end).subquery()
    latest = select(ranked.c.correct, func.count()).where(ranked.c.rank == 1).group_by(ranked.c.correct)
    return {bool(correct): amount for correct, amount in connection.execute(latest)}
