"""Renders the rule files: settings in, files out."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taskpilot_obs.rules import agents, budget, golden_alerts, golden_signals, llm, llm_alerts, safety, telemetry
from taskpilot_obs.rules.model import RuleFolder, alerts_text, recording_text
from taskpilot_obs.rules.settings import Settings

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


def folders(settings: Settings) -> tuple[RuleFolder, ...]:
    """All rules, by folder."""
    return tuple(
        RuleFolder(name, DASHBOARDS[name], module.groups(settings), alerting.alerts(settings))
        for name, module, alerting in (
            ("golden_signals", golden_signals, golden_alerts),
            ("agents", agents, agents),
            ("llm", llm, llm_alerts),
            ("safety", safety, safety),
            ("budget", budget, budget),
            ("telemetry", telemetry, telemetry),
        )
    )


def render(settings: Settings) -> dict[str, str]:
    """Text of every rule file, by its path below the folder of rules, such as `llm/alerts.yml`."""
    files = {}
    for folder in folders(settings):
        files[f"{folder.name}/{RECORDING_FILE}"] = recording_text(folder)
        files[f"{folder.name}/{ALERTS_FILE}"] = alerts_text(folder, settings.links, settings.evaluation_interval)
    return files


def write(settings: Settings, target: Path) -> list[Path]:
    """Write the rule files below `target`, making folders as needed; other files there are left alone.

    Raises:
        OSError: a file or folder cannot be written.
    """
    written = []
    for name, text in render(settings).items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def differing(settings: Settings, target: Path) -> list[str]:
    """Which rule files below `target` are missing or are not what these settings give."""
    return [name for name, text in render(settings).items() if _read(target / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
