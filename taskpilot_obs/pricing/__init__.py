"""Prices: (provider, model, usage, time) -> USD, or None if unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskpilot_obs.pricing.asking import cost_of
from taskpilot_obs.pricing.cards import Rate
from taskpilot_obs.pricing.table import FROM_OWN, FROM_TABLE, Explanation, Listed, Price, PriceTable

if TYPE_CHECKING:
    from taskpilot_obs.pricing.own import OwnPrice, PriceFile, load_prices

__all__ = [
    "FROM_OWN",
    "FROM_TABLE",
    "Explanation",
    "Listed",
    "OwnPrice",
    "Price",
    "PriceFile",
    "PriceTable",
    "Rate",
    "cost_of",
    "load_prices",
]


def __getattr__(name: str) -> Any:
    """Import own prices at first use, because pydantic models take 40 ms to import and most users have none."""
    if name in {"OwnPrice", "PriceFile", "load_prices"}:
        from taskpilot_obs.pricing import own

        return getattr(own, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
