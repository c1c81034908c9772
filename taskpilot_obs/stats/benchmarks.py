"""Providers, models, prompts or days side by side, and which providers there are at all."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, Unpack, get_args

from taskpilot_obs._telemetry.answers import By
from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.assess import wilson
from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import coverage, stats_of
from taskpilot_obs.stats.sources import answers_of

if TYPE_CHECKING:
    from taskpilot_obs.store import Store
from taskpilot_obs._support.timestamps import EPOCH

GroupBy = Literal["provider", "model", "prompt", "day"]
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "provider": ("provider",),
    "model": ("provider", "model_name"),
    "prompt": ("prompt_name",),
    "day": (),
}
MOST_DAYS: Final = 400
DAY: Final = timedelta(days=1)


class BenchmarkSummary(Frozen):
    """How the LLM calls of one provider, model, prompt or day went. None is unknown, and never 0."""

    provider: str | None
    model_name: str | None
    prompt_name: str | None
    day: datetime | None
    """Midnight in UTC."""
    total_calls: int
    successful_calls: int
    failed_calls: int
    """Errors, timeouts and refusals; cancelled, abandoned and interrupted calls are in the total only."""
    success_rate: float | None
    """Percent of successful and failed calls together."""
    success_rate_interval: Interval | None
    """Wilson score interval at 95 %, in percent."""
    avg_latency_ms: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    p50_time_to_first_token_ms: float | None
    p95_time_to_first_token_ms: float | None
    total_input_tokens: int
    total_output_tokens: int
    total_reasoning_tokens: int
    total_cached_tokens: int
    total_cost: Usd | None
    """In USD, of the calls with a known price; None where no call has one."""
    avg_cost: Usd | None
    """`total_cost` divided by the calls with a known price."""
    cost_coverage: float | None
    """Share (0 to 1) of calls with a known price among those that a provider answered."""


class ProviderSeen(Frozen):
    """A provider that the store has calls of."""

    provider: str
    models: int
    first_seen: datetime
    """To the hour where the rows were summed up and deleted."""
    last_seen: datetime


def get_benchmark_summaries(
    period: Period = "30d",
    *,
    group_by: GroupBy = "model",
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> tuple[BenchmarkSummary, ...]:
    """LLM calls by provider, model, prompt or day; most calls first, days in their order.

    Args:
        period: as in `get_stats`.
        group_by: `provider`, `model` (of each provider), `prompt` or `day` (of UTC).
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: `tenant`, `agent`, …: only calls with this value.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    if group_by not in GROUPS:
        raise ConfigurationError(f"group_by: given {group_by!r}; allowed are {', '.join(get_args(GroupBy))}")
    start, end = bounds(period, now)
    filters = filters_of(asked)
    if group_by == "day":
        return _by_day(store, start, end, filters)
    return tuple(sorted(_grouped(store, start, end, filters, group_by), key=_most_calls_first))


def get_providers(*, store: str | Store | None = None, tenant_id: str | None = None) -> tuple[ProviderSeen, ...]:
    """The providers that the store has calls of, by name.

    Args:
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        tenant_id: only providers that this tenant called; None for all.

    Raises:
        ConfigurationError: no store is named.
        StoreError: the store is missing or cannot be used.
    """
    from taskpilot_obs.store.access import opened
    from taskpilot_obs.store.seen import providers_seen

    asked = filters_of({"tenant_id": tenant_id})
    with opened(store) as opened_store, opened_store.reading() as connection:
        found = providers_seen(connection, asked.get("organization_id"))
    return tuple(ProviderSeen(**seen._asdict()) for seen in found)


def _most_calls_first(line: BenchmarkSummary) -> tuple[int, str, str, str]:
    return -line.total_calls, line.provider or "", line.model_name or "", line.prompt_name or ""


def _grouped(
    store: Store | str | None, start: datetime, end: datetime, filters: Filters, group_by: GroupBy
) -> list[BenchmarkSummary]:
    dimensions = GROUPS[group_by]
    with answers_of(store, start, end, filters) as (answers, _source):
        counts, durations = answers.totals(By(dimensions)), answers.bins(By(dimensions))
    return [
        _summary(
            dict(zip(dimensions, key, strict=True)),
            count,
            durations.latency.get(key, Counter()),
            durations.first_token.get(key, Counter()),
        )
        for key, count in counts.items()
    ]


def _by_day(
    store: Store | str | None, start: datetime, end: datetime, filters: Filters
) -> tuple[BenchmarkSummary, ...]:
    if (end - start) / DAY > MOST_DAYS:
        raise ConfigurationError(f"group_by: given 'day' for more than {MOST_DAYS} days; ask for a shorter period")
    by = By((), DAY)
    with answers_of(store, start, end, filters) as (answers, _source):
        counts, durations = answers.totals(by), answers.bins(by)
    return tuple(
        _summary({}, counts[key], durations.latency[key], durations.first_token[key]).model_copy(
            update={"day": EPOCH + key[0] * DAY}
        )
        for key in sorted(counts)
    )


def _summary(key: dict[str, str], counts: Counts, latency: Counter[int], first_token: Counter[int]) -> BenchmarkSummary:
    stats = stats_of(counts, latency, first_token)
    counted = stats.successes + stats.failures
    is_unknown = counts.priced == 0 and counts.unpriced > 0
    return BenchmarkSummary(
        provider=key.get("provider") or None,
        model_name=key.get("model_name") or None,
        prompt_name=key.get("prompt_name") or None,
        day=None,
        total_calls=stats.requests,
        successful_calls=stats.successes,
        failed_calls=stats.failures,
        success_rate=stats.success_rate,
        success_rate_interval=wilson(stats.successes, counted) if counted else None,
        avg_latency_ms=stats.latency.mean_ms,
        p50_latency_ms=stats.latency.p50_ms,
        p95_latency_ms=stats.latency.p95_ms,
        p99_latency_ms=stats.latency.p99_ms,
        p50_time_to_first_token_ms=stats.time_to_first_token.p50_ms,
        p95_time_to_first_token_ms=stats.time_to_first_token.p95_ms,
        total_input_tokens=stats.tokens.input,
        total_output_tokens=stats.tokens.output,
        total_reasoning_tokens=stats.tokens.reasoning,
        total_cached_tokens=stats.tokens.cached,
        total_cost=None if is_unknown else counts.cost,
        avg_cost=_average(counts),
        cost_coverage=coverage(counts),
    )


def _average(counts: Counts) -> Decimal | None:
    return counts.cost / counts.priced if counts.priced else None
