"""Observes Microsoft's Agent Framework: agents, model calls and tools by middleware, workflows by their runs."""

from __future__ import annotations

from taskpilot_obs_agent_framework.middleware import (
    AgentObserver,
    ChatObserver,
    FunctionObserver,
    observability_middleware,
)
from taskpilot_obs_agent_framework.workflows import observe

__all__ = ["AgentObserver", "ChatObserver", "FunctionObserver", "observability_middleware", "observe"]
