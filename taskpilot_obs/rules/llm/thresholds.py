"""Thresholds of the alerts on LLM calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskpilot_obs.rules.fields import Events, FirstTokenSeconds, Percent, RunSeconds, Section, Usd


class LlmThresholds(Section):
    """Thresholds of LLM calls: errors, latency, cache, spend."""

    error_percent: Percent = 1
    provider_error_percent: Percent = 5
    rate_limited_percent: Percent = 5
    retries_percent: Percent = 10
    p99_seconds: RunSeconds = 10
    first_token_p95_seconds: FirstTokenSeconds = 5
    cache_hit_percent: Percent = 30
    unpriced_percent: Percent = 5
    usage_missing_percent: Percent = 5
    min_events: Events = 20
    cost_per_hour_usd: Usd = 5
    spike_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    spike_min_usd: Usd = 1
    prompt_cache_drop_percent: Percent = 50
    prompt_cache_min_percent: Percent = 10
