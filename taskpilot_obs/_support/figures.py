"""Figures as people read them: money, percentages, durations and counts, each with its unit."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

UNKNOWN: Final = "-"
_SIGNIFICANT: Final = 3
_CENTS: Final = Decimal("0.01")
_LEAST_PERCENT: Final = 0.1
_MOST_PERCENT: Final = 99.9
_ALL_PERCENT: Final = 100
_LEAST_MS: Final = 0.01
_SECOND_MS: Final = 1_000


def usd(given: Decimal | float | None) -> str:
    """An amount of US dollars: cents from one dollar on, three significant digits below, never an exponent.

    `$1,234.50`, `$0.30`, `$0.000048`; an unknown amount is `-`, and nothing at all is `$0`.
    """
    if given is None:
        return UNKNOWN
    amount = Decimal(str(given))
    if not amount.is_finite():
        return UNKNOWN
    if not amount:
        return "$0"
    sign = "-" if amount < 0 else ""
    return f"{sign}${_cents_or_digits(abs(amount))}"


def _cents_or_digits(amount: Decimal) -> str:
    rounded = round(amount, _SIGNIFICANT - 1 - amount.adjusted())
    if rounded >= 1:
        return f"{amount.quantize(_CENTS):,f}"
    whole, _, decimals = f"{rounded:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"


def at_least(cost: str, *, unknown: int) -> str:
    """A cost, marked where calls with an unknown cost are missing from it."""
    return f"≥ {cost}" if unknown else cost


def known_cost(cost: Decimal, coverage: float | None) -> str:
    """What calls cost: unknown where none of them has a known price, and at least the cost where some have none.

    Args:
        cost: the sum of the known costs.
        coverage: the share of the calls whose price is known; None where no call costs anything.
    """
    if coverage == 0 and not cost:
        return UNKNOWN
    return at_least(usd(cost), unknown=coverage is not None and coverage < 1)


def known_total(cost: Decimal, coverages: Iterable[float | None]) -> str:
    """What all groups of calls cost together, marked as `known_cost` marks one.

    Args:
        cost: the sum of the known costs of all groups.
        coverages: the coverage of each group.
    """
    return known_cost(cost, min((each for each in coverages if each is not None), default=None))


def percent(figure: float | None) -> str:
    """A percentage with one decimal, such as `98.4 %`; almost none is `< 0.1 %`, and almost all is `> 99.9 %`."""
    if figure is None:
        return UNKNOWN
    if 0 < figure < _LEAST_PERCENT:
        return f"< {_LEAST_PERCENT} %"
    if _MOST_PERCENT < figure < _ALL_PERCENT:
        return f"> {_MOST_PERCENT} %"
    return f"{figure:,.1f} %"


def share(part: float | None) -> str:
    """A share between 0 and 1 as a percentage."""
    return UNKNOWN if part is None else percent(100 * part)


def ms(figure: float | None) -> str:
    """A duration given in milliseconds, as `seconds` writes it, and in milliseconds below one second."""
    if figure is None:
        return UNKNOWN
    if 0 < figure < _LEAST_MS:
        return f"< {_LEAST_MS} ms"
    in_ms = _digits(figure)
    return f"{in_ms} ms" if figure < _SECOND_MS and in_ms != "1,000" else seconds(figure / _SECOND_MS)


def seconds(figure: float) -> str:
    """A duration in the largest unit of which it holds two, with three significant digits."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if figure >= 2 * size:
            return f"{_digits(figure / size)} {unit}"
    return f"{_digits(figure)} s"


def _digits(figure: float) -> str:
    """Three significant digits at least, no exponent, no trailing zeros."""
    amount = Decimal(str(figure))
    rounded = round(amount, max(0, _SIGNIFICANT - 1 - amount.adjusted())) if amount else amount
    text = f"{rounded:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(figure: float | None) -> str:
    """A count with separators; a fraction, as a Prometheus server extrapolates it, is rounded."""
    return UNKNOWN if figure is None else f"{figure:,.0f}"
