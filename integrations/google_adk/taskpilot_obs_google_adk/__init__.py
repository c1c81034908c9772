"""Observes Google's Agent Development Kit by a plugin: agents, model calls and tools, refused where checks refuse."""

from __future__ import annotations

from taskpilot_obs_google_adk.plugin import ObservabilityPlugin

__all__ = ["ObservabilityPlugin"]
