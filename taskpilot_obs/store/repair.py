"""Setting marks of deletion back that a clock which was ahead has set, so that new rows count again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from taskpilot_obs._support.timestamps import EPOCH
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.aggregate import mark_all_changed
from taskpilot_obs.store.marks import deleted_from, newest_and_oldest, set_back
from taskpilot_obs.store.retention import ROW_TABLES
from taskpilot_obs.store.rollups import SERIES
from taskpilot_obs.store.segments import HOUR, floor_day, floor_hour
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARIES

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.engine import Store


class Repair(NamedTuple):
    """A mark that was set back."""

    table: str
    was: datetime
    now: datetime


def repair(*, store: str | Store | None = None) -> list[Repair]:
    """Set back every mark that says rows were deleted which are there, and sum their hours up again.

    An hour from which some calls were deleted, and that has newer calls too, keeps the sum of the deleted ones; the
    newer ones are not counted in it.

    Args:
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.

    Returns:
        The marks that were set back.

    Raises:
        StoreError: the store cannot be used.
    """
    done: list[Repair] = []
    with opened(store) as opened_store:
        opened_store.require_current()
        for table in (*ROW_TABLES.values(), SUMMARIES):
            with opened_store.reading() as connection:
                found = _of_table(connection, table)
            if found is not None:
                with opened_store.writing() as connection:
                    set_back(connection, table.name, found.now)
                done.append(found)
        if any(each.table in {LLM_CALLS.name, SUMMARIES.name} for each in done):
            mark_all_changed(opened_store)
    return done


def _of_table(connection: Connection, table: Table) -> Repair | None:
    was = deleted_from(connection, table.name).before
    _, oldest = newest_and_oldest(connection, table)
    if was is None or oldest is None or was <= oldest:
        return None
    if table is SUMMARIES:
        return Repair(table.name, was, floor_day(oldest))
    floor = floor_hour(oldest)
    return Repair(table.name, was, max(floor, _first_whole_hour(connection)) if table is LLM_CALLS else floor)


def _first_whole_hour(connection: Connection) -> datetime:
    """The first hour from which on no summary counts more calls than there are rows."""
    summary, call = SUMMARIES.c, LLM_CALLS.c
    told = select(summary.period_start, func.sum(summary.requests)).where(summary.period == SERIES.period("hourly"))
    newest = told.group_by(summary.period_start).order_by(summary.period_start.desc())
    for hour, requests in connection.execute(newest):
        within = (call.created_at >= hour, call.created_at < hour + HOUR)
        there = connection.execute(select(func.count()).select_from(LLM_CALLS).where(*within)).scalar_one()
        if there < requests:
            last: datetime = hour
            return last + HOUR
    return EPOCH
