"""Thresholds of the alerts on LLM calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskpilot_obs.rules.fields import Events, FirstTokenSeconds, Percent, RunSeconds, Section, Usd


class LlmThresholds(Section):
    """Thresholds of LLM calls: errors, latency, cache, spend."""

    error_percent: Percent = 1
    """Failed calls of a provider: a warning, and critical where runs fail by it."""
    provider_error_percent: Percent = 5
    """Failed calls of a provider that are critical in any case."""
    rate_limited_percent: Percent = 5
    """Calls of a provider that its rate limit refused."""
    retries_percent: Percent = 10
    """Attempts beyond the first, against calls."""
    p99_seconds: RunSeconds = 10
    """One call in a hundred may take longer."""
    first_token_p95_seconds: FirstTokenSeconds = 5
    """One streamed call in twenty may begin later."""
    cache_hit_percent: Percent = 30
    """Look-ups that the cache of the application should answer."""
    unpriced_percent: Percent = 5
    """Calls without a known price."""
    usage_missing_percent: Percent = 5
    """Calls whose response states no usage."""
    min_events: Events = 20
    """Calls (look-ups, for the cache) that a window needs."""
    cost_per_hour_usd: Usd = 5
    """Spend of a job in an hour."""
    spike_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    """A spike is so many times the mean of the same hour of the last 3 days, and at least so many USD."""
    spike_min_usd: Usd = 1
    prompt_cache_drop_percent: Percent = 50
    """How far the share of the input from the provider's prompt cache may fall against the day before, and from what
    share on that matters."""
    prompt_cache_min_percent: Percent = 10
