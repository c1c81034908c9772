"""Thresholds of the alerts on policies and guardrails."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskpilot_obs.rules.fields import Events, Percent, PolicyName, Section


class SafetyThresholds(Section):
    """Thresholds of policies and guardrails."""

    surge_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    """A surge is so many times the hourly mean of the day before, and at least so many violations in an hour."""
    surge_min_violations: Events = 10
    token_policies: tuple[PolicyName, ...] = ("max_tokens", "MaxTokens")
    """Names under which your MaxTokens policies report."""
    guardrail_error_percent: Percent = 1
    """Checks of a guardrail that may raise, and the checks that a window needs."""
    guardrail_min_checks: Events = 10
