"""From sums to the models."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from taskpilot_obs._telemetry.answers import Bins, Key
from taskpilot_obs._telemetry.counts import NO_CALLS, Counts
from taskpilot_obs._telemetry.sketch import quantiles
from taskpilot_obs.golden_signals.evidence import BilledCalls
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.model import CallStats, CostShare, Durations, FirstToken, Tokens

StatsFields = dict[str, Any]
DIMENSIONS: Final = ("provider", "model_name", "agent")
QUANTILES: Final = (0.5, 0.95, 0.99)
_PERCENT: Final = 100


def latest(*moments: datetime | None) -> datetime | None:
    """The latest of the moments before which parts of an answer are incomplete."""
    return max((moment for moment in moments if moment is not None), default=None)


def stats_of(counts: Counts, latency: Mapping[int, int], first_token: Mapping[int, int]) -> CallStats:
    """One group of calls."""
    counted = counts.successes + counts.failures
    p50, p95, p99 = quantiles(latency, *QUANTILES)
    first_50, first_95, first_99 = quantiles(first_token, *QUANTILES)
    mean = counts.latency_total_ms / counts.requests if counts.requests else None
    return CallStats(
        requests=counts.requests,
        successes=counts.successes,
        failures=counts.failures,
        success_rate=_PERCENT * counts.successes / counted if counted else None,
        tokens=tokens_of(counts),
        cost_usd=counts.cost,
        cost_coverage=coverage(counts),
        cache_hits=counts.cache_hits,
        latency=Durations(mean_ms=mean, p50_ms=p50, p95_ms=p95, p99_ms=p99),
        time_to_first_token=FirstToken(p50_ms=first_50, p95_ms=first_95, p99_ms=first_99),
    )


def tokens_of(counts: Counts) -> Tokens:
    """The tokens of a group."""
    return Tokens(
        input=counts.input_tokens,
        output=counts.output_tokens,
        total=counts.input_tokens + counts.output_tokens,
        reasoning=counts.reasoning_tokens,
        cached=counts.cached_tokens,
        cache_write=counts.cache_write_tokens,
    )


def coverage(counts: Counts) -> float | None:
    """The share of calls whose cost is known in full, among those that may cost something."""
    return BilledCalls(counts.billable, counts.unpriced, counts.partly_priced).coverage


def share_of(counts: Counts, whole: Decimal) -> CostShare:
    """One group's part of the money."""
    cost = counts.cost
    return CostShare(
        cost_usd=cost,
        percent=float(_PERCENT * cost / whole) if whole else None,
        requests=counts.requests,
        cost_per_request_usd=cost / counts.priced if counts.priced else None,
        cost_coverage=coverage(counts),
    )


def shares(groups: Mapping[str, Counts], whole: Decimal) -> dict[str, CostShare]:
    """Every group's part of the money, in falling order of cost."""
    found = {name: share_of(counts, whole) for name, counts in groups.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1].cost_usd, item[0])))


def stats_from(
    counts: Mapping[Key, Counts], durations: Bins, failed: Mapping[str, int], incomplete_before: datetime | None
) -> StatsFields:
    """Everything that statistics hold but their stretch of time, from sums by provider, model and agent."""
    overall = stats_of(whole(counts.values()), all_bins(durations.latency), all_bins(durations.first_token))
    by_provider, by_model, by_agent = (stats_by(counts, durations, position) for position in range(len(DIMENSIONS)))
    return {
        **dict(overall),
        "by_provider": by_provider,
        "by_model": by_model,
        "by_agent": by_agent,
        "errors_by_type": dict(Counter(failed).most_common()),
        "incomplete_before": incomplete_before,
    }


def stats_by(totals: Mapping[Key, Counts], bins: Bins, position: int) -> dict[str, CallStats]:
    """Groups by one of the dimensions, in falling order of requests."""
    counts = counts_by(totals, position)
    latency = _bins_by(bins.latency, position)
    first_token = _bins_by(bins.first_token, position)
    found = {name: stats_of(count, latency[name], first_token[name]) for name, count in counts.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1].requests, item[0])))


def counts_by(totals: Mapping[Key, Counts], position: int) -> dict[str, Counts]:
    """Sums by one of the dimensions; what has no value is `__none__`."""
    found: dict[str, Counts] = {}
    for key, counts in totals.items():
        name = key[position] or NONE
        found[name] = found.get(name, NO_CALLS).plus(counts)
    return found


def _bins_by(groups: Mapping[Key, Counter[int]], position: int) -> defaultdict[str, Counter[int]]:
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for key, counter in groups.items():
        found[key[position] or NONE].update(counter)
    return found


def whole(totals: Iterable[Counts]) -> Counts:
    """The sum of all groups."""
    found = NO_CALLS
    for counts in totals:
        found = found.plus(counts)
    return found


def all_bins(groups: Mapping[Key, Counter[int]]) -> Counter[int]:
    """The durations of all groups together."""
    found: Counter[int] = Counter()
    for counter in groups.values():
        found.update(counter)
    return found
