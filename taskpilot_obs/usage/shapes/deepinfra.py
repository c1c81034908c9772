"""DeepInfra imitates OpenAI, and states the cost of the call as `estimated_cost`."""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount


def cost(usage: Fields) -> StatedCost | None:
    """Read the cost; despite the key's name, the amount is the billed one."""
    stated = amount(usage.get("estimated_cost"))
    return None if stated is None else StatedCost(stated)


SHAPE = Shape("deepinfra", cost=cost)
