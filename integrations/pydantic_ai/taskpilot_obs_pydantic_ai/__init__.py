"""Observes Pydantic AI by a capability: agents, model requests and tools, refused where checks refuse."""

from __future__ import annotations

from taskpilot_obs_pydantic_ai.capability import ObservabilityCapability

__all__ = ["ObservabilityCapability"]
