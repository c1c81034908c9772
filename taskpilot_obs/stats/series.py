"""How things went over time: points to plot, and the present rate of spending."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Unpack

from taskpilot_obs.stats.asking import Asked
from taskpilot_obs.stats.costs import get_cost_breakdown
from taskpilot_obs.stats.model import CostShare, Frozen, Stats, Usd
from taskpilot_obs.stats.reading import Period, bounds
from taskpilot_obs.stats.usage import get_stats
from taskpilot_obs.store import Store
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.tables import EPOCH

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


def get_series(
    period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> tuple[Stats, ...]:
    """The same statistics for each of at most 48 stretches of a longer one, oldest first; the first may be cut off.

    Steps are of a minute, five, an hour, a day or a week, on the clock of UTC. Arguments as in `get_stats`.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    step = next((step for step in _STEPS if (end - start) / step <= _MOST_POINTS), _STEPS[-1])
    edges = [start]
    following = EPOCH + ((start - EPOCH) // step + 1) * step
    while following < end:
        edges.append(following)
        following += step
    with opened(store) as opened_store:
        pairs = zip(edges, [*edges[1:], end], strict=True)
        return tuple(get_stats(pair, store=opened_store, **asked) for pair in pairs)


def get_cost_rate(
    window: Period = "15m", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> CostRate:
    """How fast money was spent in the newest stretch of time, and what that comes to in a day and in a month.

    Arguments as in `get_stats`.

    Raises:
        ConfigurationError: the window cannot be read, or no store is named.
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
    )
