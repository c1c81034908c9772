"""Alerts on LLM calls: errors, latency, cache and spend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from taskpilot_obs.rules import causes
from taskpilot_obs.rules.evidence import Recovery, Watched, known_for, stated
from taskpilot_obs.rules.llm.recordings import BILLABLE, calls_timed, error_ratio, failed_calls, requests_counted
from taskpilot_obs.rules.model import Alert, AlertKind, AlertSignal
from taskpilot_obs.rules.promql import number, slower
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import MODEL, OF_JOB, PERCENT, PROVIDER, SECONDS, USD, percent, usd
from taskpilot_obs.semconv import FIRST_TOKEN_BUCKETS, RUN_BUCKETS, Label

_COST: Final = "provider:llm_cost_usd:increase1h"
_FAILED: Final = f"{PERCENT} of the calls to {PROVIDER} ended as error or timeout, "
DAY_AND_HOUR_S: Final = 90_000
"""History that a comparison of the last hour with the day before it needs."""


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Alerts of the folder `llm`."""
    known = stated(settings.recent_windows, settings, settings.llm.min_events, "calls")
    first, *others = [*_errors(settings, known), *_latency(settings, known), *_economy(settings, known)]
    return (
        first,
        _provider_failing(settings, known),
        *others,
        _prompt_cache(settings),
        *_cost(settings),
    )


def _above(settings: RuleSettings, watched: Watched, threshold: float) -> str:
    return watched.holds(f"> {number(threshold)}", settings.evidence)


def _share_above(
    settings: RuleSettings, level: str, name: str, percent: float, total: Callable[[str], str] | None = None
) -> str:
    """Whether more than so many percent of the calls at one level are `name`; of `total`, by default of all calls."""
    share = Watched(
        f"{level}:{name}:ratio_recent",
        lambda window: f"{level}:{name}:ratio_rate{window}",
        total or requests_counted(level).over,
        lambda window: f"{level}:{name}:increase{window}",
        settings.llm.min_events,
        fault=percent / 100,
    )
    return _above(settings, share, percent / 100)


def _provider_failing(settings: RuleSettings, known: str) -> Alert:
    limits = settings.llm
    windows = causes.windows(settings)
    some = " or ".join(f"{error_ratio(window)} > {number(limits.error_percent / 100)}" for window in windows)
    return AlertSignal("llm_error_rate", AlertKind.RATIO).critical(
        "TaskpilotLLMProviderFailing",
        causes.explaining(settings, causes.LLM, with_failing_runs=f"({some})", labels=(Label.PROVIDER,)),
        f"LLM provider is failing: {PERCENT} of calls at {PROVIDER}",
        f"{_FAILED}{known}. Fires above {percent(limits.provider_error_percent)}, and above"
        f" {percent(limits.error_percent)} where runs fail by it.",
        # No wait: it has to be there before the alerts that it explains, so that it can silence them.
    )


def _errors(settings: RuleSettings, known: str) -> list[Alert]:
    limits = settings.llm
    return [
        AlertSignal("llm_error_rate", AlertKind.RATIO).warning(
            "TaskpilotLLMErrorRateHigh",
            _above(settings, failed_calls(settings, "error_ratio", limits.error_percent), limits.error_percent / 100),
            f"LLM calls fail: {PERCENT} at {PROVIDER} (above {percent(limits.error_percent)})",
            f"{_FAILED}{known}.",
            settings.lasting,
        ),
        AlertSignal("llm_rate_limits", AlertKind.RATIO).warning(
            "TaskpilotLLMRateLimited",
            _share_above(settings, "provider", "llm_rate_limited", limits.rate_limited_percent),
            f"Rate limits refuse {PERCENT} of LLM calls at {PROVIDER} (above {percent(limits.rate_limited_percent)})",
            f"{PERCENT} of the calls to {PROVIDER} failed with a rate limit, {known}.",
            settings.lasting,
        ),
        AlertSignal("llm_retries", AlertKind.RATIO).warning(
            "TaskpilotLLMRetriesHigh",
            _share_above(settings, "provider", "llm_retries", limits.retries_percent),
            f"LLM calls are retried: {PERCENT} at {PROVIDER} (above {percent(limits.retries_percent)})",
            f"Retries amount to {PERCENT} of the calls to {PROVIDER}, {known}. Each one is paid for in time, many"
            " in money.",
            settings.lasting,
        ),
    ]


def _slower(settings: RuleSettings, name: str, percentile: int, threshold: float, bounds: Sequence[float]) -> str:
    watched = Watched(
        f"model:{name}:p{percentile}_recent",
        lambda window: f"model:{name}:p{percentile}_rate{window}",
        partial(calls_timed, name),
        lambda window: slower(f"model:{name}_bucket:increase{window}", threshold, bounds),
        settings.llm.min_events,
        fault=1 - percentile / 100,
    )
    return _above(settings, watched, threshold)


def _latency(settings: RuleSettings, known: str) -> list[Alert]:
    limits = settings.llm
    return [
        AlertSignal("llm_latency", AlertKind.LATENCY).warning(
            "TaskpilotLLMSlow",
            _slower(settings, "llm_request_duration_seconds", 99, limits.p99_seconds, RUN_BUCKETS),
            f"LLM calls are slow, p99 is {SECONDS}: {MODEL} (above {limits.p99_seconds:.12g} s)",
            f"1 of 100 calls to {MODEL} takes {SECONDS} or longer to the last token, {known}.",
            settings.lasting,
        ),
        AlertSignal("llm_first_token", AlertKind.LATENCY).warning(
            "TaskpilotLLMFirstTokenSlow",
            _slower(
                settings, "llm_time_to_first_token_seconds", 95, limits.first_token_p95_seconds, FIRST_TOKEN_BUCKETS
            ),
            f"First tokens come late, p95 is {SECONDS}: {MODEL} (above {limits.first_token_p95_seconds:.12g} s)",
            f"1 of 20 streamed calls to {MODEL} waits {SECONDS} or longer for its first token,"
            f" {known.replace('calls', 'streamed calls')}.",
            settings.lasting,
        ),
    ]


def _economy(settings: RuleSettings, known: str) -> list[Alert]:
    limits = settings.llm
    return [
        AlertSignal("llm_cache", AlertKind.RATIO).warning(
            "TaskpilotLLMCacheHitRateLow",
            Watched(
                "agent:llm_cache:hit_ratio_recent",
                lambda window: f"agent:llm_cache:hit_ratio_rate{window}",
                lambda window: f"agent:llm_cache_lookups:increase{window}",
                lambda window: f"agent:llm_cache_misses:increase{window}",
                limits.min_events,
            ).holds(f"< {number(limits.cache_hit_percent / 100)}", settings.evidence),
            f"Cache answers only {PERCENT} of LLM calls: agent {{{{ $labels.agent }}}} of {OF_JOB}"
            f" (below {percent(limits.cache_hit_percent)})",
            f"{PERCENT} of the cache look-ups of this agent were hits, {known.replace('calls', 'look-ups')}.",
            settings.lasting,
        ),
        AlertSignal("llm_unpriced", AlertKind.RATIO).warning(
            "TaskpilotLLMUnpricedShareHigh",
            _share_above(settings, "job", "llm_unpriced_requests", limits.unpriced_percent, BILLABLE.over),
            f"Cost is unknown for {PERCENT} of LLM calls: {OF_JOB} (above {percent(limits.unpriced_percent)})",
            f"{PERCENT} of the LLM calls of {OF_JOB} have no price, {known}. Every cost figure is too low by"
            " their share.",
            settings.lasting,
        ),
        AlertSignal("llm_usage", AlertKind.RATIO).warning(
            "TaskpilotLLMUsageMissing",
            _share_above(settings, "job", "llm_usage_missing", limits.usage_missing_percent, BILLABLE.over),
            f"Token usage is missing for {PERCENT} of LLM calls: {OF_JOB} (above"
            f" {percent(limits.usage_missing_percent)})",
            f"The providers stated no usage for {PERCENT} of the LLM calls of {OF_JOB}, {known}."
            " Their tokens and cost are counted nowhere.",
            settings.lasting,
        ),
    ]


def _prompt_cache(settings: RuleSettings) -> Alert:
    limits = settings.llm
    share = "model:llm_prompt_cache:read_ratio_rate"
    left = number(1 - limits.prompt_cache_drop_percent / 100)
    now, fell = f"{share}5m", f"{share}5m < {left} * {share}1d offset 1h"
    calls = 'sum without (le) (model:llm_request_duration_seconds_bucket:increase1h{le="+Inf"})'
    return AlertSignal("llm_prompt_cache", AlertKind.RATIO).warning(
        "TaskpilotLLMPromptCacheFell",
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


def _cost(settings: RuleSettings) -> list[Alert]:
    limits, scope = settings.llm, settings.scope
    total = f"sum by ({scope.by()}) ({_COST})"
    days = [f'label_replace({total[:-1]} offset {day}d), "slice", "{day}", "", "")' for day in (1, 2, 3)]
    usual = f"avg by ({scope.by()}) (\n    " + "\n    or\n    ".join(days) + "\n  )"
    factor = number(limits.spike_factor)
    return [
        AlertSignal("llm_cost", AlertKind.SPEND).warning(
            "TaskpilotLLMCostPerHourHigh",
            f"{total} > {number(limits.cost_per_hour_usd)}",
            f"LLM calls cost {USD} in the last hour: {OF_JOB} (above {usd(limits.cost_per_hour_usd)})",
            f"The LLM calls of {OF_JOB} with a known price cost {USD} in the last hour.",
            settings.lasting,
        ),
        AlertSignal("llm_cost_spike", AlertKind.SPEND).warning(
            "TaskpilotLLMCostSpike",
            f"{total} > {number(limits.spike_min_usd)}\nand\n{total} > {factor} *\n  {usual}\n"
            f"and {known_for(scope, '3d')}",
            f"LLM cost spike: {USD} in the last hour, over {factor} times the usual: {OF_JOB}",
            f"The LLM calls of {OF_JOB} cost {USD} in the last hour, more than {factor} times the mean of the same hour"
            f" of the last 3 days, and more than {usd(limits.spike_min_usd)}.",
            settings.lasting,
        ),
    ]
