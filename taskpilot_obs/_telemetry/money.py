"""Money in two integers, so that both engines store and add it exactly.

One 64-bit integer of 1e-12 USD ends at 9.2 million USD, and SQLite has no decimals. So an amount is stored as whole
billionths (`nano`) and a rest of 0 to 999 trillionths: sums of the first stay exact up to 9.2 billion USD, and the
sum of the rests is small. The two columns add up separately and meet again in `to_decimal`.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NamedTuple

_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
PICO_PER_NANO: Final = 1_000
"""Trillionths of a USD in a billionth."""
LIMIT_USD: Final = Decimal(9_000_000_000)
"""The largest amount that one row, or one summary, can hold."""
MOST_NANO: Final = int(LIMIT_USD) * 10**9


class Money(NamedTuple):
    """An amount of USD as two integers: `nano` * 1e-9 + `rest` * 1e-12."""

    nano: int
    rest: int


def from_decimal(amount: Decimal) -> Money:
    """Round an amount of USD to 1e-12 (half to even) and split it.

    Raises:
        ValueError: not a number, or larger than `LIMIT_USD`.
    """
    return Money(*divmod(to_picos(amount), PICO_PER_NANO))


def to_picos(amount: Decimal) -> int:
    """An amount of USD in units of 1e-12, rounded half to even.

    Raises:
        ValueError: not a number, or larger than `LIMIT_USD`.
    """
    if not amount.is_finite() or abs(amount) > LIMIT_USD:
        msg = f"an amount of USD must be finite and at most {LIMIT_USD}, not {amount}"
        raise ValueError(msg)
    return int(_EXACT.to_integral_value(_EXACT.scaleb(amount, 12)))


def to_decimal(nano: int | Decimal | None, rest: int | Decimal | None) -> Decimal:
    """The amount of USD that two columns, or their sums, stand for; nothing (SQL NULL) is 0."""
    picos = int(nano or 0) * PICO_PER_NANO + int(rest or 0)
    return _EXACT.scaleb(Decimal(picos), -12)
