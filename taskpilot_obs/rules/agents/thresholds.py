"""Thresholds of the alerts on agents."""

from __future__ import annotations

from typing import Annotated

from taskpilot_obs.rules.fields import Duration, Events, Percent, RunSeconds, Section, a_bound_of
from taskpilot_obs.semconv import CALL_BUCKETS


class AgentThresholds(Section):
    """Thresholds per agent."""

    success_percent: Percent = 90
    p95_seconds: RunSeconds = 30
    min_events: Events = 10
    stuck_after: Duration = "30m"
    silent_min_runs: Events = 10
    loop_tool_calls: Annotated[float, a_bound_of(CALL_BUCKETS)] = 80
