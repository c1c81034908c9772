"""Prices that change within the day, between the quarters of an hour for which a card holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal

import pytest
from genai_prices import types

from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.pricing.cards import Card, Rate
from taskpilot_obs.pricing.library import LibraryCard, ListedModel, load
from taskpilot_obs.records import Usage

NIGHT = time(1, 30, tzinfo=UTC)


def model_from(begin: time, end: time = NIGHT) -> ListedModel:
    """A model that costs 9 USD a million tokens within these hours, and 1 USD without."""
    prices = [
        types.ConditionalPrice(prices=types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))),
        types.ConditionalPrice(
            types.TimeOfDateConstraint(begin, end),
            prices=types.ModelPrice(input_mtok=Decimal(9), output_mtok=Decimal(9)),
        ),
    ]
    provider = next(one for one in load().snapshot.providers if one.id == "openai")
    return ListedModel(provider, types.ModelInfo(id="m", match=types.ClauseEquals("m"), prices=prices))


def ns(hour: int, minute: int, second: int = 0) -> int:
    return int(datetime(2026, 11, 20, hour, minute, second, tzinfo=UTC).timestamp()) * 1_000_000_000


def test_the_library_card_follows_the_minute() -> None:
    """Within a quarter of an hour the library's price may change, and the card's does with it."""
    moments = [ns(1, 6), ns(1, 7)]
    card = load().card(model_from(time(1, 7, tzinfo=UTC), time(1, 8, tzinfo=UTC)), None, moments[0])
    assert card is not None
    assert [card.cost(Usage(1_000_000, 0), at) for at in moments] == [1, 9]


@pytest.mark.parametrize("begin", [time(1, 7), time(1, 15, 1), time(1, 15, 0, 1), time(1, 0, 30)])
def test_a_price_that_changes_between_quarters_is_the_librarys(begin: time) -> None:
    """A change off the quarter of an hour, by a minute, a second or less, cannot be on a card."""
    begin, end = begin.replace(tzinfo=UTC), time(2, 0, tzinfo=UTC)
    for model in (model_from(begin, end), model_from(time(0, 30, tzinfo=UTC), begin)):
        assert isinstance(load().card(model, None, ns(12, 0)), LibraryCard)
    seconds = begin.hour * 3_600 + begin.minute * 60 + begin.second
    card = load().card(model_from(begin, end), None, ns(12, 0))
    assert card is not None
    before, after = (ns(0, 0) + (seconds + each) * 1_000_000_000 for each in (0 if begin.microsecond else -1, 1))
    assert [card.cost(Usage(1_000_000, 0), at) for at in (before, after)] == [1, 9]


def test_a_price_that_changes_on_the_quarter_is_on_a_card() -> None:
    """A model that is cheaper for some hours has one card for each of them."""
    model = model_from(time(1, 15, tzinfo=UTC))
    cards = [load().card(model, None, at) for at in (ns(1, 14), ns(1, 15), ns(1, 29, 59), ns(1, 30))]
    assert all(isinstance(card, Card) for card in cards)
    assert [card.cost(Usage(1_000_000, 0), 0) for card in cards if card is not None] == [1, 9, 9, 1]


def test_the_librarys_card_states_what_could_change_its_price() -> None:
    """Any detail that was left out may matter to a price that only the library knows; so does a long input."""
    tiers = types.TieredPrices(base=Decimal(1), tiers=[types.Tier(start=200_000, price=Decimal(2))])
    prices = [types.ConditionalPrice(prices=types.ModelPrice(input_mtok=tiers, output_mtok=Decimal(2)))]
    model = model_from(time(1, 7, tzinfo=UTC))
    changing = [*model.model.prices, *prices] if isinstance(model.model.prices, list) else prices
    card = load().card(model._replace(model=replace(model.model, prices=changing)), None, ns(12, 0))
    assert isinstance(card, LibraryCard)
    assert card.tells_apart(frozenset({"reasoning_tokens"}), Usage(9, 9))
    assert not card.tells_apart(frozenset(), Usage(9, 9))
    assert [card.costs_more_when_long(Usage(given, 0)) for given in (200_000, 200_001)] == [False, True]
    assert not card.costs_more_when_long(Usage(None, 9))


def test_prices_found_once_price_many_calls() -> None:
    """`find` returns what `price` would use for each call of its quarter of an hour."""
    table, at = PriceTable(), ns(12, 0)
    found = table.find(("openai", None, "gpt-4o", None), at)
    assert found is not None
    usage = Usage(150, 50)
    price = table.price(usage, provider="openai", request_model="gpt-4o", response_model=None, at_unix_ns=at)
    assert found.card.cost(usage, at) == price.cost == Decimal("0.000875")
    assert table.find(("openai", None, "no-such-model", None), at) is None


def test_audio_without_a_priced_side_leaves_the_cost_unknown() -> None:
    """Tokens of a side that has no price make the cost unknown, also where details of the other side have rates."""
    card = Card([Rate("input_tokens", Decimal(1)), Rate("input_audio_tokens", Decimal(8))])
    assert card.cost(Usage(10, 0, input_audio_tokens=3), 0) == Decimal("0.000031")
    assert card.cost(Usage(10, 5, input_audio_tokens=3), 0) is None
