"""The kinds of panel that the dashboards use, with the house's looks: one function a kind."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.dashboards.model import Json, Panel, Query, Step

USD = "currencyUSD"
SECONDS = "s"
PERCENT = "percent"
RATIO = "percentunit"
COUNT = "short"
PER_MINUTE = "cpm"
PLAIN = "none"

Steps = tuple[Step, ...]

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


def stat(  # noqa: PLR0913 - a panel's knobs; all but four have a default
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    no_value: str,
    steps: Steps = (),
    decimals: int | None = None,
    width: int = 6,
    height: int = 4,
) -> Panel:
    """One figure, coloured by its thresholds."""
    return stats(
        title,
        description,
        Query(expr, instant=True),
        unit=unit,
        no_value=no_value,
        steps=steps,
        decimals=decimals,
        width=width,
        height=height,
    )


def stats(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    no_value: str,
    steps: Steps = (),
    decimals: int | None = None,
    width: int = 6,
    height: int = 4,
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
        options={
            "colorMode": "background" if steps else "value",
            "graphMode": "none",
            "justifyMode": "center",
            "reduceOptions": _LAST,
            "textMode": "value_and_name" if len(queries) > 1 else "value",
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
    width: int = 8,
    height: int = 8,
    bounds: tuple[float | None, float | None] = (0, None),
) -> Panel:
    """Lines over time; thresholds are drawn as dashed lines, `bounds` are those of the axis."""
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
        height=height,
        steps=steps,
        bounds=bounds,
        custom=custom,
        options={
            "legend": {
                "calcs": ["lastNotNull", "max"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def pie(title: str, description: str, query: Query, *, unit: str, no_value: str, width: int = 8) -> Panel:
    """Shares of a whole over the time range."""
    return Panel(
        "piechart",
        title,
        description,
        (query,),
        unit,
        no_value,
        width=width,
        options={
            "displayLabels": ["name", "percent"],
            "legend": {
                "displayMode": "table",
                "placement": "right",
                "showLegend": True,
                "values": ["value", "percent"],
            },
            "pieType": "donut",
            "reduceOptions": _LAST,
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def heatmap(title: str, description: str, expr: str, *, no_value: str, width: int = 8) -> Panel:
    """How a duration is distributed over time, with exemplars that lead to traces."""
    return Panel(
        "heatmap",
        title,
        description,
        (Query(expr, "{{le}}", exemplar=True, format="heatmap"),),
        SECONDS,
        no_value,
        width=width,
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
                {"id": "thresholds", "value": {"mode": "absolute", "steps": steps}},
                {"id": "color", "value": {"mode": "thresholds"}},
                {"id": "custom.cellOptions", "value": {"type": "color-background"}},
            ]
        return {"matcher": {"id": "byName", "options": self.name}, "properties": properties}


def table(
    title: str, description: str, key: str, *columns: Column, no_value: str, width: int = 24, height: int = 8
) -> Panel:
    """One line per value of the label `key`, one column per query."""
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
        overrides=tuple(column.override() for column in columns),
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": names | {key: key.capitalize()}},
            },
        ),
    )


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
        custom={"align": "auto", "filterable": True},
        options={"cellHeight": "sm", "showHeader": True, "sortBy": [{"desc": False, "displayName": first}]},
        overrides=(_SEVERITY_COLOURS,),
        transformations=(
            {
                "id": "organize",
                "options": {"excludeByName": hidden | {"Time": True, "Value": True}, "indexByName": {first: 0}},
            },
        ),
    )


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
    ],
}
