"""The kinds of panel that the dashboards use, with the house's looks: one function a kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from scripts.dashboards.model import GRID_COLUMNS, Json, Panel, Query, Step, closer
from taskpilot_obs.semconv import Label

USD = "currencyUSD"
SECONDS = "s"
PERCENT = "percent"
RATIO = "percentunit"
COUNT = "short"
PER_MINUTE = "cpm"
PLAIN = "none"

Steps = tuple[Step, ...]

LINES_HEIGHT = 9
FEW_LINES = 3
"""How many names a legend below the lines has room for."""

_LAST: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def at_least(healthy: float, warning: float) -> Steps:
    """Green from `healthy`, orange from `warning`, else red."""
    return ((None, "red"), (warning, "orange"), (healthy, "green"))


def at_most(healthy: float, warning: float) -> Steps:
    """Green below `healthy`, orange from there, red from `warning`."""
    return ((None, "green"), (healthy, "orange"), (warning, "red"))


def never() -> Steps:
    """Green at 0, red from the first event."""
    return ((None, "green"), (1, "red"))


class Looks(TypedDict, total=False):
    """How a panel of figures looks, where it is not as usual."""

    steps: Steps
    decimals: int
    width: int
    height: int
    below: str


def stat(title: str, description: str, expr: str, *, unit: str, no_value: str, **looks: Unpack[Looks]) -> Panel:
    """One figure, coloured by its thresholds; without thresholds it is neutral."""
    return stats(title, description, Query(expr, instant=True), unit=unit, no_value=no_value, **looks)


def stats(  # noqa: PLR0913 - a panel's knobs; all but four have a default
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    no_value: str,
    steps: Steps = (),
    decimals: int | None = None,
    width: int = 6,
    height: int = 4,
    below: str = "",
) -> Panel:
    """Several figures, one a query, each named by its legend."""
    return Panel(
        "stat",
        title,
        description,
        queries,
        unit,
        no_value,
        width=width,
        height=height,
        decimals=decimals,
        steps=steps,
        below=below,
        options={
            "colorMode": "background" if steps else "value",
            "graphMode": "none",
            "justifyMode": "center",
            "reduceOptions": _LAST,
            "textMode": "value_and_name" if len(queries) > 1 or queries[0].legend else "value",
        },
    )


def lines(  # noqa: PLR0913 - as above
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    no_value: str,
    steps: Steps = (),
    stacked: bool = False,
    width: int = GRID_COLUMNS // 2,
    bounds: tuple[float | None, float | None] = (0, None),
    below: str = "",
) -> Panel:
    """Lines over time; thresholds are drawn as dashed lines, `bounds` are those of the axis.

    The legend stands at the side, where it has room for a dozen names, unless there are only a few.
    """
    custom: Json = {
        "drawStyle": "line",
        "fillOpacity": 40 if stacked else 8,
        "lineWidth": 1,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    return Panel(
        "timeseries",
        title,
        description,
        queries,
        unit,
        no_value,
        width=width,
        height=LINES_HEIGHT,
        steps=steps,
        bounds=bounds,
        custom=custom,
        overrides=tuple(_meanings(queries)),
        below=below,
        options={"legend": _legend(queries), "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def _legend(queries: Sequence[Query]) -> Json:
    few = len(queries) <= FEW_LINES and not any(_PLACEHOLDER.search(query.legend) for query in queries)
    return {
        "calcs": ["lastNotNull", "max"],
        "displayMode": "table",
        "placement": "bottom" if few else "right",
        "showLegend": True,
        "sortBy": "Last *",
        "sortDesc": True,
    }


_PLACEHOLDER = re.compile(r"{{(\w+)}}")
_MEANINGS: dict[str, dict[str, str]] = {
    Label.STATUS: {
        "success": "green",
        "error": "red",
        "timeout": "orange",
        "blocked": "purple",
        "cancelled": "#8e8e8e",
        "abandoned": "#6e6e6e",
        "interrupted": "#b0b0b0",
    },
    Label.SEVERITY: {"critical": "dark-red", "high": "red", "medium": "orange", "low": "yellow"},
    Label.RESULT: {
        "passed": "green",
        "blocked": "purple",
        "would_block": "blue",
        "bypassed": "orange",
        "error": "red",
    },
    Label.ERROR_TYPE: {"rate_limit": "orange", "timeout": "yellow", "server": "red", "connection": "purple"},
}
"""Colours that mean the same on every panel."""


def _meanings(queries: tuple[Query, ...]) -> Iterator[Json]:
    """A fixed colour for each value of a label that has a meaning, where a line is named by that label alone."""
    for query in queries:
        named = _PLACEHOLDER.fullmatch(query.legend)
        for value, colour in _MEANINGS.get(named[1], {}).items() if named else ():
            fixed: Json = {"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}}
            yield {"matcher": {"id": "byName", "options": value}, "properties": [fixed]}


def bars(title: str, description: str, query: Query, *, unit: str, no_value: str, width: int = 8) -> Panel:
    """One bar for each series, the longest on top."""
    return Panel(
        "bargauge",
        title,
        description,
        (query,),
        unit,
        no_value,
        width=width,
        height=LINES_HEIGHT,
        decimals=2,
        bounds=(0, None),
        options={
            "displayMode": "basic",
            "minVizHeight": 16,
            "orientation": "horizontal",
            "reduceOptions": _LAST,
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
    )


def heatmap(title: str, description: str, expr: str, *, no_value: str, width: int = GRID_COLUMNS // 2) -> Panel:
    """How a duration is distributed over time, with exemplars that lead to traces."""
    return Panel(
        "heatmap",
        title,
        description,
        (Query(expr, "{{le}}", exemplar=True, format="heatmap"),),
        SECONDS,
        no_value,
        width=width,
        height=LINES_HEIGHT,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"exponent": 0.5, "mode": "scheme", "reverse": False, "scheme": "Oranges", "steps": 64},
            "exemplars": {"color": "rgba(64, 128, 255, 0.9)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": SECONDS},
        },
    )


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, its query, its unit and its thresholds."""

    name: str
    expr: str
    unit: str
    steps: Steps = ()
    decimals: int | None = None

    def override(self) -> Json:
        """How Grafana shows the field."""
        properties: list[Json] = [{"id": "unit", "value": self.unit}]
        if self.decimals is not None:
            properties.append({"id": "decimals", "value": self.decimals})
        if self.steps:
            steps = [{"color": colour, "value": value} for value, colour in self.steps]
            properties += [
                {"id": "mappings", "value": [_EMPTY_HAS_NO_COLOUR]},
                {"id": "thresholds", "value": {"mode": "absolute", "steps": steps}},
                {"id": "color", "value": {"mode": "thresholds"}},
                {"id": "custom.cellOptions", "value": {"type": "color-background"}},
            ]
        return {"matcher": {"id": "byName", "options": self.name}, "properties": properties}


_EMPTY_HAS_NO_COLOUR: Json = {
    "options": {"match": "null+nan", "result": {"color": "transparent", "index": 0}},
    "type": "special",
}
_EMPTY_STAYS_EMPTY: Json = {
    "matcher": {"id": "byRegexp", "options": "/.*/"},
    "properties": [{"id": "noValue", "value": ""}],
}
"""The sentence for "no data" belongs to a table without lines, not to each of its empty cells."""


def table(
    title: str,
    description: str,
    key: str,
    *columns: Column,
    no_value: str,
    width: int = 24,
    height: int = 8,
    below: str = "",
) -> Panel:
    """One line per value of the label `key`, one column per query; `below` is where a line leads to."""
    queries = tuple(Query(column.expr, instant=True, format="table") for column in columns)
    names: Json = {f"Value #{chr(ord('A') + index)}": column.name for index, column in enumerate(columns)}
    return Panel(
        "table",
        title,
        description,
        queries,
        PLAIN,
        no_value,
        width=width,
        height=height,
        custom={"align": "auto", "filterable": True},
        options={"cellHeight": "sm", "showHeader": True, "sortBy": [{"desc": True, "displayName": columns[0].name}]},
        overrides=(_EMPTY_STAYS_EMPTY, _leads(key, below), *(column.override() for column in columns)),
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": names | {key: key.capitalize()}},
            },
        ),
    )


def _leads(key: str, below: str) -> Json:
    """The first column, as a link to the dashboard below with that value chosen."""
    name = key.capitalize()
    url = f"{closer(below)}&var-{key}=${{__value.raw:percentencode}}"
    links: Json = {"id": "links", "value": [{"title": "Look closer", "url": url}] if below else []}
    return {"matcher": {"id": "byName", "options": name}, "properties": [links]}


def label_table(
    title: str, description: str, query: Query, *, hide: tuple[str, ...], first: str, no_value: str, width: int = 12
) -> Panel:
    """One line per series, sorted by the label `first`, one column per label but those to hide."""
    hidden: Json = dict.fromkeys(hide, True)
    return Panel(
        "table",
        title,
        description,
        (query,),
        PLAIN,
        no_value,
        width=width,
        height=LINES_HEIGHT,
        custom={"align": "auto", "filterable": True},
        options={"cellHeight": "sm", "showHeader": True, "sortBy": [{"desc": False, "displayName": first}]},
        overrides=(_EMPTY_STAYS_EMPTY, _SEVERITY_COLOURS, _WIDE_NAMES),
        transformations=(
            {
                "id": "organize",
                "options": {"excludeByName": hidden | {"Time": True, "Value": True}, "indexByName": {first: 0}},
            },
        ),
    )


_WIDE_NAMES: Json = {
    "matcher": {"id": "byName", "options": "alertname"},
    "properties": [{"id": "custom.width", "value": 260}],
}
_SEVERITY_COLOURS: Json = {
    "matcher": {"id": "byName", "options": "severity"},
    "properties": [
        {
            "id": "mappings",
            "value": [
                {
                    "options": {"critical": {"color": "red", "index": 0}, "warning": {"color": "orange", "index": 1}},
                    "type": "value",
                }
            ],
        },
        {"id": "custom.cellOptions", "value": {"type": "color-background"}},
        {"id": "custom.width", "value": 80},
    ],
}
