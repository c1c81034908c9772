"""Summing up: rows into hours, hours into days.

Any number of processes may do it at any time. Each period goes through three steps, of which only the first and the
last write, and briefly: claim the marks that writers left (later writers leave new ones), add up one snapshot, and
put the result in place of the old one as long as the claim stands: some lines at a time, and the claim goes with the
last of them. Until then the period is read from what it was added up from. Lines whose rows are gone are deleted.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, delete, insert, or_, select, update

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.timestamps import aware
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.store import clickhouse_sums, on_postgresql
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.adding_up import LENGTHS, SummaryPeriod, day_of_hours, hour_from_rows, keys_there, summed
from taskpilot_obs.store.marks import deleted_from
from taskpilot_obs.store.months import make_ahead
from taskpilot_obs.store.rollups import FULL, ROLLUPS, TENANTS
from taskpilot_obs.store.segments import HOUR, QueryPlan, Segment, floor_day, floor_hour
from taskpilot_obs.store.summary_lines import Line, Sums, joined, keyed, line_of, narrowed, put, take
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARIES, SUMMARY_WORK
from taskpilot_obs.store.writer import mark_changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from taskpilot_obs.store.engine import Store

_FIRST_LINES: Final = 100
_LEAST_LINES: Final = 25
_LEAST_S: Final = 1e-6
"""A clock may stand still between two readings."""


class _Pace(NamedTuple):
    """How lines are put in place."""

    target_s: float
    """How long one transaction should last."""
    pauses: float
    """How many times as long the process waits after it."""


_PACES: Final = {
    # A writer of SQLite waits for the lock, and looks for it now and then only.
    "sqlite": _Pace(0.004, 3.0),
    # Writers of PostgreSQL touch other rows; a commit may take longer than what it writes.
    "postgresql": _Pace(0.1, 0.1),
}
_work = SUMMARY_WORK.c


def aggregate_summaries(
    period: SummaryPeriod = "hourly",
    lookback_hours: float | None = 24,
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
) -> int:
    """Sum up LLM calls, so that questions about long stretches of time are answered in milliseconds.

    Only what changed since the last time is summed up, and doing it twice changes nothing. Answers never depend on it,
    only their speed does. Monthly partitions of PostgreSQL, where the tables have them, are made ahead.

    Args:
        period: "hourly", or "daily", which sums up the hours first.
        lookback_hours: how far back to look for hours that changed; None: to the beginning.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Returns:
        How many hours and days were summed up.

    Raises:
        ConfigurationError: another period, a lookback that is not positive, or a time without zone.
        StoreError: the store cannot be used; `StoreVersionError` where its tables are older than this code.
    """
    if period not in LENGTHS:
        raise ConfigurationError(f"period: given {period!r}; allowed are 'hourly' and 'daily'")
    if lookback_hours is not None and not lookback_hours > 0:
        raise ConfigurationError(f"lookback_hours: given {lookback_hours!r}; it must be positive, or None")
    since = None
    if lookback_hours is not None:
        since = floor_hour(_ago(aware(now), lookback_hours))
    with opened(store) as opened_store:
        opened_store.require_current()
        if opened_store.is_clickhouse:
            return clickhouse_sums.sum_up(opened_store, period, since)
        _make_months(opened_store)
        done = sum(_sum_up(opened_store, "hourly", start) for start in _changed(opened_store, "hourly", since))
        if period == "daily":
            first_day = floor_day(since) if since else None
            done += sum(_sum_up(opened_store, "daily", start) for start in _changed(opened_store, "daily", first_day))
    return done


def _make_months(store: Store) -> None:
    """Failing at it must not keep sums from being made, which is the more urgent."""
    try:
        make_ahead(store)
    except StoreError as error:
        log_failure("store partitions", error)


def _ago(now: datetime, hours: float) -> datetime:
    try:
        return now - timedelta(hours=hours)
    except (OverflowError, ValueError) as error:
        raise ConfigurationError(f"lookback_hours: given {hours!r}; that is before the calendar begins") from error


def _changed(store: Store, period: SummaryPeriod, since: datetime | None) -> list[datetime]:
    query = select(_work.period_start).where(_work.period == period, _work.lacking.is_(None))
    if since is not None:
        query = query.where(_work.period_start >= since)
    with store.reading() as connection:
        return list(connection.execute(query.distinct().order_by(_work.period_start)).scalars())


def _sum_up(store: Store, period: SummaryPeriod, start: datetime) -> bool:
    """Sum up one hour or day; False where another process does, or its rows are gone already."""
    claim = _claim(store, period, start)
    if claim is None:
        return False
    with store.reading() as connection:
        made = hour_from_rows(connection, start) if period == "hourly" else day_of_hours(connection, start)
        stale = keys_there(connection, store, period, start) - made.lines.keys()
        lines = [line_of(key, sums) for key, sums in made.lines.items()]
    return _replaced(store, _Replacement(claim, period, start, made.lacking), lines, sorted(stale))


# --- putting in place ------------------------------------------------------------------------------------------------


class _Replacement(NamedTuple):
    """What is put in place of what."""

    claim: int
    period: SummaryPeriod
    start: datetime
    lacking: int


def _replaced(store: Store, made: _Replacement, lines: Sequence[Line], stale: Sequence[Line]) -> bool:
    """Put lines in place and delete stale ones, in transactions of some milliseconds; False where it was overtaken.

    Another process has claimed the period then, saw what is there now, and puts all that belongs there.
    """
    todo = [*((take, key) for key in stale), *((put, line) for line in lines)]
    done, amount, pace = 0, _FIRST_LINES, _PACES[store.engine.dialect.name]
    while True:
        with store.writing() as connection:
            began = time.perf_counter()
            is_last = done + amount >= len(todo)
            if not (_given_up(connection, made) if is_last else _stands(connection, made.claim)):
                return False
            for act in (take, put):
                act(connection, [values for which, values in todo[done : done + amount] if which is act])
            if is_last:
                if made.period == "hourly":
                    mark_changed(connection, "daily", [floor_day(made.start)])
                return True
        took = max(time.perf_counter() - began, _LEAST_S)
        done += amount
        amount = max(_LEAST_LINES, min(2 * amount, int(amount * pace.target_s / took)))
        time.sleep(pace.pauses * took)


def _given_up(connection: Connection, made: _Replacement) -> bool:
    """End the claim; what stays of it says which roll-ups the period lacks."""
    mine = _work.work_id == made.claim
    if made.lacking:
        ended = update(SUMMARY_WORK).where(mine).values(lacking=made.lacking)
        return connection.execute(ended).rowcount > 0
    return connection.execute(delete(SUMMARY_WORK).where(mine)).rowcount > 0


def _stands(connection: Connection, claim: int) -> bool:
    """Whether no other process has claimed it since, and none can before this transaction ends."""
    held = select(_work.work_id).where(_work.work_id == claim).with_for_update()
    return connection.execute(held).first() is not None


def _claim(store: Store, period: SummaryPeriod, start: datetime) -> int | None:
    """Take over every mark of a period; None where its rows or its summaries were deleted by age."""
    mine = (_work.period == period, _work.period_start == start)
    with store.writing() as connection:
        on_postgresql.lock_sums(connection, alone=False)
        if _is_deleted(connection, period, start):
            connection.execute(delete(SUMMARY_WORK).where(*mine, _work.lacking.is_(None)))
            return None
        connection.execute(delete(SUMMARY_WORK).where(*mine))
        claim = insert(SUMMARY_WORK).values(period=period, period_start=start, claimed=True)
        number: int = connection.execute(claim.returning(_work.work_id)).scalar_one()
    return number


def _is_deleted(connection: Connection, period: SummaryPeriod, start: datetime) -> bool:
    tables = (LLM_CALLS, SUMMARIES) if period == "hourly" else (SUMMARIES,)
    marks = (deleted_from(connection, table.name).before for table in tables)
    return any(mark is not None and start < mark for mark in marks)


# --- again -----------------------------------------------------------------------------------------------------------


def rebuild_summaries(*, store: str | Store | None = None) -> int:
    """Sum up again every hour whose rows are there, after rows were deleted or changed by hand.

    Hours whose rows were deleted by age keep their summaries. Answers come from rows until an hour is done.

    Args:
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.

    Returns:
        How many hours and days were summed up.

    Raises:
        StoreError: the store cannot be used.
    """
    with opened(store) as opened_store:
        opened_store.require_current()
        if opened_store.is_clickhouse:
            return clickhouse_sums.sum_up(opened_store, "daily", None, again=True)
        mark_all_changed(opened_store)
        return aggregate_summaries("daily", None, store=opened_store)


def mark_all_changed(store: Store) -> None:
    """Note that every hour has to be summed up whose rows are there, or were there and were deleted by hand."""
    with store.reading() as connection:
        kept = deleted_from(connection, LLM_CALLS.name).before
        moments = {floor_hour(moment) for moment in _hours(connection)}
    hours = sorted(hour for hour in moments if kept is None or hour >= kept)
    for first in range(0, len(hours), _FIRST_LINES):
        with store.writing() as connection:
            mark_changed(connection, "hourly", hours[first : first + _FIRST_LINES])


def _hours(connection: Connection) -> Iterator[datetime]:
    """The hours that have rows or summaries."""
    moment, moments = None, LLM_CALLS.c.created_at
    while True:  # from hour to hour by the index, whatever the number of rows
        query = select(moments).order_by(moments).limit(1)
        if moment is not None:
            query = query.where(moments >= floor_hour(moment) + HOUR)
        moment = connection.execute(query).scalar_one_or_none()
        if moment is None:
            break
        yield moment
    summary = SUMMARIES.c
    of_hours = or_(*(summary.period == rollup.period("hourly") for rollup in ROLLUPS))
    yield from connection.execute(select(summary.period_start).where(of_hours).distinct()).scalars()


def sum_up_without_tenant(store: Store, start: datetime, tenant: str) -> None:
    """Take a tenant out of an hour whose rows are gone, or its name where the full roll-up was not made.

    Raises:
        StoreError: the database failed.
    """
    with store.writing() as connection:
        lacking = select(_work.lacking).where(_work.period == "hourly", _work.period_start == start)
        bits = connection.execute(lacking.where(_work.lacking.is_not(None))).scalars().first() or 0
        if bits & FULL.bit:
            lines = _without_name(connection, start, tenant)
        else:
            lines = _without_calls(connection, start, tenant, bits)
        put(connection, [line_of(key, sums) for key, sums in lines.items()])
        mark_changed(connection, "daily", [floor_day(start)])


def _without_calls(connection: Connection, start: datetime, tenant: str, lacking: int) -> dict[Line, Sums]:
    """Delete the tenant's lines; the narrow ones, added up from the full lines that are left."""
    summary = SUMMARIES.c
    is_tenants = (summary.period == FULL.period("hourly"), summary.organization_id == tenant)
    is_narrow = summary.period.in_([rollup.period("hourly") for rollup in ROLLUPS[1:]])
    connection.execute(delete(SUMMARIES).where(summary.period_start == start, or_(and_(*is_tenants), is_narrow)))
    full = summed(connection, QueryPlan((Segment("hourly", start, start + HOUR),)), FULL)
    lines: dict[Line, Sums] = {}
    for rollup in ROLLUPS[1:]:
        if not rollup.bit & lacking:
            lines |= keyed(connection, rollup, "hourly", start, narrowed(full, rollup))
    return lines


def _without_name(connection: Connection, start: datetime, tenant: str) -> dict[Line, Sums]:
    """Delete the tenant's line, and add its sums to the line without a name.

    What a tenant added to the lines of series is not known, and the sum over tenants has to be that over series.
    """
    hour = QueryPlan((Segment("hourly", start, start + HOUR),), rollup=TENANTS)
    named, nameless = (summed(connection, hour, TENANTS, {"organization_id": name}) for name in (tenant, ""))
    summary = SUMMARIES.c
    mine = (summary.period_start == start, summary.period.like("hourly%"), summary.organization_id == tenant)
    connection.execute(delete(SUMMARIES).where(*mine))
    sums = [*named.values(), *nameless.values()]
    return keyed(connection, TENANTS, "hourly", start, {("",): joined(sums)} if sums else {})
