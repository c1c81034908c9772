"""What of a call is kept: names as both databases take them, amounts within bounds, money in two integers."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from taskpilot_obs._telemetry.money import Money, from_decimal
from taskpilot_obs.records import BAD, GOOD, Invocation, Pricing, Source, Status
from taskpilot_obs.semconv import NONE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

MAX_TEXT: Final = 256
"""Longest name or identifier that is stored."""
DIGEST: Final = 16
"""Length of the digest that replaces what was cut off."""
MAX_TOKENS: Final = 10**12
"""A provider's claim beyond this is nonsense, and would make sums overflow."""
MAX_MS: Final = 1e12
NS_PER_US: Final = 1_000
_US_PER_S: Final = 1_000_000

SUCCESS: Final[dict[Status, bool | None]] = {
    status: True if status in GOOD else False if status in BAD else None for status in Status
}
"""How a status counts in the success rate; None where it does not."""

NO_SOURCE: Final = Source()
PRICING: Final = {Pricing.FREE: 0, Pricing.PRICED: 1, Pricing.PARTIAL: 2, Pricing.UNPRICED: 3}
"""What a row says about its cost; NULL in rows of older versions."""

_NO_MONEY: Final = (None, None)


def ended_us(invocation: Invocation) -> int:
    """An invocation belongs to the moment at which it ended, as in the metrics."""
    return invocation.start_unix_ns // NS_PER_US + int(invocation.duration_s * _US_PER_S)


def tenant_of(invocation: Invocation) -> Any:
    """The tenant of a run or call, also where only the attribute `organization_id` names it."""
    tenant = invocation.tenant
    return tenant if tenant is not None else invocation.attributes.get("organization_id")


def milliseconds(seconds: float) -> float:
    """A negative duration, or NaN, is 0; `max` comes first because it returns its first argument where one is NaN."""
    return min(max(0.0, seconds * 1_000.0), MAX_MS)


def rounded(milliseconds: float) -> float:
    """To whole microseconds, which is what a row keeps; its bin knows better."""
    return round(milliseconds, 3)


def token_count(amount: int | None) -> int | None:
    """An amount of tokens within the bounds that sums can hold."""
    if amount is None or -MAX_TOKENS <= amount <= MAX_TOKENS:
        return amount
    return MAX_TOKENS if amount > 0 else -MAX_TOKENS


def money_of(cost: Decimal | None) -> Money | tuple[None, None]:
    """NULL if unknown; NaN, and an amount that no column can hold, are unknown too."""
    if cost is None:
        return _NO_MONEY
    try:
        return from_decimal(cost)
    except ValueError:
        return _NO_MONEY


def texts(*values: Any) -> Sequence[str | None]:
    """The texts as `stored_text` keeps them. All are searched at once first, because almost none has to be cut."""
    told = [value for value in values if value is not None]
    try:
        together = "".join(told)
    except TypeError:  # an attribute may be a number
        return [*map(stored_text, values)]
    short = len(together) <= MAX_TEXT or max(map(len, told)) <= MAX_TEXT
    if short and "\x00" not in together and NONE not in together and (together.isascii() or _encodable(together)):
        return values
    return [*map(stored_text, values)]


def stored_text(value: Any) -> str | None:
    """A name or identifier as the store keeps it: what both databases take, and never the name of another.

    NUL, halves of surrogate pairs and what is too long are cut out; a digest of the whole takes their place, so that no
    two tenants can fall into one. One who is really named `__none__` gets a digest as well: that word stands for none.
    """
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if text != NONE and len(text) <= MAX_TEXT and "\x00" not in text and (text.isascii() or _encodable(text)):
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    return f"{takable(text)[: MAX_TEXT - DIGEST - 1]}~{digest}"


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def takable(text: str) -> str:
    """The text without what a database refuses: NUL and halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
