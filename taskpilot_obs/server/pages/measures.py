"""The measures of experiments and benchmarks as people read them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from taskpilot_obs._support import figures

_POINTS: Final = frozenset({"success", "correctness", "violations"})
_FORMS: Final[dict[str, Callable[[float | None], str]]] = {
    "cost": figures.usd,
    "p50": figures.ms,
    "p95": figures.ms,
    "tokens": figures.count,
}


def measured(measure: str, value: Decimal | float | None) -> str:
    """A value of a measure with its unit."""
    amount = None if value is None else float(value)
    return _FORMS.get(measure, figures.share)(amount)


def change(measure: str, difference: float | None) -> str:
    """A difference by a measure, with its sign; shares differ by points of a hundred."""
    if difference is None:
        return figures.UNKNOWN
    if measure in _POINTS:
        return f"{100 * difference:+.1f} points"
    sign = "-" if difference < 0 else "+"
    return f"{sign}{_FORMS[measure](abs(difference))}"
