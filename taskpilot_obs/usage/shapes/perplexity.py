"""Perplexity states usage as OpenAI does; deep research counts reasoning and citations beside, and bills both."""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields, inner
from taskpilot_obs.usage.shapes.base import Shape


def _cites(usage: Fields) -> bool:
    return bool(usage.get("citation_tokens") or inner(usage, "output_token_details").get("citation_tokens"))


SHAPE = Shape(
    "perplexity",
    beside={"reasoning_tokens": ("reasoning_tokens",)},
    counts_apart=("sonar", "perplexity"),
    gap=_cites,
)
