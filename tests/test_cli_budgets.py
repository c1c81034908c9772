"""`taskpilot-obs budgets`, as it is typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import typer
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from taskpilot_obs.budgets import load_budgets
from taskpilot_obs.cli import budgets
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.config import build_recorder

FILE = """
[[budgets]]
name = "team"
limit_usd = 50
period = "total"

[[budgets]]
name = "each"
limit_tokens = 1_000
scope = { tenant = "*" }
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A file of budgets, and a store in which one of them was used."""
    (tmp_path / "budgets.toml").write_text(FILE)
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    recorder = build_recorder(
        budget_store=url, budgets=load_budgets(tmp_path / "budgets.toml"), registry=CollectorRegistry()
    )
    recorder.record_llm_call(model="gpt-4o", cost="12.50", usage={"input_tokens": 100, "output_tokens": 50})
    recorder.shutdown()
    return ["budgets", "--file", str(tmp_path / "budgets.toml"), "--store", url]


def run(arguments: list[str]) -> tuple[int, str]:
    app = typer.Typer()
    app.callback()(lambda: None)
    add_commands(app, budgets)
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TASKPILOT_OBS_STORE": ""})
    return done.exit_code, done.output


def test_the_table_tells_used_left_and_reset(arguments: list[str]) -> None:
    """In USD or tokens; a total neither resets nor projects."""
    code, output = run(arguments)
    assert code == 0
    assert all(told in output for told in ("$12.50", "$37.50", "25.0 %", "150 tokens", '{"tenant": "__none__"}'))


def test_json_and_csv_are_exact(arguments: list[str]) -> None:
    """Money is text; one entry a line of the ledger."""
    code, output = run([*arguments, "--json"])
    team, each = json.loads(output)
    assert (code, team["spent"], team["left"], team["resets_at"]) == (0, "12.5", "37.5", None)
    assert (each["spent"], each["scope_key"]) == ("150", '{"tenant": "__none__"}')
    code, output = run([*arguments, "--csv"])
    assert [line["budget"] for line in csv.DictReader(io.StringIO(output))] == ["team", "each"]
    assert run([*arguments, "--csv", "--json"])[0] == 2


def test_a_small_amount_has_no_exponent(arguments: list[str], tmp_path: Path) -> None:
    """Money is digits and a point, however little it is; what is not spent is `0`."""
    (tmp_path / "small.toml").write_text('[[budgets]]\nname = "small"\nlimit_usd = "0.00000025"\nperiod = "day"\n')
    code, output = run(["budgets", "-f", str(tmp_path / "small.toml"), *arguments[3:], "--json"])
    (small,) = json.loads(output)
    assert (code, small["limit"], small["spent"]) == (0, "0.00000025", "0")


def test_wrong_usage_ends_with_two_and_a_missing_store_with_four(arguments: list[str], tmp_path: Path) -> None:
    """And says what was wrong."""
    (tmp_path / "bad.toml").write_text("budgets = 7")
    code, output = run(["budgets", "--file", str(tmp_path / "bad.toml"), "--store", arguments[-1]])
    assert code == 2
    assert "one list" in output
    assert run(["budgets"])[0] == 2
    assert run([*arguments[:3], "--store", f"sqlite:///{tmp_path / 'none.db'}"])[0] == 4
    (tmp_path / "empty.toml").write_text("budgets = []")
    assert run(["budgets", "--csv", "-f", str(tmp_path / "empty.toml"), *arguments[3:]])[1].strip() == ""
