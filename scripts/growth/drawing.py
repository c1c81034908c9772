"""Curves as a standalone SVG picture: both axes logarithmic, a line a curve, in the colours of our charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

from scripts.growth.fit import Point, power_law
from taskpilot_obs._support.charts import COLOURS, STYLE

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 20, 50
_RADIUS: Final = 4
_LINE: Final = 18
_STYLE: Final = (
    STYLE.partition(".chart")[0]
    + "text { font: 12px system-ui, sans-serif; fill: #333 } "
    + "path { fill: none; stroke-width: 2 } .grid { stroke: var(--grid) } "
    + "".join(f".s{n} {{ stroke: var(--c{n}) }} " for n in range(COLOURS))
    + "@media (prefers-color-scheme: dark) { text { fill: #ddd } }"
)


class Axes(NamedTuple):
    """Powers of ten at the ends of both axes."""

    left: int
    right: int
    low: int
    high: int

    def place(self, point: Point) -> Point:
        """Where a point lies in the picture."""
        size, value = point
        across = (log10(size) - self.left) / (self.right - self.left)
        up = (log10(value) - self.low) / (self.high - self.low)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)


def picture(title: str, unit: str, curves: Mapping[str, Sequence[Point]]) -> str:
    """Draw curves, their fits as thin lines beneath.

    Args:
        title: what it shows, for readers who hear it.
        unit: of the values.
        curves: sizes and values by name.
    """
    axes = _axes([point for points in curves.values() for point in points])
    parts = [*_grid(axes), *(line for n, item in enumerate(curves.items()) for line in _curve(axes, n, *item))]
    label = (
        f'<text x="{_LEFT - 60}" y="12">{escape(unit)}</text><text x="{WIDTH - _RIGHT + 8}" y="{HEIGHT - 32}">n</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{label}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _axes(points: Sequence[Point]) -> Axes:
    sizes, values = zip(*points, strict=True)
    left, low = floor(log10(min(sizes))), floor(log10(min(values)))
    return Axes(left, max(left + 1, ceil(log10(max(sizes)))), low, max(low + 1, ceil(log10(max(values)))))


def _grid(axes: Axes) -> Iterator[str]:
    for power in range(axes.left, axes.right + 1):
        x, low = axes.place((10.0**power, 10.0**axes.low))
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{low:.1f}"/>'
        yield f'<text x="{x:.1f}" y="{low + _LINE:.1f}" text-anchor="middle">{10.0**power:,.0f}</text>'
    for power in range(axes.low, axes.high + 1):
        x, y = axes.place((10.0**axes.left, 10.0**power))
        yield f'<line class="grid" x1="{x:.1f}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>'


def _curve(axes: Axes, number: int, name: str, points: Sequence[Point]) -> Iterator[str]:
    colour = number % COLOURS
    places = [axes.place(point) for point in points]
    path = " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<path class="s{colour}" d="M{path}"/>'
    fit = power_law(points)
    ends = [axes.place((size, fit.at(size))) for size in (points[0][0], points[-1][0])]
    dashed = " L".join(f"{x:.1f},{y:.1f}" for x, y in ends)
    yield f'<path class="s{colour}" style="stroke-width:1;stroke-dasharray:3 3" d="M{dashed}"/>'
    for (x, y), (size, value) in zip(places, points, strict=True):
        shown = f"{name}: {value:,.3g} at {size:,.0f}"
        circle = f'<circle class="c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}">'
        yield f"{circle}<title>{escape(shown)}</title></circle>"
    y = _TOP + _LINE * number
    yield f'<rect class="c{colour}" x="{WIDTH - _RIGHT + 14}" y="{y}" width="10" height="10"/>'
    yield f'<text x="{WIDTH - _RIGHT + 30}" y="{y + 10}">{escape(name)} (n^{fit.exponent:.2f})</text>'
