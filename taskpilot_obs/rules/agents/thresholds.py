"""Thresholds of the alerts on agents."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from taskpilot_obs.rules.fields import Duration, Events, Percent, RunSeconds, Section
from taskpilot_obs.semconv import CALL_BUCKETS


class AgentThresholds(Section):
    """Thresholds per agent."""

    success_percent: Percent = 90
    p95_seconds: RunSeconds = 30
    min_events: Events = 10
    stuck_after: Duration = "30m"
    silent_min_runs: Events = 10
    loop_tool_calls: float = 80

    @model_validator(mode="after")
    def _on_a_bound(self) -> Self:
        if self.loop_tool_calls not in CALL_BUCKETS:
            bounds = ", ".join(f"{bound:g}" for bound in CALL_BUCKETS)
            raise ValueError(f"loop_tool_calls {self.loop_tool_calls:g} is not a bucket bound; choose one of {bounds}")
        return self
