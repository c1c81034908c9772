"""docs/coming-from.md: what it tells people of other systems to write works as it stands there."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from taskpilot_obs import cli, semconv
from taskpilot_obs._support.assets import SETTINGS, observability_dir
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.rules.folders import folders
from taskpilot_obs.rules.settings import load_settings

app = typer.Typer()
for each in pkgutil.iter_modules(cli.__path__, f"{cli.__name__}."):
    if "._" not in each.name:
        add_commands(app, import_module(each.name))
PAGE = Path(__file__).parent.parent / "docs" / "coming-from.md"
ROW = re.compile(r"^\| (?!you had|old metric|---)(.+?) \| (.+?) \|", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
FAMILY = re.compile(r"[a-z_]+(?:\{.*\})?")
PROGRAM = "taskpilot-obs"
PRELUDE = """
from taskpilot_obs import *
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.compare import Experiment
from taskpilot_obs.exposition import metrics_app, start_metrics_server
from taskpilot_obs.pricing import cost_of
from taskpilot_obs.stats import *
from taskpilot_obs.store import aggregate_summaries

response = {"model": "gpt-4o", "usage": {"prompt_tokens": 150, "completion_tokens": 50}}
configure(store="sqlite:///telemetry.db")
record_llm_call(model="gpt-4o", usage=response["usage"], tenant_id="acme")
flush()
"""
SHOWN = [code for _, right in ROW.findall(PAGE.read_text(encoding="utf-8")) for code in CODE.findall(right)]
COMMANDS = sorted({code for code in SHOWN if code.startswith(PROGRAM)})
NAMES = sorted({code for code in SHOWN if FAMILY.fullmatch(code)})
ALERTS = sorted({code for code in SHOWN if code.startswith("Taskpilot")})
URLS = {"postgresql+psycopg://…"}


def test_what_the_page_tells_to_write_runs(tmp_path: Path) -> None:
    """Each right-hand side that is Python runs, one after the other, in a process with a store."""
    python = [code for code in SHOWN if code not in {*COMMANDS, *NAMES, *ALERTS, *URLS} and "…" not in code]
    assert len(python) > 50
    script = PRELUDE + "".join(f"{code}\n" for code in python)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "TASKPILOT_OBS_STORE": "sqlite:///telemetry.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_exist(command: str) -> None:
    """Each command of the page can be typed."""
    assert CliRunner().invoke(app, command.split()[1:]).exit_code == 0


def test_the_metrics_and_alerts_exist() -> None:
    """Each metric on a right-hand side is a family of this library, and each alert one of the rules."""
    families = {metric.name for metric in semconv.METRICS}
    assert {name.split("{")[0] for name in NAMES} - families == set()
    alerts = {
        alert.name for folder in folders(load_settings(observability_dir() / SETTINGS)) for alert in folder.alerts
    }
    assert set(ALERTS) - alerts == set()
