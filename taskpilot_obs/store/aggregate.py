"""Summing up: rows into hours, hours into days.

Any number of processes may do it at any time. Each period goes through three steps, of which only the first and the
last write, and briefly: claim the marks that writers left (later writers leave new ones), add up one snapshot, and
put the result in place of the old one as long as the claim stands: some lines at a time, and the claim goes with the
last of them. Until then the period is read from what it was added up from.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import delete, insert, select

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.money import MOST_NANO
from taskpilot_obs.store.queries import Filters, bins, errors, totals
from taskpilot_obs.store.segments import DAY, HOUR, Segment, floor_day, floor_hour, pruned_before
from taskpilot_obs.store.sketch import encode
from taskpilot_obs.store.tables import SUMMARIES, SUMMARY_WORK, to_microseconds
from taskpilot_obs.store.writer import mark_changed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskpilot_obs.store.engine import Store

SummaryPeriod = Literal["hourly", "daily"]
DIMENSIONS: Final = ("organization_id", "provider", "model_name", "agent", "prompt_name")
_LENGTHS: Final = {"hourly": HOUR, "daily": DAY}
_EVERYTHING: Final = Filters()
_FIRST_LINES: Final = 100
_LEAST_LINES: Final = 25
_TARGET_S: Final = 0.004
"""How long one transaction should hold the lock, which a writer of SQLite waits for."""
_PAUSES: Final = 3
"""How many times as long the lock is left to writers: one that waits looks for it now and then only."""
_COLUMNS: Final = tuple(column.name for column in SUMMARIES.columns)
_KEYS: Final = tuple(column.name for column in SUMMARIES.primary_key)
_NEW: Final = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in _KEYS)
_PUT: Final = f"""
    INSERT INTO {SUMMARIES.name} ({", ".join(_COLUMNS)}) VALUES ({{}})
    ON CONFLICT ({", ".join(_KEYS)}) DO UPDATE SET {_NEW}
"""  # noqa: S608  nothing in it comes from outside
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
    return _replaced(store, claim, period, start, [_values(line, store) for line in lines])


def _replaced(store: Store, claim: int, period: SummaryPeriod, start: datetime, lines: list[tuple[Any, ...]]) -> bool:
    """Put these lines in place, in transactions of some milliseconds; False where another process has claimed anew.

    That one saw at least as much as this one, and puts a line for each that is there already.
    """
    done, amount = 0, _FIRST_LINES
    while True:
        with store.writing() as connection:
            began = time.perf_counter()
            is_last = done + amount >= len(lines)
            if not (_given_up(connection, claim) if is_last else _stands(connection, claim)):
                return False
            _put(connection, lines[done : done + amount])
            if is_last:
                if period == "hourly":
                    mark_changed(connection, "daily", [floor_day(start)])
                return True
        took = time.perf_counter() - began
        done += amount
        amount = max(_LEAST_LINES, min(2 * amount, int(amount * _TARGET_S / took)))
        time.sleep(_PAUSES * took)


def _given_up(connection: Connection, claim: int) -> bool:
    return connection.execute(delete(SUMMARY_WORK).where(_work.work_id == claim)).rowcount > 0


def _stands(connection: Connection, claim: int) -> bool:
    """Whether nobody has claimed anew, and nobody can before this transaction ends."""
    held = select(_work.work_id).where(_work.work_id == claim).with_for_update()
    return connection.execute(held).first() is not None


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


def _values(line: dict[str, Any], store: Store) -> tuple[Any, ...]:
    """As the driver takes it: SQLAlchemy would convert each value while the lock is held."""
    start = to_microseconds(line["period_start"]) if store.is_sqlite else line["period_start"]
    return tuple(start if name == "period_start" else line[name] for name in _COLUMNS)


def _put(connection: Connection, lines: list[tuple[Any, ...]]) -> None:
    if lines:
        place = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(_PUT.format(", ".join([place] * len(_COLUMNS))), lines)
