"""Erasing one user or one tenant: rows, summaries, feedback, budgets and what waits in the spool.

Rows go in transactions of some milliseconds that also take them out of the sums of their hours, so that every statistic
is that of what is left, at once. What cannot be taken out is listed.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, literal, or_, select

from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.budgets.model import digested
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store import clickhouse_erase, on_sqlite, subtraction
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.aggregate import sum_up_without_tenant
from taskpilot_obs.store.erase_files import Leftover, in_audit_log, in_spool
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER, BUDGET_RESERVATIONS
from taskpilot_obs.store.marks import deleted_from, merged_before
from taskpilot_obs.store.picked import picked
from taskpilot_obs.store.retention import delete_in_small_steps
from taskpilot_obs.store.rollups import FULL, TENANTS
from taskpilot_obs.store.segments import HOUR
from taskpilot_obs.store.small_steps import DeletionPace, in_small_steps
from taskpilot_obs.store.spool import default_directory
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, SUMMARIES, SUMMARY_WORK, VIOLATIONS
from taskpilot_obs.store.writer import mark_changed

if TYPE_CHECKING:
    from datetime import datetime
    from os import PathLike

    from sqlalchemy import ColumnElement, Connection, Table

    from taskpilot_obs.store.engine import Store

_OTHER_ROWS: Final = (AGENT_RUNS, FEEDBACK, VIOLATIONS)
_LEDGERS: Final = (BUDGET_RESERVATIONS, BUDGET_LEDGER)
_PACES: Final = {
    "sqlite": DeletionPace(first_rows=20, most_rows=2_000, target_s=0.005, pauses=1.0),
    "postgresql": DeletionPace(first_rows=20, most_rows=2_000, target_s=0.02, pauses=0.1),
}
"""A writer of SQLite waits for a transaction to end; one of PostgreSQL touches other rows."""
SPOOL: Final = "spool"


class Erasure(NamedTuple):
    """What was erased, or would be."""

    erased: dict[str, int]
    """How many rows of each table; under `spool`, rows that waited on the disk of this machine."""
    out_of_reach: tuple[Leftover, ...]
    """Where records of the subject are left, and what to do about them."""


class Subject(NamedTuple):
    """Whose records are erased."""

    column: str
    value: str
    scope: str
    """The key of budget scopes that names it."""
    given: str
    """The name as the application spells it."""

    def of(self, table: Table) -> ColumnElement[bool]:
        """The subject's rows of a table."""
        return table.c[self.column] == self.value

    def in_ledger(self, table: Table) -> ColumnElement[bool]:
        """The lines of budgets that are split by the subject. `LIKE` would take `Ann` for `ann` on SQLite."""
        named = (json.dumps({self.scope: name}, ensure_ascii=False)[1:-1] for name in (self.given, self.value))
        hashed = json.dumps({self.scope: digested(self.given)})[1:-1]
        return or_(*(func.replace(table.c.scope_key, part, "") != table.c.scope_key for part in {*named, hashed}))


def erase(
    *,
    user: str | None = None,
    tenant: str | None = None,
    store: str | Store | None = None,
    spool_dir: str | PathLike[str] | None = None,
    audit_log: str | PathLike[str] | None = None,
    dry_run: bool = False,
) -> Erasure:
    """Erase every record of one user or of one tenant, as `docs/privacy.md` describes.

    Writers wait for some milliseconds at most. Records that arrive later are stored as before. Sums that held the
    records are changed with them, so that answers are as fast as before.

    Args:
        user: as in `request_context(user_id=…)`; give this or `tenant`.
        tenant: as in `request_context(tenant_id=…)`.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        spool_dir: where records of this machine wait, if not in the default folder.
        audit_log: an audit log to look through; its records cannot be taken out, and are listed.
        dry_run: count what would be erased, and change nothing.

    Returns:
        How many records were erased where.

    Raises:
        ConfigurationError: neither or both are given, an empty name, or no store is named.
        StoreError: the store cannot be used; what was erased before stays erased.
    """
    subject = _subject(user, tenant)
    with opened(store) as opened_store:
        opened_store.require_current()
        folder = spool_dir or default_directory(opened_store.target.key)
        spooled, left = (0, ()) if opened_store.is_sqlite else in_spool(folder, subject, dry_run=dry_run)
        erased = {SPOOL: spooled, **(_counted if dry_run else _erased)(opened_store, subject)}
        sums = _kept_sums(opened_store, subject)
    logged = () if audit_log is None else in_audit_log(audit_log, subject)
    return Erasure(erased, (*left, *sums, *logged))


def _subject(user: str | None, tenant: str | None) -> Subject:
    if (user is None) == (tenant is None):
        raise ConfigurationError("erase: give either a user or a tenant")
    column, scope, given = ("user_id", "user", user) if tenant is None else ("organization_id", "tenant", tenant)
    value = stored_text(given)
    if not given or not value:
        raise ConfigurationError(f"erase: given an empty {scope}; give the name that the records have")
    return Subject(column, value, scope, given)


def _counted(store: Store, subject: Subject) -> dict[str, int]:
    found: dict[str, int] = {}
    with store.reading() as connection:
        for table, where in _what(subject, is_clickhouse=store.is_clickhouse):
            found[table.name] = connection.execute(select(func.count()).select_from(table).where(where)).scalar_one()
    return found


def _what(subject: Subject, *, is_clickhouse: bool) -> list[tuple[Table, ColumnElement[bool]]]:
    rows = [(table, subject.of(table)) for table in (LLM_CALLS, *_OTHER_ROWS)]
    rows += [(SUMMARIES, subject.of(SUMMARIES))] if subject.column in SUMMARIES.c else []
    if is_clickhouse:  # budgets are in another store
        return rows
    return [*rows, *((table, subject.in_ledger(table)) for table in _LEDGERS)]


def _erased(store: Store, subject: Subject) -> dict[str, int]:
    if store.is_clickhouse:
        return clickhouse_erase.erase_everywhere(store, subject.column, subject.value)
    lines = _counted(store, subject).get(SUMMARIES.name)
    _overwrite(store, "ON")
    try:
        found = {LLM_CALLS.name: _erase_calls(store, subject)}
        for table in _OTHER_ROWS:
            found[table.name] = delete_in_small_steps(store, table, subject.of(table))
        if lines is not None:
            _erase_sums(store, subject)
            found[SUMMARIES.name] = lines
        for table in _LEDGERS:
            found[table.name] = delete_in_small_steps(store, table, subject.in_ledger(table))
    finally:
        _overwrite(store, "OFF")
    if store.is_sqlite:
        on_sqlite.scrub(store)
    return found


def _overwrite(store: Store, state: str) -> None:
    """Whether SQLite overwrites with zeros what it deletes.

    This connection then also writes the journal back, or a commit of a writer would, for thousands of pages.
    """
    if store.is_sqlite:
        pages = on_sqlite.PAGES_OF_ERASURE if state == "ON" else on_sqlite.PAGES
        with store.writing() as connection:
            connection.exec_driver_sql(f"PRAGMA secure_delete={state}")
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={pages}").close()


def _erase_calls(store: Store, subject: Subject) -> int:
    with store.reading() as connection:
        before = deleted_from(connection, LLM_CALLS.name).before
    erase = partial(_erase_some, subject=subject, deleted_before=before)
    return in_small_steps(store, erase, _PACES[store.engine.dialect.name])


def _erase_some(connection: Connection, rows: int, subject: Subject, deleted_before: datetime | None) -> int:
    """Delete some calls, and take them out of the sums of their hours and days in the same transaction."""
    some = picked(connection, LLM_CALLS, subject.of(LLM_CALLS), rows, LLM_CALLS.c.created_at)
    calls = connection.execute(delete(LLM_CALLS).where(some).returning(*subtraction.COLUMNS)).all()
    counted = [call for call in calls if deleted_before is None or call.created_at >= deleted_before]
    subtraction.take_out(connection, counted)
    return len(calls)


def _erase_sums(store: Store, subject: Subject) -> None:
    """Take a tenant out of the hours whose rows were deleted by age, and mark the others."""
    with store.reading() as connection:
        hours, days = (_periods_with(connection, subject, length) for length in ("hourly", "daily"))
        kept = deleted_from(connection, LLM_CALLS.name).before
    for hour in hours:
        if kept is not None and hour < kept:
            sum_up_without_tenant(store, hour, subject.value)
        else:
            with store.writing() as connection:
                mark_changed(connection, "hourly", [hour])
    if days:  # some know tenants that their hours do not
        with store.writing() as connection:
            mark_changed(connection, "daily", days)
    with store.reading() as connection:
        is_left = connection.execute(select(literal(1)).where(subject.of(SUMMARIES)).limit(1)).first() is not None
    if is_left:  # lines that summing up replaces
        delete_in_small_steps(store, SUMMARIES, subject.of(SUMMARIES))


def _periods_with(connection: Connection, subject: Subject, length: str) -> list[datetime]:
    """The hours or days that have a line of the subject."""
    periods = [rollup.period(length) for rollup in (FULL, TENANTS)]
    found = select(SUMMARIES.c.period_start).where(subject.of(SUMMARIES), SUMMARIES.c.period.in_(periods))
    return sorted(connection.execute(found.distinct()).scalars())


def _kept_sums(store: Store, subject: Subject) -> tuple[Leftover, ...]:
    """Sums without names that old calls are still part of."""
    with store.reading() as connection:
        rows, sums = (deleted_from(connection, table.name).before for table in (LLM_CALLS, SUMMARIES))
        before = _nameless_before(connection, rows) if subject.column in SUMMARIES.c else rows
    if before is None or (sums is not None and before <= sums):
        return ()
    when = f"{before:%Y-%m-%d %H:%M} UTC"
    why = f"sums of hours before {when}, whose calls were deleted by age; they name no {subject.scope}"
    return (Leftover(SUMMARIES.name, None, why),)


def _nameless_before(connection: Connection, rows_deleted: datetime | None) -> datetime | None:
    """Before which moment there are sums of deleted calls that no full line tells; None: there are none."""
    merged = merged_before(connection, ["organization_id"])
    if rows_deleted is None:
        return merged
    work = SUMMARY_WORK.c
    hours = select(func.max(work.period_start)).where(work.period == "hourly", work.period_start < rows_deleted)
    newest = connection.execute(hours.where(work.lacking > 0, work.lacking.bitwise_and(FULL.bit) != 0)).scalar()
    return max((each for each in (merged, newest and newest + HOUR) if each is not None), default=None)
