"""Summaries in ClickHouse, which has neither transactions nor locks to keep them beside the rows.

A materialised view of the server notes for each hour when its calls were last written, with every insert of any
client. A period that was summed up notes the moment that its sums are of. Where that is later, its lines answer;
where it is not, rows do. `llm_summary_work` is a view of both, in the words of the other engines. A repeated batch
moves the first moment and changes no sum, because sums are read with `FINAL`.

The moment that is noted for sums lies five minutes before they are read, and so does the latest write that they may
follow: rows get the moment at which their insert began, and are seen when it ends.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, literal_column, select

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._telemetry.counts import NO_CALLS
from taskpilot_obs.exceptions import StoreError, StoreVersionError
from taskpilot_obs.store.adding_up import LENGTHS, SummaryPeriod, day_of_hours, hours_from_rows, keys_there
from taskpilot_obs.store.clickhouse_columns import MOMENT, Columns
from taskpilot_obs.store.clickhouse_tables import SUMMED, WRITTEN, WRITTEN_AT, has_sums
from taskpilot_obs.store.marks import deleted_from, server_clock
from taskpilot_obs.store.on_clickhouse import insert_block
from taskpilot_obs.store.segments import DAY, HOUR, floor_day
from taskpilot_obs.store.summary_lines import Line, Sums, line_of
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARIES, SUMMARY_WORK, UtcTime, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from taskpilot_obs.store.engine import Store

SETTLE: Final = timedelta(minutes=5)
"""For how long no call of a period may have been written before it is summed up: no insert takes as long."""
_LONGEST: Final = SETTLE
"""Sums that took longer are given up: another process may have put later ones there."""
_work: Final = SUMMARY_WORK.c
_CHANGED_AT: Final[ColumnElement[Any]] = literal_column("changed_at", UtcTime)
NOTHING: Final = Sums(NO_CALLS, Counter(), Counter(), Counter())
"""What a line holds that stands in the place of one that is not wanted any more."""
_LINES: Final = Columns(SUMMARIES, also=((WRITTEN_AT, MOMENT),))
_SUMMED: Final = Columns(SUMMED, also=((WRITTEN_AT, MOMENT),))
_WRITTEN: Final = Columns(WRITTEN, also=((WRITTEN_AT, MOMENT),))


def sum_up(store: Store, period: SummaryPeriod, since: datetime | None, *, again: bool = False) -> int:
    """Sum up the hours, and with "daily" the days, whose calls changed and that nothing was written to lately.

    Args:
        store: one in ClickHouse.
        period: "hourly" or "daily".
        since: the first moment of interest; None: the beginning.
        again: also those that did not change.

    Returns:
        How many hours and days were summed up.

    Raises:
        StoreVersionError: the tables are of a version without summaries.
        StoreError: the store cannot be used.
    """
    require_sums(store)
    done = 0
    for hours in _days_of(_settled(store, "hourly", since, again=again)):
        done += _sum_up(store, "hourly", hours)
    if period == "daily":
        for day in _settled(store, "daily", since, again=again):
            done += _sum_up(store, "daily", [day])
    return done


def require_sums(store: Store) -> None:
    """Refuse a store whose tables are of the version before there were summaries.

    Raises:
        StoreVersionError: with what to do.
    """
    with store.reading() as connection:
        if not has_sums(connection):
            raise StoreVersionError(
                f"the telemetry store {store} keeps no summaries yet: run `taskpilot-obs db upgrade --store URL` once"
            )


def _days_of(hours: Iterable[datetime]) -> list[list[datetime]]:
    """The hours of each day, which are read together."""
    return [[*some] for _, some in groupby(hours, floor_day)]


def _settled(store: Store, period: SummaryPeriod, since: datetime | None, *, again: bool) -> list[datetime]:
    """The hours or days to sum up: all their rows are there, and nothing wrote to them for a while."""
    with store.reading() as connection:
        first = first_to_sum_up(connection)
        before = server_clock(connection) - SETTLE
        moments = _periods(connection, period) if again else _changed(connection, period)
    if since is not None:
        first = since - LENGTHS[period] + HOUR if first is None else max(first, since - LENGTHS[period] + HOUR)
    return [start for start, at in moments if at <= before and (first is None or start >= first)]


def first_to_sum_up(connection: Connection) -> datetime | None:
    """The first hour that keeps all its rows for long enough; None: every hour does."""
    kept = deleted_from(connection, LLM_CALLS.name).before
    return None if kept is None else kept + HOUR  # the server may delete rows of the hour before at any moment


def _changed(connection: Connection, period: SummaryPeriod) -> list[tuple[datetime, datetime]]:
    query = select(_work.period_start, _CHANGED_AT).where(_work.period == period, _work.lacking.is_(None))
    return [(start, at) for start, at in connection.execute(query.order_by(_work.period_start))]


def _periods(connection: Connection, period: SummaryPeriod) -> list[tuple[datetime, datetime]]:
    """Every period that has calls, and when they were written last."""
    latest: dict[datetime, datetime] = {}
    query = select(WRITTEN.c.hour, literal_column(WRITTEN_AT, UtcTime)).order_by(WRITTEN.c.hour)
    for hour, at in connection.execute(query):
        start = hour if period == "hourly" else hour.replace(hour=0)
        latest[start] = max(at, latest.get(start, at))
    return [*latest.items()]


def _sum_up(store: Store, period: SummaryPeriod, starts: list[datetime]) -> int:
    """Sum up hours, or days; how many. Where hours took too long together, each is summed up by itself."""
    if (done := _summed_together(store, period, starts)) is not None:
        return done
    if len(starts) == 1:
        left = f"the {period} sums of {starts[0]:%Y-%m-%d %H:%M} UTC took over {SETTLE}, and are made another time"
        log_failure("store summaries", StoreError(left))
        return 0
    return sum(_sum_up(store, period, [start]) for start in starts)


def _summed_together(store: Store, period: SummaryPeriod, starts: list[datetime]) -> int | None:
    """Sum up hours, or days; how many. None: it took so long that rows may have come which the sums lack."""
    with store.reading() as connection:
        began = server_clock(connection)
        if period == "hourly":
            made = hours_from_rows(connection, starts)
        else:
            made = {start: day_of_hours(connection, start) for start in starts if _is_whole(connection, start)}
        stale = {key for start in made for key in keys_there(connection, store, period, start)}
    lines = {key: sums for each in made.values() for key, sums in each.lines.items()}
    lines |= dict.fromkeys(stale - lines.keys(), NOTHING)
    at = began - SETTLE
    with store.writing() as connection:
        if server_clock(connection) - began > _LONGEST:
            return None
        put(connection, (line_of(key, sums) for key, sums in lines.items()), at)
        notes = [(period, to_microseconds(start), each.lacking, _milliseconds(at)) for start, each in made.items()]
        _insert(connection, SUMMED.name, _SUMMED, notes)
    return len(made)


def _is_whole(connection: Connection, day: datetime) -> bool:
    """Whether every hour of a day is summed up, so that its lines are those of its hours."""
    hours = (_work.period == "hourly", _work.period_start >= day, _work.period_start < day + DAY)
    changed = select(func.count()).where(*hours, _work.lacking.is_(None))
    return not connection.execute(changed).scalar_one()


def put(connection: Connection, lines: Iterable[Line], at: datetime) -> None:
    """Put lines in the place of those that have their keys.

    Args:
        connection: one that writes.
        lines: as `line_of` makes them.
        at: of lines with one key, the one with the latest moment counts.
    """
    _insert(connection, SUMMARIES.name, _LINES, [(*line, _milliseconds(at)) for line in lines])


def mark_changed(connection: Connection, hours: Iterable[datetime], at: datetime) -> None:
    """Note that the rows of these hours change until this moment: until then they are not summed up."""
    _insert(connection, WRITTEN.name, _WRITTEN, [(to_microseconds(hour), _milliseconds(at)) for hour in hours])


def _insert(connection: Connection, table: str, columns: Columns, lines: Sequence[Line]) -> None:
    if lines:
        insert_block(connection, table, columns.block(lines))


def _milliseconds(moment: datetime) -> int:
    return to_microseconds(moment) // 1_000
