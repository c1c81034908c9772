"""Defines a shape (how a provider, or a family of them, states usage), and arithmetic shared by the readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from taskpilot_obs.usage.fields import NOTHING, Fields, fields, first, items, text
from taskpilot_obs.usage.values import parse_token_count

Counts = dict[str, Any]
Reader = Callable[[Fields, "str | None"], Counts]
Gap = Callable[[Fields, "str | None"], "str | None"]
"""Maps a usage object, and the vendor whose way of counting it follows, to one of `semconv.PRICE_GAPS` or None."""

TIERS: Final = ("flex", "priority")
TTL_KEYS: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
_LONGEST_AMOUNT: Final = 64
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


class StatedCost(NamedTuple):
    """The cost that a provider states for a call."""

    usd: Decimal
    gap: str | None = None
    """Why the cost is incomplete."""


def amount(value: object) -> Decimal | None:
    """Parse an amount in USD, a number or its text; None for anything else (negative, NaN, infinite, words, bool)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_AMOUNT:
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and usd >= 0 else None


class Shape(NamedTuple):
    """One format of usage. All tables of keys that the readers use are built from the list of shapes.

    The strings hold keys, separated by blanks.
    """

    name: str
    read: Reader | None = None
    """Maps a usage object to the arguments of `from_counts`: inclusive totals, subset details."""
    marks: str = ""
    """Keys of a usage object that mark this shape; if several shapes match, the first in the list is used."""
    usage_keys: str = ""
    """Keys under which a body keeps its usage object."""
    wrappers: str = ""
    """Keys under which a body or an event wraps another one that may state usage."""
    event_keys: str = ""
    """Keys of a stream's event that may state more than generated text."""
    event_types: str = ""
    """Types of a stream's events that may state more than generated text."""
    proofs: Mapping[str, str] = _EMPTY
    """Keys of a body that only one provider writes, and that provider."""
    beside: Mapping[str, tuple[str, ...]] = _EMPTY
    """Details that an imitator of OpenAI states beside the totals: field of `Usage` -> keys."""
    counts_apart: tuple[str, str] | None = None
    """A word in the names of models that count reasoning separately from output, and the vendor that counts so."""
    elsewhere: Callable[[Fields], Fields | None] | None = None
    """Finds counts that a body states outside of a usage object."""
    gap: Gap | None = None
    """Decides from a usage object why the cost is more than the price of the tokens."""
    model_gaps: Mapping[str, str] = _EMPTY
    """Words in the names of models whose calls cost more than their tokens, and why."""
    cost: Callable[[Fields], StatedCost | None] | None = None
    """Reads the cost, if the usage object states it."""
    body_cost: Callable[[Fields], StatedCost | None] | None = None
    """Reads the cost, if a body or an event states it outside of its usage object."""


def with_tiers(*names: str) -> tuple[str, ...]:
    """Return the spellings of a detail, with and without a service tier (`flex_cache_read`)."""
    return tuple(prefix + name for prefix in ("", *(f"{tier}_" for tier in TIERS)) for name in names)


def is_stated(value: object) -> bool:
    """Whether a mark's value states something: a number, a text, or an object with fields."""
    if isinstance(value, list):
        return bool(items(value[:1]))
    return value is not None and (isinstance(value, (str, int, float)) or fields(value) not in (None, NOTHING))


def plus(base: object, *added: object) -> object:
    """Add counts outside of `base` to it; an invalid base is returned as it is, to be rejected later."""
    total = parse_token_count(base)
    if total is None:
        return base
    for part in added:
        if part is not None:
            total += parse_token_count(part) or 0
    return total


def rest(total: object, *parts: object) -> int | None:
    """Return `total` minus the parts; None if one of them is unknown."""
    left = parse_token_count(total)
    for part in parts:
        known = parse_token_count(part)
        if left is None or known is None:
            return None
        left -= known
    return None if left is None else max(0, left)


def ttl_split(created: object) -> Counts:
    """Return the 5-minute and 1-hour parts of cache writes, as Anthropic and its imitators state them."""
    split = fields(created) or NOTHING
    return {"cache_write_5m_tokens": split.get(TTL_KEYS[0]), "cache_write_1h_tokens": split.get(TTL_KEYS[1])}


def modality(usage: Fields, keys: tuple[str, ...], wanted: frozenset[str]) -> int | None:
    """The sum over one modality, which is text in the API, an enum in the SDK, a number in protobuf; None if absent."""
    stated = [
        parse_token_count(first(part, "tokenCount", "token_count", "tokens")) or 0
        for key in keys
        for part in items(usage.get(key))
        if (text(part.get("modality")) or str(part.get("modality"))) in wanted
    ]
    return sum(stated) if stated else None


def merged(old: Fields, new: Fields) -> Fields:
    """Merge `new` over `old`: providers repeat and correct counts, and may omit some from the last event."""
    if old is NOTHING or not isinstance(old, dict) or not isinstance(new, dict):
        return new
    both = {**old, **{key: value for key, value in new.items() if value is not None}}
    split, written = both.get("cache_creation"), parse_token_count(both.get("cache_creation_input_tokens"))
    if split is not None and written is not None and new.get("cache_creation") is None and _exceeds(split, written):
        del both["cache_creation"]  # Anthropic's last event corrects the total without repeating the split
    return both


def _exceeds(split: object, total: int) -> bool:
    stated = fields(split) or NOTHING
    return sum(parse_token_count(stated.get(key)) or 0 for key in TTL_KEYS) > total
