"""The price table of genai-prices, loaded at most once, on first use, and by a helper thread if possible.

The only module that uses the library. It takes a third of a second to import, which no event loop should wait for.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs._support.fork_hooks import around_forks
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.pricing.cards import KINDS, Card, Priced, Rate, Tier, counts_by_kind
from taskpilot_obs.records import Usage
from taskpilot_obs.usage.values import from_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genai_prices import types
    from genai_prices.data_snapshot import DataSnapshot

SLOT_NS: Final = 15 * 60 * 1_000_000_000
"""Prices change on the quarter of an hour at most: some models are cheaper at night."""
_SLOT_MINUTES: Final = 15
_PER_MILLION: Final = 1_000_000
_MAX_COMPILED: Final = 1_024
_TABLE_IDS: Final = {
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
}
"""The table's provider IDs that differ from canonical names; the table's own matching confuses Azure with OpenAI."""
_PRICED_APART: Final = frozenset({"batch", "fast", "flex", "priority", "provisioned_throughput", "reserved", "scale"})
"""Tiers with prices or contracts of their own: if the table lacks such a price, the standard price is not used."""
_AT_STANDARD_PRICE: Final = frozenset({("groq", "flex"), ("google", "flex")})
"""Tiers billed at the standard price. Groq's flex tier is; Google's is cheaper, but the published price tables all
state the standard price, which is an upper bound."""
_SELL_OPENAIS: Final = frozenset({"openai", "azure"})
_STANDARD_TIERS: Final = frozenset({"", "default", "standard", "auto", "on_demand", "standard_only"})


class ListedModel(NamedTuple):
    """A model of the table."""

    provider: types.Provider
    model: types.ModelInfo


class _State:
    """What one process has loaded."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.library: Library | None = None
        self.helper: threading.Thread | None = None
        self.is_ending = False


class Library:
    """The loaded table."""

    def __init__(self) -> None:
        from importlib.metadata import version

        from genai_prices import data_snapshot, types, units

        self._snapshots = data_snapshot
        self._types = types
        self._registry = units._get_registry()  # noqa: SLF001  the units have no public door, and their factors are needed
        self.source = f"genai-prices {version('genai-prices')}"
        self.find("openai", "gpt-4o")  # the first look-up builds the library's indexes

    @property
    def snapshot(self) -> DataSnapshot:
        """The current prices, which the user may have let the library update."""
        return self._snapshots.get_snapshot()

    def find(self, provider: str, model: str) -> ListedModel | None:
        """Find a provider's model by canonical name; None if the table lacks it."""
        table_id = self.table_id(provider)
        if table_id is None:
            return None
        try:
            return ListedModel(*self.snapshot.find_provider_model(model, None, table_id, None))
        except LookupError:
            return None

    def table_id(self, provider: str) -> str | None:
        """Return the table's ID of a provider, matched exactly, or None."""
        wanted = _TABLE_IDS.get(provider, provider)
        return next((known.id for known in self.snapshot.providers if known.id == wanted), None)

    def provider_ids(self) -> tuple[str, ...]:
        """Return every provider of the table, by canonical name if there is one."""
        names = {table_id: name for name, table_id in reversed(_TABLE_IDS.items())}
        return tuple(sorted(names.get(known.id, known.id) for known in self.snapshot.providers))

    def models(self, provider: str) -> Iterator[ListedModel]:
        """Return all models of a provider."""
        table_id = self.table_id(provider)
        for known in self.snapshot.providers:
            if known.id == table_id:
                yield from (ListedModel(known, model) for model in known.models)

    def card(self, found: ListedModel, service_tier: str | None, at_unix_ns: int) -> Priced | None:
        """Return the rates at this time; None if the model is not billed by tokens, or not at this tier."""
        context = price_context(service_tier)
        if context and not any(found.model is model for model in found.provider.models):
            context = {}  # the prices are another provider's, whose tiers do not apply
        moment = _moment(at_unix_ns)
        prices = found.model.get_prices(moment, context)
        rates = self._rates(prices)
        if rates != () and _lacks(found, service_tier) and prices == found.model.get_prices(moment, {}):
            return None
        if rates is None or self._changes_within_slot(found.model):
            return LibraryCard(self, found, context, rates or ())
        if prices.__dict__ and not rates:
            return None
        return _compiled(rates, self._per_request(prices), bool(rates) and _is_openais(found))

    def _rates(self, prices: types.ModelPrice) -> tuple[Rate, ...] | None:
        """The rates of the kinds of tokens in a usage; None if only the library can bill the model."""
        if type(prices) is not self._types.ModelPrice:
            return None
        rates = []
        for unit in self._registry.units.values():
            price = prices.__dict__.get(unit.price_key)
            if price is None or unit.usage_key not in KINDS:
                continue
            if unit.per != _PER_MILLION:
                return None
            if isinstance(price, self._types.TieredPrices):
                tiers = tuple(Tier(tier.start, tier.price) for tier in price.tiers)
                rates.append(Rate(unit.usage_key, price.base, tiers))
            else:
                rates.append(Rate(unit.usage_key, price))
        return tuple(rates)

    def _per_request(self, prices: types.ModelPrice) -> Decimal:
        price = prices.__dict__.get("requests_kcount")
        return price / 1_000 if isinstance(price, Decimal) else Decimal(0)

    def _changes_within_slot(self, model: types.ModelInfo) -> bool:
        conditional = [*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())]
        return any(
            moment.minute % _SLOT_MINUTES or moment.second or moment.microsecond
            for price in conditional
            if isinstance(price.constraint, self._types.TimeOfDateConstraint)
            for moment in (price.constraint.start_time, price.constraint.end_time)
        )

    def calculate(
        self, found: ListedModel, usage: Usage, context: Mapping[str, str], at_unix_ns: int
    ) -> types.PriceCalculation:
        """Return the library's own price: exact, and a hundred times slower than a card."""
        with localcontext():
            return found.model.calc_price(
                self._types.Usage(**counts_by_kind(usage)),
                found.provider,
                genai_request_timestamp=_moment(at_unix_ns),
                price_context=context or None,
            )


@lru_cache(_MAX_COMPILED)
def _compiled(rates: tuple[Rate, ...], per_request: Decimal, sound_costs_more: bool) -> Card:  # noqa: FBT001  a key
    """The card of these rates: prices stay for months, and a card is asked for in each of their quarters of an hour."""
    return Card(rates, per_request, sound_costs_more=sound_costs_more)


class LibraryCard:
    """A model that only the library can bill."""

    def __init__(
        self, library: Library, found: ListedModel, context: Mapping[str, str], rates: tuple[Rate, ...]
    ) -> None:
        self.rates = rates
        self._library = library
        self._found = found
        self._context = context

    def tells_apart(self, details: frozenset[str], usage: Usage) -> bool:  # noqa: ARG002  as `Priced` has it
        """Return True for any detail, because only the library knows how it is billed."""
        return bool(details)

    def costs_more_when_long(self, usage: Usage) -> bool:
        """Whether the input reaches a context tier of one of the rates."""
        return any((usage.input_tokens or 0) > tier.above for rate in self.rates for tier in rate.tiers)

    def cost(self, usage: Usage, at_unix_ns: int) -> Decimal | None:
        """Return USD for this usage; None if a total is unknown, or the library refuses the numbers."""
        cleaned, _ = from_counts(**usage._asdict())
        if cleaned.input_tokens is None or cleaned.output_tokens is None:
            return None
        try:
            return self._library.calculate(self._found, cleaned, self._context, at_unix_ns).total_price
        except ValueError:
            return None


def _is_openais(found: ListedModel) -> bool:
    """Whether the model is OpenAI's, whose audio costs far more than text although some price lists omit that."""
    return found.provider.id in _SELL_OPENAIS or found.model.id.startswith("openai/")


def _lacks(found: ListedModel, service_tier: str | None) -> bool:
    """Whether a tier's prices must differ from the standard ones."""
    tier = (service_tier or "").lower()
    return tier in _PRICED_APART and (found.provider.id, tier) not in _AT_STANDARD_PRICE


def price_context(service_tier: str | None) -> dict[str, str]:
    """Return the library's context for a service tier; empty for tiers billed at standard rates."""
    tier = (service_tier or "").lower()
    if tier in _STANDARD_TIERS:
        return {}
    if tier == "batch":
        return {"processing": tier}
    return {"service_tier": tier, "speed": tier}


def loaded() -> Library | None:
    """Return the table if it is loaded, else None."""
    return _state.library


def load() -> Library:
    """Return the table, after waiting for the import on this or another thread."""
    with _state.lock:
        if _state.library is None:
            _state.library = Library()
        return _state.library


def start_loading() -> None:
    """Load the table in a daemon thread, unless that has already begun."""
    helper = _state.helper
    if _state.library is not None or (helper is not None and helper.is_alive()):
        return
    helper = threading.Thread(target=_load_in_background, name="taskpilot-obs-prices", daemon=True)
    _state.helper = helper
    try:
        helper.start()
    except RuntimeError:  # the interpreter is shutting down: the first call that needs a price loads the table
        _state.helper = None


class _UntilTheEnd(guarded):
    """An import that the end of the interpreter interrupts may fail in any way, which is not reported."""

    __slots__ = ()

    def caught(self, error: Exception) -> None:
        """Log a failure, unless the process ends."""
        if not _state.is_ending:
            super().caught(error)


def _load_in_background() -> None:
    with _UntilTheEnd("price_table"):
        load()


@atexit.register
def _note_the_end() -> None:
    _state.is_ending = True


def _moment(unix_ns: int) -> datetime:
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, tz=UTC)


_state: Final = _State()
# After a fork during the import, the child would wait for a module that none of its threads loads.
around_forks(before=_state.lock.acquire, in_parent=_state.lock.release, in_child=_state.lock.release)
