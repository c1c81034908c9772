"""One verdict a request, whichever process it comes from: repeated ones are dropped, opposite ones are revisions.

A process knows its own last verdicts only. The store knows them all, so what a new one means is decided here, in the
transaction that writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import func, select

from taskpilot_obs.store import on_clickhouse
from taskpilot_obs.store.rows import FEEDBACK_COLUMNS, Row
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, from_microseconds, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_AT: Final = {name: number for number, name in enumerate(FEEDBACK_COLUMNS)}
_LOCK_SPACE: Final = 746_570
"""Keeps these advisory locks apart from those of other applications of the same database."""


class _Last(NamedTuple):
    correct: bool
    created_at: datetime
    feedback_id: str


def revised(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """The verdicts that have to be written, oldest first, each marked as a first word or as a revision.

    A verdict that repeats the last one on its request, or is older than it, is left out; its comment goes to the last
    one. Feedback without a request ID cannot be revised and is always written. A verdict without a tenant takes that of
    the request's run.

    Args:
        connection: the transaction that will write them; on PostgreSQL it locks the requests until its end.
        rows: in the order of the table's columns.
    """
    if not rows:
        return []
    _lock(connection, sorted({str(row[_AT["request_id"]]) for row in rows}))
    last: dict[tuple[object, object], _Last | None] = {}
    kept: dict[str, Row] = {}
    for given in sorted(rows, key=lambda row: row[_AT["created_at"]] or 0):
        row = _with_tenant(connection, given)
        said = _said(row)
        key = (row[_AT["request_id"]], row[_AT["organization_id"]])
        if key not in last:
            last[key] = _last(connection, *key)
        before = last[key]
        if before is not None and row[_AT["request_id"]]:
            if before.created_at > said.created_at:
                continue
            if before.correct == said.correct:
                _comment(connection, before.feedback_id, row[_AT["comment"]], kept)
                continue
            row = _replaced(row, "revision", value=True)
        last[key] = said
        kept[said.feedback_id] = row
    return [*kept.values()]


def _said(row: Row) -> _Last:
    moment = from_microseconds(int(row[_AT["created_at"]] or 0))
    return _Last(bool(row[_AT["correct"]]), moment, str(row[_AT["feedback_id"]]))


def _lock(connection: Connection, requests: Sequence[str]) -> None:
    """Two processes that rate one request wait for each other; on SQLite every writer waits for the one before.

    ClickHouse has no locks: two first verdicts of one moment may both count as such there, and the later one is read.
    """
    if connection.dialect.name != "postgresql":
        return
    for request in requests:
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, func.hashtext(request))))


def _last(connection: Connection, request: object, tenant: object) -> _Last | None:
    verdict = FEEDBACK.c
    owner = verdict.organization_id.is_(None) if tenant is None else verdict.organization_id == tenant
    newest = (
        select(verdict.correct, verdict.created_at, verdict.feedback_id)
        .where(verdict.request_id == request, owner)
        .order_by(verdict.created_at.desc(), verdict.revision.desc(), verdict.feedback_id.desc())
    )
    found = connection.execute(newest.limit(1)).first()
    return None if found is None else _Last(*found)


def _comment(connection: Connection, own_id: str, comment: str | float | None, kept: dict[str, Row]) -> None:
    """Keep what was added to a verdict that stays as it is.

    Args:
        connection: that of `revised`.
        own_id: of the verdict that stays.
        comment: None where nothing was added.
        kept: the rows to write, by ID. On ClickHouse, which updates no row, the stored one joins them and replaces
            itself.
    """
    if comment is None:
        return
    own = FEEDBACK.c.feedback_id == own_id
    if own_id in kept:
        kept[own_id] = _replaced(kept[own_id], "comment", value=comment)
    elif on_clickhouse.is_on(connection):
        there = connection.execute(select(FEEDBACK).where(own)).one()
        row = _replaced(tuple(there), "created_at", value=to_microseconds(there.created_at))
        kept[own_id] = _replaced(row, "comment", value=comment)
    else:
        connection.execute(FEEDBACK.update().where(own).values(comment=comment))


def _with_tenant(connection: Connection, row: Row) -> Row:
    if row[_AT["organization_id"]] is not None or not row[_AT["request_id"]]:
        return row
    for table in (AGENT_RUNS, LLM_CALLS):
        owner = select(table.c.organization_id).where(
            table.c.request_id == row[_AT["request_id"]], table.c.organization_id.is_not(None)
        )
        found = connection.execute(owner.limit(1)).scalar_one_or_none()
        if found is not None:
            return _replaced(row, "organization_id", value=found)
    return row


def _replaced(row: Row, column: str, *, value: str | float | None) -> Row:
    place = _AT[column]
    return (*row[:place], value, *row[place + 1 :])
