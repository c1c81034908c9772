"""Observes crewAI by its events, and refuses tools and calls of models by its hooks."""

from __future__ import annotations

from taskpilot_obs_crewai.observer import Observer, observe

__all__ = ["Observer", "observe"]
