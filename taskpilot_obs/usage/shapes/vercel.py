"""Vercel's AI Gateway imitates OpenAI and Anthropic, and states the cost as a text in `provider_metadata.gateway`.

The stated cost is what Vercel debits: 0 for a call that the caller's own key pays, whose market price is stated too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taskpilot_obs.usage.fields import Fields, inner, items
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount

_KEYS: Final = ("provider_metadata", "providerMetadata")


def body_cost(body: Fields) -> StatedCost | None:
    """Read the debit, or the market price where nothing is debited."""
    for layer in _layers(body):
        gateway = inner(inner(layer, *_KEYS), "gateway")
        debited = amount(gateway.get("cost"))
        if debited is not None:
            return StatedCost(debited or amount(gateway.get("marketCost")) or debited)
    return None


def _layers(body: Fields) -> Iterator[Fields]:
    yield body
    for choice in items(body.get("choices")):
        yield inner(choice, "message", "delta")


SHAPE = Shape("vercel", event_keys=" ".join(_KEYS), body_cost=body_cost)
