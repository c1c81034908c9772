"""Writes all that follows from the rules: thresholds in slo.yml, rule files, unit tests, docs/alerts.md, the chart."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.chart.files import CHART  # noqa: E402  the project's folder is put on the path above
from scripts.chart.files import write as write_chart  # noqa: E402  the same
from taskpilot_obs.rules.cases import scenarios_of, tests_text  # noqa: E402  the same
from taskpilot_obs.rules.folders import folders, write  # noqa: E402  the same
from taskpilot_obs.rules.listing import with_table  # noqa: E402  the same
from taskpilot_obs.rules.settings import RuleSettings  # noqa: E402  the same

RULES = ROOT / "observability" / "prometheus" / "rules"
SETTINGS = RULES.parent / "slo.yml"
PAGE = ROOT / "docs" / "alerts.md"
SECTIONS = ("evidence", "agents", "llm", "safety", "budget", "telemetry")
"""The settings whose part of slo.yml is written from the fields and their descriptions."""

COARSE = {"golden_signals", "agents", "llm"}
"""Folders with many rules or long tests, evaluated every 10 minutes instead of 5 to keep their tests short."""


def texts() -> dict[str, str]:
    """The text of each `tests.yml`, by the folder of rules."""
    found = {}
    for folder in folders(RuleSettings()):
        groups = [*(group.name for group in folder.recordings), f"taskpilot-{folder.name.replace('_', '-')}-alerts"]
        interval = "10m" if folder.name in COARSE else "5m"
        found[folder.name] = tests_text(folder.name, scenarios_of(folder.name), groups, interval)
    return found


def settings_text(text: str) -> str:
    """The text of slo.yml with every threshold, its default and its description; the rest stays as it is."""
    for name in SECTIONS:
        section = getattr(RuleSettings(), name)
        lines = [f"{name}:"]
        for field, info in type(section).model_fields.items():
            lines += textwrap.wrap(
                info.description or "", 118, initial_indent="  # ", subsequent_indent="  # ", break_on_hyphens=False
            )
            lines.append(f"  {field}: {_yaml(getattr(section, field))}")
        found = re.search(rf"(?m)^{name}:\n(?:  .*\n)+", text)
        if found is None:
            raise ValueError(f"{SETTINGS}: the section {name} is missing")
        text = text.replace(found[0], "\n".join([*lines, ""]), 1)
    return text


def _yaml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write every file."""
    SETTINGS.write_text(settings_text(SETTINGS.read_text(encoding="utf-8")), encoding="utf-8")
    write(RuleSettings(), RULES)
    for name, text in texts().items():
        (RULES / name / "tests.yml").write_text(text, encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), RuleSettings()), encoding="utf-8")
    write_chart(CHART)


if __name__ == "__main__":
    main()
