"""Intervals for one look: against scipy's own answers, and by simulation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

from taskpilot_obs.compare.intervals import newcombe, quantile_interval, wilson
from taskpilot_obs.golden_signals.model import Interval

SERIES = 2_000
ENOUGH = 0.94
"""The least share of nominal 95 % intervals that must contain the truth."""


def test_newcombe_gives_the_figures_of_its_paper() -> None:
    """56 of 70 against 48 of 80: the interval of table II, method 10, of Newcombe's paper."""
    found = newcombe(56, 70, 48, 80)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)


def test_nothing_observed_rules_out_nothing() -> None:
    """Without an observation every proportion and every difference is possible, and a quantile has no interval."""
    assert wilson(0, 0) == Interval(0.0, 1.0)
    assert newcombe(0, 0, 3, 5) == Interval(-1.0, 1.0)
    assert quantile_interval({}, 0.5) is None


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_a_difference_turns_with_its_arms(hits: int, misses: int, base_hits: int, base_misses: int) -> None:
    """Exchanging the two groups changes the sign of the interval and nothing else."""
    one = newcombe(hits, hits + misses, base_hits, base_hits + base_misses)
    other = newcombe(base_hits, base_hits + base_misses, hits, hits + misses)
    assert one.low == pytest.approx(-other.high)
    assert one.high == pytest.approx(-other.low)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95]))
def test_quantile_intervals_are_those_of_scipy(values: list[int], q: float) -> None:
    """`scipy.stats.quantile_test` gives the same ends, or says that the observations are too few."""
    theirs: Any = quantile_test(values, q=0, p=q).confidence_interval(0.95)
    ours = quantile_interval(Counter(map(float, values)), q)
    if ours is None:
        assert np.isnan(theirs.low) or np.isnan(theirs.high)
    else:
        assert (ours.low, ours.high) == (theirs.low, theirs.high)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("n", [50, 400])
def test_proportions_are_covered(rate: float, n: int) -> None:
    """At least 94 % of nominal 95 % intervals contain the true proportion, and the true difference of two."""
    generator = np.random.default_rng(7)
    hits, base = generator.binomial(n, rate, SERIES), generator.binomial(n, 0.8, SERIES)
    covered = [wilson(int(each), n).contains(rate) for each in hits]
    assert np.mean(covered) >= ENOUGH - 0.01  # Wilson's average is 95 %; single proportions lie a little beside it
    pairs = zip(hits, base, strict=True)
    assert np.mean([newcombe(int(a), n, int(b), n).contains(rate - 0.8) for a, b in pairs]) >= ENOUGH


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_quantiles_of_heavy_tails_are_covered(sigma: float) -> None:
    """At least 94 % of nominal 95 % intervals contain the true 95th percentile of log-normal latencies."""
    generator = np.random.default_rng(8)
    truth = float(np.exp(sigma * 1.6448536269514722))
    found = [quantile_interval(Counter(generator.lognormal(0, sigma, 300).tolist()), 0.95) for _ in range(SERIES // 4)]
    assert np.mean([each is not None and each.contains(truth) for each in found]) >= ENOUGH
