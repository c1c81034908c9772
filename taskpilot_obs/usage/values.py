"""What a provider states about one LLM call, as values; `Usage`, the tokens, is in `taskpilot_obs.records`."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from taskpilot_obs.records import Usage

MAX_TOKENS: Final = 10**12
"""A count beyond a trillion tokens in one call is a mistake, and is refused like a negative one."""


class StatedError(NamedTuple):
    """An error in a response that came with HTTP status 200, in the provider's words."""

    status: int | None = None
    """The HTTP status that it would have had, where the body says so."""
    code: str = ""
    """The provider's codes and types, empty where it states none."""
    message: str = ""


class Reading(NamedTuple):
    """What a response says about itself."""

    usage: Usage | None = None
    model: str | None = None
    """The model that answered, in the provider's spelling."""
    provider: str | None = None
    """Canonical name: the one that the caller gave, or else the one that the response proves."""
    service_tier: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    inconsistent: bool = False
    """Some of the numbers contradicted each other, or were none; what is wrong was cut down or left out."""
    cached: bool = False
    """A framework's own cache repeated an earlier answer: nothing was billed, and `usage` is None."""
    error: StatedError | None = None
    """What went wrong, where the body or the last event of a stream is an error or holds one."""
    cost: Decimal | None = None
    """What the call cost in USD, as the provider states it."""
    gap: str | None = None
    """Why the price of the tokens is not the whole cost: one of `semconv.PRICE_GAPS`."""
    billed_by: str | None = None
    """The provider that the response's own ID proves, whoever the caller says that it asked."""


class Stated(NamedTuple):
    """What is known of a call's cost besides its tokens."""

    cost: Decimal | None = None
    """In USD, as the provider states it."""
    gap: str | None = None
    """Why that, or the price of the tokens, is not the whole cost."""
    dropped: frozenset[str] = frozenset()
    """Details of the usage that a framework may have left out, by the fields of `Usage`."""


UNREAD: Final = Reading()
NOTHING_STATED: Final = Stated()

_DETAILS: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("cache_write_tokens", ("cache_write_1h_tokens", "cache_write_5m_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_read_tokens", ("cache_read_audio_tokens",)),
    ("input_audio_tokens", ("cache_read_audio_tokens",)),
    ("output_tokens", ("reasoning_tokens",)),
    ("output_tokens", ("output_audio_tokens", "output_image_tokens")),
)
"""Each total with details that exclude each other: together they cannot exceed it."""


def count(value: object) -> int | None:
    """`value` as a number of tokens; None for what is none (negative, fractional, NaN, infinite, text, bool).

    Only the built-in number types are asked, through their own methods, so that nothing a caller passes can raise.
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
        if not Decimal.is_finite(value) or Decimal.__int__(value) != value:
            return None
        number = Decimal.__int__(value)
    else:
        return None
    return number if 0 <= number <= MAX_TOKENS else None


def from_counts(**numbers: object) -> tuple[Usage, bool]:
    """A `Usage` from numbers that nobody has checked, and whether something was wrong with them.

    What is no count (negative, fractional, NaN, text, a name that `Usage` does not have) is unknown; details that
    exceed their total are cut down to it. Never raises, never gives a negative number.
    """
    counts = dict.fromkeys(Usage._fields)
    refused = False
    for name, value in numbers.items():
        if value is not None:
            known = count(value)
            refused |= known is None or name not in counts
            counts[name] = known
    if refused:
        counts = {name: counts[name] for name in Usage._fields}
    parts = (counts["cache_write_5m_tokens"] or 0) + (counts["cache_write_1h_tokens"] or 0)
    if parts and not counts["cache_write_tokens"]:
        counts["cache_write_tokens"] = parts  # LangChain says 0 where the split holds the number
    clamped = False
    for total, details in _DETAILS:
        if counts[details[0]] or counts[details[-1]]:
            clamped |= _fit(counts, total, details)
    return Usage(**counts), refused or clamped


def without_placeholders(usage: Usage) -> Usage | None:
    """The usage of a non-empty answer, without the zeros that stand where nobody counted; None if nothing is left.

    An answer takes tokens. Frameworks that get no usage from a provider fill in 0.
    """
    if not usage.input_tokens:
        return None
    return usage._replace(output_tokens=None, reasoning_tokens=None, output_audio_tokens=None, output_image_tokens=None)


def _fit(counts: dict[str, int | None], total: str, details: tuple[str, ...]) -> bool:
    """Cut `details` down until they fit into `total`; whether that was needed."""
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
