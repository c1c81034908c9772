"""Power laws through measured points, and what n log n would give at the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, isnan, log
from typing import Final, NamedTuple

from scipy.stats import linregress, t  # noqa: TID251  a script, not the library

Point = tuple[float, float]
"""A size and what was measured there."""
CONFIDENCE: Final = 0.95
NOISE: Final = 0.15
"""How far the slope between two single points may lie above that of n log n: they differ by a fifth by noise."""
ROUNDING: Final = 0.03
"""How far a fitted exponent may."""


class Fit(NamedTuple):
    """value = factor · n ^ exponent."""

    factor: float
    exponent: float
    half: float
    """Half the width of the exponent's confidence interval."""

    def at(self, size: float) -> float:
        """The value that the fit gives for a size."""
        return float(self.factor * size**self.exponent)

    def size_of(self, value: float) -> float | None:
        """The size at which the fit reaches a value; None where it does not rise."""
        if self.exponent <= self.half:
            return None
        return float((value / self.factor) ** (1 / self.exponent))


def power_law(points: Sequence[Point]) -> Fit:
    """Fit by least squares on logarithms.

    Raises:
        ValueError: there are less than three points, or one is not positive.
    """
    if len(points) < 3 or any(size <= 0 or value <= 0 for size, value in points):  # noqa: PLR2004
        raise ValueError(f"a power law takes three positive points or more, got {list(points)}")
    found = linregress([log(size) for size, _ in points], [log(value) for _, value in points])
    width = t.ppf((1 + CONFIDENCE) / 2, len(points) - 2)
    stderr = 0.0 if isnan(found.stderr) else found.stderr  # of equal values: rounding makes 1 - r² negative
    return Fit(exp(found.intercept), float(found.slope), float(width * stderr))


def ceiling(points: Sequence[Point], *, each: bool) -> float:
    """The exponent that n log n (for one of n events: log n) would show at the sizes of these points."""
    law: Callable[[float], float] = _log if each else _n_log_n
    return power_law([(size, law(size)) for size, _ in points]).exponent


def _log(size: float) -> float:
    return log(1 + size)


def _n_log_n(size: float) -> float:
    return size * _log(size)


def last_slope(points: Sequence[Point]) -> float:
    """The exponent between the two largest sizes, where a constant part hides least."""
    (size, value), (larger, higher) = sorted(points)[-2:]
    return log(higher / value) / log(larger / size)


class Verdict(NamedTuple):
    """Whether a curve stays below n log n, as a whole and at its end."""

    fit: Fit
    allowed: float
    last: float
    last_allowed: float

    @property
    def holds(self) -> bool:
        """Whether both exponents are allowed."""
        return self.fit.exponent <= self.allowed and self.last <= self.last_allowed


def judge(points: Sequence[Point], *, each: bool) -> Verdict:
    """Judge a curve.

    Args:
        points: sizes and values.
        each: whether a value is the cost of one of n events.
    """
    law = _log if each else _n_log_n
    allowed_end = last_slope([(size, law(size)) for size, _ in points])
    return Verdict(power_law(points), ceiling(points, each=each) + ROUNDING, last_slope(points), allowed_end + NOISE)
