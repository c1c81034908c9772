"""What a provider states about one LLM call, as values; `Usage`, the tokens, is in `taskpilot_obs.records`."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from taskpilot_obs.records import Usage

MAX_TOKENS: Final = 10**12
"""A count beyond a trillion tokens in one call is an error, and is rejected like a negative one."""


class StatedError(NamedTuple):
    """An error in a response that came with HTTP status 200, in the provider's words."""

    status: int | None = None
    """The HTTP status that the body states for the error."""
    code: str = ""
    """The provider's codes and types; empty if it states none."""
    message: str = ""


class Reading(NamedTuple):
    """What a response states."""

    usage: Usage | None = None
    model: str | None = None
    """The model that answered, in the provider's spelling."""
    provider: str | None = None
    """Canonical name of the provider that the caller gave, or else that the response proves."""
    service_tier: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    inconsistent: bool = False
    """Whether numbers were contradictory or invalid; wrong ones were reduced or left out."""
    cached: bool = False
    """A framework's own cache repeated an earlier answer: nothing was billed, and `usage` is None."""
    error: StatedError | None = None
    """The error, if the body or the last event of a stream is or contains one."""
    cost: Decimal | None = None
    """The cost in USD that the provider states."""
    gap: str | None = None
    """Why the price of the tokens is not the whole cost: one of `semconv.PRICE_GAPS`."""
    billed_by: str | None = None
    """The provider that the response's ID proves, regardless of the one that the caller states."""
    sums: int = 0
    """How many calls the result of an agent sums; 0 for the response of a model."""


class Stated(NamedTuple):
    """What is known about a call's cost besides its tokens."""

    cost: Decimal | None = None
    """In USD, as the provider states it."""
    gap: str | None = None
    """Why the cost is more than that, or than the price of the tokens."""
    dropped: frozenset[str] = frozenset()
    """Fields of `Usage` that a framework may have dropped."""
    sums: int = 0
    """How many calls the usage sums; 0 for one call."""


UNREAD: Final = Reading()
NOTHING_STATED: Final = Stated()

_NO_DETAILS: Final = [None] * (len(Usage._fields) - 2)
_DETAILS: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("cache_write_tokens", ("cache_write_1h_tokens", "cache_write_5m_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_read_tokens", ("cache_read_audio_tokens",)),
    ("input_audio_tokens", ("cache_read_audio_tokens",)),
    ("output_tokens", ("reasoning_tokens",)),
    ("output_tokens", ("output_audio_tokens", "output_image_tokens")),
)
"""Each total, with mutually exclusive details, whose sum cannot exceed it."""
_OUTPUTS: Final = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")
_INPUTS: Final = tuple(name for name in Usage._fields if name not in _OUTPUTS)


_MOST_DIGITS: Final = len(str(MAX_TOKENS))


def parse_token_count(value: object) -> int | None:
    """Parse a number of tokens; None for anything else (negative, fractional, NaN, infinite, text, bool).

    Only built-in number types are accepted, and read by the built-in methods, so that no value can raise.
    """
    if type(value) is int:
        number = value
    elif value is None or isinstance(value, bool):
        return None
    elif isinstance(value, int):
        number = int.__int__(value)
    elif isinstance(value, float):
        if not float.is_integer(value):
            return None
        number = float.__int__(value)
    elif isinstance(value, Decimal):
        if not Decimal.is_finite(value) or Decimal.adjusted(value) > _MOST_DIGITS:  # 1E+999999 as an int takes minutes
            return None
        if Decimal.__int__(value) != value:
            return None
        number = Decimal.__int__(value)
    else:
        return None
    return number if 0 <= number <= MAX_TOKENS else None


def from_usage(usage: Usage) -> tuple[Usage, bool]:
    """Check a `Usage` that a caller made, as `from_counts` does; at once if it has valid totals and no details."""
    given, generated, *details = usage
    if details == _NO_DETAILS and parse_token_count(given) is given and parse_token_count(generated) is generated:
        return usage, False
    return from_counts(**usage._asdict())


def from_counts(**numbers: object) -> tuple[Usage, bool]:
    """Build a `Usage` from unchecked numbers; return it and whether any of them was wrong.

    Invalid counts (negative, fractional, NaN, text, a name that `Usage` does not have) are unknown; details that
    exceed their total are reduced to it. Never raises, and never returns a negative number.
    """
    counts = dict.fromkeys(Usage._fields)
    refused = False
    for name, value in numbers.items():
        if value is not None:
            known = parse_token_count(value)
            refused |= known is None or name not in counts
            counts[name] = known
    if refused:
        counts = {name: counts[name] for name in Usage._fields}
    parts = (counts["cache_write_5m_tokens"] or 0) + (counts["cache_write_1h_tokens"] or 0)
    if parts and not counts["cache_write_tokens"]:
        counts["cache_write_tokens"] = parts  # LangChain states 0 if the split holds the number
    clamped = False
    for total, details in _DETAILS:
        if counts[details[0]] or counts[details[-1]]:
            clamped |= _fit(counts, total, details)
    return Usage(**counts), refused or clamped


def sum_of(old: Usage | None, new: Usage) -> Usage:
    """Add two usages, field by field; a field that only one of them states is taken from it."""
    if old is None:
        return new
    return Usage(*(mine if other is None else (mine or 0) + other for mine, other in zip(old, new, strict=True)))


def without_placeholders(usage: Usage) -> Usage | None:
    """Remove the zeros that stand for unknown counts from the usage of a non-empty answer; None if nothing is left.

    An answer takes tokens, and so does its prompt, but frameworks that get no usage from a provider fill in 0.
    """
    if not usage.input_tokens and not usage.output_tokens:
        return None
    if not usage.input_tokens:
        return usage._replace(**dict.fromkeys(_INPUTS))
    return usage._replace(**dict.fromkeys(_OUTPUTS)) if usage.output_tokens == 0 else usage


def _fit(counts: dict[str, int | None], total: str, details: tuple[str, ...]) -> bool:
    """Reduce `details` until they fit into `total`; return whether that was necessary."""
    room = counts[total]
    if room is None:
        return False
    clamped = False
    for name in details:
        stated = counts[name] or 0
        if stated > room:
            counts[name] = room
            clamped = True
        room -= min(stated, room)
    return clamped
