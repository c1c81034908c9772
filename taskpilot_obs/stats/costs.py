"""Where the money went, and where it is going."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Unpack

from taskpilot_obs._support.calendar import Calendar, CalendarPeriod, calendar_period
from taskpilot_obs._support.timestamps import aware
from taskpilot_obs._telemetry.answers import By, Key
from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import CostBreakdown, CostShare, CostSummary
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import (
    DIMENSIONS,
    counts_by,
    latest,
    share_of,
    shares,
    whole,
)
from taskpilot_obs.stats.sources import origin_of, source_of

if TYPE_CHECKING:
    from taskpilot_obs._telemetry.answers import CallSource
    from taskpilot_obs.store import Store

_TENANT: Final = ("organization_id",)
_EARLIEST: Final = Decimal("0.01")
"""Share of a period that must have passed before it is projected to its end."""


class _Spent(NamedTuple):
    by_series: dict[Key, Counts]
    by_tenant: dict[Key, Counts]
    incomplete_before: datetime | None

    @property
    def total(self) -> Counts:
        return whole(self.by_series.values())

    def groups(self) -> dict[str, dict[str, CostShare]]:
        cost = self.total.cost
        return {
            "by_provider": shares(counts_by(self.by_series, 0), cost),
            "by_model": shares(counts_by(self.by_series, 1), cost),
            "by_agent": shares(counts_by(self.by_series, 2), cost),
            "by_tenant": shares(counts_by(self.by_tenant, 0), cost),
        }


class _Cost(NamedTuple):
    amount: Decimal
    incomplete_before: datetime | None


def get_cost_breakdown(
    period: Period = "30d", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> CostBreakdown:
    """Where the money of a stretch of time went, by provider, model, agent and tenant. Arguments as in `get_stats`.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    with source_of(store) as source:
        spent = _spent(source, Calendar(start, end), filters_of(asked))
    return CostBreakdown(
        **dict(share_of(spent.total, spent.total.cost)),
        start=start,
        end=end,
        **spent.groups(),
        incomplete_before=spent.incomplete_before,
        **origin_of(source),
    )


def get_cost_summary(
    period: CalendarPeriod = "month",
    timezone: str = "UTC",
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> CostSummary:
    """The money of this day, ISO week or month so far, against the one before, and projected to its end.

    Args:
        period: "day", "week" (from Monday) or "month" of the calendar.
        timezone: IANA name of the zone whose calendar is meant; days with a change of the clocks are right.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; any other moment tells its own period up to then.
        asked: `tenant`, `agent`, …: only calls with this value.

    Raises:
        ConfigurationError: another period, an unknown zone, or no store is named and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    at = aware(now)
    current = calendar_period(period, at, timezone)
    before = _before(period, current, timezone)
    filters = filters_of(asked)
    with source_of(store) as source:
        spent = _spent(source, Calendar(current.start, at), filters)
        earlier = _cost(source, before, filters)
        to_date = min(before.start + (at - current.start), before.end)
        earlier_to_date = _cost(source, Calendar(before.start, to_date), filters)
    cost = spent.total.cost
    is_comparable = spent.incomplete_before is None and earlier_to_date.incomplete_before is None
    return CostSummary(
        **dict(share_of(spent.total, cost)),
        period=period,
        timezone=timezone,
        start=current.start,
        end=current.end,
        now=at,
        previous_cost_usd=earlier.amount,
        previous_to_date_usd=earlier_to_date.amount,
        change_percent=_change(cost, earlier_to_date.amount) if is_comparable else None,
        projected_cost_usd=_projected(cost, current, at),
        **spent.groups(),
        incomplete_before=spent.incomplete_before,
        previous_incomplete_before=earlier.incomplete_before,
        **origin_of(source),
    )


def _change(cost: Decimal, before: Decimal) -> float | None:
    return float(100 * (cost - before) / before) if before else None


def _before(period: CalendarPeriod, current: Calendar, timezone: str) -> Calendar:
    return calendar_period(period, current.start - timedelta(hours=1), timezone)


def _projected(cost: Decimal, current: Calendar, at: datetime) -> Decimal | None:
    passed = Decimal(str((at - current.start) / (current.end - current.start)))
    return cost / passed if passed >= _EARLIEST else None


def _spent(source: CallSource, when: Calendar, filters: Filters) -> _Spent:
    if when.start >= when.end:
        return _Spent({}, {}, None)
    by_series, by_tenant = By(DIMENSIONS), By(_TENANT)
    with source.about(when.start, when.end, filters) as answers:
        since = latest(answers.incomplete_before(by_series), answers.incomplete_before(by_tenant))
        return _Spent(answers.totals(by_series), answers.totals(by_tenant), since)


def _cost(source: CallSource, when: Calendar, filters: Filters) -> _Cost:
    if when.start >= when.end:
        return _Cost(Decimal(0), None)
    with source.about(when.start, when.end, filters) as answers:
        return _Cost(whole(answers.totals().values()).cost, answers.incomplete_before())
