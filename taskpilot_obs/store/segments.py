"""Which part of a stretch of time is read from rows, and which from summaries.

A summary is used only where nothing was written since it was made: writers mark the hour of every row in the same
transaction (`llm_summary_work`), so that rows and summaries always give the same answer. Where rows were deleted by
age, summaries answer; where summaries were deleted sooner, rows do; where neither is left, the plan carries the moment.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import exists, null, select

from taskpilot_obs.store.marks import Deleted, deleted_from
from taskpilot_obs.store.rollups import FULL, SERIES, Grain
from taskpilot_obs.store.tables import LLM_CALLS, NEWEST, SUMMARIES, SUMMARY_WORK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_MOST_SEGMENTS: Final = 60
"""Beyond, a query would have more conditions than reading a few more rows costs."""
NEVER_SUMMED: Final = -1
"""In `lacking`: the hour was never summed up. Only ClickHouse deletes the rows of such an hour, by its TTL."""

Source = Literal["rows", "hourly", "daily"]


class Segment(NamedTuple):
    """A stretch of time [start, end) and what it is read from."""

    source: Source
    start: datetime
    end: datetime


class QueryPlan(NamedTuple):
    """How a question is answered."""

    segments: tuple[Segment, ...]
    incomplete_before: datetime | None = None
    """The answer lacks calls before this moment, which were deleted by age; None: it is complete."""
    rollup: Grain = FULL
    """Of the segments that are read from summaries."""
    version: str = NEWEST
    """Of the tables."""


class _Kept(NamedTuple):
    """What retention has left."""

    rows: Deleted
    sums: Deleted

    def has_rows(self, moment: datetime) -> bool:
        return self.rows.before is None or moment >= self.rows.before

    def has_sums(self, moment: datetime) -> bool:
        return self.sums.before is None or moment >= self.sums.before


class _Marks(NamedTuple):
    """Hours and days that no line of the summaries tells, or an outdated one."""

    hours: set[datetime]
    days: set[datetime]
    """A day may have the line that one of its hours lacks."""
    lost: set[datetime]
    """Hours whose rows are deleted, and whose roll-up was not made."""

    def outside(self, whole: _Whole) -> _Marks:
        """Without the hours that the line of their day tells."""
        hours, lost = ({hour for hour in some if not whole.has(floor_day(hour))} for some in (self.hours, self.lost))
        return self._replace(hours=hours, lost=lost)


class _Whole(NamedTuple):
    """Days that one line of the summaries each tells."""

    start: datetime
    end: datetime
    edges: frozenset[datetime]
    """Moments up to which rows or summaries were deleted."""
    without: set[datetime]
    is_none: bool

    def has(self, day: datetime) -> bool:
        """Whether the day is one of them."""
        if self.is_none or day in self.without or day < self.start or day + DAY > self.end:
            return False
        return not any(day < edge < day + DAY for edge in self.edges)


def floor_hour(moment: datetime) -> datetime:
    """The beginning of the hour, in UTC."""
    return moment.replace(minute=0, second=0, microsecond=0)


def floor_day(moment: datetime) -> datetime:
    """The beginning of the day, in UTC."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def plan(
    connection: Connection,
    start: datetime,
    end: datetime,
    rollup: Grain | None,
    version: str,
    *,
    step: timedelta | None = None,
) -> QueryPlan:
    """Divide [start, end) so that as much as possible comes from summaries, and the answer is exact.

    Args:
        connection: one snapshot that the queries of the answer share.
        start: in UTC.
        end: in UTC.
        rollup: what summaries have to distinguish; None: rows alone answer.
        version: of the tables.
        step: length of the steps that the answer is divided into, on the clock of UTC; None: it is not.
    """
    if step is not None and step < HOUR:
        rollup = None
    kept = _Kept(deleted_from(connection, LLM_CALLS.name), deleted_from(connection, SUMMARIES.name))
    if rollup is None:
        rows = _clipped([Segment("rows", start, end)], kept)
        return QueryPlan(rows, kept.rows.missing_in(start, end), version=version)
    marks = _marks(connection, start, end, rollup, kept, version)
    edges = frozenset(each.before for each in kept if each.before is not None)
    whole = _Whole(start, end, edges, marks.days, is_none=step is not None and step < DAY)
    marks = marks.outside(whole)
    segments = [_left(piece, kept) for piece in _cut(start, end, marks, whole)]
    joined = _few(merged(segments), kept)
    return QueryPlan(_clipped(joined, kept), _missing(connection, start, end, marks, kept), rollup, version)


def _cut(start: datetime, end: datetime, marks: _Marks, whole: _Whole) -> list[Segment]:
    edges = {start, end, *_aligned(start, end), *marks.hours, *(hour + HOUR for hour in marks.hours)}
    days = marks.days | {floor_day(edge) for edge in whole.edges}
    edges |= {edge for day in days for edge in (day, day + DAY)} | whole.edges
    inside = sorted(edge for edge in edges if start <= edge <= end)
    return [Segment(_source(left, right, marks.hours, whole), left, right) for left, right in pairwise(inside)]


def _aligned(start: datetime, end: datetime) -> set[datetime]:
    """Where whole hours and whole days begin and end."""
    first_hour, first_day = _ceil_hour(start), start if floor_day(start) == start else floor_day(start) + DAY
    edges = {first_hour, floor_hour(end)} if first_hour <= floor_hour(end) else set()
    return edges | ({first_day, floor_day(end)} if first_day <= floor_day(end) else set())


def _ceil_hour(moment: datetime) -> datetime:
    return moment if floor_hour(moment) == moment else floor_hour(moment) + HOUR


def _source(left: datetime, right: datetime, hours: set[datetime], whole: _Whole) -> Source:
    if floor_hour(left) != left or floor_hour(right) != right or left in hours:
        return "rows"
    whole_days = floor_day(left) == left and floor_day(right) == right
    return "daily" if whole_days and whole.has(left) else "hourly"


def _left(piece: Segment, kept: _Kept) -> Segment:
    """The piece, read from rows where its summaries were deleted."""
    return piece if kept.has_sums(piece.start) else piece._replace(source="rows")


def _clipped(segments: Iterable[Segment], kept: _Kept) -> tuple[Segment, ...]:
    """Leave out rows that were deleted, and those that arrived for deleted hours: they are in no sum."""
    first = kept.rows.before
    if first is None:
        return tuple(segments)
    clipped = (each._replace(start=max(each.start, first)) if each.source == "rows" else each for each in segments)
    return tuple(each for each in clipped if each.start < each.end)


def _few(segments: tuple[Segment, ...], kept: _Kept) -> tuple[Segment, ...]:
    """Read ever longer stretches between rows from rows too, until there are few enough pieces."""
    shortest = HOUR
    while len(segments) > _MOST_SEGMENTS and shortest < 512 * DAY:
        segments = merged(
            each._replace(source="rows") if each.end - each.start <= shortest and kept.has_rows(each.start) else each
            for each in segments
        )
        shortest *= 2
    return segments


def merged(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Join neighbours that are read from the same source."""
    found: list[Segment] = []
    for segment in segments:
        if segment.start >= segment.end:
            continue
        if found and found[-1].source == segment.source and found[-1].end == segment.start:
            found[-1] = found[-1]._replace(end=segment.end)
        else:
            found.append(segment)
    return tuple(found)


# --- what is missing -------------------------------------------------------------------------------------------------


def _missing(connection: Connection, start: datetime, end: datetime, marks: _Marks, kept: _Kept) -> datetime | None:
    """From when on the answer is complete: neither rows nor summaries tell what was before."""
    gone = kept.rows.missing_in(start, end)
    if gone is None:
        return None
    found = [min(hour + HOUR, end) for hour in marks.lost]
    if kept.sums.before is not None and start < kept.sums.before:
        found.append(min(gone, kept.sums.before))
    first, last = floor_hour(start), floor_hour(end)
    if first != start and not kept.has_rows(first) and _had_calls(connection, first):
        found.append(min(first + HOUR, end))
    if last != end and not kept.has_rows(last) and _had_calls(connection, last):
        found.append(end)
    return max(found, default=None)


def _had_calls(connection: Connection, hour: datetime) -> bool:
    summary = SUMMARIES.c
    some = exists().where(
        summary.period.in_([SERIES.period("hourly"), FULL.period("hourly")]),
        summary.period_start == hour,
        summary.requests > 0,
    )
    return bool(connection.execute(select(some)).scalar_one())


def _marks(connection: Connection, start: datetime, end: datetime, rollup: Grain, kept: _Kept, version: str) -> _Marks:
    work = SUMMARY_WORK.c
    lacking = work.lacking if version >= "0004" else null()
    query = select(work.period, work.period_start, lacking).where(work.period_start > start - DAY)
    found = _Marks(set(), set(), set())
    for period, moment, lacks in connection.execute(query.where(work.period_start < end)):
        if lacks is not None and lacks != NEVER_SUMMED and not lacks & rollup.bit:
            continue
        if period == "daily":
            found.days.add(moment)
        elif kept.has_rows(moment):
            found.hours.add(moment)
            if lacks is None:
                found.days.add(floor_day(moment))
        elif moment > start - HOUR and lacks is not None:  # a row that came for a deleted hour changes no summary
            found.lost.add(moment)
    return found


def first_changed(connection: Connection, since: datetime | None, before: datetime) -> datetime | None:
    """The first hour before a moment that has to be summed up before its rows may go."""
    work = SUMMARY_WORK.c
    query = select(work.period_start).where(work.period == "hourly", work.period_start < before, work.lacking.is_(None))
    if since is not None:
        query = query.where(work.period_start >= since)
    return connection.execute(query.order_by(work.period_start).limit(1)).scalar_one_or_none()
