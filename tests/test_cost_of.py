"""`cost_of`: the price of a call in one line."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing import cost_of


def test_a_known_model_has_a_cost() -> None:
    """The cost is that of the table, for the model with and without its provider; cached tokens are cheaper."""
    whole = cost_of("gpt-4o", input_tokens=150, output_tokens=50)
    assert whole == cost_of("openai/gpt-4o", input_tokens=150, output_tokens=50) == Decimal("0.000875")
    cached = cost_of("gpt-4o", input_tokens=150, output_tokens=50, cache_read_tokens=100)
    assert cached is not None
    assert cached < Decimal("0.000875")
    assert cost_of("gpt-4o", input_tokens=150, output_tokens=50, at=datetime(2026, 1, 1, tzinfo=UTC)) == whole


def test_an_unknown_model_has_none() -> None:
    """A model without a price has no cost, not a cost of 0."""
    assert cost_of("house-model", input_tokens=150) is None


def test_counts_that_contradict_each_other_are_refused() -> None:
    """A detail above its total, a negative count and an unknown name are refused."""
    wrongs: tuple[dict[str, Any], ...] = (
        {"input_tokens": 1, "cache_read_tokens": 2},
        {"input_tokens": -1},
        {"no_such_tokens": 1},
    )
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match="cost_of"):
            cost_of("gpt-4o", **wrong)
