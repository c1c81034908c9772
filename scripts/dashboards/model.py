"""What a dashboard is made of, as frozen values, and how it becomes the JSON that Grafana loads.

The shape is Grafana's classic dashboard model (schema version 42). Panels flow from left to right on the 24 columns;
positions are never computed by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Json = dict[str, object]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GRID_COLUMNS = 24
SCHEMA_VERSION = 42
TAG = "taskpilot"

Step = tuple[float | None, str]

NEUTRAL = "#5a6068"
"""Grey: no data is neither good nor bad."""
_NO_DATA_IS_NEUTRAL: Json = {
    "options": {"match": "null+nan", "result": {"color": NEUTRAL, "index": 0}},
    "type": "special",
}
"""Without this, a missing value has the base colour of the thresholds: green or red."""


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel."""

    expr: str
    legend: str = ""
    instant: bool = False
    exemplar: bool = False
    format: str = "time_series"

    def to_json(self, ref: str) -> Json:
        """As Grafana's target."""
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "exemplar": self.exemplar,
            "expr": self.expr,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "refId": ref,
        }


@dataclass(frozen=True)
class Panel:
    """One panel; `kind` is Grafana's panel type."""

    kind: str
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    no_value: str
    width: int = 8
    height: int = 8
    decimals: int | None = None
    steps: tuple[Step, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    custom: Mapping[str, object] = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    below: str = ""
    """UID of the dashboard that shows more of this."""

    def to_json(self, panel_id: int, position: Json) -> Json:
        """As Grafana's panel, at a position of the grid."""
        panel: Json = {
            "datasource": DATASOURCE,
            "description": self.description,
            "fieldConfig": {"defaults": self._defaults(), "overrides": list(self.overrides)},
            "gridPos": position,
            "id": panel_id,
            "options": dict(self.options),
            "targets": [query.to_json(chr(ord("A") + index)) for index, query in enumerate(self.queries)],
            "title": self.title,
            "type": self.kind,
        }
        if self.below:
            panel["links"] = [{"title": "Look closer", "url": closer(self.below)}]
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        return panel

    def _defaults(self) -> Json:
        steps: Sequence[Step] = self.steps or ((None, "text"),)
        defaults: Json = {
            "color": self._colour(),
            "custom": dict(self.custom),
            "mappings": [_NO_DATA_IS_NEUTRAL],
            "noValue": self.no_value,
            "thresholds": {
                "mode": "absolute",
                "steps": [{"color": colour, "value": value} for value, colour in steps],
            },
            "unit": self.unit,
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        return defaults | {
            name: value for name, value in zip(("min", "max"), self.bounds, strict=True) if value is not None
        }

    def _colour(self) -> Json:
        if self.kind not in _FIGURES:
            return {"mode": "palette-classic"}
        return {"mode": "thresholds"} if self.steps else {"fixedColor": "text", "mode": "fixed"}


_FIGURES = ("stat", "table")


def closer(uid: str, *variables: str) -> str:
    """The address of another dashboard with the time range, the data source and the variables of this one."""
    kept = [f"${{{name}:queryparam}}" for name in ("datasource", "job", "instance", *variables)]
    return "&".join((f"/d/{uid}?${{__url_time_range}}", *kept))


@dataclass(frozen=True)
class Row:
    """Panels under a heading. `repeat` names the variable for each of whose values the row is shown again."""

    title: str
    panels: tuple[Panel, ...]
    repeat: str = ""
    collapsed: bool = False


@dataclass(frozen=True)
class Variable:
    """A filter at the top of a dashboard, filled from the values of a label."""

    name: str
    title: str
    query: str
    has_all: bool = True
    """Whether it begins with "All"; otherwise with its first value."""

    def to_json(self) -> Json:
        """As Grafana's query variable."""
        return {
            "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if self.has_all else {},
            "datasource": DATASOURCE,
            "definition": self.query,
            "includeAll": self.has_all,
            "label": self.title,
            "multi": True,
            "name": self.name,
            "query": {"query": self.query, "refId": "variable"},
            "refresh": 2,
            "sort": 1,
            "type": "query",
        }


DATASOURCE_VARIABLE: Json = {
    "current": {},
    "label": "Data source",
    "name": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "type": "datasource",
}


@dataclass(frozen=True)
class Annotation:
    """Marks on the time axis, one for each point of a query."""

    name: str
    expr: str
    colour: str
    title: str
    text: str
    value_is_time: bool = False

    def to_json(self) -> Json:
        """As Grafana's annotation query."""
        return {
            "datasource": DATASOURCE,
            "enable": True,
            "expr": self.expr,
            "hide": False,
            "iconColor": self.colour,
            "name": self.name,
            "step": "60s",
            "textFormat": self.text,
            "titleFormat": self.title,
            "useValueForTime": self.value_is_time,
        }


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; its file is named after the uid."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    annotations: tuple[Annotation, ...]

    def to_json(self) -> Json:
        """As the file that Grafana provisions."""
        return {
            "annotations": {"list": [annotation.to_json() for annotation in self.annotations]},
            "description": self.description,
            "editable": False,
            "graphTooltip": 1,
            "id": None,
            "links": [_LINKS],
            "panels": list(_placed(self.rows)),
            "refresh": "1m",
            "schemaVersion": SCHEMA_VERSION,
            "tags": [TAG],
            "templating": {"list": [DATASOURCE_VARIABLE, *(variable.to_json() for variable in self.variables)]},
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
        }


_LINKS: Json = {
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "tags": [TAG],
    "targetBlank": False,
    "title": "taskpilot",
    "type": "dashboards",
}


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    top, next_id = 0, 1
    for row in rows:
        heading: Json = {
            "collapsed": row.collapsed,
            "gridPos": {"h": 1, "w": GRID_COLUMNS, "x": 0, "y": top},
            "id": next_id,
            "panels": [],
            "title": row.title,
            "type": "row",
        }
        if row.repeat:
            heading["repeat"] = row.repeat
            heading["datasource"] = DATASOURCE
        panels, bottom = _flowed(row.panels, top + 1, next_id + 1)
        next_id += 1 + len(panels)
        if row.collapsed:
            yield heading | {"panels": panels}
            top += 1
        else:
            yield heading
            yield from panels
            top = bottom


def _flowed(panels: Sequence[Panel], top: int, first_id: int) -> tuple[list[Json], int]:
    """Panels side by side until a line of the grid is full, then the next line below the tallest.

    The last panel of a line takes the width that is left.
    """
    placed: list[Json] = []
    left, line_height = 0, 0
    for offset, panel in enumerate(panels):
        following = panels[offset + 1].width if offset + 1 < len(panels) else GRID_COLUMNS
        ends_the_line = left + panel.width + following > GRID_COLUMNS
        width = GRID_COLUMNS - left if ends_the_line else panel.width
        position: Json = {"h": panel.height, "w": width, "x": left, "y": top}
        placed.append(panel.to_json(first_id + offset, position))
        left, line_height = left + width, max(line_height, panel.height)
        if ends_the_line:
            top, left, line_height = top + line_height, 0, 0
    return placed, top
