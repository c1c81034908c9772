"""Writes `tests.yml` beside the rules, from the cases in `tests/_rule_cases_*.py`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from _rule_cases import tests_text  # noqa: E402  the folder of tests is put on the path above

from taskpilot_obs.rules.folders import folders  # noqa: E402  the same
from taskpilot_obs.rules.settings import Settings  # noqa: E402  the same

CASES = {
    "golden_signals": "_rule_cases_golden",
    "agents": "_rule_cases_agents",
    "llm": "_rule_cases_llm",
    "safety": "_rule_cases_safety",
    "budget": "_rule_cases_budget",
    "telemetry": "_rule_cases_telemetry",
}


COARSE = {"golden_signals", "agents", "llm"}
"""Folders with many rules or long tests, evaluated every 10 minutes instead of 5 to keep their tests short."""


def texts() -> dict[str, str]:
    """The text of each `tests.yml`, by the folder of rules."""
    found = {}
    for folder in folders(Settings()):
        groups = [*(group.name for group in folder.recordings), f"taskpilot-{folder.name.replace('_', '-')}-alerts"]
        interval = "10m" if folder.name in COARSE else "5m"
        found[folder.name] = tests_text(folder.name, import_module(CASES[folder.name]).SCENARIOS, groups, interval)
    return found


if __name__ == "__main__":
    for name, text in texts().items():
        (ROOT / "observability" / "prometheus" / "rules" / name / "tests.yml").write_text(text, encoding="utf-8")
