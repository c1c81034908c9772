"""`taskpilot-obs calls`, `runs` and `--from`: single calls and requests from the store, in a terminal."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from taskpilot_obs import record_llm_call, request_context, track_agent, track_tool, track_workflow
from taskpilot_obs.cli import agents, calls, costs, runs, stats, tenants
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.testing import fresh_recorder

app = typer.Typer()
for command in (agents, calls, costs, runs, stats, tenants):
    add_commands(app, command)


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


@pytest.fixture
def busy(tmp_path: Path) -> str:
    """A store with runs of two agents, calls of two tools, and an LLM call without a price."""
    url = f"sqlite:///{tmp_path / 'busy.db'}"
    with fresh_recorder(store=url) as recorder:
        for number, user in enumerate(("ann", "ann", "bob")):
            with request_context(f"req-{number}", tenant_id="acme", user_id=user, step_id=f"s-{number}"):
                with track_agent("planner"):
                    record_llm_call(model="gpt-4o", usage={"input_tokens": 1_000, "output_tokens": 100})
                    with track_tool("search"):
                        pass
                with suppress(KeyError), track_agent("writer"), track_tool("fetch"):
                    record_llm_call(model="own-model", usage={"input_tokens": 1, "output_tokens": 1})
                    raise KeyError
        assert recorder.flush()
    return url


def test_agents_and_tools_are_summed_up(busy: str) -> None:
    """Runs, success, calls beneath and cost by name; a cost that lacks a call is marked."""
    found = json.loads(ask(busy, "agents", "--json").stdout)["agents"]
    planner, writer = found["planner"], found["writer"]
    assert (planner["runs"], planner["success_rate"], planner["llm_calls"], planner["tool_calls"]) == (3, 100.0, 3, 3)
    assert (Decimal(planner["cost_usd"]), Decimal(planner["cost_per_run_usd"])) == (
        Decimal("0.0105"),
        Decimal("0.0035"),
    )
    assert (writer["failures"], writer["errors_by_type"]) == (3, {"KeyError": 3})
    assert (writer["unpriced_calls"], writer["cost_per_run_usd"]) == (3, None)
    printed = ask(busy, "agents").output
    assert "≥" in next(line for line in printed.splitlines() if "writer" in line)
    assert "≥" not in next(line for line in printed.splitlines() if "planner" in line)
    tools = json.loads(ask(busy, "tools", "--json").stdout)["tools"]
    assert {name: line["success_rate"] for name, line in tools.items()} == {"search": 100.0, "fetch": 0.0}
    assert list(json.loads(ask(busy, "tools", "--where", "agent=planner", "--json").stdout)["tools"]) == ["search"]
    assert ask(busy, "tools", "--csv").stdout.count("\n") == 3
    assert (
        json.loads(ask(busy, "agents", "--from", "2000-01-01", "--to", "2001-01-01", "--json").stdout)["agents"] == {}
    )


@pytest.mark.parametrize("command", ["stats", "costs", "agents", "tools", "users"])
@pytest.mark.parametrize(
    ("where", "share"), [("step_id=s-1", 1), ("request_id=req-1", 1), ("user_id=ann", 2), ("session_id=__none__", 3)]
)
def test_every_command_takes_every_filter(busy: str, command: str, where: str, share: int) -> None:
    """Identifiers narrow calls and runs alike: two LLM calls, two runs and two tool calls in each of three requests."""
    found = json.loads(ask(busy, command, "--where", where, "--json").stdout)
    counted = {
        "agents": lambda: sum(line["runs"] for line in found["agents"].values()),
        "tools": lambda: sum(line["runs"] for line in found["tools"].values()),
        "users": lambda: sum(line["requests"] for line in found["users"]),
    }.get(command, lambda: found["requests"])()
    assert counted == 2 * share


def test_users_are_reported(busy: str) -> None:
    """Each user's requests, cost and share, in falling order of cost; of one tenant, or of all."""
    found = json.loads(ask(busy, "users", "--json").stdout)
    assert [(line["user"], line["requests"], Decimal(line["cost_usd"])) for line in found["users"]] == [
        ("ann", 4, Decimal("0.007")),
        ("bob", 2, Decimal("0.0035")),
    ]
    assert json.loads(ask(busy, "users", "--tenant", "umbrella", "--json").stdout)["users"] == []
    assert "1 largest of 2" in ask(busy, "users", "--limit", "1").output


@pytest.mark.parametrize("where", ["step_id", "step_id=", "=7", "colour=red", "model=gpt-4o"])
def test_a_wrong_filter_is_refused(busy: str, where: str) -> None:
    """An unknown filter, or one that runs do not have, ends with 2."""
    assert ask(busy, "agents", "--where", where).exit_code == 2


def test_roll_ups_mark_unpriced_calls(busy: str) -> None:
    """In the tree of a request, a run above a call without a price has at least the cost that is shown."""
    tree = ask(busy, "runs", "req-0")
    assert tree.exit_code == 0
    assert "≥" in tree.output.splitlines()[0]
