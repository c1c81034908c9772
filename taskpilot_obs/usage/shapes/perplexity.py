"""Perplexity imitates OpenAI, bills each request and search in addition to tokens, and states the total cost.

Deep research counts reasoning and citations separately from the output, and bills both.
"""

from __future__ import annotations

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.fields import Fields, inner
from taskpilot_obs.usage.shapes.base import Shape, StatedCost, amount


def cost(usage: Fields) -> StatedCost | None:
    """Read the total cost, including requests and searches."""
    stated = amount(inner(usage, "cost").get("total_cost"))
    return None if stated is None else StatedCost(stated)


def _gap(usage: Fields, _counter: str | None) -> str | None:
    cited = usage.get("citation_tokens") or inner(usage, "output_token_details").get("citation_tokens")
    return PriceGap.FEES if cited or usage.get("num_search_queries") else None


SHAPE = Shape(
    "perplexity",
    beside={"reasoning_tokens": ("reasoning_tokens",)},
    counts_apart=("sonar", "perplexity"),
    gap=_gap,
    model_gaps={"sonar": PriceGap.FEES},
    cost=cost,
)
