"""Moonshot and Together state usage like OpenAI, and cache reads beside the totals."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape("moonshot", beside={"cache_read_tokens": ("cached_tokens",)})
