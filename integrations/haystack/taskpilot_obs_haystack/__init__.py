"""Observes Haystack by its tracer, and refuses tools and calls of models there."""

from __future__ import annotations

from taskpilot_obs_haystack.tracer import ObservabilityTracer, observe

__all__ = ["ObservabilityTracer", "observe"]
