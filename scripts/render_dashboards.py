"""Pictures of dashboards for the documentation: their own queries, asked of a real Prometheus, drawn with matplotlib.

`PYTHONPATH=tests python -m scripts.render_dashboards` back-fills the sample data into a Prometheus on the loopback,
asks it every query of the first two dashboards and writes one PNG each. It draws what Grafana would show, in Grafana's
order, colours and words, without being Grafana: fonts and sizes differ.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from _dashboards import ROOT, ask, back_fill, dashboards, generate, substituted
from _servers import prometheus_server
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MultipleLocator

from scripts.rule_history import back_fill_rules

UIDS = ("taskpilot-golden-signals", "taskpilot-llm")
HOURS = 3
RULE_HOURS = HOURS + 7
"""The longest window on a picture is six hours."""
STEP_S = 60
TICK_S = 1800
LEGEND_LINES = 3
"""How many lines of a legend fit below each other under a panel."""
COLUMN_IN, LINE_IN = 0.68, 0.38
GRID_COLUMNS = 24
AXIS_WHOLE_FROM = 5
"""Decimals on an axis are noise from here on."""
DECIMALS_BELOW = 100
_SIZES = ((1e6, " Mil"), (1e3, " K"), (1, ""))
PAGE, PANEL, INK, FAINT = "#111217", "#181b1f", "#d8d9da", "#6e7077"
COLOURS = {"green": "#56a64b", "orange": "#ff780a", "red": "#e02f44", "blue": "#3274d9", "purple": "#a352cc"}
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d", "#fade2a", "#c4162a")
STATUS_COLOURS = {"success": "#56a64b", "error": "#e02f44", "timeout": "#ff780a", "blocked": "#b877d9"}

Mark = tuple[float, str]
Series = tuple[str, list[float], list[float]]


class Source(NamedTuple):
    """Where the figures come from, and until when."""

    url: str
    end: int

    def range(self, expr: str) -> list[dict[str, Any]]:
        """The series of a range query over the whole time range."""
        start = str(self.end - HOURS * 3600)
        query = substituted(expr, whole_range=f"{HOURS}h")
        found: list[dict[str, Any]] = ask(
            self.url, "query_range", query=query, start=start, end=str(self.end), step=str(STEP_S)
        )["result"]
        return found

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query at the end of the time range."""
        query = substituted(expr, whole_range=f"{HOURS}h")
        found: list[dict[str, Any]] = ask(self.url, "query", query=query, time=str(self.end))["result"]
        return found


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value in its unit, as Grafana would write it."""
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.{2 if decimals is None else decimals}f} s"
    if unit == "short":
        value, suffix = next((value / size, suffix) for size, suffix in _SIZES if value >= size or size == 1)
        return f"{value:.1f}{suffix}" if suffix else f"{value:.0f}"
    if decimals is None:
        decimals = 0 if value == round(value) or value >= DECIMALS_BELOW else 2
    number = f"{value:,.{decimals}f}"
    return {"currencyUSD": f"\\${number}", "percent": f"{number}%", "percentunit": f"{value * 100:,.0f}%"}.get(
        unit, number
    )


def colour_of(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    """The colour of the highest step that the value reaches."""
    name = next(step["color"] for step in reversed(steps) if step["value"] is None or value >= step["value"])
    return COLOURS.get(str(name), INK)


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    text = str(target["legendFormat"])
    if text == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__")
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def draw_stat(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    """One big figure on the colour of its threshold, or the words for "no data"."""
    defaults = panel["fieldConfig"]["defaults"]
    axes.axis("off")
    figures = [
        (_legend(target, found["metric"]), float(found["value"][1]))
        for target in panel["targets"]
        for found in source.instant(target["expr"])
    ]
    if not figures:
        axes.text(0.5, 0.4, defaults["noValue"], ha="center", va="center", color=FAINT, size=11)
        return
    coloured = panel["options"]["colorMode"] == "background"
    height = 1 / len(figures)
    for index, (name, value) in enumerate(figures):
        bottom = 1 - (index + 1) * height
        face = colour_of(value, defaults["thresholds"]["steps"]) if coloured else "none"
        axes.add_patch(FancyBboxPatch((0, bottom), 1, height * 0.97, boxstyle="square,pad=0", fc=face, ec="none"))
        text = shown(value, defaults["unit"], defaults.get("decimals"))
        ink = "white" if coloured else INK
        axes.text(0.5, bottom + 0.45 * height, text, ha="center", va="center", color=ink, size=19, weight="bold")
        if panel["options"]["textMode"] == "value_and_name":
            axes.text(0.5, bottom + 0.85 * height, name, ha="center", va="center", color=ink, size=8)
    axes.set(xlim=(0, 1), ylim=(0, 1))


def draw_lines(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    """Lines or a stack over time, the thresholds as dashed lines, the last and the largest value in the legend."""
    defaults = panel["fieldConfig"]["defaults"]
    series = [
        (_legend(target, found["metric"]), *_points(found))
        for target in panel["targets"]
        for found in source.range(target["expr"])
    ]
    if not series:
        axes.axis("off")
        axes.text(0.5, 0.5, defaults["noValue"], ha="center", va="center", color=FAINT, size=11)
        return
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    colours = [STATUS_COLOURS.get(name, PALETTE[index % len(PALETTE)]) for index, (name, _, _) in enumerate(series)]
    names = [
        f"{name}   last {shown(ys[-1], defaults['unit'])}   max {shown(max(ys), defaults['unit'])}"
        for name, _, ys in series
    ]
    if stacked:
        _stack(axes, series, colours, names)
    else:
        for (_, xs, ys), colour, name in zip(series, colours, names, strict=True):
            axes.plot(xs, ys, color=colour, linewidth=1.4, label=name)
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    _dress(axes, defaults)


def _points(found: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    pairs = [(float(at), float(value)) for at, value in found["values"]]
    kept = [(at, value) for at, value in pairs if value == value]  # noqa: PLR0124 - NaN is not equal to itself
    return [at for at, _ in kept], [value for _, value in kept]


def _stack(axes: Axes, series: Sequence[Series], colours: Sequence[str], names: Sequence[str]) -> None:
    moments = sorted({at for _, xs, _ in series for at in xs})
    known = [dict(zip(xs, ys, strict=True)) for _, xs, ys in series]
    values = [[points.get(at, 0.0) for at in moments] for points in known]
    axes.stackplot(moments, values, colors=colours, labels=names, alpha=0.75, linewidth=0)


def _dress(axes: Axes, defaults: Mapping[str, Any]) -> None:
    top = axes.get_ylim()[1]
    if defaults["custom"]["thresholdsStyle"]["mode"] == "dashed":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and step["value"] <= top:
                axes.axhline(step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=0.9)
    axes.yaxis.set_major_formatter(
        lambda value, _: shown(value, defaults["unit"], 0 if top > AXIS_WHOLE_FROM else None)
    )
    axes.xaxis.set_major_formatter(lambda at, _: f"{datetime.fromtimestamp(at, UTC):%H:%M}")
    axes.xaxis.set_major_locator(MultipleLocator(TICK_S))
    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    axes.grid(color="#2c3235", linewidth=0.5)
    axes.set_axisbelow(True)
    for edge in axes.spines.values():
        edge.set_visible(False)
    lines = len(axes.get_legend_handles_labels()[1])
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.04, -0.1),
        ncol=1 if lines <= LEGEND_LINES else 2,
        fontsize=6.2,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        columnspacing=1,
        labelspacing=0.25,
    )


def draw_pie(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    """A ring of shares, largest first."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    (target,) = panel["targets"]
    parts = sorted(
        ((float(found["value"][1]), _legend(target, found["metric"])) for found in source.instant(target["expr"])),
        reverse=True,
    )
    whole = sum(value for value, _ in parts)
    labels = [f"{name}  {shown(value, unit)}  ({value / whole:.0%})" for value, name in parts]
    wedges, *_ = axes.pie([value for value, _ in parts], colors=PALETTE, startangle=90, wedgeprops={"width": 0.42})
    axes.legend(
        wedges, labels, loc="center left", bbox_to_anchor=(1.05, 0.5), fontsize=8, frameon=False, labelcolor=INK
    )


def draw_table(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    """Rows by label, columns by query, cells in the colour of their thresholds."""
    axes.axis("off")
    results = [source.instant(target["expr"]) for target in panel["targets"]]
    if not any(results):
        axes.text(0.5, 0.5, panel["fieldConfig"]["defaults"]["noValue"], ha="center", va="center", color=FAINT, size=11)
        return
    cells = _joined(panel, results) if len(results) > 1 else _labels(panel, results[0])
    sizes = [max(len(row[column][0]) for row in cells) + 3 for column in range(len(cells[0]))]
    widths = [size / sum(sizes) for size in sizes]
    height = min(0.16, 1 / len(cells))
    for line, row in enumerate(cells):
        for column, (text, face) in enumerate(row):
            width = widths[column]
            x, y = sum(widths[:column]), 1 - (line + 1) * height
            if face:
                axes.add_patch(
                    FancyBboxPatch((x, y), width * 0.97, height * 0.9, boxstyle="square,pad=0", fc=face, ec="none")
                )
            ink = "#8ab8ff" if line == 0 else INK
            axes.text(
                x + width * 0.02,
                y + height / 2,
                text,
                va="center",
                color=ink,
                size=8,
                weight="bold" if line == 0 else "normal",
            )


Cell = tuple[str, str | None]


def _hidden(panel: Mapping[str, Any]) -> set[str]:
    organize = next(step for step in panel["transformations"] if step["id"] == "organize")
    return set(organize["options"]["excludeByName"])


def _labels(panel: Mapping[str, Any], result: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    hidden = _hidden(panel)
    first = panel["options"]["sortBy"][0]["displayName"]
    names = sorted(
        {name for found in result for name in found["metric"]} - hidden, key=lambda name: (name != first, name)
    )
    result = sorted(result, key=lambda found: str(found["metric"].get(first, "")))
    severities = {"critical": COLOURS["red"], "warning": COLOURS["orange"]}
    body = [
        [(found["metric"].get(name, ""), severities.get(found["metric"].get(name, ""))) for name in names]
        for found in result
    ]
    return [[(name, None) for name in names], *body]


def _joined(panel: Mapping[str, Any], results: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Cell]]:
    overrides = panel["fieldConfig"]["overrides"]
    keys = sorted({next(iter(found["metric"].values())) for result in results for found in result})
    header: list[Cell] = [("", None), *((override["matcher"]["options"], None) for override in overrides)]
    rows: list[list[Cell]] = [header]
    for key in keys:
        row: list[Cell] = [(key, None)]
        for override, result in zip(overrides, results, strict=True):
            found = next((one for one in result if key in one["metric"].values()), None)
            row.append(_cell(override, float(found["value"][1])) if found else ("", None))
        rows.append(row)
    return rows


def _cell(override: Mapping[str, Any], value: float) -> Cell:
    properties = {item["id"]: item["value"] for item in override["properties"]}
    face = colour_of(value, properties["thresholds"]["steps"]) if "thresholds" in properties else None
    return shown(value, properties["unit"], properties.get("decimals")), face


_DRAW: dict[str, Callable[[Axes, Mapping[str, Any], Source], None]] = {
    "stat": draw_stat,
    "timeseries": draw_lines,
    "piechart": draw_pie,
    "table": draw_table,
}


def draw(dashboard: Mapping[str, Any], source: Source) -> Figure:
    """One dashboard on one page."""
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) + 2
    figure = plt.figure(figsize=(GRID_COLUMNS * COLUMN_IN, lines * LINE_IN), facecolor=PAGE)
    marks = _marks(dashboard, source)
    title = f"{dashboard['title']}   ·   example data, last {HOURS} hours (UTC)"
    figure.text(0.008, 1 - 1.1 / lines, title, color=INK, size=14, weight="bold")
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            bottom = _box(panel["gridPos"], lines)[1]
            figure.text(0.008, bottom + 0.3 / lines, panel["title"], color=INK, size=11, weight="bold")
        else:
            _panel(figure, panel, lines, source, marks)
    return figure


def _box(place: Mapping[str, int], lines: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a place of the grid, as parts of the page."""
    left, width = place["x"] / GRID_COLUMNS, place["w"] / GRID_COLUMNS
    return left, 1 - (place["y"] + place["h"] + 2) / lines, width, place["h"] / lines


def _marks(dashboard: Mapping[str, Any], source: Source) -> list[Mark]:
    """When a version was deployed and when an alert began to fire: the first point of each series."""
    return [
        (float(found["values"][0][0]), COLOURS[mark["iconColor"]])
        for mark in dashboard["annotations"]["list"]
        if not mark["useValueForTime"]
        for found in source.range(mark["expr"])
        if found["values"][0][0] > source.end - HOURS * 3600
    ]


def _panel(figure: Figure, panel: Mapping[str, Any], lines: int, source: Source, marks: Sequence[Mark]) -> None:
    left, bottom, width, height = _box(panel["gridPos"], lines)
    back = figure.add_axes((left + 0.002, bottom + 0.12 / lines, width - 0.004, height - 0.24 / lines), facecolor=PANEL)
    back.set(xticks=[], yticks=[])
    for edge in back.spines.values():
        edge.set_color("#2c3235")
    figure.text(left + 0.008, bottom + height - 0.78 / lines, panel["title"], color=INK, size=8.5, weight="bold")
    if panel["type"] == "stat":
        inner = (left + 0.006, bottom + 0.3 / lines, width - 0.012, height - 1.3 / lines)
    elif panel["type"] == "timeseries":
        inner = (left + 0.034, bottom + 2.6 / lines, width - 0.046, height - 3.7 / lines)
    else:
        inner = (left + 0.01, bottom + 0.4 / lines, width - 0.02, height - 1.6 / lines)
    axes = figure.add_axes(inner, facecolor="none")
    _DRAW[panel["type"]](axes, panel, source)
    if panel["type"] == "timeseries":
        for at, colour in marks:
            axes.axvline(at, color=colour, linewidth=1, alpha=0.8)


def main() -> None:
    """Render the pictures into a folder."""
    parser = argparse.ArgumentParser(prog="python -m scripts.render_dashboards", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    end = int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        sample, data = Path(folder, "sample.om"), Path(folder, "data")
        generate("sample", str(sample), "--end", str(end), "--hours", str(HOURS + 24))
        back_fill(sample, data)
        back_fill_rules(Path(folder), UIDS, end=end, hours=RULE_HOURS)
        with prometheus_server(data_dir=data) as url:
            for dashboard in dashboards():
                if dashboard["uid"] in UIDS:
                    figure = draw(dashboard, Source(url, end))
                    figure.savefig(out / f"{dashboard['uid']}.png", dpi=90)


if __name__ == "__main__":
    main()
