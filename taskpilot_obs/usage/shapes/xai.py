"""xAI imitates OpenAI, but excludes reasoning from the output; its SDK has another name for cache reads.

It states the cost of a call in ticks, of which 10,000,000,000 are a USD. Server-side tools are billed by use.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.fields import Fields, inner
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount
from taskpilot_obs.usage.values import parse_token_count

_USD_PER_TICK: Final = Decimal(1).scaleb(-10)


def cost(usage: Fields) -> StatedCost | None:
    """Read the cost, including tools."""
    ticks = amount(usage.get("cost_in_usd_ticks"))
    return None if ticks is None else StatedCost(ticks * _USD_PER_TICK)


def _gap(usage: Fields, counter: str | None) -> str | None:
    if parse_token_count(usage.get("num_sources_used")) or parse_token_count(usage.get("num_server_side_tools_used")):
        return PriceGap.SERVER_TOOLS
    if counter == "azure-grok" and inner(usage, "completion_tokens_details").get("reasoning_tokens"):
        return PriceGap.CONTRADICTION
    return None


SHAPE = Shape(
    "xai",
    beside={"cache_read_tokens": ("cached_prompt_text_tokens",)},
    counts_apart=("grok", "x_ai"),
    gap=_gap,
    cost=cost,
)
