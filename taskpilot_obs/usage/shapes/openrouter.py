"""OpenRouter imitates OpenAI, and states the cost: its own charge, and that of the provider behind it.

With the caller's own key (`is_byok`), the charge is OpenRouter's fee only, and the provider bills the rest.
"""

from __future__ import annotations

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.fields import Fields, inner
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount


def cost(usage: Fields) -> StatedCost | None:
    """Read the charge, plus the upstream provider's if the caller's own key pays that."""
    charged = amount(usage.get("cost"))
    if charged is None:
        return None
    if usage.get("is_byok") is not True:
        return StatedCost(charged)
    upstream = amount(inner(usage, "cost_details").get("upstream_inference_cost"))
    return StatedCost(charged, PriceGap.UPSTREAM) if upstream is None else StatedCost(charged + upstream)


SHAPE = Shape("openrouter", cost=cost)
