"""Summing up: rows into hours, hours into days.

Any number of processes may do it at any time. Each period goes through three steps, of which only the first and the
last write, and briefly: claim the marks that writers left (later writers leave new ones), add up one snapshot, and
put the result in place of the old one if the claim still stands.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.money import MOST_NANO
from taskpilot_obs.store.queries import Filters, bins, errors, totals
from taskpilot_obs.store.segments import DAY, HOUR, Segment, floor_day, floor_hour, pruned_before
from taskpilot_obs.store.sketch import encode
from taskpilot_obs.store.tables import SUMMARIES, SUMMARY_WORK
from taskpilot_obs.store.writer import mark_changed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskpilot_obs.store.engine import Store

SummaryPeriod = Literal["hourly", "daily"]
DIMENSIONS: Final = ("organization_id", "provider", "model_name", "agent", "prompt_name")
_LENGTHS: Final = {"hourly": HOUR, "daily": DAY}
_EVERYTHING: Final = Filters()
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
    only their speed does.

    Args:
        period: "hourly", or "daily", which sums up the hours first.
        lookback_hours: how far back to look for hours that changed; None: to the beginning.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Returns:
        How many hours and days were summed up.

    Raises:
        ConfigurationError: another period, or a lookback that is not positive.
        StoreError: the store cannot be used.
    """
    if period not in _LENGTHS:
        raise ConfigurationError(f"period: given {period!r}; allowed are 'hourly' and 'daily'")
    if lookback_hours is not None and not lookback_hours > 0:
        raise ConfigurationError(f"lookback_hours: given {lookback_hours!r}; it must be positive, or None")
    since = None
    if lookback_hours is not None:
        since = floor_hour((now or datetime.now(UTC)) - timedelta(hours=lookback_hours))
    with opened(store) as opened_store:
        done = sum(_sum_up(opened_store, "hourly", start) for start in _changed(opened_store, "hourly", since))
        if period == "daily":
            first_day = floor_day(since) if since else None
            done += sum(_sum_up(opened_store, "daily", start) for start in _changed(opened_store, "daily", first_day))
    return done


def _changed(store: Store, period: SummaryPeriod, since: datetime | None) -> list[datetime]:
    query = select(_work.period_start).where(_work.period == period).distinct().order_by(_work.period_start)
    if since is not None:
        query = query.where(_work.period_start >= since)
    with store.reading() as connection:
        return list(connection.execute(query).scalars())


def _sum_up(store: Store, period: SummaryPeriod, start: datetime) -> bool:
    """Sum up one hour or day; False where another process does, or its rows are gone already."""
    claim = _claim(store, period, start)
    if claim is None:
        return False
    segment = Segment("rows" if period == "hourly" else "hourly", start, start + _LENGTHS[period])
    with store.reading() as connection:
        lines = _lines(connection, segment, period)
    with store.writing() as connection:
        if not connection.execute(delete(SUMMARY_WORK).where(_work.work_id == claim)).rowcount:
            return False  # claimed anew by another process, which saw at least as much
        _put(connection, lines)
        if period == "hourly":
            mark_changed(connection, "daily", [floor_day(start)])
    return True


def _claim(store: Store, period: SummaryPeriod, start: datetime) -> int | None:
    """Take over every mark of a period; None where its rows were pruned: what comes so late is not counted."""
    with store.writing() as connection:
        connection.execute(delete(SUMMARY_WORK).where(_work.period == period, _work.period_start == start))
        pruned = pruned_before(connection)
        if period == "hourly" and pruned is not None and start < pruned:
            return None
        claim = insert(SUMMARY_WORK).values(period=period, period_start=start, claimed=True)
        number: int = connection.execute(claim.returning(_work.work_id)).scalar_one()
    return number


def _lines(connection: Connection, segment: Segment, period: SummaryPeriod) -> list[dict[str, Any]]:
    counts = totals(connection, [segment], _EVERYTHING, DIMENSIONS)
    latency = bins(connection, [segment], _EVERYTHING, DIMENSIONS)
    failed = errors(connection, [segment], _EVERYTHING, DIMENSIONS)
    return [
        {
            "period": period,
            "period_start": segment.start,
            **dict(zip(DIMENSIONS, key, strict=True)),
            **count._replace(cost_nano=min(count.cost_nano, MOST_NANO))._asdict(),
            "latency_sketch": encode(latency.latency[key]),
            "ttft_sketch": encode(latency.first_token[key]) or None,
            "errors": json.dumps(failed[key], sort_keys=True) if key in failed else None,
        }
        for key, count in counts.items()
    ]


def _put(connection: Connection, lines: list[dict[str, Any]]) -> None:
    if not lines:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    put = dialect.insert(SUMMARIES)
    keys = [column.name for column in SUMMARIES.primary_key]
    new = {column.name: put.excluded[column.name] for column in SUMMARIES.columns if column.name not in keys}
    connection.execute(put.on_conflict_do_update(index_elements=keys, set_=new), lines)
