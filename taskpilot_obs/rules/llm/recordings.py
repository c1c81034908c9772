"""Recording rules of LLM calls: per agent, model and provider, and overall (level `job`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.records import COUNTED, Status
from taskpilot_obs.rules import causes
from taskpilot_obs.rules.evidence import Watched, recent_value
from taskpilot_obs.rules.model import Recording, RuleGroup
from taskpilot_obs.rules.promql import Count, bucket, matcher, number, quantile, ratio, seconds
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.semconv import Label

SHORT: Final = ("5m", "1h")
BASE: Final = "agent_model"
"""The finest level: agent, model and provider. The others are sums of it."""
_MODEL: Final = (Label.MODEL, Label.PROVIDER)
LEVELS: Final[dict[str, tuple[str, ...]]] = {
    BASE: (Label.AGENT, *_MODEL),
    "agent": (Label.AGENT,),
    "model": _MODEL,
    "provider": (Label.PROVIDER,),
    "job": (),
}
CACHE_LEVELS: Final[dict[str, tuple[str, ...]]] = {
    BASE: (Label.AGENT, Label.MODEL),
    "agent": (Label.AGENT,),
    "model": (Label.MODEL,),
    "job": (),
}
_SUMMED: Final = ("agent", "model", "provider", "job")
_COARSE: Final = ("provider", "job")
"""Levels at which alerts look at requests, and so need longer windows."""
_QUANTILES: Final = ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"))
_FAILING_PERCENT: Final = 5
"""The smallest share of errors for which 400 calls in a few minutes suffice."""
_RATE_LIMIT: Final = semconv.ERROR_CATEGORIES[0]


def groups(settings: RuleSettings) -> tuple[RuleGroup, ...]:
    """Recording rules of the folder `llm`."""
    parts = {
        "requests": _requests(settings, (BASE,)),
        "requests-by-level": [*_requests(settings, _SUMMED), *_recent_errors(settings)],
        "latency": _latency(settings, "llm_request_duration_seconds", semconv.LLM_DURATION.name, "p99"),
        "first-token": _latency(settings, "llm_time_to_first_token_seconds", semconv.LLM_FIRST_TOKEN.name, "p95"),
        "tokens": _tokens(settings),
        "cost": _cost(settings),
        "cache": _cache(settings, (BASE,)),
        "cache-by-level": [*_cache(settings, ("agent", "model", "job")), _recent_hits(settings)],
        "quality": _quality(settings),
    }
    groups_ = (
        RuleGroup(f"taskpilot-llm-{name}", settings.evaluation_interval, tuple(rules)) for name, rules in parts.items()
    )
    return (*groups_, _causes(settings))


def _count(level: str, name: str, labels: tuple[str, ...], metric: str, *matchers: str) -> Count:
    """A count that is read from raw series at the finest level, and summed from there at the others."""
    if level == BASE:
        return Count(level, name, labels, metric, matchers)
    return Count(level, name, labels, source=f"{BASE}:{name}")


def requests_counted(level: str) -> Count:
    """Calls that prove something: success, error, timeout, blocked."""
    statuses = matcher(Label.STATUS, *sorted(COUNTED))
    return _count(level, "llm_requests_counted", LEVELS[level], semconv.LLM_REQUESTS.name, statuses)


def requests_failed(level: str) -> Count:
    """Calls that ended as error or timeout; 0 where calls were counted and none failed."""
    failed = matcher(Label.STATUS, Status.ERROR, Status.TIMEOUT)
    count = _count(level, "llm_requests_failed", LEVELS[level], semconv.LLM_REQUESTS.name, failed)
    return count._replace(zero_of=f"{level}:llm_requests_counted")


def _requests(settings: RuleSettings, levels: Sequence[str]) -> list[Recording]:
    rules = []
    for level in levels:
        windows = settings.fine_windows if level in _COARSE else SHORT
        counted, failed = requests_counted(level), requests_failed(level)
        rules += counted.rules(settings.scope, windows) + failed.rules(settings.scope, windows)
        rules += [
            Recording(
                f"{level}:llm_requests:error_ratio_rate{window}", ratio(failed.over(window), counted.over(window))
            )
            for window in windows
        ]
    return rules


def _recent_errors(settings: RuleSettings) -> list[Recording]:
    """The larger a share is, the fewer calls it takes to see it, so that each threshold has a value of its own."""
    limits, calls = settings.llm, requests_counted("provider").over
    return [
        Recording(
            f"provider:llm_requests:{name}_recent",
            recent_value(settings, error_ratio, calls, limits.min_events, percent / 100),
        )
        for name, percent in (("error_ratio", limits.error_percent), ("failing_ratio", _FAILING_PERCENT))
    ]


def error_ratio(window: str) -> str:
    """Name of the share of a provider's calls that fail, over a window."""
    return f"provider:llm_requests:error_ratio_rate{window}"


def failed_calls(settings: RuleSettings, value: str, percent: float) -> Watched:
    """The share of a provider's calls that fail, over the window that `value` was recorded for."""
    return Watched(
        f"provider:llm_requests:{value}_recent",
        error_ratio,
        requests_counted("provider").over,
        requests_failed("provider").over,
        settings.llm.min_events,
        outright=True,
        fault=percent / 100,
    )


def _causes(settings: RuleSettings) -> RuleGroup:
    percent = settings.llm.provider_error_percent
    failing = failed_calls(settings, "failing_ratio", percent).holds(f"> {number(percent / 100)}", settings.evidence)
    return causes.LLM.group(settings, "taskpilot-llm-causes", failing)


def calls_timed(name: str, window: str) -> str:
    """Expression of how many calls a latency histogram holds in a window."""
    return bucket(f"model:{name}_bucket:increase{window}", "+Inf")


def _latency(settings: RuleSettings, name: str, metric: str, alerted: str) -> list[Recording]:
    buckets = Count("model", f"{name}_bucket", (*_MODEL, "le"), f"{metric}_bucket")
    rules = buckets.rules(settings.scope, settings.fine_windows)
    for window in settings.fine_windows:
        rules += [
            Recording(f"model:{name}:{label}_rate{window}", quantile(share, buckets.over(window)))
            for share, label in _QUANTILES
            if label == alerted or window in SHORT
        ]
    value = recent_value(
        settings,
        lambda window: f"model:{name}:{alerted}_rate{window}",
        partial(calls_timed, name),
        settings.llm.min_events,
    )
    return [*rules, Recording(f"model:{name}:{alerted}_recent", value)]


def _tokens(settings: RuleSettings) -> list[Recording]:
    rules = []
    for level, labels in LEVELS.items():
        count = _count(level, "llm_tokens", (*labels, Label.TOKEN_TYPE), semconv.LLM_TOKENS.name)
        rules += count.rules(settings.scope, SHORT)
        rules += _rates(count, level)
    return [*rules, *_prompt_cache(settings)]


def _prompt_cache(settings: RuleSettings) -> list[Recording]:
    """How much of the input the providers read from their prompt caches."""
    read = Count(
        "model",
        "llm_cache_read_tokens",
        _MODEL,
        semconv.LLM_TOKEN_DETAILS.name,
        (matcher(Label.DETAIL, "cache_read"),),
        zero_of="model:llm_input_tokens",
    )
    given = Count("model", "llm_input_tokens", _MODEL, semconv.LLM_TOKENS.name, (matcher(Label.TOKEN_TYPE, "input"),))
    rules = [rule for count in (given, read) for rule in count.rules(settings.scope, settings.fine_windows)]
    return rules + [
        Recording(f"model:llm_prompt_cache:read_ratio_rate{window}", ratio(read.over(window), given.over(window)))
        for window in settings.fine_windows
    ]


def _cost(settings: RuleSettings) -> list[Recording]:
    """USD; the level `job` is recorded with the golden signals, over every window."""
    rules = []
    for level, labels in LEVELS.items():
        if level == "job":
            continue
        count = _count(level, "llm_cost_usd", labels, semconv.LLM_COST.name)
        rules += count.rules(settings.scope, SHORT)
        rules += _rates(count, level)
    return rules


def _rates(count: Count, level: str) -> list[Recording]:
    return [
        Recording(f"{level}:{count.name}:rate{window}", f"{count.over(window)} / {seconds(window)}") for window in SHORT
    ]


def _cache(settings: RuleSettings, levels: Sequence[str]) -> list[Recording]:
    rules = []
    for level in levels:
        labels = CACHE_LEVELS[level]
        hits = _count(level, "llm_cache_hits", labels, semconv.LLM_CACHE_HITS.name)
        misses = _count(level, "llm_cache_misses", labels, semconv.LLM_CACHE_MISSES.name)
        windows = settings.fine_windows if level == "agent" else SHORT
        rules += hits.rules(settings.scope, windows) + misses.rules(settings.scope, windows)
        for window in windows:
            rules += _hit_ratio(settings, level, labels, window)
    return rules


def _recent_hits(settings: RuleSettings) -> Recording:
    value = recent_value(
        settings,
        lambda window: f"agent:llm_cache:hit_ratio_rate{window}",
        lambda window: f"agent:llm_cache_lookups:increase{window}",
        settings.llm.min_events,
    )
    return Recording("agent:llm_cache:hit_ratio_recent", value)


def _hit_ratio(settings: RuleSettings, level: str, labels: tuple[str, ...], window: str) -> list[Recording]:
    hits, lookups = f"{level}:llm_cache_hits:increase{window}", f"{level}:llm_cache_lookups:increase{window}"
    both = (
        f"sum by ({settings.scope.by(*labels)}) (\n"
        f'  label_replace({hits}, "slice", "hits", "", "")\n'
        f"  or\n"
        f'  label_replace({level}:llm_cache_misses:increase{window}, "slice", "misses", "", "")\n'
        f")"
    )
    share = f"({hits} or 0 * {lookups})"
    return [Recording(lookups, both), Recording(f"{level}:llm_cache:hit_ratio_rate{window}", ratio(share, lookups))]


def _quality(settings: RuleSettings) -> list[Recording]:
    """Rate limits and retries per provider, calls without usage, without a price or with a part of one overall."""
    limited = matcher(Label.ERROR_TYPE, _RATE_LIMIT)
    rules = []
    rules += _share(settings, "provider", "llm_rate_limited", semconv.LLM_ERRORS.name, limited)
    rules += _share(settings, "provider", "llm_retries", semconv.LLM_RETRIES.name)
    rules += BILLABLE.rules(settings.scope, settings.fine_windows)
    rules += _share(settings, "job", "llm_unpriced_requests", semconv.LLM_UNPRICED.name, of=BILLABLE)
    rules += _share(settings, "job", "llm_partially_priced_requests", semconv.LLM_PARTIALLY_PRICED.name, of=BILLABLE)
    rules += [_coverage(window) for window in settings.fine_windows]
    rules += _share(settings, "job", "llm_usage_missing", semconv.LLM_USAGE_MISSING.name, of=BILLABLE)
    for name, metric in (
        ("llm_unpriced_requests", semconv.LLM_UNPRICED.name),
        ("llm_partially_priced_requests", semconv.LLM_PARTIALLY_PRICED.name),
        ("llm_usage_missing", semconv.LLM_USAGE_MISSING.name),
    ):
        rules += Count("model", name, _MODEL, metric).rules(settings.scope, SHORT)
    return rules


BILLABLE: Final = Count("job", "llm_billable_requests", (), semconv.LLM_BILLABLE.name)
"""Calls that may cost something: the whole that shares of unknown and incomplete costs are taken of."""


def _coverage(window: str) -> Recording:
    """The share of calls whose cost is known in full; the definition is that of `BilledCalls.coverage`."""
    unknown = f"job:llm_unpriced_requests:ratio_rate{window}"
    incomplete = f"job:llm_partially_priced_requests:ratio_rate{window}"
    return Recording(f"job:llm_cost:coverage_ratio_rate{window}", f"1 - {unknown} - {incomplete}")


def _share(
    settings: RuleSettings, level: str, name: str, metric: str, *matchers: str, of: Count | None = None
) -> list[Recording]:
    whole = of or requests_counted(level)
    events = Count(level, name, LEVELS[level], metric, matchers, zero_of=f"{whole.level}:{whole.name}")
    windows: Sequence[str] = settings.fine_windows
    rules = events.rules(settings.scope, windows)
    rules += [
        Recording(f"{level}:{name}:ratio_rate{window}", ratio(events.over(window), whole.over(window)))
        for window in windows
    ]
    value = recent_value(
        settings, lambda window: f"{level}:{name}:ratio_rate{window}", whole.over, settings.llm.min_events
    )
    return [*rules, Recording(f"{level}:{name}:ratio_recent", value)]
