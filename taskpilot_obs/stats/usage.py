"""How LLM calls went: overall, of one tenant, of all tenants."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Unpack

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Stats, TenantsReport, TenantStats, TenantUsage
from taskpilot_obs.stats.reading import (
    Period,
    all_bins,
    bounds,
    share_of,
    stats_by,
    stats_of,
    tokens_of,
    whole,
)
from taskpilot_obs.store import Store
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.queries import Filters, bins, errors, totals
from taskpilot_obs.store.segments import plan

DIMENSIONS: Final = ("provider", "model_name", "agent")


def get_stats(
    period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> Stats:
    """How the LLM calls of a stretch of time went.

    Args:
        period: a length of time until now ("1h", "24h", "7d", "30d", a `timedelta`), or (start, end).
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: `tenant`, `user`, `agent`, `workflow`, `model`, `provider`, `prompt_name`: only calls with this value.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    return _stats(start, end, filters_of(asked), store)


def get_tenant_stats(
    tenant: str, period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None
) -> TenantStats:
    """How the LLM calls of one tenant went; nothing in it comes from another tenant. Arguments as in `get_stats`.

    Raises:
        ConfigurationError: no tenant, a period that cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    if not tenant:
        raise ConfigurationError("tenant: given nothing; it must be the name of a tenant")
    start, end = bounds(period, now)
    return TenantStats(tenant=tenant, **dict(_stats(start, end, filters_of({"tenant": tenant}), store)))


def get_tenants_report(
    period: Period = "30d",
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
    tenant: str | None = None,
) -> TenantsReport:
    """What every tenant used, in falling order of cost; calls without a tenant are those of `__none__`.

    Arguments as in `get_stats`; `tenant` leaves out all others.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    filters = filters_of({"tenant": tenant})
    with opened(store) as opened_store, opened_store.reading() as connection:
        segments = plan(connection, start, end).segments
        counts = totals(connection, segments, filters, ("organization_id",))
        latency = bins(connection, segments, filters, ("organization_id",)).latency
    cost = whole(counts.values()).cost
    lines = [
        TenantUsage(
            tenant=key[0] or NONE,
            success_rate=(stats := stats_of(count, latency[key], {})).success_rate,
            tokens=tokens_of(count),
            p95_ms=stats.latency.p95_ms,
            **dict(share_of(count, cost)),
        )
        for key, count in counts.items()
    ]
    lines.sort(key=lambda line: (-line.cost_usd, line.tenant))
    return TenantsReport(start=start, end=end, cost_usd=cost, tenants=tuple(lines))


def _stats(start: datetime, end: datetime, filters: Filters, store: str | Store | None) -> Stats:
    with opened(store) as opened_store, opened_store.reading() as connection:
        planned = plan(connection, start, end, rows_only=filters.rows_only)
        counts = totals(connection, planned.segments, filters, DIMENSIONS)
        durations = bins(connection, planned.segments, filters, DIMENSIONS)
        failed = errors(connection, planned.segments, filters)
    overall = stats_of(whole(counts.values()), all_bins(durations.latency), all_bins(durations.first_token))
    by_provider, by_model, by_agent = (stats_by(counts, durations, position) for position in range(len(DIMENSIONS)))
    return Stats(
        **dict(overall),
        start=start,
        end=end,
        by_provider=by_provider,
        by_model=by_model,
        by_agent=by_agent,
        errors_by_type=dict(failed[()].most_common()) if () in failed else {},
        incomplete_before=planned.incomplete_before,
    )
