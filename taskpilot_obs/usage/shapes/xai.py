"""xAI imitates OpenAI, but leaves reasoning out of the output; its own SDK has another name for cache reads."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape("xai", beside={"cache_read_tokens": ("cached_prompt_text_tokens",)}, counts_apart=("grok", "x_ai"))
