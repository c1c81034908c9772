"""Observes the OpenAI Agents SDK: records by its tracing, refuses by its hooks."""

from __future__ import annotations

from taskpilot_obs_openai_agents.hooks import ObservabilityHooks
from taskpilot_obs_openai_agents.processor import ObservabilityProcessor, observe

__all__ = ["ObservabilityHooks", "ObservabilityProcessor", "observe"]
