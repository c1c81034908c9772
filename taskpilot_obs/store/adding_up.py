"""Adding up the calls of an hour or a day: from rows, or a day from the lines of its hours."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import func, select

from taskpilot_obs._support.timestamps import EPOCH
from taskpilot_obs._telemetry.answers import By, Key
from taskpilot_obs._telemetry.filters import EVERYTHING, Filters
from taskpilot_obs.store.marks import deleted_from, server_clock
from taskpilot_obs.store.queries import bins, errors, totals
from taskpilot_obs.store.rollups import FULL, ROLLUPS, Grain, is_worth_it
from taskpilot_obs.store.segments import DAY, HOUR, QueryPlan, Segment, merged
from taskpilot_obs.store.summary_lines import KEYS, Line, Sums, keyed, narrowed
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARIES, SUMMARY_WORK, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from taskpilot_obs.store.engine import Store

SummaryPeriod = Literal["hourly", "daily"]
LENGTHS: Final = {"hourly": HOUR, "daily": DAY}
_work: Final = SUMMARY_WORK.c


class Made(NamedTuple):
    """The lines of one period."""

    lines: dict[Line, Sums]
    """What they hold, by their keys."""
    lacking: int
    """The roll-ups that are not made, as bits; see `rollups`."""


def hour_from_rows(connection: Connection, start: datetime) -> Made:
    """Every roll-up of an hour, from rows."""
    return _hour(connection, start, summed(connection, QueryPlan((Segment("rows", start, start + HOUR),)), FULL))


def hours_from_rows(connection: Connection, starts: Sequence[datetime]) -> dict[datetime, Made]:
    """Every roll-up of some hours, from rows that are read together."""
    segments = merged(Segment("rows", start, start + HOUR) for start in starts)
    found: dict[int, dict[Key, Sums]] = defaultdict(dict)
    for (number, *key), sums in summed(connection, QueryPlan(segments), FULL, step=HOUR).items():
        found[number][tuple(key)] = sums
    return {start: _hour(connection, start, found[(start - EPOCH) // HOUR]) for start in starts}


def _hour(connection: Connection, start: datetime, full: dict[Key, Sums]) -> Made:
    return _chosen(connection, "hourly", start, {rollup: narrowed(full, rollup) for rollup in ROLLUPS}, 0)


def day_of_hours(connection: Connection, start: datetime) -> Made:
    """Each roll-up from its hours; where one of them lacks it, from rows, if a whole day of them is worth it."""
    query = select(_work.lacking).where(
        _work.period == "hourly", _work.period_start >= start, _work.period_start < start + DAY
    )
    lacking = 0
    for bits in connection.execute(query.where(_work.lacking.is_not(None))).scalars():
        lacking |= bits
    hours = (Segment("hourly", start, start + DAY),)
    there = [rollup for rollup in ROLLUPS if not rollup.bit & lacking]
    sums = {rollup: summed(connection, QueryPlan(hours, rollup=rollup), rollup) for rollup in there}
    rows = (Segment("rows", start, start + DAY),)
    if lacking and _has_every_row(connection, start):
        for rollup in ROLLUPS:
            if rollup.bit & lacking and _is_worth_it(connection, start, rollup):
                sums[rollup] = summed(connection, QueryPlan(rows), rollup)
                lacking &= ~rollup.bit
    return _chosen(connection, "daily", start, sums, lacking)


def _has_every_row(connection: Connection, day: datetime) -> bool:
    """Whether the day is over, and none of its rows was deleted by age."""
    deleted = deleted_from(connection, LLM_CALLS.name).before
    return server_clock(connection) >= day + DAY and (deleted is None or day >= deleted)


def _is_worth_it(connection: Connection, day: datetime, rollup: Grain) -> bool:
    """Counted by the database: adding up in vain takes as long as adding up."""
    calls = LLM_CALLS.c
    mine = (calls.created_at >= day, calls.created_at < day + DAY)
    groups = select(*(calls[name] for name in rollup.dimensions)).where(*mine).distinct().subquery()
    lines = connection.execute(select(func.count()).select_from(groups)).scalar_one()
    rows = connection.execute(select(func.count()).select_from(LLM_CALLS).where(*mine)).scalar_one()
    return is_worth_it(rollup, lines, rows)


def summed(
    connection: Connection,
    plan: QueryPlan,
    rollup: Grain,
    asked: Filters = EVERYTHING,
    step: timedelta | None = None,
) -> dict[Key, Sums]:
    """What the calls of a plan add up to, by step and by the dimensions of a roll-up."""
    by = By(rollup.dimensions, step)
    counts = totals(connection, plan, asked, by)
    found = bins(connection, plan, asked, by)
    failed = errors(connection, plan, asked, by)
    return {
        key: Sums(count, found.latency[key], found.first_token[key], failed.get(key, Counter()))
        for key, count in counts.items()
    }


def _chosen(
    connection: Connection, period: SummaryPeriod, start: datetime, sums: dict[Grain, dict[Key, Sums]], lacking: int
) -> Made:
    lines: dict[Line, Sums] = {}
    for rollup, held in sums.items():
        if is_worth_it(rollup, len(held), sum(each.counts.requests for each in held.values())):
            lines |= keyed(connection, rollup, period, start, held)
        else:
            lacking |= rollup.bit
    return Made(lines, lacking)


def keys_there(connection: Connection, store: Store, period: SummaryPeriod, start: datetime) -> set[Line]:
    """The lines that stand for the period now, by their keys."""
    keys = [SUMMARIES.c[name] for name in KEYS]
    periods = [rollup.period(period) for rollup in ROLLUPS]
    query = select(*keys).where(SUMMARIES.c.period.in_(periods), SUMMARIES.c.period_start == start)
    moment = start if store.engine.dialect.name == "postgresql" else to_microseconds(start)
    at = KEYS.index("period_start")
    return {(*line[:at], moment, *line[at + 1 :]) for line in connection.execute(query)}
