"""Charts as inline SVG, rendered on the server: they need no script, no font and no third-party style sheet.

A chart is an image with a label (`role="img"`), and every bar has its value as a tooltip. Axis labels are HTML beside
the image, so that they stay readable where a narrow screen squeezes it. Pages that show a chart include its
figures as a table and `STYLE` in a style sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import accumulate
from math import ceil, floor, log10
from typing import Final, NamedTuple

WIDTH, HEIGHT = 720, 160
COLOURS: Final = 8
"""Number of colours; the last one is shared by all further series."""
_LEAST: Final = 1e-12
"""Values below the smallest amount of money are drawn as nothing."""
_NICE: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_GAP: Final = 0.12
"""Share of a bar's room that stays empty."""

STYLE: Final = """
:root { --c0: #2563a8; --c1: #c2570c; --c2: #2f855a; --c3: #8b3fb0; --c4: #b7791f; --c5: #0f7f8c; --c6: #b83280;
  --c7: #6b7280; --grid: #d5d9de; }
@media (prefers-color-scheme: dark) { :root { --c0: #6aa9e9; --c1: #f39a5c; --c2: #68c995; --c3: #c792ea; --c4: #e5b95c;
  --c5: #57c4d0; --c6: #ef86bf; --c7: #9aa3af; --grid: #3a424d; } }
.c0 { fill: var(--c0); background: var(--c0) } .c1 { fill: var(--c1); background: var(--c1) }
.c2 { fill: var(--c2); background: var(--c2) } .c3 { fill: var(--c3); background: var(--c3) }
.c4 { fill: var(--c4); background: var(--c4) } .c5 { fill: var(--c5); background: var(--c5) }
.c6 { fill: var(--c6); background: var(--c6) } .c7 { fill: var(--c7); background: var(--c7) }
.chart { margin: 0 0 1.25rem; min-width: 0 }
.chart figcaption { font-weight: 600; margin-bottom: .4rem }
.plot { display: grid; grid-template-columns: auto 1fr; column-gap: .5rem; font-size: .8rem }
.plot svg { width: 100%; height: 10rem; display: block; border-bottom: 1px solid var(--grid) }
.plot .y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; height: 10rem;
  line-height: 1 }
.plot .x { grid-column: 2; display: flex; justify-content: space-between; gap: .5rem; margin-top: .3rem }
.grid { stroke: var(--grid); stroke-width: 1; vector-effect: non-scaling-stroke }
.strip { display: block; width: 100%; min-width: 6rem; height: .9rem }
.whisker { stroke: currentColor; stroke-width: 2; vector-effect: non-scaling-stroke }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .5rem 0 0; padding: 0;
  font-size: .85rem }
.legend li { overflow-wrap: anywhere }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em }
"""


class Series(NamedTuple):
    """One value for each stretch of time; None is unknown and leaves a gap."""

    name: str
    values: Sequence[float | None]


class Chart(NamedTuple):
    """Bars over time, the series on top of each other."""

    title: str
    labels: Sequence[str]
    """One per stretch of time, oldest first."""
    series: Sequence[Series]
    shown: Callable[[float], str]
    """Formats a value, with its unit."""
    moments: Sequence[datetime] = ()
    """When each stretch of time begins, for readers who see it in their own zone."""


def bars(chart: Chart) -> str:
    """The chart as an HTML `figure`."""
    top = axis_end(max(_heights(chart), default=0.0))
    body = _grid() + "".join(_columns(chart, top))
    label = escape(f"{chart.title}: {_summary(chart)}")
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption><div class="plot">'
        f'<div class="y" aria-hidden="true">{_spans(map(chart.shown, (top, top / 2, 0.0)))}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}">{body}</svg>'
        f'<div class="x" aria-hidden="true">{"".join(_axis(chart))}</div></div>{_legend(chart.series)}</figure>'
    )


class Bar(NamedTuple):
    """One name and its value; `low` and `high` are the ends of its interval."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


def row_bar(bar: Bar, top: float, shown: Callable[[float], str], colour: int = 0) -> str:
    """One bar that lies, for a cell of a table; `top` is the end of the axis that all rows share."""
    value = bar.value or 0.0
    title = escape(f"{bar.name}: {shown(value)}")
    width = WIDTH * min(1.0, max(0.0, value / top)) if top > 0 else 0.0
    body = f'<rect class="c{colour}" x="0" y="1" width="{width:.1f}" height="10"><title>{title}</title></rect>'
    if bar.low is not None and bar.high is not None and top > 0:
        low, high = (WIDTH * min(1.0, max(0.0, end / top)) for end in (bar.low, bar.high))
        body += f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="6" y2="6"/>'
    return f'<svg class="strip" viewBox="0 0 {WIDTH} 12" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'


def difference_bar(value: float | None, low: float | None, high: float | None, reach: float, title: str) -> str:
    """A difference with its interval around 0, for a cell of a table.

    Args:
        value: the difference; None draws the middle alone.
        low: the low end of its interval; None where there is no interval.
        high: its high end.
        reach: the value at the right end of the axis, which reaches as far to the left.
        title: shown on hover.
    """
    body = f'<line class="grid" x1="{WIDTH / 2:g}" x2="{WIDTH / 2:g}" y1="0" y2="12"/>'
    if value is not None:
        left, right = sorted((WIDTH / 2, _place(value, reach)))
        shown = f'<rect class="c0" x="{left:.1f}" y="3" width="{max(right - left, 2.0):.1f}" height="6">'
        body += f"{shown}<title>{escape(title)}</title></rect>"
    if low is not None and high is not None:
        body += f'<line class="whisker" x1="{_place(low, reach):.1f}" x2="{_place(high, reach):.1f}" y1="6" y2="6"/>'
    return f'<svg class="strip" viewBox="0 0 {WIDTH} 12" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'


def _place(value: float, reach: float) -> float:
    return WIDTH * (0.5 + 0.5 * min(1.0, max(-1.0, value / reach)))


def strip(start: float, end: float, colour: int, title: str) -> str:
    """A bar of a waterfall: from `start` to `end`, as shares of the whole."""
    left = WIDTH * min(max(start, 0.0), 1.0)
    width = max(WIDTH * (min(max(end, 0.0), 1.0)) - left, 2.0)
    left = min(left, WIDTH - width)
    return (
        f'<svg class="strip" viewBox="0 0 {WIDTH} 12" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}"><rect class="c{colour}" x="{left:.1f}" y="1" width="{width:.1f}" height="10">'
        f"<title>{escape(title)}</title></rect></svg>"
    )


def axis_end(highest: float) -> float:
    """The end of an axis that holds this value: 1, 2, 2.5 or 5 times a power of ten."""
    if highest < _LEAST:
        return 1.0
    power = 10.0 ** floor(log10(highest))
    return next(step * power for step in _NICE if step * power >= highest * (1 - 1e-9))


def _heights(chart: Chart) -> list[float]:
    return [sum(series.values[place] or 0.0 for series in chart.series) for place in range(len(chart.labels))]


def _summary(chart: Chart) -> str:
    heights = _heights(chart)
    if not any(heights):
        return "nothing in this time"
    highest = max(heights)
    when = chart.labels[heights.index(highest)]
    return f"{len(heights)} bars, at most {chart.shown(highest)} at {when}, last {chart.shown(heights[-1])}"


def _grid() -> str:
    lines = (round(HEIGHT * part) for part in (0.0, 0.25, 0.5, 0.75))
    return "".join(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in lines)


def _columns(chart: Chart, top: float) -> list[str]:
    room = WIDTH / max(1, len(chart.labels))
    found = []
    for place, label in enumerate(chart.labels):
        values = [max(0.0, series.values[place] or 0.0) for series in chart.series]
        for number, (value, upper) in enumerate(zip(values, accumulate(values), strict=True)):
            if not value:
                continue
            height = HEIGHT * value / top
            name = f"{chart.series[number].name}, " if len(chart.series) > 1 else ""
            at = f' data-at="{chart.moments[place].isoformat()}"' if chart.moments else ""
            found.append(
                f'<rect{at} class="c{min(number, COLOURS - 1)}" x="{room * (place + _GAP / 2):.1f}" '
                f'y="{HEIGHT * (1 - upper / top):.1f}" width="{room * (1 - _GAP):.1f}" height="{height:.1f}">'
                f"<title>{escape(f'{name}{label}: {chart.shown(value)}')}</title></rect>"
            )
    return found


def _axis(chart: Chart) -> Iterator[str]:
    """The first, the middle and the last label."""
    for place in sorted({0, len(chart.labels) // 2, len(chart.labels) - 1}) if chart.labels else ():
        label = escape(chart.labels[place])
        if chart.moments:
            yield f'<time datetime="{chart.moments[place].isoformat()}">{label}</time>'
        else:
            yield f"<span>{label}</span>"


def _spans(texts: Sequence[str] | map[str]) -> str:
    return "".join(f"<span>{escape(text)}</span>" for text in texts)


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:  # noqa: PLR2004  one series is named by the title
        return ""
    items = (
        f'<li><span class="swatch c{min(number, COLOURS - 1)}"></span>{escape(one.name)}</li>'
        for number, one in enumerate(series)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def largest(series: Sequence[Series], others: str = "others") -> tuple[Series, ...]:
    """The largest series by their sum, as many as have a colour; what is left is added up as `others`."""
    ranked = sorted(series, key=lambda one: -sum(value or 0.0 for value in one.values))
    if len(ranked) <= COLOURS:
        return tuple(ranked)
    kept, left = ranked[: COLOURS - 1], ranked[COLOURS - 1 :]
    sums = [sum(value or 0.0 for value in values) for values in zip(*(one.values for one in left), strict=True)]
    return (*kept, Series(others, sums))


def blocks(values: Sequence[float | None]) -> str:
    """The values as a line of text, for places without images."""
    steps = " ▁▂▃▄▅▆▇█"
    highest = max((value or 0.0 for value in values), default=0.0) or 1.0
    return "".join(steps[ceil((value or 0.0) / highest * (len(steps) - 1) - 0.5)] for value in values)
