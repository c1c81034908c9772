"""Quantile sketches."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs._telemetry.sketch import (
    MAX_BIN,
    RELATIVE_ACCURACY,
    bin_of,
    decode,
    encode,
    middle_of,
    quantiles,
    subtract,
)

durations = st.floats(min_value=0.001, max_value=86_400_000.0)
counted = st.dictionaries(st.integers(0, MAX_BIN), st.integers(1, 10**9), max_size=40)


@given(durations)
def test_a_bin_is_half_a_percent_wide_to_each_side(duration: float) -> None:
    """The middle of a duration's bin is within half a percent of it, from a microsecond to a day."""
    assert math.isclose(middle_of(bin_of(duration)), duration, rel_tol=RELATIVE_ACCURACY * 1.0101)


@given(counted)
def test_a_sketch_is_read_as_it_was_written(bins: dict[int, int]) -> None:
    """Bytes hold every count of every bin."""
    assert decode([encode(bins)]) == Counter(bins)


@given(counted, counted)
def test_merging_is_joining_bytes(first: dict[int, int], second: dict[int, int]) -> None:
    """Two sketches one after the other are the sketch of both."""
    assert decode([encode(first) + encode(second)]) == Counter(first) + Counter(second)


@given(counted, counted, counted)
def test_what_was_added_can_be_subtracted(first: dict[int, int], second: dict[int, int], more: dict[int, int]) -> None:
    """From a sketch that was encoded whole, and from one that others were joined to; never more than it holds."""
    whole = Counter(first) + Counter(second)
    for sketch in (encode(whole), encode(first) + encode(second)):
        left = subtract(sketch, second)
        assert left is not None
        assert decode([left]) == Counter(first)
        assert (subtract(sketch, more) is None) == bool(Counter(more) - whole)


@given(st.lists(durations, min_size=1, max_size=300), st.floats(0, 1))
def test_quantiles_are_those_of_the_sorted_values(values: list[float], fraction: float) -> None:
    """A quantile is within half a percent of the smallest value that at least q of all do not exceed."""
    exact = sorted(values)[max(0, math.ceil(round(fraction * len(values), 9)) - 1)]
    (found,) = quantiles(Counter(map(bin_of, values)), fraction)
    assert found == pytest.approx(exact, rel=RELATIVE_ACCURACY * 1.0101)


def test_nothing_has_no_quantile() -> None:
    """Without a duration there is none to tell."""
    assert quantiles({}, 0.5, 0.95) == (None, None)


def test_what_is_too_short_or_too_long_has_a_bin() -> None:
    """Zero is in the first bin, and a million years in the last."""
    assert bin_of(0.0) == 0
    assert bin_of(1e300) == MAX_BIN


def test_a_count_of_any_size_fits() -> None:
    """A bin may hold more than the sixteen digits to base four tell at once."""
    assert decode([encode({7: 4**15 * 5 + 3})])[7] == 4**15 * 5 + 3
