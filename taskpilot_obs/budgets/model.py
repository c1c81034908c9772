"""A budget: how much may be spent, on what, in which period, and what happens at its limit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final, Literal, NamedTuple, NoReturn

from taskpilot_obs._support.calendar import calendar_period, zone_of
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.providers.names import canonical
from taskpilot_obs.semconv import NONE, PERIODS

Period = Literal["day", "week", "month", "total"]
Action = Literal["alert", "shadow", "enforce"]
WhenDown = Literal["open", "closed"]
Unit = Literal["usd", "tokens"]

ACTIONS: Final = ("alert", "shadow", "enforce")
WHEN_DOWN: Final = ("open", "closed")
SCOPES: Final = ("tenant", "agent", "workflow", "model", "provider", "user")
THRESHOLDS: Final = (0.5, 0.75, 0.9, 1.0)
EACH: Final = "*"
"""As a value of a scope: each tenant (user, …) has the limit for itself."""
SMALLEST_USD: Final = Decimal("1e-12")
"""Amounts are whole numbers of the smallest unit: 1e-12 USD, or one token."""
LARGEST_USD: Final = 9_000_000_000
LARGEST_TOKENS: Final = 10**18
_LONGEST_NAME: Final = 200
_LONGEST_KEY: Final = 1_500
"""Bytes: beside the longest name it fits into an index of PostgreSQL, which takes 2,700."""
_LEAST_SHARE: Final = 0.001
_LARGEST_SHARE: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Window(NamedTuple):
    """One period of a budget, [start, end), in UTC; `end` is None for `total`, which never ends."""

    start: datetime
    end: datetime | None


class CallScope(NamedTuple):
    """What a budget may be scoped by."""

    tenant: str | None = None
    agent: str | None = None
    """The nearest agent."""
    workflow: str | None = None
    model: str | None = None
    """The model asked for."""
    provider: str | None = None
    user: str | None = None
    answered_by: str | None = None
    """The model that answered."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much LLM calls may cost, or how many tokens they may take, in a period.

    Args:
        name: of the budget; a metric label, so of a bounded set.
        limit_usd: the limit in USD; give this or `limit_tokens`.
        limit_tokens: the limit in tokens, input and output together.
        period: `day`, `week` (ISO, from Monday) or `month` of the calendar in `timezone`, or `total`, which never ends.
        timezone: an IANA name such as "Europe/Berlin".
        scope: which calls count: `{"tenant": "acme", "model": "gpt-4o*"}`. Keys are tenant, agent (the nearest),
            workflow, model, provider and user; values are names or patterns with `*` and `?`. The value "*" gives each
            tenant (user, …) the limit for itself. Without a scope every call counts.
        thresholds: shares of the limit at which an alert is given, once each in a period.
        action: `alert` tells; `enforce` refuses a call that has no room; `shadow` records what `enforce` would refuse.
        when_store_down: what `enforce` does while the store cannot be asked: `open` lets calls pass, `closed` refuses
            them.
        when_unpriced: what `enforce` does with a call whose price nobody knows, likewise; for limits in USD.
        max_output_tokens: what is reserved for the answer of a call that does not state its own maximum.

    Raises:
        ConfigurationError: an option is wrong; the message says what was given and what is allowed.
    """

    name: str
    _: KW_ONLY
    limit_usd: Decimal | float | str | None = None
    limit_tokens: int | None = None
    period: Period = "day"
    timezone: str = "UTC"
    scope: Mapping[str, str] = field(default_factory=dict)
    thresholds: Sequence[float] = THRESHOLDS
    action: Action = "alert"
    when_store_down: WhenDown = "open"
    when_unpriced: WhenDown = "open"
    max_output_tokens: int = 4_096
    limit: int = field(init=False, repr=False)
    """In the smallest unit."""
    permilles: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not _is_storable(name):
            raise ConfigurationError(
                f"budget: given the name {name!r}; it must be 1 to {_LONGEST_NAME} letters that UTF-8 has, and no NUL"
            )
        self._one_of("period", PERIODS)
        self._one_of("action", ACTIONS)
        self._one_of("when_store_down", WHEN_DOWN)
        self._one_of("when_unpriced", WHEN_DOWN)
        zone_of(self.timezone)
        if not _is_whole(self.max_output_tokens, LARGEST_TOKENS):
            self._refuse("max_output_tokens", self.max_output_tokens, "a whole number above 0")
        object.__setattr__(self, "limit", self._limit())
        object.__setattr__(self, "permilles", self._permilles())
        object.__setattr__(self, "scope", self._scope())

    def _refuse(self, option: str, given: object, allowed: str) -> NoReturn:
        raise ConfigurationError(f"budget {self.name!r}: {option}: given {given!r}; allowed is {allowed}")

    def _one_of(self, option: str, allowed: Sequence[str]) -> None:
        if getattr(self, option) not in allowed:
            self._refuse(option, getattr(self, option), ", ".join(allowed))

    def _limit(self) -> int:
        if (self.limit_usd is None) == (self.limit_tokens is None):
            raise ConfigurationError(f"budget {self.name!r}: give limit_usd or limit_tokens, and not both")
        if self.limit_tokens is not None:
            if not _is_whole(self.limit_tokens, LARGEST_TOKENS):
                self._refuse("limit_tokens", self.limit_tokens, "a whole number above 0")
            return self.limit_tokens
        try:
            amount = Decimal(str(self.limit_usd))
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or not SMALLEST_USD <= amount <= LARGEST_USD:
            self._refuse("limit_usd", self.limit_usd, f"an amount above 0 and up to {LARGEST_USD}")
        return to_pico_usd(amount)

    def _permilles(self) -> tuple[int, ...]:
        shares: object = self.thresholds
        if not isinstance(shares, Sequence) or isinstance(shares, str):
            self._refuse("thresholds", shares, "a list of shares of the limit")
        for share in shares:
            if not isinstance(share, int | float) or not _LEAST_SHARE <= share <= _LARGEST_SHARE:
                self._refuse("thresholds", share, f"shares of the limit from {_LEAST_SHARE} to {_LARGEST_SHARE}")
        return tuple(sorted({round(share * 1_000) for share in self.thresholds}))

    def _scope(self) -> Mapping[str, str]:
        stated: object = self.scope
        if not isinstance(stated, Mapping):
            self._refuse("scope", stated, f"a mapping of {', '.join(SCOPES)} to names")
        for key, value in stated.items():
            if key not in SCOPES or not isinstance(value, str) or not value:
                self._refuse("scope", {key: value}, f"text under {', '.join(SCOPES)}")
        ordered = {key: self.scope[key] for key in SCOPES if key in self.scope}
        if "provider" in ordered and not set("*?") & set(ordered["provider"]):
            ordered["provider"] = canonical(ordered["provider"])
        return ordered

    @property
    def unit(self) -> Unit:
        """What the limit counts."""
        return "usd" if self.limit_tokens is None else "tokens"

    def amount(self, units: int) -> Decimal:
        """An amount of the smallest unit, in USD or tokens."""
        if self.unit == "tokens":
            return Decimal(units)
        usd = SMALLEST_USD * units
        return usd.to_integral_value() if usd == usd.to_integral_value() else usd.normalize()

    def window(self, at: datetime) -> Window:
        """The period that holds a moment."""
        if self.period == "total":
            return Window(_EPOCH, None)
        return Window(*calendar_period(self.period, at, self.timezone))

    def scope_key(self, call: CallScope) -> str | None:
        """Under which line of the ledger a call is booked; None where it is out of scope."""
        split: dict[str, str] = {}
        for key, wanted in self.scope.items():
            value = getattr(call, key)
            if wanted == EACH:
                split[key] = value or call.answered_by or NONE if key == "model" else value or NONE
            elif not (_fits(value, wanted) or (key == "model" and _fits(call.answered_by, wanted))):
                return None
        return _key_of(split) if split else ""


def _is_storable(name: str) -> bool:
    """Whether every store takes it: one that does not would keep all others from being booked."""
    return "\x00" not in name and _bytes_of(name) is not None


def _bytes_of(text: str) -> int | None:
    """How long it is in UTF-8; None where it holds half a surrogate pair."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def _key_of(split: Mapping[str, str]) -> str:
    """As people read it; who is named as no index takes it stands under a digest, and holds up nobody else."""
    key = json.dumps(split, ensure_ascii=False)
    size = _bytes_of(key)
    if size is not None and size <= _LONGEST_KEY:
        return key
    return json.dumps({name: _digested(value) for name, value in split.items()})


def _digested(value: str) -> str:
    digest = sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{value.encode('ascii', 'replace').decode()[:32]}~{digest}"


def _is_whole(given: object, largest: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 < given <= largest


def _fits(value: str | None, wanted: str) -> bool:
    return value is not None and (value == wanted or fnmatchcase(value, wanted))


def to_pico_usd(usd: Decimal) -> int:
    """An amount of USD in whole 1e-12 USD."""
    return int((usd / SMALLEST_USD).to_integral_value())


class Windows:
    """The periods that hold one moment after another; worked out when one ends, not for each call."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, int, Window]] = {}

    def at(self, budget: Budget, unix_ns: int) -> Window:
        """The period of a budget that holds a moment, given in nanoseconds since the Unix epoch."""
        known = self._windows.get(budget.name)
        if known is not None and known[0] <= unix_ns < known[1]:
            return known[2]
        window = budget.window(_EPOCH + timedelta(microseconds=unix_ns // 1_000))
        self._windows[budget.name] = (_ns(window.start), _ns(window.end), window)
        return window


def _ns(utc_now: datetime | None) -> int:
    return 1 << 63 if utc_now is None else (utc_now - _EPOCH) // timedelta(microseconds=1) * 1_000
