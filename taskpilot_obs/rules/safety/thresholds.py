"""Thresholds of the alerts on policies and guardrails."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskpilot_obs.rules.fields import Events, Percent, PolicyName, Section


class SafetyThresholds(Section):
    """Thresholds of policies and guardrails."""

    surge_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    surge_min_violations: Events = 10
    token_policies: tuple[PolicyName, ...] = ("max_tokens", "MaxTokens")
    guardrail_error_percent: Percent = 1
    guardrail_min_checks: Events = 10
