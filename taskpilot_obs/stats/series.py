"""How things went over time: points to plot, and the present rate of spending."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, Unpack

from taskpilot_obs._support.timestamps import EPOCH
from taskpilot_obs._telemetry.answers import Bins, By, Key
from taskpilot_obs._telemetry.counts import NO_CALLS, Counts
from taskpilot_obs._telemetry.filters import EVERYTHING
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.costs import get_cost_breakdown
from taskpilot_obs.stats.model import CostShare, Frozen, Stats, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import DIMENSIONS, counts_by, stats_from
from taskpilot_obs.stats.sources import answers_of, origin_of

if TYPE_CHECKING:
    from taskpilot_obs.store import Store

T = TypeVar("T")
_STEPS: Final = (timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1), timedelta(days=1), timedelta(days=7))
_MOST_POINTS: Final = 48
_DAY_S: Final = 86_400
_MONTH_DAYS: Final = 30


class CostRate(Frozen):
    """How fast money is spent now."""

    start: datetime
    end: datetime
    cost_usd: Usd
    per_day_usd: Usd
    """At this rate, in 24 hours."""
    per_month_usd: Usd
    """At this rate, in 30 days."""
    cost_coverage: float | None
    by_provider: Mapping[str, CostShare]
    incomplete_before: datetime | None
    """As in `Stats`."""


def get_series(
    period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> tuple[Stats, ...]:
    """The same statistics for each of at most 48 stretches of a longer one, oldest first; the first may be cut off.

    Steps are of a minute, five, an hour, a day or some weeks, on the clock of UTC. Arguments as in `get_stats`.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    step, filters = step_of(start, end), filters_of(asked)
    by = By(DIMENSIONS, step)
    with answers_of(store, start, end, filters) as (answers, source):
        counts, durations = _by_step(answers.totals(by)), answers.bins(by)
        failed = _by_step(answers.errors(By((), step)))
        incomplete_before = answers.incomplete_before(by)
    latency, first_token = _by_step(durations.latency), _by_step(durations.first_token)
    points = []
    for number, left, right in steps(start, end, step):
        bins_there = Bins(latency.get(number, {}), first_token.get(number, {}))
        told = stats_from(
            counts.get(number, {}),
            bins_there,
            failed.get(number, {}).get((), Counter()),
            missing_in(incomplete_before, left, right),
        )
        points.append(Stats(start=left, end=right, **told, **origin_of(source)))
    return tuple(points)


class Spend(NamedTuple):
    """What one step cost, by the names of one dimension."""

    start: datetime
    end: datetime
    cost_usd: Mapping[str, Decimal]


def get_spend(
    period: Period,
    dimension: str,
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> tuple[Spend, ...]:
    """What the steps of `get_series` cost, by one dimension: no latencies are read for it.

    Args:
        period: as in `get_stats`.
        dimension: `provider`, `model_name`, `agent` or `organization_id`.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: only calls with this value.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    step, filters = step_of(start, end), filters_of(asked)
    dimensions = DIMENSIONS if dimension in DIMENSIONS else (dimension,)
    with answers_of(store, start, end, filters) as (answers, _source):
        counts = _by_step(answers.totals(By(dimensions, step)))
    place = dimensions.index(dimension)
    return tuple(
        Spend(left, right, {name: each.cost for name, each in counts_by(counts.get(number, {}), place).items()})
        for number, left, right in steps(start, end, step)
    )


class Point(NamedTuple):
    """The calls of one step as a whole."""

    start: datetime
    counts: Counts
    latency: Counter[int]


def get_points(start: datetime, end: datetime, store: Store | None) -> list[Point]:
    """What `get_series` tells, without its groups: as fast with thousands of models as with one."""
    step = step_of(start, end)
    by = By((), step)
    with answers_of(store, start, end, EVERYTHING) as (answers, _source):
        counts, latency = answers.totals(by), answers.bins(by).latency
    return [
        Point(left, counts.get((number,), NO_CALLS), latency.get((number,), Counter()))
        for number, left, _ in steps(start, end, step)
    ]


def step_of(start: datetime, end: datetime) -> timedelta:
    """The length of the steps that a stretch of time is divided into."""
    fitting = (step for step in _STEPS if (end - start) / step <= _MOST_POINTS)
    return next(fitting, None) or _STEPS[-1] * ceil((end - start) / _STEPS[-1] / _MOST_POINTS)


def steps(start: datetime, end: datetime, step: timedelta) -> Iterator[tuple[int, datetime, datetime]]:
    """The steps of [start, end): their numbers since the epoch, and where they begin and end."""
    for number in range((start - EPOCH) // step, -((EPOCH - end) // step)):
        yield number, max(start, EPOCH + number * step), min(end, EPOCH + (number + 1) * step)


def missing_in(incomplete_before: datetime | None, start: datetime, end: datetime) -> datetime | None:
    """What a step lacks of an answer that is incomplete before a moment."""
    return min(incomplete_before, end) if incomplete_before is not None and incomplete_before > start else None


def _by_step(found: Mapping[Key, T]) -> dict[int, dict[Key, T]]:
    divided: dict[int, dict[Key, T]] = defaultdict(dict)
    for (number, *key), value in found.items():
        divided[number][tuple(key)] = value
    return divided


def get_cost_rate(
    window: Period = "15m", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> CostRate:
    """How fast money was spent in the newest stretch of time, and what that comes to in a day and in a month.

    Arguments as in `get_stats`.

    Raises:
        ConfigurationError: the window cannot be read, or no store is named and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    spent = get_cost_breakdown(window, store=store, now=now, **asked)
    per_day = spent.cost_usd * _DAY_S / Decimal(str((spent.end - spent.start).total_seconds()))
    return CostRate(
        start=spent.start,
        end=spent.end,
        cost_usd=spent.cost_usd,
        per_day_usd=per_day,
        per_month_usd=per_day * _MONTH_DAYS,
        cost_coverage=spent.cost_coverage,
        by_provider=spent.by_provider,
        incomplete_before=spent.incomplete_before,
    )
