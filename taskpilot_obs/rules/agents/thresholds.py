"""Thresholds of the alerts on agents."""

from __future__ import annotations

from typing import Annotated

from taskpilot_obs.rules.fields import Duration, Events, Percent, RunSeconds, Section, a_bound_of
from taskpilot_obs.semconv import CALL_BUCKETS


class AgentThresholds(Section):
    """Thresholds per agent."""

    success_percent: Percent = 90
    """An agent fails when fewer of its runs succeed."""
    p95_seconds: RunSeconds = 30
    """An agent is slow when one run in twenty takes longer."""
    min_events: Events = 10
    """Runs that a window needs."""
    stuck_after: Duration = "30m"
    """An agent is stuck when runs were active for so long in a process and none of its runs ended there."""
    silent_min_runs: Events = 10
    """An agent is silent when so many runs ended in the same hour (or six hours) yesterday, and none now."""
    loop_tool_calls: Annotated[float, a_bound_of(CALL_BUCKETS)] = 80
    """A run with more tool calls loops; must be a bound of the buckets: 1 2 3 5 8 12 20 30 50 80 120 200 500."""
