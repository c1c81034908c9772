"""The exceptions to the checks of Grafana's dashboard-linter, each with its reason, as the `.lint` file it reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import yaml

from scripts.dashboards.model import Dashboard

_FIXED_WINDOW = re.compile(r"\[(\$__range|24h)\]")
_BORN = re.compile(r"min_over_time\(")
_RULE = re.compile(r"[a-z_]+:[a-z_0-9]+:[a-z_0-9]+")
_ALERTS = re.compile(r"ALERTS\{")

_REASONS = {
    "target-rate-interval-rule": "The figure stands for the whole time range (or the last 24 hours), not for one step.",
    "target-counter-agg-rule": "A series born at 1 has increase() = 0, so what it was born with is added.",
    "target-instance-rule": "Recording rules and alerts speak for all replicas and carry no instance.",
    "target-job-rule": "An alert about an absent target has no job; the matcher admits an empty one.",
}
_CAUSES = (
    ("target-rate-interval-rule", _FIXED_WINDOW),
    ("target-counter-agg-rule", _BORN),
    ("target-instance-rule", _RULE),
    ("target-instance-rule", _ALERTS),
    ("target-job-rule", _ALERTS),
)


def lint_file(dashboards: Iterable[Dashboard]) -> str:
    """The text of `.lint` for these dashboards."""
    found = list(_exceptions(dashboards))
    exclusions = {
        rule: {
            "reason": reason,
            "entries": [{"dashboard": title, "panel": panel} for name, title, panel in found if name == rule],
        }
        for rule, reason in _REASONS.items()
        if any(name == rule for name, _, _ in found)
    }
    return yaml.safe_dump({"exclusions": exclusions}, sort_keys=False, width=120, allow_unicode=True)


def _exceptions(dashboards: Iterable[Dashboard]) -> Iterator[tuple[str, str, str]]:
    for dashboard in dashboards:
        for row in dashboard.rows:
            for panel in row.panels:
                text = " ".join(query.expr for query in panel.queries)
                rules = {rule: None for rule, cause in _CAUSES if cause.search(text)}
                yield from ((rule, dashboard.title, panel.title) for rule in rules)
