"""The Claude Agent SDK states at the end of a query, beside the usage of all its steps, the cost of all its models.

The SDK computes `total_cost_usd` from prices of its own. It is taken because a query may use several models.
"""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount


def body_cost(body: Fields) -> StatedCost | None:
    """Read the total."""
    stated = amount(body.get("total_cost_usd"))
    return None if stated is None else StatedCost(stated)


SHAPE = Shape("claude_agent", event_keys="total_cost_usd", body_cost=body_cost)
