"""Finished tasks, denials and verdicts of a stretch of time: what golden signals are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, exists, func, or_, select, text

from taskpilot_obs.records import Status
from taskpilot_obs.store.money import to_decimal
from taskpilot_obs.store.queries import joined, wide_sum
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, VIOLATIONS

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


class Told(NamedTuple):
    """What was said about tasks."""

    violations: int
    feedback: dict[tuple[bool, bool], int]
    """Verdicts of users, by (correct, revision)."""


def tasks(connection: Connection, start: datetime, end: datetime, tenant: str | None = None) -> dict[str, Tasks]:
    """The tasks that ended in [start, end), by name; of one tenant, or of all."""
    # As text: SQLite uses the index of tasks only for the very condition that it was made with.
    where: list[Any] = [text("is_task"), _run.created_at >= start, _run.created_at < end]
    if tenant is not None:
        where.append(_run.organization_id == tenant)
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


def told(connection: Connection, start: datetime, end: datetime, tenant: str | None = None) -> Told:
    """The denials and verdicts of [start, end); of one tenant, or of all."""
    denied = select(func.count()).where(VIOLATIONS.c.created_at >= start, VIOLATIONS.c.created_at < end)
    verdict = FEEDBACK.c
    kinds = (verdict.correct, verdict.revision)
    said = select(*kinds, func.count()).where(verdict.created_at >= start, verdict.created_at < end).group_by(*kinds)
    if tenant is not None:
        denied = denied.where(VIOLATIONS.c.organization_id == tenant)
        said = said.where(_verdict_of(tenant))
    return Told(
        connection.execute(denied).scalar_one(),
        {(correct, revision): amount for correct, revision, amount in connection.execute(said)},
    )


def _verdict_of(tenant: str) -> ColumnElement[bool]:
    """A verdict names its tenant, or belongs to whoever ran the request."""
    ran = exists().where(_run.request_id == FEEDBACK.c.request_id, _run.organization_id == tenant)
    return or_(FEEDBACK.c.organization_id == tenant, and_(FEEDBACK.c.organization_id.is_(None), ran))
