"""docs/growth.md: what the kept results say, and that no curve of them rises faster than n log n."""

from __future__ import annotations

from math import log
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.growth.curves import CURVES, Curve
from scripts.growth.drawing import picture
from scripts.growth.fit import ceiling, judge, power_law
from scripts.growth.page import CAUSES, ELSEWHERE, IMAGES, PAGE, page, pictures, reached_at
from scripts.growth.results import load

RESULTS = load()
SIZES = (10, 100, 1_000, 10_000)


def _points(curve: Curve) -> list[tuple[float, float]]:
    return [(float(size), float(value)) for size, value in RESULTS["curves"][curve.key]]


def test_the_page_is_current() -> None:
    """Page and pictures follow from the kept results; `python -m scripts.growth` would not change them."""
    assert PAGE.read_text(encoding="utf-8") == page(RESULTS), "run `python -m scripts.growth`"
    for name, text in pictures(RESULTS).items():
        assert (IMAGES / name).read_text(encoding="utf-8") == text, "run `python -m scripts.growth`"


def test_the_page_states_when_each_part_was_measured() -> None:
    """One day for all parts is stated once; a part that was measured again has its own day."""
    days = dict.fromkeys(("cost", "memory", "rules"), "2 cores, 2026-11-30")
    assert "\nMeasured on 2 cores, 2026-11-30.\n" in page({**RESULTS, "measured": days})
    days["memory"] = "8 cores, 2026-12-01"
    told = "\nMeasured on 2 cores, 2026-11-30 (cost, rules); on 8 cores, 2026-12-01 (memory).\n"
    assert told in page({**RESULTS, "measured": days})


def test_every_curve_was_measured() -> None:
    """Each curve has a point for each of its sizes, and every figure depends on every cause, or says why not."""
    assert set(RESULTS["curves"]) == {curve.key for curve in CURVES}
    for curve in CURVES:
        assert len(RESULTS["curves"][curve.key]) == len(curve.sizes), curve.key
    measured = {(curve.figure, curve.over) for curve in CURVES if curve.over in CAUSES}
    figures = {curve.figure for curve in CURVES}
    assert measured | set(ELSEWHERE) == {(figure, cause) for figure in figures for cause in CAUSES}
    assert not measured & set(ELSEWHERE)


@pytest.mark.parametrize("curve", CURVES, ids=[curve.key for curve in CURVES])
def test_no_curve_rises_faster_than_n_log_n(curve: Curve) -> None:
    """Neither the fitted exponent nor the slope at its end exceeds that of n log n, or of log n for one event."""
    verdict = judge(_points(curve), each=curve.each)
    assert verdict.fit.exponent <= verdict.allowed
    assert verdict.last <= verdict.last_allowed


def test_a_thousand_replicas_were_counted() -> None:
    """The kept counts of the rules over 1,000 targets equal the truth."""
    fleet = RESULTS["replicas"]
    assert fleet["targets"] == 1_000
    assert fleet["processes"] >= fleet["targets"]
    assert len(fleet["counts"]) >= 5
    for true, counted in fleet["counts"].values():
        assert true > 0
        assert counted == pytest.approx(true, rel=1e-9)


@given(st.floats(0.01, 1e6), st.floats(-1, 3))
def test_a_power_law_is_found(factor: float, exponent: float) -> None:
    """Points on a power law give it back, without uncertainty."""
    fit = power_law([(size, factor * size**exponent) for size in SIZES])
    assert fit.exponent == pytest.approx(exponent, abs=1e-6)
    assert fit.factor == pytest.approx(factor, rel=1e-6)
    assert fit.half < 1e-5


def test_a_quadratic_curve_is_refused_also_behind_a_constant() -> None:
    """n² is refused where it is all, and where a constant part hides it but at the end."""
    assert not judge([(size, size**2) for size in SIZES], each=False).holds
    hidden = judge([(size, 10_000 + size**2 / 100) for size in SIZES], each=False)
    assert hidden.fit.exponent <= hidden.allowed
    assert not hidden.holds


def test_n_log_n_is_allowed_and_no_more() -> None:
    """A curve of n log n holds, and a cost of one event of log n, while a linear cost of one event does not."""
    assert judge([(size, size * log(1 + size)) for size in SIZES], each=False).holds
    assert judge([(size, log(1 + size)) for size in SIZES], each=True).holds
    assert not judge([(size, float(size)) for size in SIZES], each=True).holds
    assert 1 < ceiling([(size, 1.0) for size in SIZES], each=False) < 1.3


@pytest.mark.parametrize(
    "points", [[(1, 1.0), (2, 2.0)], [(1, 1.0), (2, 0.0), (3, 1.0)], [(0, 1.0), (1, 1.0), (2, 1.0)]]
)
def test_what_cannot_be_fitted_is_refused(points: list[tuple[float, float]]) -> None:
    """Two points, a value of 0 and a size of 0 have no power law."""
    with pytest.raises(ValueError, match="three positive points"):
        power_law(points)


def test_where_a_limit_is_reached() -> None:
    """The last two points go on to the limit, unless that is far away; a flat curve never reaches it."""
    assert reached_at([(100, 1.0), (1_000, 10.0)], 100.0) == pytest.approx(10_000)
    assert reached_at([(100, 1.0), (1_000, 1.1)], 100.0) is None
    assert reached_at([(100, 1.0), (1_000, 1.0)], 100.0) is None


@given(
    st.dictionaries(st.text('ab<&"', min_size=1), st.lists(st.floats(1e-3, 1e6), min_size=4, max_size=4), min_size=1)
)
def test_a_picture_holds_every_point(curves: dict[str, list[float]]) -> None:
    """It can be parsed whatever its names are, and no point lies outside."""
    given_ = {name: list(zip(SIZES, values, strict=True)) for name, values in curves.items()}
    parsed = ET.fromstring(picture("a < b", "ms", given_))  # noqa: S314  what this project made
    circles = list(parsed.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 4 * len(curves)
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < 720
        assert 0 < float(circle.attrib["cy"]) < 400
