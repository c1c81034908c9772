"""Observes the tools of an MCP server by its middleware, and refuses where checks refuse."""

from __future__ import annotations

from taskpilot_obs_mcp.middleware import REFUSED, ObservabilityMiddleware

__all__ = ["REFUSED", "ObservabilityMiddleware"]
