"""What a call costs, asked in one line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing.table import PriceTable
from taskpilot_obs.usage.values import from_counts

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal


def cost_of(
    model: str,
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
    provider: str | None = None,
    service_tier: str | None = None,
    at: datetime | None = None,
    table: PriceTable | None = None,
    **details: int,
) -> Decimal | None:
    """The cost of a call in USD, or None for a model without a price.

    Args:
        model: the model, with or without its provider: `gpt-4o`, `anthropic/claude-sonnet-4-5`.
        input_tokens: every prompt token, cached ones included.
        output_tokens: every generated token, reasoning included.
        provider: who serves it; inferred from the model when left out.
        service_tier: `flex`, `priority`, `batch`, ….
        at: prices in force then; now when left out.
        table: with your own prices and aliases (`PriceTable.load(["prices.toml"])`); the shipped one when left out.
        details: parts of the totals, by the fields of `Usage`: `cache_read_tokens=100`.

    Raises:
        ConfigurationError: a count is invalid, or a detail exceeds its total.
    """
    usage, inconsistent = from_counts(input_tokens=input_tokens, output_tokens=output_tokens, **details)
    if inconsistent:
        raise ConfigurationError(
            "cost_of: a count is invalid, or a detail exceeds its total: input and output tokens include their details"
        )
    moment = time.time_ns() if at is None else int(at.timestamp() * 1e9)
    found = (table or PriceTable()).explain(
        model, usage, provider=provider, at_unix_ns=moment, service_tier=service_tier
    )
    return None if found is None else found.cost
