"""`taskpilot-obs metrics` prints the contract, and docs/metrics.md is what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from taskpilot_obs.cli import metrics
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.semconv import METRICS

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    add_commands(app, metrics)
    return app


def test_the_page_in_docs_is_what_the_command_prints(app: typer.Typer) -> None:
    """docs/metrics.md is current: `taskpilot-obs metrics --markdown > docs/metrics.md` would not change it."""
    result = CliRunner().invoke(app, ["--markdown"])
    assert result.exit_code == 0
    assert result.stdout == PAGE.read_text(encoding="utf-8")


def test_the_table_names_every_family(app: typer.Typer) -> None:
    """The table on the terminal has a row for every family of the contract."""
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, [])
    assert result.exit_code == 0
    assert [metric.name for metric in METRICS if f"\n{metric.name} " not in result.stdout] == []


def test_json_holds_families_labels_and_buckets(app: typer.Typer) -> None:
    """`--json` prints the whole contract as one object."""
    contract = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    families = {family["name"]: family for family in contract["families"]}
    assert list(families) == [metric.name for metric in METRICS]
    assert families["agent_runs_total"]["labels"] == ["agent", "status"]
    assert 2.0 in families["workflow_duration_seconds"]["buckets"]
    assert contract["labels"]["agent"] == {"bound": 200, "values": []}
    assert "timeout" in contract["labels"]["status"]["values"]


def test_each_family_has_reasons_of_its_own(app: typer.Typer) -> None:
    """The reasons of dropped records and of incomplete costs are listed apart."""
    reasons = json.loads(CliRunner().invoke(app, ["--json"]).stdout)["labels"]["reason"]["values"]
    assert reasons["taskpilot_obs_records_dropped_total"] == ["queue_full", "export_failed", "shutdown"]
    assert "fees" in reasons["llm_partially_priced_requests_total"]
    assert set(reasons) == {metric.name for metric in METRICS if "reason" in metric.labels}


def test_two_formats_at_once_are_refused(app: typer.Typer) -> None:
    """Asking for Markdown and JSON together exits 2 and says what to do."""
    result = CliRunner().invoke(app, ["--json", "--markdown"])
    assert result.exit_code == 2
    assert "not both" in result.output
