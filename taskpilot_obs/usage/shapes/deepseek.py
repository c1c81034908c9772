"""DeepSeek states usage like OpenAI, and cache reads beside the totals."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape("deepseek", beside={"cache_read_tokens": ("prompt_cache_hit_tokens",)})
