"""CrewAI has its own name for cache reads."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape("crewai", beside={"cache_read_tokens": ("cached_prompt_tokens",)})
