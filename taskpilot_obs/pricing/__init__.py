"""Prices: (provider, model, usage, time) -> USD, or openly unknown."""

from __future__ import annotations

from taskpilot_obs.pricing.cards import Rate
from taskpilot_obs.pricing.own import OwnPrice, PriceFile, load_prices
from taskpilot_obs.pricing.table import FROM_OWN, FROM_TABLE, Explanation, Listed, Price, PriceTable

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
    "load_prices",
]
