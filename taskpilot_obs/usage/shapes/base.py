"""What a shape is: how one provider, or a family of them, states usage; and the arithmetic that readers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from taskpilot_obs.usage.fields import NOTHING, Fields, fields, first, items, text
from taskpilot_obs.usage.values import count

Counts = dict[str, Any]
Reader = Callable[[Fields, "str | None"], Counts]
Gap = Callable[[Fields, "str | None"], "str | None"]
"""From a usage object, and whose way of counting it follows, to one of `semconv.PRICE_GAPS` or None."""

TIERS: Final = ("flex", "priority")
TTL_KEYS: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


class StatedCost(NamedTuple):
    """What a provider states that a call cost."""

    usd: Decimal
    gap: str | None = None
    """Why that is not all of it."""


def amount(value: object) -> Decimal | None:
    """`value` as an amount in USD; None for what is not one (negative, NaN, infinite, text, bool)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    usd = Decimal(str(value))
    return usd if usd.is_finite() and usd >= 0 else None


class Shape(NamedTuple):
    """One way to state usage. Every table of keys that the readers use is made from the list of shapes.

    The strings hold keys, separated by blanks.
    """

    name: str
    read: Reader | None = None
    """From a usage object to the arguments of `from_counts`: inclusive totals, subset details."""
    marks: str = ""
    """Keys of a usage object that mark this shape; where several shapes match, the first in the list is taken."""
    usage_keys: str = ""
    """Keys under which a body keeps its usage object."""
    wrappers: str = ""
    """Keys under which a body or an event keeps another one that may state usage."""
    event_keys: str = ""
    """Keys of a stream's event that may state more than generated text."""
    event_types: str = ""
    """Types of a stream's events that may state more than generated text."""
    proofs: Mapping[str, str] = _EMPTY
    """Keys of a body that only one provider writes, and that provider."""
    beside: Mapping[str, tuple[str, ...]] = _EMPTY
    """Details that an imitator of OpenAI states beside the totals: the field of `Usage`, and the keys."""
    counts_apart: tuple[str, str] | None = None
    """A word in the names of models that count reasoning apart from the output, and whose way of counting that is."""
    elsewhere: Callable[[Fields], Fields | None] | None = None
    """Finds counts that a body keeps outside of a usage object."""
    gap: Gap | None = None
    """Why the price of the tokens is not the whole cost, judged by a usage object."""
    model_gaps: Mapping[str, str] = _EMPTY
    """Words in the names of models whose calls cost more than their tokens, and why."""
    cost: Callable[[Fields], StatedCost | None] | None = None
    """What the call cost, where the usage object states that."""


def with_tiers(*names: str) -> tuple[str, ...]:
    """Spellings of a detail, which a service tier may precede (`flex_cache_read`)."""
    return tuple(prefix + name for prefix in ("", *(f"{tier}_" for tier in TIERS)) for name in names)


def is_stated(value: object) -> bool:
    """Whether a mark's value states something: a number, a text, or an object with fields."""
    if isinstance(value, list):
        return bool(items(value[:1]))
    return value is not None and (isinstance(value, (str, int, float)) or fields(value) not in (None, NOTHING))


def plus(base: object, *added: object) -> object:
    """`base` with what is counted outside of it; a base that is not a count is returned as it is, to be refused."""
    total = count(base)
    if total is None:
        return base
    for part in added:
        if part is not None:
            total += count(part) or 0
    return total


def rest(total: object, *parts: object) -> int | None:
    """What the parts leave over of `total`; None where one of them is unknown."""
    left = count(total)
    for part in parts:
        known = count(part)
        if left is None or known is None:
            return None
        left -= known
    return None if left is None else max(0, left)


def ttl_split(created: object) -> Counts:
    """The 5 minutes' and 1 hour's parts of cache writes, as Anthropic and its imitators state them."""
    split = fields(created) or NOTHING
    return {"cache_write_5m_tokens": split.get(TTL_KEYS[0]), "cache_write_1h_tokens": split.get(TTL_KEYS[1])}


def modality(usage: Fields, keys: tuple[str, ...], wanted: frozenset[str]) -> int | None:
    """The sum over one modality, which the API names, the SDK makes an enum, and protobuf a number; None if absent."""
    stated = [
        count(first(part, "tokenCount", "token_count", "tokens")) or 0
        for key in keys
        for part in items(usage.get(key))
        if (text(part.get("modality")) or str(part.get("modality"))) in wanted
    ]
    return sum(stated) if stated else None
