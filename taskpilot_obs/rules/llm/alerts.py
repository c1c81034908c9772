"""Alerts on LLM calls: errors, latency, cache and spend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from taskpilot_obs.rules import causes
from taskpilot_obs.rules.evidence import Recovery, Watched, known_for, stated
from taskpilot_obs.rules.llm.recordings import BILLABLE, calls_timed, error_ratio, failed_calls, requests_counted
from taskpilot_obs.rules.model import CRITICAL, WARNING, Alert, AlertKind
from taskpilot_obs.rules.promql import number, slower
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import MODEL, OF_JOB, PERCENT, PROVIDER, SECONDS, USD, percent, usd
from taskpilot_obs.semconv import FIRST_TOKEN_BUCKETS, RUN_BUCKETS, Label

_COST: Final = "provider:llm_cost_usd:increase1h"
_FAILED: Final = f"{PERCENT} of the calls to {PROVIDER} ended as error or timeout, "
DAY_AND_HOUR_S: Final = 90_000
"""History that a comparison of the last hour with the day before it needs."""


class _Recent(NamedTuple):
    """A threshold on a recorded recent value."""

    name: str
    kind: AlertKind
    signal: str
    watched: Watched
    condition: str
    summary: str
    description: str


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Alerts of the folder `llm`."""
    known = stated(settings.recent_windows, settings, settings.llm.min_events, "calls")
    first, *watched = [*_errors(settings, known), *_latency(settings, known), *_economy(settings, known)]
    return (
        _alert(settings, first),
        _provider_failing(settings, known),
        *(_alert(settings, item) for item in watched),
        _prompt_cache(settings),
        _cost_per_hour(settings),
        _cost_spike(settings),
    )


def _alert(settings: RuleSettings, item: _Recent) -> Alert:
    return Alert(
        item.name,
        item.kind,
        WARNING,
        item.signal,
        item.watched.holds(item.condition, settings.evidence),
        item.summary,
        item.description,
        settings.lasting,
    )


def _share(settings: RuleSettings, level: str, name: str, percent: float) -> Watched:
    """A share of the calls, at one level, of which an alert on so many percent speaks."""
    return Watched(
        f"{level}:{name}:ratio_recent",
        lambda window: f"{level}:{name}:ratio_rate{window}",
        requests_counted(level).over,
        lambda window: f"{level}:{name}:increase{window}",
        settings.llm.min_events,
        fault=percent / 100,
    )


def _provider_failing(settings: RuleSettings, known: str) -> Alert:
    limits = settings.llm
    windows = causes.windows(settings)
    some = " or ".join(f"{error_ratio(window)} > {number(limits.error_percent / 100)}" for window in windows)
    return Alert(
        "TaskpilotLLMProviderFailing",
        AlertKind.RATIO,
        CRITICAL,
        "llm_error_rate",
        causes.explaining(settings, causes.LLM, with_failing_runs=f"({some})", labels=(Label.PROVIDER,)),
        f"LLM provider is failing: {PERCENT} of calls at {PROVIDER}",
        f"{_FAILED}{known}. Fires above {percent(limits.provider_error_percent)}, and above"
        f" {percent(limits.error_percent)} where runs fail by it.",
        # No wait: it has to be there before the alerts that it explains, so that it can silence them.
    )


def _errors(settings: RuleSettings, known: str) -> list[_Recent]:
    limits = settings.llm
    return [
        _Recent(
            "TaskpilotLLMErrorRateHigh",
            AlertKind.RATIO,
            "llm_error_rate",
            failed_calls(settings, "error_ratio", limits.error_percent),
            f"> {number(limits.error_percent / 100)}",
            f"LLM calls fail: {PERCENT} at {PROVIDER} (above {percent(limits.error_percent)})",
            f"{_FAILED}{known}.",
        ),
        _Recent(
            "TaskpilotLLMRateLimited",
            AlertKind.RATIO,
            "llm_rate_limits",
            _share(settings, "provider", "llm_rate_limited", limits.rate_limited_percent),
            f"> {number(limits.rate_limited_percent / 100)}",
            f"Rate limits refuse {PERCENT} of LLM calls at {PROVIDER} (above {percent(limits.rate_limited_percent)})",
            f"{PERCENT} of the calls to {PROVIDER} failed with a rate limit, {known}.",
        ),
        _Recent(
            "TaskpilotLLMRetriesHigh",
            AlertKind.RATIO,
            "llm_retries",
            _share(settings, "provider", "llm_retries", limits.retries_percent),
            f"> {number(limits.retries_percent / 100)}",
            f"LLM calls are retried: {PERCENT} at {PROVIDER} (above {percent(limits.retries_percent)})",
            f"Retries amount to {PERCENT} of the calls to {PROVIDER}, {known}. Each one is paid for in time, many"
            " in money.",
        ),
    ]


def _timed(settings: RuleSettings, name: str, percentile: int, threshold: float, bounds: Sequence[float]) -> Watched:
    return Watched(
        f"model:{name}:p{percentile}_recent",
        lambda window: f"model:{name}:p{percentile}_rate{window}",
        partial(calls_timed, name),
        lambda window: slower(f"model:{name}_bucket:increase{window}", threshold, bounds),
        settings.llm.min_events,
        fault=1 - percentile / 100,
    )


def _latency(settings: RuleSettings, known: str) -> list[_Recent]:
    limits = settings.llm
    return [
        _Recent(
            "TaskpilotLLMSlow",
            AlertKind.LATENCY,
            "llm_latency",
            _timed(settings, "llm_request_duration_seconds", 99, limits.p99_seconds, RUN_BUCKETS),
            f"> {number(limits.p99_seconds)}",
            f"LLM calls are slow, p99 is {SECONDS}: {MODEL} (above {limits.p99_seconds:.12g} s)",
            f"1 of 100 calls to {MODEL} takes {SECONDS} or longer to the last token, {known}.",
        ),
        _Recent(
            "TaskpilotLLMFirstTokenSlow",
            AlertKind.LATENCY,
            "llm_first_token",
            _timed(
                settings,
                "llm_time_to_first_token_seconds",
                95,
                limits.first_token_p95_seconds,
                FIRST_TOKEN_BUCKETS,
            ),
            f"> {number(limits.first_token_p95_seconds)}",
            f"First tokens come late, p95 is {SECONDS}: {MODEL} (above {limits.first_token_p95_seconds:.12g} s)",
            f"1 of 20 streamed calls to {MODEL} waits {SECONDS} or longer for its first token,"
            f" {known.replace('calls', 'streamed calls')}.",
        ),
    ]


def _economy(settings: RuleSettings, known: str) -> list[_Recent]:
    limits = settings.llm
    return [
        _Recent(
            "TaskpilotLLMCacheHitRateLow",
            AlertKind.RATIO,
            "llm_cache",
            Watched(
                "agent:llm_cache:hit_ratio_recent",
                lambda window: f"agent:llm_cache:hit_ratio_rate{window}",
                lambda window: f"agent:llm_cache_lookups:increase{window}",
                lambda window: f"agent:llm_cache_misses:increase{window}",
                limits.min_events,
            ),
            f"< {number(limits.cache_hit_percent / 100)}",
            f"Cache answers only {PERCENT} of LLM calls: agent {{{{ $labels.agent }}}} of {OF_JOB}"
            f" (below {percent(limits.cache_hit_percent)})",
            f"{PERCENT} of the cache look-ups of this agent were hits, {known.replace('calls', 'look-ups')}.",
        ),
        _Recent(
            "TaskpilotLLMUnpricedShareHigh",
            AlertKind.RATIO,
            "llm_unpriced",
            _share(settings, "job", "llm_unpriced_requests", limits.unpriced_percent)._replace(total=BILLABLE.over),
            f"> {number(limits.unpriced_percent / 100)}",
            f"Cost is unknown for {PERCENT} of LLM calls: {OF_JOB} (above {percent(limits.unpriced_percent)})",
            f"{PERCENT} of the LLM calls of {OF_JOB} have no price, {known}. Every cost figure is too low by"
            " their share.",
        ),
        _Recent(
            "TaskpilotLLMUsageMissing",
            AlertKind.RATIO,
            "llm_usage",
            _share(settings, "job", "llm_usage_missing", limits.usage_missing_percent)._replace(total=BILLABLE.over),
            f"> {number(limits.usage_missing_percent / 100)}",
            f"Token usage is missing for {PERCENT} of LLM calls: {OF_JOB} (above"
            f" {percent(limits.usage_missing_percent)})",
            f"The providers stated no usage for {PERCENT} of the LLM calls of {OF_JOB}, {known}."
            " Their tokens and cost are counted nowhere.",
        ),
    ]


def _prompt_cache(settings: RuleSettings) -> Alert:
    limits = settings.llm
    share = "model:llm_prompt_cache:read_ratio_rate"
    left = number(1 - limits.prompt_cache_drop_percent / 100)
    now, fell = f"{share}5m", f"{share}5m < {left} * {share}1d offset 1h"
    calls = 'sum without (le) (model:llm_request_duration_seconds_bucket:increase1h{le="+Inf"})'
    return Alert(
        "TaskpilotLLMPromptCacheFell",
        AlertKind.RATIO,
        WARNING,
        "llm_prompt_cache",
        f"{share}1h < {left} * ({share}1d offset 1h > {number(limits.prompt_cache_min_percent / 100)})\n"
        f"and {calls} >= {limits.min_events}\n"
        f"{Recovery(now, now, fell, fell).ends()}\n"
        f"and {known_for(settings.scope, DAY_AND_HOUR_S)}",
        f"Prompt cache answers only {PERCENT} of the input: {MODEL}",
        f"{PERCENT} of the input tokens of {MODEL} were read from the provider's prompt cache in the last hour, less"
        f" than {number(100 - limits.prompt_cache_drop_percent)}% of the share of the day before. The same work costs"
        " more.",
        settings.lasting,
    )


def _cost_per_hour(settings: RuleSettings) -> Alert:
    limit = settings.llm.cost_per_hour_usd
    return Alert(
        "TaskpilotLLMCostPerHourHigh",
        AlertKind.SPEND,
        WARNING,
        "llm_cost",
        f"sum by ({settings.scope.by()}) ({_COST}) > {number(limit)}",
        f"LLM calls cost {USD} in the last hour: {OF_JOB} (above {usd(limit)})",
        f"The LLM calls of {OF_JOB} with a known price cost {USD} in the last hour.",
        settings.lasting,
    )


def _cost_spike(settings: RuleSettings) -> Alert:
    limits = settings.llm
    total = f"sum by ({settings.scope.by()}) ({_COST})"
    days = [f'label_replace({total[:-1]} offset {day}d), "slice", "{day}", "", "")' for day in (1, 2, 3)]
    usual = f"avg by ({settings.scope.by()}) (\n    " + "\n    or\n    ".join(days) + "\n  )"
    return Alert(
        "TaskpilotLLMCostSpike",
        AlertKind.SPEND,
        WARNING,
        "llm_cost_spike",
        f"{total} > {number(limits.spike_min_usd)}\nand\n{total} > {number(limits.spike_factor)} *\n  {usual}\n"
        f"and {known_for(settings.scope, '3d')}",
        f"LLM cost spike: {USD} in the last hour, over {number(limits.spike_factor)} times the usual: {OF_JOB}",
        f"The LLM calls of {OF_JOB} cost {USD} in the last hour, more than {number(limits.spike_factor)} times"
        " the mean of the"
        f" same hour of the last 3 days, and more than {usd(limits.spike_min_usd)}.",
        settings.lasting,
    )
