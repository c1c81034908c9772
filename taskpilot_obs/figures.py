"""Figures as people read them; `-` is unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

UNKNOWN: Final = "-"
_THOUSAND: Final = 1_000.0
_MINUTE_MS: Final = 60_000.0


def usd(amount: Decimal | float | None) -> str:
    """An amount of money: cents from one dollar on, four significant digits below."""
    if amount is None:
        return UNKNOWN
    value = float(amount)
    is_cents = abs(value) >= 1 or value == round(value, 2)
    return f"${value:,.2f}" if is_cents else f"${_plain(value)}"


def _plain(value: float) -> str:
    """Four significant digits without an exponent, down to 1e-12."""
    text = f"{Decimal(f'{value:.4g}'):.12f}".rstrip("0").rstrip(".")
    return text or "0"


def percent(figure: float | None) -> str:
    """A percentage."""
    return UNKNOWN if figure is None else f"{figure:.1f} %"


def share(part: float | None) -> str:
    """A share of 1 as a percentage."""
    return UNKNOWN if part is None else percent(100 * part)


def ms(figure: float | None) -> str:
    """A duration in milliseconds; from ten seconds on in seconds, from two minutes on in minutes."""
    if figure is None:
        return UNKNOWN
    if figure < 10 * _THOUSAND:
        return f"{figure:,.0f} ms" if figure >= 1 or figure == 0 else f"{figure:.3f} ms"
    return f"{figure / _THOUSAND:,.1f} s" if figure < 2 * _MINUTE_MS else f"{figure / _MINUTE_MS:,.1f} min"


def count(amount: float | None) -> str:
    """A number of calls or tokens."""
    return UNKNOWN if amount is None else f"{amount:,.0f}"
