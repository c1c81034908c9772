"""Intervals for one look at a fixed number of observations.

They hold at the sample size that was decided on beforehand, as in a benchmark run. A page or a report that people read
repeatedly needs the intervals of `sequences`, which hold at every look.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import hypot
from typing import TYPE_CHECKING, Final

from scipy.stats import binom, binomtest

from taskpilot_obs.golden_signals.model import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIDENCE: Final = 0.95


def wilson(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of a proportion by Wilson's score.

    Args:
        successes: observations that succeeded.
        n: all observations; without any, every proportion is possible.
        confidence: the share of such intervals that contain the true proportion.

    Source:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    if not n:
        return Interval(0.0, 1.0)
    found = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def newcombe(successes: int, n: int, base_successes: int, base_n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the difference between two proportions, the first minus the base.

    Args:
        successes: observations of the first group that succeeded.
        n: all observations of the first group.
        base_successes: observations of the base that succeeded.
        base_n: all observations of the base.
        confidence: the share of such intervals that contain the true difference.

    Source:
        Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
        (1998), method 10.
    """
    if not n or not base_n:
        return Interval(-1.0, 1.0)
    rate, base_rate = successes / n, base_successes / base_n
    own, base = wilson(successes, n, confidence=confidence), wilson(base_successes, base_n, confidence=confidence)
    difference = rate - base_rate
    return Interval(
        difference - hypot(rate - own.low, base.high - base_rate),
        difference + hypot(own.high - rate, base_rate - base.low),
    )


def quantile_interval(counts: Mapping[float, int], q: float, *, confidence: float = CONFIDENCE) -> Interval | None:
    """The exact interval of a quantile, whatever the distribution.

    Args:
        counts: how often each value was observed.
        q: which quantile, between 0 and 1.
        confidence: the least share of such intervals that contain the true quantile.

    Returns:
        The interval, or None where the observations are too few for its two ends.

    Source:
        The binomial distribution of the rank of a quantile: Conover, "Practical Nonparametric Statistics", 3rd ed.,
        section 3.2; `scipy.stats.quantile_test` gives the same ends.
    """
    n = sum(counts.values())
    tail = (1 - confidence) / 2
    low, high = int(binom.ppf(tail, n, q)), int(binom.ppf(1 - tail, n, q)) + 1
    if not n or low < 1 or high > n:
        return None
    return Interval(*values_at_ranks(counts, (low, high)))


def values_at_ranks(counts: Mapping[float, int], ranks: tuple[int, int]) -> tuple[float, float]:
    """The observations at two ranks, counted from 1 in rising order.

    Args:
        counts: how often each value was observed.
        ranks: two ranks that the observations reach.
    """
    ordered = sorted(counts.items())
    reached = list(accumulate(count for _, count in ordered))
    low, high = (ordered[bisect_left(reached, rank)][0] for rank in ranks)
    return low, high
