"""Compiled rate cards against the library that they are compiled from, over the whole price table."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, Inexact, getcontext, localcontext
from types import SimpleNamespace

import pytest
from genai_prices import types
from genai_prices.units import UnitDef
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs.pricing.cards import KINDS, Card, Rate, Tier, counts_by_kind
from taskpilot_obs.pricing.library import Library, LibraryCard, ListedModel, load, price_context
from taskpilot_obs.usage import Usage, from_counts

TIERS_APART = ("flex", "priority", "fast", "batch")
AT_STANDARD_PRICE = {("groq", "flex"), ("google", "flex")}
TIERS = (None, "default", *TIERS_APART)
TOKEN_PRICES = frozenset({"input_mtok", "output_mtok"})


def days_of(model: types.ModelInfo) -> list[datetime]:
    """Moments at which a model's price may differ: around each date and time that its price list names."""
    moments = [datetime(2026, 11, 20, 12, tzinfo=UTC)]
    priced = [*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())]
    for constraint in (price.constraint for price in priced):
        if isinstance(constraint, types.StartDateConstraint):
            start = datetime.combine(constraint.start_date, time(0), tzinfo=UTC)
            moments += [start, start - timedelta(seconds=1)]
        elif isinstance(constraint, types.TimeOfDateConstraint):
            for at in (constraint.start_time, constraint.end_time):
                moment = datetime.combine(date(2026, 11, 20), at.replace(tzinfo=UTC))
                moments += [moment, moment - timedelta(seconds=1)]
    return moments


def thresholds_of(model: types.ModelInfo) -> list[int]:
    """Input tokens at which a context tier begins."""
    lists = [price.prices for price in model.prices] if isinstance(model.prices, list) else [model.prices]
    return [
        tier.start
        for prices in lists
        for price in prices.__dict__.values()
        if isinstance(price, types.TieredPrices)
        for tier in price.tiers
    ]


def random_usage(dice: random.Random, starts: list[int]) -> Usage:
    """A consistent usage with some of the details, sometimes on the edge of a context tier."""
    total = dice.choice([0, 1, dice.randrange(5_000), *starts, *(start + 1 for start in starts)])
    generated = dice.choice([0, dice.randrange(3_000)])

    def part(of: int) -> int | None:
        return dice.choice([None, 0, dice.randrange(of + 1), of])

    usage, _ = from_counts(
        input_tokens=total,
        output_tokens=generated,
        cache_read_tokens=part(total),
        cache_write_tokens=part(total),
        cache_write_5m_tokens=part(total // 2),
        cache_write_1h_tokens=part(total // 2),
        input_audio_tokens=part(total // 2),
        input_image_tokens=part(total // 2),
        reasoning_tokens=part(generated // 2),
        output_audio_tokens=part(generated // 4),
        output_image_tokens=part(generated // 4),
    )
    return usage


def cheap_usages(dice: random.Random, starts: list[int]) -> list[Usage]:
    return [Usage(1_000, 100), Usage(1_000, 100, 600, 300, 100, 200), *(random_usage(dice, starts) for _ in range(4))]


def priced_in(calculation: types.PriceCalculation) -> set[str]:
    return {key for key, price in calculation.model_price.__dict__.items() if price is not None}


def expected(library: Library, found: ListedModel, usage: Usage, tier: str | None, at_unix_ns: int) -> Decimal | None:
    """The library's own price; None where it refuses the usage, or would give away tokens that have no price.

    None too where it takes the standard price for a tier, or the price of text for OpenAI's audio, since it knows none
    for that.
    """
    try:
        calculated = library.calculate(found, usage, price_context(tier), at_unix_ns)
        standard = library.calculate(found, usage, {}, at_unix_ns)
    except ValueError:
        return None
    apart = (
        tier in TIERS_APART
        and (found.provider.id, tier) not in AT_STANDARD_PRICE
        and TOKEN_PRICES & priced_in(standard)
    )
    if apart and calculated.model_price == standard.model_price:
        return None
    priced = priced_in(calculated)
    if found.provider.id in ("openai", "azure") or found.model.id.startswith("openai/"):
        sound = {"input_audio_mtok": usage.input_audio_tokens, "output_audio_mtok": usage.output_audio_tokens}
        if priced and any(tokens and key not in priced for key, tokens in sound.items()):
            return None
    sides = {"input_mtok": usage.input_tokens, "output_mtok": usage.output_tokens}
    given_away = any(tokens and key not in priced for key, tokens in sides.items())
    return None if priced and (given_away or not priced & TOKEN_PRICES) else calculated.total_price


@pytest.mark.filterwarnings("ignore:Unsupported price key")
def test_every_card_equals_the_library() -> None:
    """For each model of the table, at each moment and tier at which prices differ, card and library agree exactly."""
    library = load()
    dice = random.Random(20261120)
    compared = 0
    for provider in library.snapshot.providers:
        for model in provider.models:
            found = ListedModel(provider, model)
            starts = thresholds_of(model)
            tiers = TIERS if model.price_variants else (None,)
            for moment in days_of(model):
                at = int(moment.timestamp()) * 1_000_000_000
                for tier in tiers:
                    card = library.card(found, tier, at)
                    for usage in cheap_usages(dice, starts):
                        price = card.cost(usage, at) if card is not None else None
                        assert price == expected(library, found, usage, tier, at), (
                            provider.id,
                            model.id,
                            moment,
                            tier,
                            usage,
                        )
                        compared += 1
    assert compared > 10_000


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_usage_of_any_model_costs_what_the_library_says(data: st.DataObject) -> None:
    """Random model, usage, tier and time: the card's price is the library's."""
    library = load()
    provider = data.draw(st.sampled_from([one for one in library.snapshot.providers if one.models]))
    model = data.draw(st.sampled_from(provider.models))
    usage = random_usage(data.draw(st.randoms(use_true_random=False)), thresholds_of(model))
    tier = data.draw(st.sampled_from(TIERS))
    at = data.draw(st.integers(1_700_000_000, 1_830_000_000)) * 1_000_000_000
    found = ListedModel(provider, model)
    card = library.card(found, tier, at)
    price = card.cost(usage, at) if card is not None else None
    assert price == expected(library, found, usage, tier, at)


def test_the_table_is_compiled_almost_entirely() -> None:
    """A model that only the library can bill is the exception; today there is none."""
    library = load()
    at = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp()) * 1_000_000_000
    slow = [
        (provider.id, model.id)
        for provider in library.snapshot.providers
        for model in provider.models
        if isinstance(library.card(ListedModel(provider, model), None, at), LibraryCard)
    ]
    assert slow == []


def test_the_kinds_are_the_librarys_units() -> None:
    """What contains what is as in the library: the names exist there, and contain each other alike."""
    registry = load()._registry
    for kind, special in KINDS.items():
        unit = registry.units[kind]
        assert unit.per == 1_000_000
        for other, more in KINDS.items():
            contains = unit.dimensions.items() < registry.units[other].dimensions.items()
            assert contains == (special < more), (kind, other)


GPT_4O = (
    Rate("input_tokens", Decimal("2.5")),
    Rate("output_tokens", Decimal(10)),
    Rate("cache_read_tokens", Decimal("1.25")),
)
LONG = (
    Rate("input_tokens", Decimal(3), (Tier(200_000, Decimal(6)),)),
    Rate("output_tokens", Decimal(15), (Tier(200_000, Decimal("22.5")),)),
)


def test_prices_are_per_million_tokens() -> None:
    """gpt-4o with 150 in and 50 out costs 0.000875 USD, not a thousand times as much."""
    assert Card(GPT_4O).cost(Usage(150, 50), 0) == Decimal("0.000875")


def test_a_context_tier_changes_the_rate_of_the_whole_request() -> None:
    """One token more than the threshold, and every token costs the higher rate."""
    assert Card(LONG).cost(Usage(200_000, 0), 0) == Decimal("0.6")
    assert Card(LONG).cost(Usage(200_001, 0), 0) == Decimal("1.200006")


@pytest.mark.parametrize(
    "usage",
    [
        Usage(None, 50),
        Usage(150, None),
        Usage(),
        Usage(-1, 50),
        Usage(150, -50),
        Usage("150", 50),  # type: ignore[arg-type]
        Usage(150, float("nan")),  # type: ignore[arg-type]
    ],
)
def test_a_side_that_is_unknown_leaves_the_cost_unknown(usage: Usage) -> None:
    """With a part of the tokens unknown the cost is too: a partial sum would pass for the whole."""
    assert Card(GPT_4O).cost(usage, 0) is None


def test_a_side_without_a_price_need_not_be_known() -> None:
    """Embeddings have no output to bill: their input is enough; tokens that have no price make the cost unknown."""
    card = Card([Rate("input_tokens", Decimal("0.02"))])
    assert card.cost(Usage(1_000_000, None), 0) == card.cost(Usage(1_000_000, 0), 0) == Decimal("0.02")
    assert card.cost(Usage(1_000_000, 5), 0) is None


def test_contradictory_details_are_cut_down() -> None:
    """A usage that was not cleaned is priced as the readers would have read it."""
    assert Card(GPT_4O).cost(Usage(100, 0, 400), 0) == Card(GPT_4O).cost(Usage(100, 0, 100), 0)


def test_a_free_model_costs_nothing_and_a_fee_is_added() -> None:
    """A price list without rates is that of a free model; a fee per request comes on top."""
    assert Card(()).cost(Usage(5, 5), 0) == 0
    assert Card(GPT_4O, Decimal("0.005")).cost(Usage(150, 50), 0) == Decimal("0.005875")


def test_the_fee_of_a_request_is_the_tables() -> None:
    """The table states fees by the thousand requests: one of Perplexity's costs a thousandth beside its tokens."""
    found = load().find("perplexity", "sonar")
    assert found is not None
    card = load().card(found, None, 1_790_000_000_000_000_000)
    fee = found.model.get_prices(datetime(2026, 9, 21, tzinfo=UTC)).__dict__["requests_kcount"] / 1_000
    assert card is not None
    assert Decimal("0.001") < fee < 1
    assert card.cost(Usage(0, 0), 0) == fee


def test_nothing_costs_a_plain_zero() -> None:
    """A cost of nothing prints as `0`, not as `0E-8`, however it is summed up."""
    given_away = Card([*GPT_4O[:1], Rate("output_tokens", Decimal(0)), Rate("output_reasoning_tokens", Decimal(0))])
    assert str(Card(GPT_4O).cost(Usage(0, 0), 0)) == "0"
    assert str(given_away.cost(Usage(0, 1, reasoning_tokens=1), 0)) == "0"


def test_the_callers_decimal_context_changes_nothing() -> None:
    """Precision and traps of the decimal context do not affect the price."""
    with localcontext():
        getcontext().prec = 2
        getcontext().traps[Inexact] = True
        assert Card(GPT_4O).cost(Usage(123_457, 1), 0) == Decimal("0.3086525")


@pytest.mark.promise("booked-once")
def test_a_million_calls_add_up_exactly() -> None:
    """A million calls of gpt-4o-mini with 150 in and 50 out are 52.5 USD, to the last digit."""
    card = load().card(load().find("openai", "gpt-4o-mini"), None, 1_790_000_000_000_000_000)  # type: ignore[arg-type]
    assert card is not None
    each = card.cost(Usage(150, 50), 0)
    assert each == Decimal("0.0000525")
    assert sum((each for _ in range(1_000_000)), Decimal(0)) == Decimal("52.5")


def test_overlaps_are_as_small_as_they_can_be() -> None:
    """Audio that is not stated as cached counts as uncached, unless the details would not fit."""
    roomy = counts_by_kind(Usage(100, 0, 40, input_audio_tokens=40))
    tight = counts_by_kind(Usage(100, 0, 80, input_audio_tokens=40, input_image_tokens=10))
    assert (roomy["cache_audio_read_tokens"], roomy["cache_image_read_tokens"]) == (0, 0)
    assert (tight["cache_audio_read_tokens"], tight["cache_image_read_tokens"]) == (30, 0)
    stated = counts_by_kind(Usage(100, 0, 80, input_audio_tokens=40, cache_read_audio_tokens=35))
    assert stated["cache_audio_read_tokens"] == 35


def test_each_count_of_a_usage_is_of_one_kind() -> None:
    """Every count reaches the price table under its own name, and under no other."""
    renamed = {"reasoning_tokens": "output_reasoning_tokens", "cache_read_audio_tokens": "cache_audio_read_tokens"}
    for field in Usage._fields:
        counted = {kind: number for kind, number in counts_by_kind(Usage(**{field: 7})).items() if number}
        assert counted == {renamed.get(field, field): 7}


def test_details_that_cannot_be_told_apart_leave_the_cost_unknown() -> None:
    """Audio, reads and writes that together exceed the input overlap in an unstated way: there is no figure then."""
    rates = [Rate(kind, Decimal(1)) for kind in ("input_tokens", "output_tokens", "cache_read_tokens")]
    rates += [
        Rate(kind, Decimal(1)) for kind in ("cache_write_tokens", "input_audio_tokens", "cache_audio_read_tokens")
    ]
    assert Card(rates).cost(Usage(100, 0, 10, 90, input_audio_tokens=50), 0) is None


GIVEN, GENERATED, WRITTEN = Usage(9, 0), Usage(0, 9), Usage(9, 0, cache_write_tokens=5)


@pytest.mark.parametrize(
    ("detail", "roomy", "others"),
    [
        *((detail, GIVEN, [GENERATED]) for detail in ("cache_read_tokens", "cache_write_tokens")),
        *((detail, GIVEN, [GENERATED]) for detail in ("input_audio_tokens", "input_image_tokens")),
        *((detail, GENERATED, [GIVEN]) for detail in ("output_audio_tokens", "output_image_tokens")),
        ("reasoning_tokens", GENERATED, [GIVEN]),
        ("cache_write_1h_tokens", WRITTEN, [GENERATED, GIVEN]),
    ],
)
def test_a_detail_that_was_left_out_matters_where_it_has_a_rate_and_room(
    detail: str, roomy: Usage, others: list[Usage]
) -> None:
    """A cost is not exact without a detail that has a rate of its own and to which some of the tokens may belong."""
    kind, left_out = "output_reasoning_tokens" if detail == "reasoning_tokens" else detail, frozenset({detail})
    sides = [Rate("input_tokens", Decimal(1)), Rate("output_tokens", Decimal(1))]
    card = Card([*sides, Rate(kind, Decimal(2))])
    assert card.tells_apart(left_out, roomy)
    assert card.tells_apart(left_out | {"cache_read_tokens"}, roomy)
    assert not any(card.tells_apart(left_out, usage) for usage in [*others, roomy._replace(**{detail: 0})])
    assert not Card(sides).tells_apart(left_out, roomy)
    assert Card(sides, sound_costs_more=True).tells_apart(left_out, roomy) is ("audio" in detail)


@pytest.mark.parametrize("detail", ["cache_read_tokens", "input_audio_tokens", "output_image_tokens"])
def test_a_detail_at_the_rate_of_the_whole_changes_no_cost(detail: str) -> None:
    """A rate of its own that equals that of the kind around it makes no difference."""
    rates = [Rate(kind, Decimal(1)) for kind in ("input_tokens", "output_tokens", detail)]
    assert not Card(rates).tells_apart(frozenset({detail}), Usage(9, 9))


def test_a_unit_of_another_size_goes_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a release of the library price tokens by the thousand, cards would be wrong: the library bills then."""
    library = load()
    units = {"input_tokens": UnitDef("input_tokens", "input_mtok", 1_000, {})}
    monkeypatch.setattr(library, "_registry", SimpleNamespace(units=units))
    assert isinstance(library.card(model_with(types.ModelPrice(input_mtok=Decimal(1))), None, 0), LibraryCard)


class OwnPricing(types.ModelPrice):
    """A price list that only itself can bill."""


def model_with(prices: types.ModelPrice | list[types.ConditionalPrice]) -> ListedModel:
    library = load()
    provider = next(one for one in library.snapshot.providers if one.id == "openai")
    return ListedModel(provider, types.ModelInfo(id="m", match=types.ClauseEquals("m"), prices=prices))


@pytest.mark.parametrize(
    "prices",
    [
        OwnPricing(input_mtok=Decimal(1), output_mtok=Decimal(2)),
        [
            types.ConditionalPrice(prices=types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))),
            types.ConditionalPrice(
                types.TimeOfDateConstraint(time(1, 7, tzinfo=UTC), time(1, 8, tzinfo=UTC)),
                prices=types.ModelPrice(input_mtok=Decimal(9), output_mtok=Decimal(9)),
            ),
        ],
    ],
)
def test_what_a_card_cannot_express_the_library_bills(prices: types.ModelPrice | list[types.ConditionalPrice]) -> None:
    """A price list of a kind of its own, or one that changes between quarters of an hour, goes to the library."""
    library = load()
    noon = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 1_000_000_000
    card = library.card(model_with(prices), None, noon)
    assert isinstance(card, LibraryCard)
    assert card.cost(Usage(1_000_000, 1_000_000), noon) == 3
    assert card.cost(Usage(1_000_000, None), noon) is None
    assert card.cost(Usage(10, 0, 99), noon) == Decimal("0.00001")


def test_a_usage_that_the_library_refuses_has_no_cost() -> None:
    """A price list that the library calls incomplete leaves the cost unknown, and nothing raises."""
    incomplete = OwnPricing(output_reasoning_mtok=Decimal(1))
    card = load().card(model_with(incomplete), None, 0)
    assert card is not None
    assert card.cost(Usage(10, 5), 0) is None
