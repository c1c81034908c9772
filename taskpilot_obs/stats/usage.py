"""How LLM calls went: overall, of one tenant, of all tenants."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from taskpilot_obs._telemetry.answers import By, Key
from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Stats, TenantsReport, TenantStats, TenantUsage, UsersReport, UserUsage
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import (
    DIMENSIONS,
    share_of,
    stats_from,
    stats_of,
)
from taskpilot_obs.stats.sources import answers_of, origin_of

if TYPE_CHECKING:
    from taskpilot_obs.store import Store


def get_stats(
    period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> Stats:
    """How the LLM calls of a stretch of time went. Without a store, this process answers from the calls that it holds.

    Args:
        period: a length of time until now ("1h", "24h", "7d", "30d", a `timedelta`), or (start, end).
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`; without
            any, the answer is of this process alone, and `window` states what it holds.
        now: the present; for tests.
        asked: only calls with this value of `tenant_id`, `user_id`, `session_id`, `agent`, `workflow`, `model`,
            `provider`, `prompt_name`, `service`, `environment`, `request_id`, `step_id`, `task_id`, `workflow_run_id`,
            `thought_id`, `experiment` or `variant`; `__none__` stands for calls that have none.

    Raises:
        ConfigurationError: the period cannot be read, or no store is named and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    return _stats(start, end, filters_of(asked), store)


def get_tenant_stats(
    tenant_id: str, period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None
) -> TenantStats:
    """How the LLM calls of one tenant went; nothing in it comes from another tenant. Arguments as in `get_stats`.

    Raises:
        ConfigurationError: no tenant, a period that cannot be read, or no store is named and no calls are held.
        StoreError: the store is missing or cannot be used.
    """
    if not tenant_id:
        raise ConfigurationError("tenant_id: given nothing; it must be the name of a tenant")
    start, end = bounds(period, now)
    return TenantStats(tenant=tenant_id, **dict(_stats(start, end, filters_of({"tenant_id": tenant_id}), store)))


def get_tenants_report(
    period: Period = "30d",
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
    tenant_id: str | None = None,
    limit: int | None = None,
) -> TenantsReport:
    """What every tenant used, in falling order of cost; calls without a tenant are those of `__none__`.

    Arguments as in `get_stats`; `tenant_id` leaves out all others, and `limit` lists this many tenants.

    Raises:
        ConfigurationError: the period cannot be read, the limit is not positive, or no store is named and no calls
            are held.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    shares = _shares_by("organization_id", start, end, filters_of({"tenant_id": tenant_id}), store, limit)
    lines = tuple(TenantUsage(tenant=name, **fields) for name, fields in shares.lines)
    return TenantsReport(start=start, end=end, tenants_total=shares.total, tenants=lines, **shares.whole)


def get_users_report(
    period: Period = "30d",
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
    limit: int | None = None,
    **asked: Unpack[Asked],
) -> UsersReport:
    """What every user used, in falling order of cost; calls without a user are those of `__none__`.

    Arguments as in `get_stats`: `tenant_id="acme"` reports on the users of one tenant; `limit` lists this many users.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named and no calls are held.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    shares = _shares_by("user_id", start, end, filters_of(asked), store, limit)
    lines = tuple(UserUsage(user=name, **fields) for name, fields in shares.lines)
    return UsersReport(start=start, end=end, users_total=shares.total, users=lines, **shares.whole)


class _Shares(NamedTuple):
    """What tenants or users used."""

    lines: list[tuple[str, dict[str, Any]]]
    total: int
    whole: dict[str, Any]
    """Fields of the report about all of them."""


def _shares_by(
    column: str, start: datetime, end: datetime, filters: Filters, store: str | Store | None, limit: int | None
) -> _Shares:
    if limit is not None and limit < 1:
        raise ConfigurationError(f"limit: given {limit!r}; it must be a positive number, or None for all")
    by = By((column,))
    with answers_of(store, start, end, filters) as (answers, source):
        every = answers.totals(by) if limit is None else None
        costs = answers.costs(by) if every is None else {key: counts.cost for key, counts in every.items()}
        largest = sorted(costs, key=lambda key: (-costs[key], key[0] or NONE))[:limit]
        some = largest if len(largest) < len(costs) else None
        counts = answers.totals(by, some) if every is None else every
        latency = answers.bins(by, some).latency
        incomplete_before = answers.incomplete_before(by)
    cost = sum(costs.values(), Decimal(0))
    lines = [(key[0] or NONE, _usage_of(counts[key], latency.get(key, Counter()), cost)) for key in largest]
    return _Shares(lines, len(costs), {"cost_usd": cost, "incomplete_before": incomplete_before, **origin_of(source)})


def _usage_of(counts: Counts, latency: Counter[int], cost: Decimal) -> dict[str, Any]:
    stats = stats_of(counts, latency, {})
    return {
        "success_rate": stats.success_rate,
        "tokens": stats.tokens,
        "p95_ms": stats.latency.p95_ms,
        **dict(share_of(counts, cost)),
    }


def _stats(start: datetime, end: datetime, filters: Filters, store: str | Store | None) -> Stats:
    return stats_and_sums(start, end, filters, store)[0]


def stats_and_sums(
    start: datetime, end: datetime, filters: Filters, store: str | Store | None
) -> tuple[Stats, dict[Key, Counts]]:
    """Statistics, and the sums by provider, model and agent that they were made of."""
    by = By(DIMENSIONS)
    with answers_of(store, start, end, filters) as (answers, source):
        counts, durations = answers.totals(by), answers.bins(by)
        failed = answers.errors().get((), Counter())
        told = stats_from(counts, durations, failed, answers.incomplete_before(by))
    return Stats(start=start, end=end, **told, **origin_of(source)), counts
