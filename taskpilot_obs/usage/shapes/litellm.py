"""LiteLLM and Databricks imitate OpenAI, and state Anthropic's cache counts beside the totals that include them."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape(
    "litellm",
    beside={
        "cache_read_tokens": ("cache_read_input_tokens",),
        "cache_write_tokens": ("cache_creation_input_tokens",),
    },
)
