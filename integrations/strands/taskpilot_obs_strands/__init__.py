"""Observes Strands Agents by a plugin: agents, model calls and tools, refused where checks refuse."""

from __future__ import annotations

from taskpilot_obs_strands.plugin import ObservabilityPlugin

__all__ = ["ObservabilityPlugin"]
