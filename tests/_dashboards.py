"""The committed dashboards as tests see them: panels, queries, and what Grafana would send to Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "observability" / "grafana" / "dashboards"
RULES = ROOT / "observability" / "prometheus" / "rules"

EVERYTHING = {
    "job": ".+",
    "instance": ".+",
    "workflow": ".+",
    "agent": ".+",
    "model": ".+",
    "provider": ".+",
    "experiment": ".+",
}
"""What Grafana puts in for a variable on "All"."""


class Target(NamedTuple):
    """One query of a dashboard and where it stands."""

    dashboard: str
    panel: str
    number: int
    expr: str
    legend: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.number}: {self.expr}"


def dashboards() -> list[dict[str, Any]]:
    """Every committed dashboard."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that shows data, those in closed rows included."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def targets() -> list[Target]:
    """Every query of every panel and every annotation."""
    found = []
    for dashboard in dashboards():
        for panel in panels(dashboard):
            for index, target in enumerate(panel["targets"]):
                legend = "" if target["legendFormat"] == "__auto" else target["legendFormat"]
                found.append(Target(dashboard["uid"], panel["title"], index, target["expr"], legend, target["instant"]))
        found += [
            Target(dashboard["uid"], mark["name"], 0, mark["expr"], "", instant=False)
            for mark in dashboard["annotations"]["list"]
        ]
    return found


def substituted(
    expr: str, *, whole_range: str = "3h", interval: str = "2m", variables: Mapping[str, str] = EVERYTHING
) -> str:
    """The expression that Grafana sends: its macros and variables replaced."""
    seconds = int(whole_range[:-1]) * {"s": 1, "m": 60, "h": 3600}[whole_range[-1]]
    expr = (
        expr.replace("$__range_s", str(seconds)).replace("$__range", whole_range).replace("$__rate_interval", interval)
    )
    return re.sub(r"\$([a-z]+)", lambda found: variables[found.group(1)], expr)


def recording_rules() -> dict[str, dict[str, Any]]:
    """Expression and labels of every shipped recording rule, by name."""
    groups = [
        group
        for path in sorted(RULES.glob("*/recording.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return {
        rule["record"]: {key: rule[key] for key in ("expr", "labels") if key in rule}
        for group in groups
        for rule in group["rules"]
    }


def nodes(node: Any) -> Iterator[Any]:
    """A parsed expression and every part of it."""
    yield node
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        part = getattr(node, name, None)
        for child in part if isinstance(part, list) else [part]:
            if isinstance(child, promql_parser.Expr | promql_parser.VectorSelector):
                yield from nodes(child)


def selectors(expr: str) -> list[promql_parser.VectorSelector]:
    """Every selector of a PromQL expression."""
    return [node for node in nodes(promql_parser.parse(expr)) if isinstance(node, promql_parser.VectorSelector)]


def ask(url: str, path: str, **parameters: str) -> Any:
    """The `data` of an answer of Prometheus' HTTP API."""
    with urlopen(f"{url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]


def back_fill(openmetrics: Path, data: Path) -> None:
    """Blocks that Prometheus can serve, from a file in the OpenMetrics format."""
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(openmetrics), str(data)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def generate(*arguments: str) -> None:
    """Run the generator of the dashboards as a developer does."""
    command = [sys.executable, "-m", "scripts.dashboards", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
