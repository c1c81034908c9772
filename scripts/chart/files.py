"""The files of the chart: rules as templates, the other Kubernetes objects, values with their schema."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.chart.knobs import Notes
from scripts.chart.rules import Leaf, leaves, templates
from taskpilot_obs._support.assets import SETTINGS
from taskpilot_obs._support.kubernetes import Placement, manifests
from taskpilot_obs.rules.model import HEADER
from taskpilot_obs.rules.settings import load_settings

NAME: Final = "taskpilot-obs"
SOURCE: Final = Path(__file__).parents[2] / "observability"
CHART: Final = SOURCE / "helm" / NAME
_WRITTEN: Final = (
    "# Written by `python -m scripts.chart`: change the rules or the objects, and write the chart again.\n"
)
_DURATION: Final = "^[1-9][0-9]*[smhdw]$"

_ABOUT_OBJECTS: Final = """\
# labels: what your operator selects objects by, such as release: prometheus.
# alertmanagerConfig.receivers: addresses for `on-call` and `team`, as an AlertmanagerConfig has them.
"""
_ABOUT_SETTINGS: Final = """\
# The settings of slo.yml that are figures, durations and addresses within the rules; slo.yml says what each means.
# Other settings decide which rules there are, or which windows and buckets they read, so a chart cannot change them.
# To change these, set rules.enabled to false and apply what `taskpilot-obs rules render --target kubernetes`
# writes: lists, selector, dialect, and
"""
_HELPERS = """\
{{- define "taskpilot-obs.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  app.kubernetes.io/name: taskpilot-obs
  app.kubernetes.io/component: observability
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* A threshold in USD: with cents, or with as many digits as it has. */}}
{{- define "taskpilot-obs.usd" -}}
{{- $amount := float64 . -}}
{{- if eq (round $amount 2) $amount }}{{ printf "%.2f" $amount }}{{ else }}{{ printf "%.12g" $amount }}{{ end -}}
{{- end }}
"""
_DASHBOARDS = """\
{{- if .Values.dashboards.enabled }}
{{- range $path, $_ := .Files.Glob "dashboards/*.json" }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: dashboard-{{ base $path | trimSuffix ".json" }}
  {{- include "taskpilot-obs.metadata" $ | nindent 2 }}
    {{- toYaml $.Values.dashboards.labels | nindent 4 }}
  annotations:
    {{- toYaml $.Values.dashboards.annotations | nindent 4 }}
data:
  {{ base $path }}: {{ $.Files.Get $path | toJson }}
{{- end }}
{{- end }}
"""


def write(chart: Path) -> None:
    """Write the chart to a folder; its dashboards are links to the shipped ones."""
    for name, text in texts().items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text, encoding="utf-8")
    (chart / "dashboards").mkdir(exist_ok=True)
    for dashboard in sorted((SOURCE / "grafana" / "dashboards").glob("*.json")):
        link = chart / "dashboards" / dashboard.name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(dashboard, link.parent) if chart == CHART else dashboard)


def texts() -> dict[str, str]:
    """The text of every file but the dashboards, by its path in the chart."""
    settings = load_settings(SOURCE / SETTINGS)
    rules, values = templates(settings)
    fixed = [leaf for leaf in leaves(settings) if leaf not in values]
    objects = manifests(SOURCE, Placement())
    routes = objects["alertmanagerconfig.yaml"]["spec"]
    return {
        "Chart.yaml": _yaml(
            {
                "apiVersion": "v2",
                "name": NAME,
                "description": "Rules, dashboards, routes and monitors for LLM agents observed by taskpilot-obs.",
                "type": "application",
                "version": _version(),
                "appVersion": _version(),
            }
        ),
        "values.yaml": _values_text(values, fixed, routes["receivers"]),
        "values.schema.json": json.dumps(_schema(values), indent=2) + "\n",
        "templates/_helpers.tpl": _HELPERS,
        "templates/dashboards.yaml": _DASHBOARDS,
        "templates/alertmanagerconfig.yaml": _routes(objects["alertmanagerconfig.yaml"]),
        "templates/podmonitor.yaml": _monitor(objects["podmonitor.yaml"]),
        "templates/servicemonitor.yaml": _monitor(objects["servicemonitor.yaml"]),
        **{
            f"templates/prometheusrule-{folder.replace('_', '-')}.yaml": _rules(folder, rules)
            for folder in sorted({name.partition("/")[0] for name in rules})
        },
    }


def _version() -> str:
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def _rules(folder: str, files: Mapping[str, str]) -> str:
    groups = "".join(
        files[f"{folder}/{name}.yml"].removeprefix(HEADER).removeprefix("groups:\n") for name in ("alerts", "recording")
    )
    head = _head("monitoring.coreos.com/v1", "PrometheusRule", f"taskpilot-{folder.replace('_', '-')}")
    return _if("rules", f"{head}spec:\n  groups:\n" + "".join(f"  {line}\n" for line in groups.splitlines()))


def _routes(object_: Mapping[str, Any]) -> str:
    spec = {name: value for name, value in object_["spec"].items() if name != "receivers"}
    receivers = "  receivers:\n    {{- toYaml .Values.alertmanagerConfig.receivers | nindent 4 }}\n"
    return _if("alertmanagerConfig", _body(object_, spec) + receivers)


def _monitor(object_: Mapping[str, Any]) -> str:
    text = _body(object_, object_["spec"])
    assert "interval: 15s\n" in text  # noqa: S101  the value replaces it
    return _if("monitors", text.replace("interval: 15s\n", "interval: {{ .Values.monitors.interval }}\n"))


def _body(object_: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    text = Notes().as_template(_yaml({"spec": spec}))
    return _head(object_["apiVersion"], object_["kind"], object_["metadata"]["name"]) + text


def _head(api: str, kind: str, name: str) -> str:
    metadata = f'  name: {name}\n  {{{{- include "taskpilot-obs.metadata" . | nindent 2 }}}}\n'
    return f"apiVersion: {api}\nkind: {kind}\nmetadata:\n{metadata}"


def _if(switch: str, text: str) -> str:
    return f"{_WRITTEN}{{{{- if .Values.{switch}.enabled }}}}\n{text}{{{{- end }}}}\n"


def _values_text(values: Iterable[Leaf], fixed: Iterable[Leaf], receivers: list[Any]) -> str:
    tree = {
        "labels": {},
        "rules": {"enabled": True},
        "monitors": {"enabled": True, "interval": "15s"},
        "alertmanagerConfig": {"enabled": True, "receivers": receivers},
        "dashboards": {
            "enabled": True,
            "labels": {"grafana_dashboard": "1"},
            "annotations": {"grafana_folder": "taskpilot"},
        },
    }
    others = "".join(f"#   {'.'.join(leaf.path)}\n" for leaf in fixed)
    return (
        f"{_WRITTEN}{_ABOUT_OBJECTS}{_yaml(tree)}{_ABOUT_SETTINGS}{others}"
        f"{_yaml({'settings': _nested(values, lambda leaf: leaf.value)})}"
    )


def _schema(values: Iterable[Leaf]) -> dict[str, Any]:
    """Refuses settings that are not values of the chart, and values of another type."""
    settings = _closed(_nested(values, _type))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"settings": settings},
    }


def _closed(tree: Any) -> dict[str, Any]:
    if "type" in tree and isinstance(tree["type"], str):
        return dict(tree)
    properties = {name: _closed(inner) for name, inner in tree.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _type(leaf: Leaf) -> dict[str, Any]:
    if isinstance(leaf.value, str):
        is_url = leaf.path[-1].endswith("_url")
        return {"type": "string", "pattern": "^(https?://|/).*[^/]$" if is_url else _DURATION}
    if isinstance(leaf.value, int):
        return {"type": "integer", "minimum": 1}
    percent = {"maximum": 100} if "percent" in leaf.path[-1] else {}
    return {"type": "number", "exclusiveMinimum": 0, **percent}


def _nested(values: Iterable[Leaf], of: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for leaf in values:
        branch = tree
        for name in leaf.path[:-1]:
            branch = branch.setdefault(name, {})
        branch[leaf.path[-1]] = of(leaf)
    return tree


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1_000_000))
