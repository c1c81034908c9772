"""Our statistics beside those of others: gbstats' recorded answers, and scipy's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, false_discovery_control

from taskpilot_obs.compare.intervals import wilson
from taskpilot_obs.compare.sequences import Moments, mean_difference_sequence, moments_of, sample_ratio_p_value
from taskpilot_obs.compare.variants import BROKEN_BELOW

RECORDED: dict[str, Any] = json.loads((Path(__file__).with_name("gbstats.json")).read_text(encoding="utf-8"))
"""Written by `_gbstats.py`, which says how to run it."""


@pytest.mark.parametrize("case", RECORDED["differences"], ids=lambda case: f"{case['arm'][0]}-{case['confidence']}")
def test_sequences_of_differences_are_those_of_gbstats(case: dict[str, Any]) -> None:
    """Variances and the anytime-valid interval of a difference of mean costs are GrowthBook's, to nine digits."""
    arm, base = (Moments(int(n), *rest) for n, *rest in (case["arm"], case["base"]))
    assert [arm.variance, base.variance] == pytest.approx(case["variance"], rel=1e-9)
    found = mean_difference_sequence(arm, base, confidence=case["confidence"])
    assert found is not None
    assert list(found) == pytest.approx(case["interval"], rel=1e-9)


@pytest.mark.parametrize("case", RECORDED["splits"], ids=lambda case: "-".join(map(str, case["units"])))
def test_a_split_that_is_blocked_is_found_by_gbstats_too(case: dict[str, Any]) -> None:
    """Our test holds at every look, so it is the slower one: what it blocks, GrowthBook's one-look test rejects."""
    theirs, ours = case["p_value"], sample_ratio_p_value(case["units"], case["shares"])
    expected = [share * sum(case["units"]) for share in case["shares"]]
    assert theirs == pytest.approx(chisquare(case["units"], expected).pvalue)
    assert ours >= theirs
    if theirs < BROKEN_BELOW**2:
        assert ours < BROKEN_BELOW


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (48, 80), (9_990, 10_000)])
def test_wilson_is_the_interval_of_scores(successes: int, n: int) -> None:
    """Each end is the proportion whose score test of the observation has p = 0.05."""
    found = wilson(successes, n)
    for end in found:
        if 0 < end < 1:
            score = abs(successes / n - end) / np.sqrt(end * (1 - end) / n)
            assert score == pytest.approx(1.959963984540054)
    exact = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert exact.low - 0.02 <= found.low <= found.high <= exact.high + 0.02


def test_moments_are_those_of_numpy() -> None:
    """Mean, variance and skewness from four sums are those of the observations."""
    values = np.random.default_rng(2).lognormal(-4, 1, 5_000)
    found, centred = moments_of(values.tolist()), values - values.mean()
    assert found.mean == pytest.approx(values.mean())
    assert found.variance == pytest.approx(values.var(ddof=1))
    assert found.skewness == pytest.approx((centred**3).mean() / values.std() ** 3)


def test_false_discoveries_are_controlled_by_benjamini_and_hochberg() -> None:
    """The figures of their paper (1995, section 4): of 15 p-values four are found at 0.05."""
    given = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590,
        1.0,
    ]  # fmt: skip
    assert sum(false_discovery_control(given) <= 0.05) == 4
