"""What recorded usage would have cost at other prices, and the cost of calls that were unpriced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, Unpack, get_args

from taskpilot_obs._support.timestamps import aware
from taskpilot_obs._telemetry.filters import column_of
from taskpilot_obs._telemetry.money import PICO_PER_NANO, to_decimal, to_picos
from taskpilot_obs._telemetry.values import NS_PER_US
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing import FROM_OWN, PriceTable
from taskpilot_obs.pricing.library import SLOT_NS, load
from taskpilot_obs.records import Usage
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.repricing import FREE, STATED, UNPRICED, Correction, UsedCall, apply_corrections, used_calls

if TYPE_CHECKING:
    from os import PathLike

    from taskpilot_obs.pricing.table import CachedPrices
    from taskpilot_obs.store import Store

_Key = tuple[str | None, str | None, str | None, str | None, int]
RepriceBy = Literal["agent", "tenant", "prompt", "model", "provider", "workflow", "user"]
_AT_ONCE: Final = 1_000


class RepricedGroup(Frozen):
    """The calls of one agent, tenant, prompt or model. None is unknown, and never 0."""

    name: str
    calls: int
    booked_usd: Usd | None
    """As it was booked; None where no call has a cost."""
    unbooked_calls: int
    """Calls without a booked cost."""
    repriced_usd: Usd | None
    """At the other prices; None where no call has one."""
    unknown_calls: int
    """Calls without a cost at the other prices: no price, or no usage."""
    difference_usd: Usd | None
    """Repriced minus booked, over the calls that have both."""


class Repriced(Frozen):
    """What a period would have cost."""

    start: datetime
    end: datetime
    by: str
    as_model: str | None
    at: datetime | None
    total: RepricedGroup
    groups: tuple[RepricedGroup, ...]
    """The largest difference first."""
    applied: int
    """Unpriced calls whose cost was written."""


class _Sums:
    """What one group adds up to, in picodollars."""

    __slots__ = ("booked", "both_booked", "both_repriced", "calls", "repriced", "unbooked", "unknown")

    def __init__(self) -> None:
        self.calls = self.unbooked = self.unknown = 0
        self.booked = self.repriced = self.both_booked = self.both_repriced = 0

    def add(self, booked: int | None, repriced: int | None) -> None:
        """Add one call."""
        self.calls += 1
        if booked is None:
            self.unbooked += 1
        else:
            self.booked += booked
        if repriced is None:
            self.unknown += 1
            return
        self.repriced += repriced
        if booked is not None:
            self.both_booked += booked
            self.both_repriced += repriced

    def merged(self, other: _Sums) -> None:
        """Add another group."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def group(self, name: str) -> RepricedGroup:
        """The sums as USD."""
        has_both = self.calls > max(self.unbooked, self.unknown) and (self.both_booked or self.both_repriced)
        return RepricedGroup(
            name=name,
            calls=self.calls,
            booked_usd=_usd(self.booked) if self.calls > self.unbooked else None,
            unbooked_calls=self.unbooked,
            repriced_usd=_usd(self.repriced) if self.calls > self.unknown else None,
            unknown_calls=self.unknown,
            difference_usd=_usd(self.both_repriced - self.both_booked) if has_both else None,
        )


def _usd(picos: int) -> Decimal:
    return to_decimal(*divmod(picos, PICO_PER_NANO))


class _Pricer:
    """Prices calls of the store. It keeps the prices of every stretch of time, because rows come in no order of time.

    Args:
        table: the prices.
        as_model: the model that all calls are priced as; None for their own.
        at_ns: the time whose prices are in force; None for the calls' own.
    """

    def __init__(self, table: PriceTable, as_model: str | None, at_ns: int | None) -> None:
        self.table = table
        self.as_model = as_model
        self.at_ns = at_ns
        self._as_booked = as_model is None and at_ns is None
        self._known: dict[_Key, CachedPrices | None] = {}

    def __call__(self, call: UsedCall) -> int | None:
        """The cost in picodollars; None if unknown. A call that was free (a cache hit, a refusal) stays free."""
        if call.origin == FREE:
            return 0
        at_ns = call.began_us * NS_PER_US if self.at_ns is None else self.at_ns
        key = call[:5] if self._as_booked else self._key_of(call)
        try:
            entry = self._known[key]
        except KeyError:
            entry = self._known[key] = self.table.find(key[:4], at_ns)
        if call.origin == STATED and self.as_model is None and (entry is None or entry.source != FROM_OWN):
            return _booked(call)
        cost = None if entry is None else entry.card.cost(_usage(call), at_ns)
        return None if cost is None else to_picos(cost)

    def source_of(self, call: UsedCall) -> str:
        """Whose price a call got as it was booked: the shipped table by its version, or your own."""
        entry = self._known.get(call[:5])
        return "own price" if entry is not None and entry.source == FROM_OWN else load().source

    def _key_of(self, call: UsedCall) -> _Key:
        named = call[:4] if self.as_model is None else (None, None, self.as_model, None)
        return (*named, call.slot if self.at_ns is None else 0)


def _usage(call: UsedCall) -> Usage:
    return Usage(
        call.input_tokens,
        call.output_tokens,
        call.cached_tokens,
        call.cache_write_tokens,
        None,
        None,
        None,
        call.reasoning_tokens,
    )  # fmt: skip  by position, which takes half the time


def _booked(call: UsedCall) -> int | None:
    if call.cost_nano is not None:
        return call.cost_nano * PICO_PER_NANO + (call.cost_rest or 0)
    return 0 if call.origin == FREE else None


def reprice(
    period: Period = "30d",
    *,
    prices: PriceTable | Sequence[str | PathLike[str]] | None = None,
    as_model: str | None = None,
    at: datetime | None = None,
    by: RepriceBy = "agent",
    apply: bool = False,
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> Repriced:
    """What the recorded usage would have cost at another model's, date's or contract's prices.

    What was booked is not touched. Costs that a provider or the application stated stand, unless an own price of
    `prices` covers the call or another model is asked for. At unchanged prices the sums equal the booked ones to the
    last digit; details that rows do not keep (audio, cache writes for an hour) cost as the tokens that contain them.

    Args:
        period: which calls, as in `get_stats`; only those whose rows are still kept.
        prices: a table, or files of own prices (a contract); the shipped table by default.
        as_model: the model that all calls are priced as: `gpt-4o-mini`, `anthropic/claude-sonnet-4-5`. Its tokenizer
            may count differently.
        at: prices in force then, with its zone; by default those of each call's own time.
        by: what the groups are.
        apply: write the found cost of calls that were unpriced, with its provenance in `cost_source`. A booked cost is
            never changed.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: filters, as in `get_stats`.

    Raises:
        ConfigurationError: an argument cannot be used, `as_model` has no price, or `apply` is asked for other prices
            than those of the calls themselves.
        StoreError: the store is missing or cannot be used.
    """
    _check_options(by, booked_otherwise=apply and (as_model is not None or at is not None))
    moment = None if at is None else aware(at, "at")
    table = prices if isinstance(prices, PriceTable) else PriceTable.load(prices or ())
    start, end = bounds(period, now)
    pricer = _Pricer(table, as_model, None if moment is None else int(moment.timestamp() * 1e9))
    _check_model(pricer, end)
    sums: dict[str | None, _Sums] = {}
    found: defaultdict[str, list[Correction]] = defaultdict(list)
    with opened(store) as opened_store:
        with asked_of(opened_store, start, end, filters_of(asked)) as question:
            calls = used_calls(question, column_of(by), slot_us=SLOT_NS // NS_PER_US, to_write=apply)
            _add_up(calls, pricer, sums, found if apply else None)
        applied = sum(_apply(opened_store, each, source, now) for source, each in found.items())
    return _report((start, end), by, as_model, at, sums, applied)


def _check_options(by: str, *, booked_otherwise: bool) -> None:
    if by not in get_args(RepriceBy):
        raise ConfigurationError(f"by: given {by!r}; allowed are {', '.join(get_args(RepriceBy))}")
    if booked_otherwise:
        raise ConfigurationError("apply: only the calls' own models and times can be booked; leave out as_model and at")


def _check_model(pricer: _Pricer, end: datetime) -> None:
    if pricer.as_model is None:
        return
    at_ns = pricer.at_ns if pricer.at_ns is not None else int(end.timestamp() * 1e9)
    if pricer.table.explain(pricer.as_model, Usage(1, 1), at_unix_ns=at_ns) is None:
        raise ConfigurationError(
            f"as_model: {pricer.as_model!r} has no price; name a model of the price table, or give prices for it"
        )


def _add_up(
    calls: Iterable[UsedCall],
    pricer: _Pricer,
    sums: dict[str | None, _Sums],
    found: defaultdict[str, list[Correction]] | None,
) -> None:
    for call in calls:
        repriced, booked = pricer(call), _booked(call)
        group = sums.get(call.group)
        if group is None:
            group = sums[call.group] = _Sums()
        group.add(booked, repriced)
        if found is None or booked is not None or repriced is None:
            continue
        if call.origin == UNPRICED and call.telemetry_id is not None:
            correction = Correction(call.telemetry_id, call.ended_us, *divmod(repriced, PICO_PER_NANO))
            found[pricer.source_of(call)].append(correction)


def _apply(store: Store, found: Sequence[Correction], prices: str, now: datetime | None) -> int:
    source = f"repriced {aware(now).date()}: {prices}"
    written = 0
    for part in _parts(found):
        with store.writing() as connection:
            written += apply_corrections(connection, part, source)
    return written


def _parts(found: Sequence[Correction]) -> Iterator[Sequence[Correction]]:
    for start in range(0, len(found), _AT_ONCE):
        yield found[start : start + _AT_ONCE]


def _report(
    period: tuple[datetime, datetime],
    by: str,
    as_model: str | None,
    at: datetime | None,
    sums: dict[str | None, _Sums],
    applied: int,
) -> Repriced:
    whole = _Sums()
    for each in sums.values():
        whole.merged(each)
    groups = [each.group(name or NONE) for name, each in sums.items()]
    return Repriced(
        start=period[0],
        end=period[1],
        by=by,
        as_model=as_model,
        at=at,
        total=whole.group("all"),
        groups=tuple(sorted(groups, key=lambda one: (-abs(one.difference_usd or 0), -one.calls, one.name))),
        applied=applied,
    )
