"""Charts: every value is on them, no name becomes markup, and axes hold what they show."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import COLOURS, HEIGHT, WIDTH, Chart, Series, axis_end, bars, blocks, largest, strip

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)
VALUES = st.none() | st.just(0.0) | st.floats(1e-12, 1e12)


@given(st.floats(1e-12, 1e15))
def test_an_axis_ends_above_its_values_and_not_far(highest: float) -> None:
    """At 1, 2, 2.5 or 5 times a power of ten: at most 2.5 times as high as needed."""
    end = axis_end(highest)
    assert highest * (1 - 1e-9) <= end <= highest * 2.5001


@given(
    st.integers(1, 12).flatmap(
        lambda length: st.lists(
            st.tuples(NAMES, st.lists(VALUES, min_size=length, max_size=length)), min_size=1, max_size=5
        )
    )
)
def test_a_chart_is_markup_whatever_its_names_are(given: list[tuple[str, list[float | None]]]) -> None:
    """It can be parsed, every positive value has its bar with a tooltip, and no bar leaves the picture."""
    length = len(given[0][1])
    chart = Chart(given[0][0], [str(n) for n in range(length)], [Series(*one) for one in given], figures.count)
    parsed = ET.fromstring(bars(chart))  # noqa: S314  what this library made
    rects = list(parsed.iter("rect"))
    assert len(rects) == sum(bool(value) for _, values in given for value in values)
    for rect in rects:
        assert rect.find("title") is not None
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= WIDTH + 1
        assert float(rect.attrib["y"]) >= -1
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= HEIGHT + 1


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=1, max_size=20))
def test_the_rest_is_added_up_as_others(given: list[list[float]]) -> None:
    """Never more series than colours, and the sums stay."""
    found = largest([Series(str(number), values) for number, values in enumerate(given)])
    assert len(found) <= COLOURS
    for place in range(3):
        total = sum(values[place] for values in given)
        assert sum(one.values[place] or 0 for one in found) == pytest.approx(total)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.5, 0.5), (0.9, 2.0), (-1.0, 0.2), (1.0, 1.0)])
def test_a_strip_stays_in_its_row(start: float, end: float) -> None:
    """Whatever its ends are; one that took no time is seen."""
    rect = ET.fromstring(strip(start, end, 0, "a < b")).find("rect")  # noqa: S314  likewise
    assert rect is not None
    assert 2 <= float(rect.attrib["width"]) <= WIDTH
    assert 0 <= float(rect.attrib["x"]) <= WIDTH - 2


def test_blocks_are_for_places_without_images() -> None:
    """One block for each value, the highest for the largest; unknown and zero are empty."""
    assert blocks([0, 1, None, 4]) == " ▂ █"
    assert blocks([]) == ""
