"""Renders the rule files: settings in, files out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from textwrap import indent
from typing import Final

from taskpilot_obs.rules.agents import rules as agents
from taskpilot_obs.rules.budget import rules as budget
from taskpilot_obs.rules.golden_signals import alerts as golden_alerts
from taskpilot_obs.rules.golden_signals import recordings as golden_signals
from taskpilot_obs.rules.llm import alerts as llm_alerts
from taskpilot_obs.rules.llm import recordings as llm
from taskpilot_obs.rules.model import HEADER, Alert, AlertKind, RuleFolder, alerts_text, recording_text
from taskpilot_obs.rules.promql import Dialect
from taskpilot_obs.rules.safety import rules as safety
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.telemetry import rules as telemetry
from taskpilot_obs.rules.wording import naming

RECORDING_FILE: Final = "recording.yml"
ALERTS_FILE: Final = "alerts.yml"

DASHBOARDS: Final[dict[str, str]] = {
    "golden_signals": "taskpilot-golden-signals",
    "agents": "taskpilot-agents",
    "llm": "taskpilot-llm",
    "safety": "taskpilot-safety",
    "budget": "taskpilot-budget",
    "telemetry": "taskpilot-telemetry",
}
"""UID of the dashboard that belongs to each folder of rules."""


def folders(settings: RuleSettings) -> tuple[RuleFolder, ...]:
    """All rules, by folder."""
    return tuple(
        RuleFolder(name, DASHBOARDS[name], module.groups(settings), _named(alerting.alerts(settings), settings))
        for name, module, alerting in (
            ("golden_signals", golden_signals, golden_alerts),
            ("agents", agents, agents),
            ("llm", llm, llm_alerts),
            ("safety", safety, safety),
            ("budget", budget, budget),
            ("telemetry", telemetry, telemetry),
        )
    )


def _named(alerts: tuple[Alert, ...], settings: RuleSettings) -> tuple[Alert, ...]:
    """The alerts with the kept labels in their texts; where only `job` is kept, as they are."""
    kept = [label for label in settings.keep_labels if label != "job"]
    return tuple(
        each
        if each.kind is AlertKind.HEARTBEAT
        else each._replace(summary=naming(each.summary, kept), description=naming(each.description, kept))
        for each in alerts
    )


class Target(StrEnum):
    """What loads the rules."""

    PROMETHEUS = "prometheus"
    """Also Thanos: files named under `rule_files`."""
    VICTORIAMETRICS = "victoriametrics"
    """vmalert: the same files in its own PromQL."""
    MIMIR = "mimir"
    """mimirtool: files with a namespace."""
    KUBERNETES = "kubernetes"
    """The Prometheus operator: PrometheusRule objects."""


def render(settings: RuleSettings, target: Target = Target.PROMETHEUS) -> dict[str, str]:
    """Text of every rule file, by its path below the folder of rules, such as `llm/alerts.yml`.

    Args:
        settings: what to render.
        target: what will load the files.
    """
    if target is Target.VICTORIAMETRICS:
        settings = settings.model_copy(update={"dialect": Dialect.VICTORIAMETRICS})
    files = {}
    for folder in folders(settings):
        files[f"{folder.name}/{RECORDING_FILE}"] = recording_text(folder)
        files[f"{folder.name}/{ALERTS_FILE}"] = alerts_text(folder, settings.links, settings.evaluation_interval)
    return {name: pack(name, text, target) for name, text in files.items()}


def pack(name: str, text: str, target: Target) -> str:
    """The text of a rule file in the form that its target loads."""
    title = f"taskpilot-{name.removesuffix('.yml').replace('/', '-').replace('_', '-')}"
    groups = text.removeprefix(HEADER)
    if target is Target.MIMIR:
        return f"{HEADER}namespace: {title}\n{groups}"
    if target is Target.KUBERNETES:
        head = f"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: {title}\nspec:\n"
        return HEADER + head + indent(groups, "  ")
    return text


def write(settings: RuleSettings, folder: Path, target: Target = Target.PROMETHEUS) -> list[Path]:
    """Write the rule files below a folder, making folders as needed; other files there are left alone.

    Args:
        settings: what to render.
        folder: where to write.
        target: what will load the files.

    Raises:
        OSError: a file or folder cannot be written.
    """
    written = []
    for name, text in render(settings, target).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def differing(settings: RuleSettings, target: Path) -> list[str]:
    """Which rule files below `target` are missing or are not what these settings give."""
    return [name for name, text in render(settings).items() if _read(target / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
