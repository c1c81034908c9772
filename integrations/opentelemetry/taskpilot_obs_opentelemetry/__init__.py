"""Records what other libraries state as OpenTelemetry spans: agents, tools and LLM calls of any framework or SDK."""

from __future__ import annotations

from taskpilot_obs_opentelemetry.bridge import GenAiBridge
from taskpilot_obs_opentelemetry.sampling import RecordAll

__all__ = ["GenAiBridge", "RecordAll"]
