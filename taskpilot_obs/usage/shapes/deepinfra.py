"""DeepInfra imitates OpenAI, and states what the call cost as `estimated_cost`."""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount


def cost(usage: Fields) -> StatedCost | None:
    """What DeepInfra charges; the name is its own, the amount is that of the bill."""
    stated = amount(usage.get("estimated_cost"))
    return None if stated is None else StatedCost(stated)


SHAPE = Shape("deepinfra", cost=cost)
