"""Which part of a stretch of time is read from rows, and which from summaries.

A summary is used only where nothing was written since it was made: writers mark the hour of every row in the same
transaction (`llm_summary_work`), so that rows and summaries always give the same answer.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import exists, select
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.store.tables import LLM_CALLS, STATE, SUMMARIES, SUMMARY_WORK

if TYPE_CHECKING:
    from sqlalchemy import Connection

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_MOST_SEGMENTS: Final = 60
"""Beyond, a query would have more conditions than reading all rows costs."""

Source = Literal["rows", "hourly", "daily"]


class Segment(NamedTuple):
    """A stretch of time [start, end) and what it is read from."""

    source: Source
    start: datetime
    end: datetime


class Plan(NamedTuple):
    """How a question is answered."""

    segments: tuple[Segment, ...]
    incomplete_before: datetime | None
    """Rows before this moment were deleted, and summaries cannot answer the question there; None: all is there."""


def floor_hour(moment: datetime) -> datetime:
    """The beginning of the hour, in UTC."""
    return moment.replace(minute=0, second=0, microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """The beginning of the day, in UTC."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def plan(connection: Connection, start: datetime, end: datetime, *, rows_only: bool = False) -> Plan:
    """Divide [start, end) so that as much as possible comes from summaries, and the answer is exact.

    Args:
        connection: one snapshot, for this and for the queries that follow.
        start: in UTC.
        end: in UTC.
        rows_only: the question is about something that summaries do not tell apart (a user, a workflow).
    """
    pruned = pruned_before(connection)
    if rows_only:
        missing = pruned if pruned is not None and pruned > start and _had_calls(connection, start, pruned) else None
        return Plan((Segment("rows", start, end),), missing)
    segments = _merged(_cut(connection, start, end, pruned))
    if len(segments) > _MOST_SEGMENTS:
        segments = _merged(_cut_coarse(start, end, pruned))
    torn = pruned is not None and start < pruned and floor_hour(start) != start
    return Plan(segments, _next_hour(start) if torn and _had_calls(connection, floor_hour(start), start) else None)


def _next_hour(moment: datetime) -> datetime:
    return floor_hour(moment) + HOUR


def _cut(connection: Connection, start: datetime, end: datetime, pruned: datetime | None) -> list[Segment]:
    hours = _changed(connection, "hourly", start - HOUR, end)
    days = _changed(connection, "daily", start - DAY, end)
    if pruned is not None:
        hours = {hour for hour in hours if hour >= pruned}
    days |= {floor_day(hour) for hour in hours}
    edges = sorted(
        {start, end, *_aligned(start, end), *hours, *(hour + HOUR for hour in hours)} | _day_edges(start, end, days)
    )
    edges = [edge for edge in edges if start <= edge <= end]
    return [Segment(_source(left, right, hours, days), left, right) for left, right in pairwise(edges)]


def _aligned(start: datetime, end: datetime) -> set[datetime]:
    """Where whole hours and whole days begin and end."""
    first_hour = start if floor_hour(start) == start else _next_hour(start)
    first_day = start if floor_day(start) == start else floor_day(start) + DAY
    edges = {first_hour, floor_hour(end)} if first_hour <= floor_hour(end) else set()
    return edges | ({first_day, floor_day(end)} if first_day <= floor_day(end) else set())


def _day_edges(start: datetime, end: datetime, days: set[datetime]) -> set[datetime]:
    return {edge for day in days for edge in (day, day + DAY) if start <= edge <= end}


def _source(left: datetime, right: datetime, hours: set[datetime], days: set[datetime]) -> Source:
    if floor_hour(left) != left or floor_hour(right) != right or left in hours:
        return "rows"
    whole_days = floor_day(left) == left and floor_day(right) == right
    return "daily" if whole_days and left not in days else "hourly"


def _cut_coarse(start: datetime, end: datetime, pruned: datetime | None) -> list[Segment]:
    if pruned is None or pruned <= start:
        return [Segment("rows", start, end)]
    first = start if floor_hour(start) == start else _next_hour(start)
    return [Segment("hourly", first, min(pruned, end)), Segment("rows", min(pruned, end), end)]


def _merged(segments: list[Segment]) -> tuple[Segment, ...]:
    """Join neighbours that are read from the same source."""
    merged: list[Segment] = []
    for segment in segments:
        if segment.start >= segment.end:
            continue
        if merged and merged[-1].source == segment.source and merged[-1].end == segment.start:
            merged[-1] = merged[-1]._replace(end=segment.end)
        else:
            merged.append(segment)
    return tuple(merged)


def _changed(connection: Connection, period: str, start: datetime, end: datetime) -> set[datetime]:
    work = SUMMARY_WORK.c
    query = select(work.period_start).where(work.period == period, work.period_start > start, work.period_start < end)
    return set(connection.execute(query.distinct()).scalars())


def changed_before(connection: Connection, moment: datetime) -> bool:
    """Whether an hour before this moment has to be summed up."""
    work = SUMMARY_WORK.c
    pruned = pruned_before(connection)
    query = select(work.work_id).where(work.period == "hourly", work.period_start < moment)
    if pruned is not None:
        query = query.where(work.period_start >= pruned)
    return connection.execute(query.limit(1)).first() is not None


def _had_calls(connection: Connection, start: datetime, end: datetime) -> bool:
    summary = SUMMARIES.c
    some = exists().where(summary.period == "hourly", summary.period_start >= start, summary.period_start < end)
    return bool(connection.execute(select(some)).scalar_one())


def pruned_before(connection: Connection) -> datetime | None:
    """Up to when rows of LLM calls were deleted; None: never."""
    query = select(STATE.c.value).where(STATE.c.key == _key(LLM_CALLS.name))
    return connection.execute(query).scalar_one_or_none()


def set_pruned_before(connection: Connection, table: str, moment: datetime) -> None:
    """Note that rows before this moment are about to be deleted, for good."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    put = dialect.insert(STATE).values(key=_key(table), value=moment)
    later = put.on_conflict_do_update(
        index_elements=[STATE.c.key], set_={"value": put.excluded.value}, where=STATE.c.value < put.excluded.value
    )
    connection.execute(later)


def _key(table: str) -> str:
    return f"pruned_before:{table}"
