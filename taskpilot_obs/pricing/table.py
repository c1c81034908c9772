"""The cost of an LLM call by the model that answered: from own prices, then the price table, else unknown."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing import library
from taskpilot_obs.pricing.cards import Priced, Rate
from taskpilot_obs.pricing.matching import names_in_order, readings, same_model, without_date
from taskpilot_obs.providers.names import canonical, canonical_model, split_model
from taskpilot_obs.records import Usage
from taskpilot_obs.semconv import PriceGap, WarningCode
from taskpilot_obs.usage.values import NOTHING_STATED, Stated

if TYPE_CHECKING:
    from taskpilot_obs.pricing.own import OwnPrice

logger = logging.getLogger("taskpilot_obs")

FROM_TABLE: Final = "price_table"
FROM_OWN: Final = "own_price"
FROM_PROVIDER: Final = "provider"
_MAX_CARDS: Final = 4_096
_MAX_WARNED: Final = 1_000
_MAX_NAME: Final = 200

Key = tuple[str | None, str | None, str | None, str | None, int]


class Price(NamedTuple):
    """A cost in USD and its source; both are None if it is unknown."""

    cost: Decimal | None
    source: str | None
    gap: str | None = None
    """Why the cost is known to be incomplete: one of `semconv.PRICE_GAPS`."""
    table_cost: Decimal | None = None
    """The cost by the price table of a call whose provider stated one."""


UNKNOWN: Final = Price(None, None)
_price: Final = tuple.__new__
"""Builds a named tuple in half the time of its constructor."""


class Explanation(NamedTuple):
    """A price with its reasons."""

    cost: Decimal | None
    source: str
    """Name and version of the price table, or a description of your own price."""
    provider: str
    model: str
    """The price list's name of the model."""
    rates: tuple[Rate, ...]


class Listed(NamedTuple):
    """One model of a price list, with its current rates; without rates if it is not billed by tokens."""

    model: str
    rates: tuple[Rate, ...]


class CachedPrices(NamedTuple):
    """The prices found for a call, cached for later calls."""

    card: Priced
    source: str
    provider: str
    model: str


class PriceTable:
    """Prices of models. Thread-safe. `price` never raises; `ready` reports whether it would wait for the table.

    Args:
        aliases: your names of models -> names in the price table (`"my-deployment": "azure/gpt-4o"`).
        own_prices: your prices, which take precedence over the table's.

    Raises:
        ConfigurationError: two own prices have the same model, provider and day.
    """

    def __init__(self, aliases: Mapping[str, str] | None = None, own_prices: Sequence[OwnPrice] = ()) -> None:
        self._aliases = {name.lower(): target for name, target in (aliases or {}).items()}
        self._targets = frozenset(self._aliases.values())
        self._own = _by_model(own_prices)
        self._entries: BoundedDict[Key, CachedPrices | None] = BoundedDict(_MAX_CARDS)
        self._warned: set[tuple[str | None, str, str | None]] = set()
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, files: Iterable[str | os.PathLike[str]] = (), *, aliases: Mapping[str, str] | None = None
    ) -> PriceTable:
        """Return a table with your own prices and aliases.

        Args:
            files: price files, as TOML or YAML.
            aliases: your own names of models -> models; they take precedence over those of the files.

        Raises:
            ConfigurationError: a file is wrong; the message names the place.
            MissingExtraError: a YAML file, without the extra `prices`.
        """
        from taskpilot_obs.pricing.own import load_prices

        read = [load_prices(file) for file in files]
        merged = {name: target for file in read for name, target in file.aliases.items()}
        return cls({**merged, **(aliases or {})}, [price for file in read for price in file.prices])

    @property
    def aliases(self) -> Mapping[str, str]:
        """The configured aliases of models, in lower case, and what they stand for."""
        return self._aliases

    def canonical_model(self, model: str) -> str:
        """Return the canonical name of a model under these aliases, which metric labels and filters use."""
        return canonical_model(model, self._aliases)

    @property
    def ready(self) -> bool:
        """Whether the price table is loaded; if not, the first `price` waits for it (about 0.3 s)."""
        return library.loaded() is not None

    def warm_up(self) -> None:
        """Load the price table in a helper thread. Repeated calls are cheap."""
        library.start_loading()

    def price(
        self,
        usage: Usage | None,
        *,
        provider: str | None,
        request_model: str | None,
        response_model: str | None,
        at_unix_ns: int,
        service_tier: str | None = None,
        stated: Stated = NOTHING_STATED,
    ) -> Price:
        """Return the cost of a call in USD at the prices of its time; unknown if usage or price are unknown.

        Own prices take precedence over a cost that the provider states, and that over the price table. A call is priced
        by the model that answered, or by the requested one if the response names none, a dated snapshot of it, or the
        ID of a deployment. A model without a price is logged once.

        Args:
            usage: the tokens; None where they are unknown.
            provider: who served the call.
            request_model: the model that was asked for.
            response_model: the model that answered.
            at_unix_ns: when the call began.
            service_tier: `flex`, `priority`, `batch`, … as the provider states it.
            stated: what else is known about the cost.
        """
        found = self._by_tokens(usage, (provider, response_model, request_model, service_tier), at_unix_ns, stated)
        if stated.cost is None or found.source == FROM_OWN:
            return found
        return Price(stated.cost, FROM_PROVIDER, stated.gap, found.cost)

    def _by_tokens(self, usage: Usage | None, named: tuple[str | None, ...], at_unix_ns: int, stated: Stated) -> Price:
        """Return the cost at own prices, or else at those of the table."""
        if usage is None:
            return UNKNOWN
        try:
            key = cast("Key", (*named, at_unix_ns // library.SLOT_NS))
            entry = self._entries[key]
        except KeyError:
            entry = self._look_up(key, at_unix_ns, quiet=stated.cost is not None)
        except TypeError:  # arguments of other types
            return UNKNOWN
        if entry is None:
            return UNKNOWN
        try:
            cost = entry.card.cost(usage, at_unix_ns)
        except (TypeError, ValueError, ArithmeticError, AttributeError):  # not a `Usage`, or one without numbers
            return UNKNOWN
        if cost is None:
            return UNKNOWN
        gap = stated.gap
        if gap is None and stated.dropped and entry.card.tells_apart(stated.dropped, usage):
            gap = PriceGap.DETAILS_DROPPED
        if gap is None and stated.sums > 1 and entry.card.costs_more_when_long(usage):
            gap = PriceGap.SUMMED
        return _price(Price, (cost, entry.source, gap, None))

    def find(
        self, named: tuple[str | None, str | None, str | None, str | None], at_unix_ns: int
    ) -> CachedPrices | None:
        """Return the prices that cover calls for `library.SLOT_NS` around a time, for pricing many of them.

        Args:
            named: provider, answering model, requested model and service tier.
            at_unix_ns: when the calls began.
        """
        return self._find((*named, at_unix_ns // library.SLOT_NS), at_unix_ns)

    def explain(
        self,
        model: str,
        usage: Usage,
        *,
        provider: str | None = None,
        at_unix_ns: int,
        service_tier: str | None = None,
    ) -> Explanation | None:
        """Return the cost of a usage with the rates and their source; None if the model has no price.

        Args:
            model: in any spelling.
            usage: the tokens.
            provider: who served it; inferred from the model when left out.
            at_unix_ns: when, in nanoseconds since the Unix epoch: prices change.
            service_tier: `flex`, `priority`, `batch`, … as the provider charged it.
        """
        entry = self._find((provider, None, model, service_tier, at_unix_ns // library.SLOT_NS), at_unix_ns)
        if entry is None:
            return None
        source = library.load().source if entry.source == FROM_TABLE else "own price"
        cost = entry.card.cost(usage, at_unix_ns)
        return Explanation(cost, source, entry.provider, entry.model, entry.card.rates)

    def list_models(self, provider: str, *, at_unix_ns: int) -> list[Listed]:
        """Return the price table's models of a provider; empty for an unknown provider.

        Args:
            provider: in any spelling.
            at_unix_ns: when, in nanoseconds since the Unix epoch: prices change.
        """
        table = library.load()
        found = [(one, table.card(one, None, at_unix_ns)) for one in table.models(canonical(provider))]
        return [Listed(one.model.id, card.rates if card is not None else ()) for one, card in found]

    def list_providers(self) -> tuple[str, ...]:
        """Return the providers in the price table."""
        return library.load().provider_ids()

    # --- finding ------------------------------------------------------------------------------------------------------

    def _look_up(self, key: Key, at_unix_ns: int, *, quiet: bool) -> CachedPrices | None:
        entry: CachedPrices | None = None
        with guarded("price"):
            entry = self._find(key, at_unix_ns)
            if entry is None and not quiet:
                self._warn(key)
        with self._lock:
            self._entries[key] = entry
        return entry

    def _find(self, key: Key, at_unix_ns: int) -> CachedPrices | None:
        given, response_model, request_model, tier, _ = key
        provider = canonical(given) if given else None
        response, request = self._named(response_model), self._named(request_model)
        day = datetime.fromtimestamp(at_unix_ns // 1_000_000_000, tz=UTC).date()
        own = self._own_price(provider, response, request, day)
        if own is not None:
            return CachedPrices(own.card(), FROM_OWN, provider or own.provider or "", own.model)
        table = library.load()
        for name in names_in_order(provider, response, request):
            for vendor, model in readings(table, provider, name, aliased=name in self._targets):
                found = table.find(vendor, model)
                card = table.card(found, tier, at_unix_ns) if found is not None else None
                if found is not None and card is not None:
                    return CachedPrices(card, FROM_TABLE, vendor, found.model.id)
        return None

    def _named(self, model: str | None) -> str | None:
        """The name to look up: an alias' target, or the name itself."""
        return self._aliases.get(model.lower(), model) if model else None

    def _own_price(self, provider: str | None, response: str | None, request: str | None, day: date) -> OwnPrice | None:
        """The own price of the model that answered, or of the requested one if that is the same or your own name."""
        if not self._own:
            return None
        names = [response] if response is not None else []
        if request is not None and (response is None or self._stands_for(provider, request, response)):
            names.append(request)
        for name in names:
            vendor, bare = split_model(name)
            at = vendor if vendor is not None and (provider is None or name in self._targets) else provider
            for spelling in (name, bare, without_date(name), without_date(bare)):
                found = _in_force(self._own.get(spelling.lower(), ()), at, day)
                if found is not None:
                    return found
        return None

    def _stands_for(self, provider: str | None, request: str, response: str) -> bool:
        """Whether the requested name prices the answer: it names a snapshot's model, or is not a vendor's name."""
        if same_model(request, response):
            return True
        table = library.load()
        return all(table.find(*reading) is None for reading in readings(table, provider, request, aliased=False))

    def _warn(self, key: Key) -> None:
        """Warn once that a model has no price."""
        provider, response, request, tier, _ = key
        model = response or request
        seen = (provider, model or "", tier)
        if model is None or seen in self._warned or len(self._warned) >= _MAX_WARNED:
            return
        self._warned.add(seen)
        logger.warning(
            "taskpilot_obs: no price for model %.*r of provider %.*r%s: its calls are unpriced;"
            " add an alias or a price [%s]",
            _MAX_NAME,
            model,
            _MAX_NAME,
            provider,
            f" at service tier {tier[:_MAX_NAME]!r}" if tier else "",
            WarningCode.NO_PRICE,
        )


def _by_model(own_prices: Sequence[OwnPrice]) -> dict[str, tuple[OwnPrice, ...]]:
    """Own prices by model, latest first."""
    found: dict[str, list[OwnPrice]] = {}
    seen: set[tuple[str, str | None, date | None]] = set()
    for price in own_prices:
        provider = canonical(price.provider) if price.provider else None
        same = (price.model.lower(), provider, price.effective_from)
        if same in seen:
            raise ConfigurationError(
                f"two own prices for model {price.model!r}, provider {price.provider!r}, effective_from"
                f" {price.effective_from}: leave one of them"
            )
        seen.add(same)
        found.setdefault(price.model.lower(), []).append(price.model_copy(update={"provider": provider}))
    return {
        model: tuple(sorted(prices, key=lambda price: price.effective_from or date.min, reverse=True))
        for model, prices in found.items()
    }


def _in_force(prices: Sequence[OwnPrice], provider: str | None, day: date) -> OwnPrice | None:
    """The latest price that has begun; a provider's own price precedes one for all providers."""
    begun = [price for price in prices if price.effective_from is None or price.effective_from <= day]
    for wanted in (provider, None):
        found = next((price for price in begun if price.provider == wanted), None)
        if found is not None:
            return found
    return None
