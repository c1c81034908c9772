"""A budget: how much may be spent, on what, in which period, and what happens at its limit."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, field, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from pydantic import ConfigDict, PlainValidator, ValidationError
from pydantic.dataclasses import dataclass

from taskpilot_obs._support.calendar import calendar_period, zone_of
from taskpilot_obs._support.timestamps import EPOCH, MICROSECOND
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.providers.names import canonical, canonical_model
from taskpilot_obs.records import Origin, Source
from taskpilot_obs.semconv import NONE

Period = Literal["day", "week", "month", "total", "minute", "hour"]
Action = Literal["alert", "shadow", "enforce"]
WhenDown = Literal["open", "closed"]
Unit = Literal["usd", "tokens", "requests"]

SCOPES: Final = ("tenant", "agent", "workflow", "model", "provider", "user", "service", "environment")
THRESHOLDS: Final = (0.5, 0.75, 0.9, 1.0)
EACH: Final = "*"
"""As a value of a scope: each tenant (user, …) has its own limit."""
SMALLEST_USD: Final = Decimal("1e-12")
"""Amounts are whole numbers of the smallest unit: 1e-12 USD, one token, or one request."""
LARGEST_USD: Final = 9_000_000_000
LARGEST_TOKENS: Final = 10**18
ALL: Final = 1_000
"""The whole limit, in thousandths."""
_LONGEST_NAME: Final = 200
_LONGEST_KEY: Final = 1_500
"""Bytes: beside the longest name it fits into an index of PostgreSQL, which takes 2,700."""
_LEAST_SHARE: Final = 0.001
_LARGEST_SHARE: Final = 10
_RATES: Final = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_ESCAPED: Final = re.compile(r"\\([*?\\])")
_WILDCARD: Final = re.compile(r"(?<!\\)(?:\\\\)*[*?]")
_PIECES: Final = re.compile(r"\\[*?\\]|[*?]|.", re.DOTALL)

T = TypeVar("T")


class Window(NamedTuple):
    """One period of a budget, [start, end), in UTC; `end` is None for `total`, which never ends."""

    start: datetime
    end: datetime | None


class CallScope(NamedTuple):
    """The properties of a call that a budget's scope may match."""

    origin: Origin
    model: str | None
    """The model asked for."""
    provider: str | None
    answered_by: str | None
    """The model that answered."""
    source: Source

    @property
    def model_name(self) -> str | None:
        """The one name of the model asked for, or else of the one that answered."""
        named = self.model or self.answered_by
        return None if named is None else canonical_model(named)

    def value_of(self, key: str) -> str | None:
        """The call's value of one of `SCOPES`."""
        if key == "model":
            return self.model_name
        if key == "provider":
            return self.provider
        value: str | None = getattr(self.source if key in Source._fields else self.origin, key)
        return value


class _WrongOptionError(ValueError):
    """An option of a budget that is not allowed."""

    def __init__(self, given: object, allowed: str) -> None:
        self.given = given
        self.allowed = allowed
        super().__init__(f"given {given!r}; allowed is {allowed}")


def _as_name(given: object) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_NAME or not _is_storable(given):
        raise _WrongOptionError(given, f"a name of 1 to {_LONGEST_NAME} characters that UTF-8 can encode, without NUL")
    return given


def _as_usd(given: object) -> Any:
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        amount = Decimal(-1)
    if given is not None and (not amount.is_finite() or not SMALLEST_USD <= amount <= LARGEST_USD):
        raise _WrongOptionError(given, f"an amount above 0 and up to {LARGEST_USD}")
    return given


def _as_count(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given <= LARGEST_TOKENS:
        raise _WrongOptionError(given, "a whole number above 0")
    return given


def _as_count_or_none(given: object) -> int | None:
    return None if given is None else _as_count(given)


def _as_zone(given: Any) -> str:
    zone_of(given)
    return str(given)


def _as_scope(given: object) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise _WrongOptionError(given, f"a mapping of {', '.join(SCOPES)} to names")
    for key, value in given.items():
        if key not in SCOPES or not isinstance(value, str) or not value:
            raise _WrongOptionError({key: value}, f"text under {', '.join(SCOPES)}")
    ordered = {key: given[key] for key in SCOPES if key in given}
    if "provider" in ordered and not _is_pattern(ordered["provider"]):
        ordered["provider"] = canonical(ordered["provider"])
    return ordered


def _as_thresholds(given: object) -> Sequence[float]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise _WrongOptionError(given, "a list of shares of the limit")
    for share in given:
        if not isinstance(share, int | float) or not _LEAST_SHARE <= share <= _LARGEST_SHARE:
            raise _WrongOptionError(share, f"shares of the limit from {_LEAST_SHARE} to {_LARGEST_SHARE}")
    return given


def _refusing(kind: type[T]) -> type[T]:
    """Make a class's constructor raise `ConfigurationError` instead of pydantic's error."""
    validate: Callable[..., None] = kind.__init__

    @functools.wraps(validate)
    def __init__(self: T, *args: object, **options: object) -> None:  # noqa: N807  it replaces the constructor
        try:
            validate(self, *args, **options)
        except ValidationError as error:
            name = repr(args[0] if args else options.get("name"))
            raise ConfigurationError(f"budget {name}: {_in_words(error)}") from None

    kind.__init__ = __init__  # type: ignore[assignment,method-assign]  # of the same signature
    return kind


def _in_words(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        option = ".".join(str(part) for part in problem["loc"])
        raised = problem.get("ctx", {}).get("error")
        if problem["type"] == "literal_error":
            allowed = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            problems.append(f"{option}: given {problem['input']!r}; allowed is {allowed}")
        elif raised is not None:
            problems.append(f"{option}: {raised}" if isinstance(raised, _WrongOptionError) else str(raised))
        else:
            unknown = problem["type"] == "unexpected_keyword_argument"
            problems.append(f"unknown option {option!r}" if unknown else f"{option}: {problem['msg']}")
    return "; ".join(problems)


Count = Annotated[int, PlainValidator(_as_count)]
CountOrNone = Annotated[int | None, PlainValidator(_as_count_or_none)]


@_refusing
@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Budget:
    """How much LLM calls may cost, how many tokens they may take, or how many there may be, in a period.

    Args:
        name: of the budget; a metric label, so of a bounded set.
        limit_usd: the limit in USD; give this, `limit_tokens` or `limit_requests`.
        limit_tokens: the limit in tokens, input and output together.
        limit_requests: the limit in calls.
        period: `day`, `week` (ISO, from Monday) or `month` of the calendar in `timezone`; `minute` or `hour` for rates;
            or `total`, which never ends.
        timezone: an IANA name such as "Europe/Berlin".
        scope: which calls count: `{"tenant": "acme", "model": "gpt-4o*"}`. Keys are tenant, agent (the nearest),
            workflow, model, provider, user, and the service and environment of the process. Values are names, or
            patterns with `*` (any text) and `?` (any character); behind a backslash these are characters like any
            other. The value "*" gives each tenant (user, …) the limit for itself. Without a scope every call counts.
        thresholds: shares of the limit at which an alert is given, once each in a period.
        action: `alert` alerts only; `enforce` refuses a call that has no room; `shadow` records what `enforce` would
            refuse.
        when_store_down: what `enforce` does while the store is unreachable: `open` lets calls pass, `closed` refuses
            them.
        when_unpriced: what `enforce` does with a call whose price is unknown: `open` or `closed`; for limits in USD.
        max_output_tokens: what is reserved for the answer of a call that does not state its own maximum.

    Raises:
        ConfigurationError: an option is wrong; the message names it, what was given and what is allowed.
    """

    name: Annotated[str, PlainValidator(_as_name)]
    _: KW_ONLY
    limit_usd: Annotated[Decimal | float | str | None, PlainValidator(_as_usd)] = None
    limit_tokens: CountOrNone = None
    limit_requests: CountOrNone = None
    period: Period = "day"
    timezone: Annotated[str, PlainValidator(_as_zone)] = "UTC"
    scope: Annotated[Mapping[str, str], PlainValidator(_as_scope)] = field(default_factory=dict)
    thresholds: Annotated[Sequence[float], PlainValidator(_as_thresholds)] = THRESHOLDS
    action: Action = "alert"
    when_store_down: WhenDown = "open"
    when_unpriced: WhenDown = "open"
    max_output_tokens: Count = 4_096
    limit: int = field(init=False, repr=False)
    """In the smallest unit."""
    permilles: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        limits = [each for each in (self.limit_usd, self.limit_tokens, self.limit_requests) if each is not None]
        if len(limits) != 1:
            raise ConfigurationError("give limit_usd or limit_tokens (or limit_requests), and not both")
        limit = to_pico_usd(Decimal(str(self.limit_usd))) if self.limit_usd is not None else int(limits[0])
        object.__setattr__(self, "limit", limit)
        object.__setattr__(self, "permilles", tuple(sorted({round(share * ALL) for share in self.thresholds})))

    @property
    def unit(self) -> Unit:
        """What the limit counts."""
        if self.limit_usd is not None:
            return "usd"
        return "tokens" if self.limit_tokens is not None else "requests"

    @property
    def is_rate(self) -> bool:
        """Whether it limits a rate, so that a refused call may be tried again soon."""
        return self.period in _RATES

    @property
    def exhausted_permille(self) -> int:
        """The threshold reached when a call is refused for lack of room; 0 if the budget has none."""
        return ALL if ALL in self.permilles else 0

    def amount(self, units: int) -> Decimal:
        """An amount of the smallest unit, in USD, tokens or requests."""
        if self.unit != "usd":
            return Decimal(units)
        usd = SMALLEST_USD * units
        return usd.to_integral_value() if usd == usd.to_integral_value() else usd.normalize()

    def window(self, at: datetime) -> Window:
        """The period that holds a moment."""
        if self.period == "total":
            return Window(EPOCH, None)
        if self.period == "minute" or self.period == "hour":  # noqa: PLR1714  mypy narrows each comparison
            length = _RATES[self.period]
            start = at - (at - EPOCH) % length
            return Window(start, start + length)
        return Window(*calendar_period(self.period, at, self.timezone))

    def scope_key(self, call: CallScope) -> str | None:
        """The key of the ledger's account for a call; None if the call is out of scope."""
        split: dict[str, str] = {}
        for key, wanted in self.scope.items():
            value = call.value_of(key)
            if wanted == EACH:
                split[key] = value or NONE
            elif not (_fits(value, wanted) or (key == "model" and _fits_model(call, wanted))):
                return None
        return _key_of(split) if split else ""

    def scope_of(self, scope_key: str) -> dict[str, str]:
        """The scope of an account: the fixed names, and those by which the budget is split."""
        fixed = {key: _ESCAPED.sub(r"\1", name) for key, name in self.scope.items() if not _is_pattern(name)}
        return fixed | split_of(scope_key)

    def within(self, key: str, name: str) -> Budget:
        """This budget, for the calls of one agent or workflow, unless its scope names one.

        Args:
            key: `agent` or `workflow`.
            name: of the agent or workflow; taken literally.
        """
        if key in self.scope:
            return self
        return replace(self, scope={**self.scope, key: literal(name)})


def split_of(scope_key: str) -> dict[str, str]:
    """The split of an account, such as `{"tenant": "acme"}`; empty if the budget is not split."""
    return {key: value for key, value in json.loads(scope_key).items() if value != NONE} if scope_key else {}


def literal(name: str) -> str:
    """A name as it is written in a scope, where `*` and `?` are patterns."""
    return re.sub(r"([*?\\])", r"\\\1", name)


def _is_pattern(wanted: str) -> bool:
    return _WILDCARD.search(wanted) is not None


@functools.lru_cache(maxsize=1_000)
def _matcher(wanted: str) -> Callable[[str], object]:
    """Return a function that matches names against a value of a scope."""
    if not _is_pattern(wanted):
        name = _ESCAPED.sub(r"\1", wanted)
        return lambda value: value in (name, wanted)
    pieces = [{"*": ".*", "?": "."}.get(piece) or re.escape(piece[-1]) for piece in _PIECES.findall(wanted)]
    return re.compile("".join(pieces), re.DOTALL).fullmatch


def _is_storable(name: str) -> bool:
    """Whether every store accepts a name; a rejected one would block the charges of other budgets."""
    return "\x00" not in name and _bytes_of(name) is not None


def _bytes_of(text: str) -> int | None:
    """The length of a text in UTF-8; None if it contains a lone surrogate."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def _key_of(split: Mapping[str, str]) -> str:
    """Readable JSON; values too long for an index are replaced by a digest, so one bad name cannot block the others."""
    key = json.dumps(split, ensure_ascii=False)
    size = _bytes_of(key)
    if size is not None and size <= _LONGEST_KEY:
        return key
    return json.dumps({name: digested(value) for name, value in split.items()})


def digested(value: str) -> str:
    """The value of a scope key where the values themselves are too long."""
    digest = sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{value.encode('ascii', 'replace').decode()[:32]}~{digest}"


def _fits_model(call: CallScope, wanted: str) -> bool:
    """Whether a call's model matches: as asked for, as answered, or by its canonical name."""
    return any(
        _fits(name, each)
        for name in (call.model, call.answered_by, call.model_name)
        for each in (wanted, canonical_model(wanted))
    )


def _fits(value: str | None, wanted: str) -> bool:
    return value is not None and bool(_matcher(wanted)(value))


def to_pico_usd(usd: Decimal) -> int:
    """Convert an amount of USD to whole 1e-12 USD."""
    return int((usd / SMALLEST_USD).to_integral_value())


class Windows:
    """Caches the current period of each budget, which is computed when one ends and not for each call."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, int, Window]] = {}

    def at(self, budget: Budget, unix_ns: int) -> Window:
        """The period of a budget that holds a moment, given in nanoseconds since the Unix epoch."""
        known = self._windows.get(budget.name)
        if known is not None and known[0] <= unix_ns < known[1]:
            return known[2]
        window = budget.window(EPOCH + timedelta(microseconds=unix_ns // 1_000))
        self._windows[budget.name] = (_ns(window.start), _ns(window.end), window)
        return window


def _ns(moment: datetime | None) -> int:
    return 1 << 63 if moment is None else (moment - EPOCH) // MICROSECOND * 1_000
