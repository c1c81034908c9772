"""Finished tasks, denials and ratings of a stretch of time: what golden signals are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, case, exists, func, or_, select, text

from taskpilot_obs._telemetry.counts import joined
from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs.records import Status
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, VIOLATIONS
from taskpilot_obs.store.wide import wide_sum

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from sqlalchemy import ColumnElement, Connection

_run = AGENT_RUNS.c


class Tasks(NamedTuple):
    """The finished tasks of one name."""

    runs: dict[Status, int]
    durations: Counter[int]
    """By bin of the sketch."""
    cost: Decimal
    """In USD, of all LLM calls beneath them."""
    runs_with_violations: int


def tasks(connection: Connection, start: datetime, end: datetime, tenant: str | None = None) -> dict[str, Tasks]:
    """The tasks that ended in [start, end), by name; of one tenant, or of all."""
    # As text: SQLite uses the index of tasks only for the condition that it was made with.
    where = _tasks_where(start, end, tenant)
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


def statuses(connection: Connection, start: datetime, end: datetime, tenant: str | None = None) -> dict[Status, int]:
    """How the tasks that ended in [start, end) ended; of one tenant, or of all."""
    query = select(_run.status, func.count()).where(*_tasks_where(start, end, tenant))
    return {Status(status): amount for status, amount in connection.execute(query.group_by(_run.status))}


def _tasks_where(start: datetime, end: datetime, tenant: str | None) -> list[Any]:
    where: list[Any] = [text("is_task"), _run.created_at >= start, _run.created_at < end]
    return where if tenant is None else [*where, _run.organization_id == tenant]


def denials(connection: Connection, start: datetime, end: datetime, tenant: str | None = None) -> int:
    """How often policies denied in [start, end); of one tenant, or of all."""
    denied = select(func.count()).where(VIOLATIONS.c.created_at >= start, VIOLATIONS.c.created_at < end)
    if tenant is not None:
        denied = denied.where(VIOLATIONS.c.organization_id == tenant)
    found: int = connection.execute(denied).scalar_one()
    return found


def verdicts(connection: Connection, start: datetime, end: datetime, tenant: str | None = None) -> dict[bool, int]:
    """How many requests that were rated in [start, end) were rated correct, and how many incorrect, in the end.

    A request counts once, by its latest rating, whichever processes took its ratings. Feedback without a request ID
    cannot be revised and always counts.
    """
    rating = FEEDBACK.c
    subject = case((rating.request_id == "", rating.feedback_id), else_=rating.request_id)
    order = (rating.created_at.desc(), rating.revision.desc(), rating.feedback_id.desc())
    rank = func.row_number().over(partition_by=(subject, rating.organization_id), order_by=order).label("rank")
    ranked = select(rating.correct, rank).where(rating.created_at >= start, rating.created_at < end)
    if tenant is not None:
        ranked = ranked.where(_verdict_of(tenant))
    rated = ranked.subquery()
    latest = select(rated.c.correct, func.count()).where(rated.c.rank == 1).group_by(rated.c.correct)
    return {bool(correct): amount for correct, amount in connection.execute(latest)}


def _verdict_of(tenant: str) -> ColumnElement[bool]:
    """A verdict names its tenant, or belongs to the tenant that ran the request."""
    ran = exists().where(_run.request_id == FEEDBACK.c.request_id, _run.organization_id == tenant)
    return or_(FEEDBACK.c.organization_id == tenant, and_(FEEDBACK.c.organization_id.is_(None), ran))
