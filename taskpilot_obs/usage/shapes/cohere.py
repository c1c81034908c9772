"""Cohere: billed units, or the tokens consumed if no units are stated."""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields, inner
from taskpilot_obs.usage.shapes.base import Counts, Shape


def read(usage: Fields, _provider: str | None) -> Counts:
    """Read the counts of a chat or of embeddings."""
    billed = inner(usage, "billed_units")
    if billed.get("input_tokens") is None and billed.get("output_tokens") is None:
        billed = inner(usage, "tokens")
    return {"input_tokens": billed.get("input_tokens"), "output_tokens": billed.get("output_tokens")}


SHAPE = Shape(
    "cohere",
    read,
    marks="billed_units",
    usage_keys="meta token_count",
    event_keys="meta",
    event_types="message-end stream-end",
)
CONSUMED = Shape("cohere_consumed", read, marks="tokens")
"""A usage object without billed units; its only mark is a common word, so most other shapes precede it."""
