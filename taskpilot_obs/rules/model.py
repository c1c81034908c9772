"""What a rule file is made of, as frozen values, and its YAML text.

The text is written here and not by a YAML library, so that the same rules give the same bytes everywhere: strings are
JSON strings (which YAML reads as they stand), expressions are literal blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

NONE: Final = "none"
WARNING: Final = "warning"
CRITICAL: Final = "critical"


class AlertKind(StrEnum):
    """What an alert looks at; it decides which cases its unit tests must have."""

    RATIO = "ratio"
    LATENCY = "latency"
    SPEND = "spend"
    EVENT = "event"
    ABSENCE = "absence"
    TELEMETRY = "telemetry"
    META = "meta"
    HEARTBEAT = "heartbeat"


class Recording(NamedTuple):
    """One recording rule, named `level:metric:operations`."""

    record: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


class Alert(NamedTuple):
    """One alert."""

    name: str
    kind: AlertKind
    severity: str
    signal: str
    """The name of its `AlertSignal`."""
    expr: str
    summary: str
    """One line, read at night."""
    description: str
    wait: str = ""
    """How long the condition must last, as a Prometheus duration (`for`)."""


class AlertSignal(NamedTuple):
    """What the alerts of one condition look at; its critical alert silences its warning."""

    name: str
    kind: AlertKind

    def warning(self, name: str, expr: str, summary: str, description: str, wait: str = "") -> Alert:
        """An alert for working hours; the arguments are fields of `Alert`."""
        return Alert(name, self.kind, WARNING, self.name, expr, summary, description, wait)

    def critical(self, name: str, expr: str, summary: str, description: str, wait: str = "") -> Alert:
        """An alert that pages; the arguments are fields of `Alert`."""
        return Alert(name, self.kind, CRITICAL, self.name, expr, summary, description, wait)


class RuleGroup(NamedTuple):
    """Rules that Prometheus evaluates one after the other."""

    name: str
    interval: str
    rules: tuple[Recording | Alert, ...]


class RuleFolder(NamedTuple):
    """One folder below `rules/`: its recording rules and its alerts."""

    name: str
    dashboard: str
    """UID of the dashboard that its alerts link to."""
    recordings: tuple[RuleGroup, ...]
    alerts: tuple[Alert, ...]


class AlertLinks(NamedTuple):
    """Where the links of an alert point; both without a trailing slash."""

    runbooks: str
    dashboards: str


def recording_text(folder: RuleFolder) -> str:
    """The text of `recording.yml`."""
    return _file_text(_group_text(group, []) for group in folder.recordings)


def alerts_text(folder: RuleFolder, links: AlertLinks, interval: str) -> str:
    """The text of `alerts.yml`."""
    group = RuleGroup(f"taskpilot-{folder.name.replace('_', '-')}-alerts", interval, folder.alerts)
    return _file_text([_group_text(group, _links(folder, links))])


def _links(folder: RuleFolder, links: AlertLinks) -> list[tuple[str, str]]:
    return [
        ("runbook_url", f"{links.runbooks}/{folder.name}/runbook.md"),
        ("dashboard_url", f"{links.dashboards}/{folder.dashboard}?var-job={{{{ $labels.job | urlquery }}}}"),
    ]


HEADER: Final = (
    "# Written by `taskpilot-obs rules render`. Change the settings file and render again instead of editing this.\n"
)


def _file_text(groups: Iterable[str]) -> str:
    return HEADER + "groups:\n" + "".join(groups)


def _group_text(group: RuleGroup, links: Sequence[tuple[str, str]]) -> str:
    head = f"  - name: {group.name}\n    interval: {group.interval}\n    rules:\n"
    return head + "".join(
        _recording_rule(rule) if isinstance(rule, Recording) else _alert_rule(rule, links) for rule in group.rules
    )


def _recording_rule(rule: Recording) -> str:
    return f"      - record: {rule.record}\n" + _block("expr", rule.expr) + _mapping("labels", rule.labels)


def _alert_rule(rule: Alert, links: Sequence[tuple[str, str]]) -> str:
    urls = [(key, f"{url}#{rule.name.lower()}" if key == "runbook_url" else url) for key, url in links]
    return (
        f"      - alert: {rule.name}\n"
        + _block("expr", rule.expr)
        + (f"        for: {rule.wait}\n" if rule.wait else "")
        + _mapping("labels", [("severity", rule.severity), ("signal", rule.signal)])
        + _mapping("annotations", [("summary", rule.summary), ("description", rule.description), *urls])
    )


def _block(key: str, text: str) -> str:
    lines = "".join(f"          {line}\n" for line in text.splitlines())
    return f"        {key}: |-\n{lines}"


def _mapping(key: str, pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    lines = "".join(f"          {name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in pairs)
    return f"        {key}:\n{lines}"
