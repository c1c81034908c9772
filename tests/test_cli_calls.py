"""`taskpilot-obs calls`, `runs` and `--from`: single calls and requests from the store, in a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from taskpilot_obs import record_llm_call, request_context, track_workflow
from taskpilot_obs.cli import calls, runs, stats
from taskpilot_obs.testing import fresh_recorder

app = typer.Typer()
for command in (calls, runs, stats):
    command.register(app)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with one request of a workflow and two calls, one of them failed."""
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with fresh_recorder(store=url) as recorder:
        with request_context("req-1", tenant_id="acme"), track_workflow("triage"):
            record_llm_call(model="gpt-4o", usage={"input_tokens": 150, "output_tokens": 50})
            record_llm_call(model="gpt-4o", error_type="openai.RateLimitError")
        assert recorder.flush()
    return url


def ask(store: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--store", store], env={"COLUMNS": "200"})


def test_calls_are_listed(store: str) -> None:
    """Each call has its request; a status and a time narrow them."""
    listed = ask(store, "calls", "--period", "today")
    assert (listed.exit_code, listed.output.count("req-1")) == (0, 2)
    failed = json.loads(ask(store, "calls", "--status", "error", "--json").stdout)
    assert [call["error_type"] for call in failed["calls"]] == ["openai.RateLimitError"]
    assert json.loads(ask(store, "calls", "--to", "2020-01-01", "--json").stdout)["calls"] == []
    assert ask(store, "calls", "--csv").stdout.count("\n") == 3


def test_a_request_is_a_tree(store: str) -> None:
    """The runs of a request stand beneath each other; a request that is not there ends with 1."""
    tree = ask(store, "runs", "req-1")
    assert tree.exit_code == 0
    assert "invoke_workflow triage" in tree.output
    assert "  chat gpt-4o" in tree.output
    assert ask(store, "runs", "req-2").exit_code == 1


def test_a_wrong_time_is_refused(store: str) -> None:
    """A period that cannot be read ends with 2."""
    assert ask(store, "stats", "--from", "01.11.2026").exit_code == 2
    assert ask(store, "stats", "--from", "2026-11-01").exit_code == 0
