"""Rate cards: what one model costs, compiled so that a call is priced with a handful of integer multiplications.

A price table names a rate for some kinds of tokens, and kinds contain each other (audio that was read from the cache is
input, audio and a cache read). Each token is billed once, at the most specific rate that has a price. So a card keeps
integers, in the smallest power of ten of a USD that its rates need, and only the result becomes a `Decimal`: exact, and
independent of the thread's decimal context.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Final, NamedTuple, Protocol

from taskpilot_obs.records import Usage
from taskpilot_obs.usage.values import MAX_TOKENS, from_counts

KINDS: Final[dict[str, frozenset[str]]] = {
    "input_tokens": frozenset({"input"}),
    "output_tokens": frozenset({"output"}),
    "cache_read_tokens": frozenset({"input", "read"}),
    "cache_write_tokens": frozenset({"input", "write"}),
    "cache_write_5m_tokens": frozenset({"input", "write", "5m"}),
    "cache_write_1h_tokens": frozenset({"input", "write", "1h"}),
    "input_audio_tokens": frozenset({"input", "audio"}),
    "input_image_tokens": frozenset({"input", "image"}),
    "cache_audio_read_tokens": frozenset({"input", "read", "audio"}),
    "cache_image_read_tokens": frozenset({"input", "read", "image"}),
    "output_reasoning_tokens": frozenset({"output", "reasoning"}),
    "output_audio_tokens": frozenset({"output", "audio"}),
    "output_image_tokens": frozenset({"output", "image"}),
}
"""The kinds of tokens that a `Usage` distinguishes, by genai-prices' names, with their properties."""
_ORDER: Final = tuple(KINDS)
PLAIN: Final = frozenset(
    {"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"}
)
PER_MILLION: Final = -6
_EXACT: Final = Context(prec=60)
_times: Final = _EXACT.multiply
"""Multiplies exactly, independent of the decimal context of the thread, and accepts integers."""
_BOTH: Final = (True, True)
_NOTHING: Final = Decimal(0)


class Tier(NamedTuple):
    """A rate for the whole request if its input exceeds `above` tokens."""

    above: int
    rate: Decimal


class Rate(NamedTuple):
    """What a kind of token costs, in USD per 1,000,000 tokens."""

    kind: str
    base: Decimal
    tiers: tuple[Tier, ...] = ()

    def at(self, input_tokens: int) -> Decimal:
        """Return the rate of a request with this many input tokens."""
        reached = [tier.rate for tier in self.tiers if input_tokens > tier.above]
        return reached[-1] if reached else self.base


class Priced(Protocol):
    """A model with known prices."""

    @property
    def rates(self) -> tuple[Rate, ...]:
        """Return the rates, for display."""
        ...

    def cost(self, usage: Usage, at_unix_ns: int) -> Decimal | None:
        """Return USD for this usage at this time; None if a needed count is unknown or the rates do not cover it."""
        ...

    def tells_apart(self, details: frozenset[str], usage: Usage) -> bool:
        """Whether these details, had they been stated, could have changed the cost of this usage."""
        ...

    def costs_more_when_long(self, usage: Usage) -> bool:
        """Whether one call with this usage may have other rates than shorter calls."""
        ...


class _Step(NamedTuple):
    """The rates of one context tier, as integers per token."""

    above: int
    input: int
    output: int
    read: int
    """The price of a cache read minus that of input (mostly negative); the fields below are differences too."""
    write: int
    write_1h: int
    by_kind: tuple[int, ...]
    """The full rates, in the order of the card's kinds."""


class Card:
    """The rates of one model at one service tier, while they do not change.

    Args:
        rates: the rate of each kind of token; kinds without one cost as much as the kind that contains them.
        per_request: USD for each request, independent of its tokens.
        sound_costs_more: whether audio costs more than text, so that its price is unknown without a rate of its own.
    """

    __slots__ = (
        "_contained",
        "_deaf",
        "_fixed",
        "_free",
        "_kinds",
        "_limit",
        "_lowest",
        "_mute",
        "_plain",
        "_quantum",
        "_sides",
        "_steps",
        "_two_sided",
        "rates",
    )

    def __init__(
        self, rates: Sequence[Rate], per_request: Decimal = Decimal(0), *, sound_costs_more: bool = False
    ) -> None:
        self.rates = tuple(sorted(rates, key=lambda rate: _ORDER.index(rate.kind)))
        special_first = sorted(self.rates, key=lambda rate: -len(KINDS[rate.kind]))
        self._kinds = tuple(rate.kind for rate in special_first)
        self._contained = tuple(
            tuple(index for index, kind in enumerate(self._kinds) if KINDS[outer] < KINDS[kind])
            for outer in self._kinds
        )
        self._plain = PLAIN.issuperset(self._kinds)
        self._deaf = sound_costs_more and "input_audio_tokens" not in self._kinds
        self._mute = sound_costs_more and "output_audio_tokens" not in self._kinds
        self._sides = tuple(side in self._kinds for side in ("input_tokens", "output_tokens"))
        self._free = not self.rates and not per_request
        self._two_sided = self._sides == _BOTH
        exponent = _exponent([*_all_rates(self.rates), per_request])
        self._quantum = _EXACT.scaleb(Decimal(1), exponent)
        self._fixed = _as_int(per_request, exponent)
        self._steps = tuple(
            self._step(above, exponent) for above in sorted({-1, *_thresholds(self.rates)}, reverse=True)
        )
        self._lowest = self._steps[-1]
        self._limit = self._steps[-2].above if len(self._steps) > 1 else MAX_TOKENS

    def cost(self, usage: Usage, at_unix_ns: int) -> Decimal | None:
        """Return USD for this usage; None if a priced side is unknown, or tokens have no price."""
        given, generated, read, write, _, write_1h, audio, reasoning, spoken, image, drawn, _ = usage
        if type(given) is not int or type(generated) is not int:
            return self._partial(usage, at_unix_ns)
        step = self._lowest if given <= self._limit else self._step_for(given)
        total = given * step.input + generated * step.output + self._fixed
        if read or write or write_1h:
            read, write, write_1h = read or 0, write or 0, write_1h or 0
            if not (0 <= read <= given - write and 0 <= write_1h <= write):
                return self._cleaned(usage, at_unix_ns)
            total += read * step.read + write * step.write + write_1h * step.write_1h
        if (audio and self._deaf) or (spoken and self._mute):
            return None
        if not self._plain and (audio or reasoning or spoken or image or drawn):
            return self._by_kind(usage, step)
        if total > 0 and self._two_sided and given >= 0 <= generated:
            return _times(total, self._quantum)
        return self._unusual(usage, total, at_unix_ns)

    def tells_apart(self, details: frozenset[str], usage: Usage) -> bool:
        """Whether one of these details has a rate of its own, and the usage leaves room for it."""
        return any(self._has_own_rate(detail) and _has_room(detail, usage) for detail in details)

    def costs_more_when_long(self, usage: Usage) -> bool:
        """Whether the input reaches a context tier beyond the first."""
        return (usage.input_tokens or 0) > self._limit

    def _has_own_rate(self, detail: str) -> bool:
        kind, whole = _RATES_OF[detail]
        if (kind == "input_audio_tokens" and self._deaf) or (kind == "output_audio_tokens" and self._mute):
            return True
        rates = {rate.kind: (rate.base, rate.tiers) for rate in self.rates}
        return kind in rates and rates[kind] != rates.get(whole)

    def _step_for(self, given: int) -> _Step:
        """The context tier of a request with that much input."""
        return next(step for step in self._steps if given > step.above or step.above < 0)

    def _unusual(self, usage: Usage, total: int, at_unix_ns: int) -> Decimal | None:
        """Handle cases after the sum: invalid numbers, nothing to bill, a side without a price."""
        if min(usage.input_tokens or 0, usage.output_tokens or 0) < 0:
            return self._cleaned(usage, at_unix_ns)
        return None if self._gives_away(usage) else self._usd(total)

    def _gives_away(self, usage: Usage) -> bool:
        """Whether there are tokens on a side without a price, although the model is not free."""
        sides = zip((usage.input_tokens, usage.output_tokens), self._sides, strict=True)
        return not self._free and any(tokens and not priced for tokens, priced in sides)

    def _partial(self, usage: Usage, at_unix_ns: int) -> Decimal | None:
        """Price a usage with an unknown side, which matters only if it has a price: embeddings have no output."""
        cleaned, _ = from_counts(**usage._asdict())
        sides = (cleaned.input_tokens, cleaned.output_tokens)
        unknown = any(tokens is None and priced for tokens, priced in zip(sides, self._sides, strict=True))
        if unknown or sides == (None, None):
            return None
        return self.cost(cleaned._replace(input_tokens=sides[0] or 0, output_tokens=sides[1] or 0), at_unix_ns)

    def _cleaned(self, usage: Usage, at_unix_ns: int) -> Decimal | None:
        """Price a usage whose counts contradict each other, after limiting them as the readers do."""
        cleaned, _ = from_counts(**usage._asdict())
        return None if cleaned == usage else self.cost(cleaned, at_unix_ns)

    def _by_kind(self, usage: Usage, step: _Step) -> Decimal | None:
        """The general computation, for audio, images and reasoning with rates of their own."""
        if self._gives_away(usage):
            return None
        counts = counts_by_kind(usage)
        alone: list[int] = []
        for kind, contained in zip(self._kinds, self._contained, strict=True):
            left = counts.get(kind, 0) - sum(alone[index] for index in contained)
            if left < 0:
                return None
            alone.append(left)
        return self._usd(sum(left * rate for left, rate in zip(alone, step.by_kind, strict=True)) + self._fixed)

    def _usd(self, total: int) -> Decimal:
        """Convert an amount from the card's unit; zero is plain 0, without the unit's decimal places."""
        return _times(total, self._quantum) if total else _NOTHING

    def _step(self, above: int, exponent: int) -> _Step:
        rates = {rate.kind: _as_int(_EXACT.scaleb(rate.at(above + 1), PER_MILLION), exponent) for rate in self.rates}
        plain = rates.get("input_tokens", 0)
        write = rates.get("cache_write_tokens", plain)
        return _Step(
            above=above,
            input=plain,
            output=rates.get("output_tokens", 0),
            read=rates.get("cache_read_tokens", plain) - plain,
            write=write - plain,
            write_1h=rates.get("cache_write_1h_tokens", write) - write,
            by_kind=tuple(rates[kind] for kind in self._kinds),
        )


_RATES_OF: Final = {
    "cache_read_tokens": ("cache_read_tokens", "input_tokens"),
    "cache_write_tokens": ("cache_write_tokens", "input_tokens"),
    "cache_write_1h_tokens": ("cache_write_1h_tokens", "cache_write_tokens"),
    "input_audio_tokens": ("input_audio_tokens", "input_tokens"),
    "input_image_tokens": ("input_image_tokens", "input_tokens"),
    "output_audio_tokens": ("output_audio_tokens", "output_tokens"),
    "output_image_tokens": ("output_image_tokens", "output_tokens"),
    "reasoning_tokens": ("output_reasoning_tokens", "output_tokens"),
}
"""Details that a framework can omit, with their rate and the rate used instead."""


def _has_room(detail: str, usage: Usage) -> bool:
    """Whether some of the stated tokens may belong to this detail."""
    whole = usage.cache_write_tokens if detail == "cache_write_1h_tokens" else usage[detail.startswith("output")]
    if detail == "reasoning_tokens":
        whole = usage.output_tokens
    return bool(whole) and getattr(usage, detail) is None


def counts_by_kind(usage: Usage) -> dict[str, int]:
    """Return a usage's counts under the price table's names, with the overlaps that the table needs and providers omit.

    The overlap of cache reads and audio (or images) is the minimum for the details to fit into the input: unless a
    provider states otherwise, audio counts as uncached.
    """
    counts = {
        "input_tokens": usage.input_tokens or 0,
        "output_tokens": usage.output_tokens or 0,
        "cache_read_tokens": usage.cache_read_tokens or 0,
        "cache_write_tokens": usage.cache_write_tokens or 0,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens or 0,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens or 0,
        "input_audio_tokens": usage.input_audio_tokens or 0,
        "input_image_tokens": usage.input_image_tokens or 0,
        "output_reasoning_tokens": usage.reasoning_tokens or 0,
        "output_audio_tokens": usage.output_audio_tokens or 0,
        "output_image_tokens": usage.output_image_tokens or 0,
    }
    read, audio, image = counts["cache_read_tokens"], counts["input_audio_tokens"], counts["input_image_tokens"]
    excess = read + counts["cache_write_tokens"] + audio + image - counts["input_tokens"]
    read_audio = usage.cache_read_audio_tokens
    if read_audio is None:
        read_audio = max(0, min(excess, read, audio))
    counts["cache_audio_read_tokens"] = read_audio
    counts["cache_image_read_tokens"] = max(0, min(excess - read_audio, read - read_audio, image))
    return counts


def _all_rates(rates: Sequence[Rate]) -> list[Decimal]:
    per_million = [rate.base for rate in rates] + [tier.rate for rate in rates for tier in rate.tiers]
    return [_EXACT.scaleb(rate, PER_MILLION) for rate in per_million]


def _thresholds(rates: Sequence[Rate]) -> set[int]:
    return {tier.above for rate in rates for tier in rate.tiers}


def _exponent(rates: Sequence[Decimal]) -> int:
    """The power of ten in which all the rates are whole."""
    exponents = [rate.normalize(_EXACT).as_tuple().exponent for rate in rates]
    return min([0, *(exponent for exponent in exponents if isinstance(exponent, int))])


def _as_int(rate: Decimal, exponent: int) -> int:
    return int(_EXACT.scaleb(rate, -exponent))
