"""Observes LiteLLM by a callback; refuses asynchronous calls and those of the proxy by its hooks."""

from __future__ import annotations

from taskpilot_obs_litellm.callback import ObservabilityCallback, handler, observe

__all__ = ["ObservabilityCallback", "handler", "observe"]
