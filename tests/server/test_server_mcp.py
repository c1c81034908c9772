"""The Model Context Protocol server, asked by the protocol's own client over pipes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from _serving import fill, requests_of, tokens_in
from _stored import sqlite_url, store_at
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.server.mcp_server import mcp_server
from taskpilot_obs.server.principal import Principal
from taskpilot_obs.server.routers import services_for

PERIOD = {"period": "3660d"}
COMMAND = "from taskpilot_obs.cli import main; main()"


async def _asked(url: str, questions: list[tuple[str, dict[str, Any]]], options: list[str]) -> list[Any]:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-c", COMMAND, "mcp", "--store", url, *options], env={"PATH": "/usr/bin:/bin"}
    )
    async with stdio_client(parameters) as pipes, ClientSession(*pipes) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all(tool.description for tool in tools)
        return [await session.call_tool(name, given) for name, given in questions]


def asked(url: str, questions: list[tuple[str, dict[str, Any]]], *options: str) -> list[Any]:
    """The answers of a server in a process of its own: JSON, or the text of a refusal."""
    found = []
    for result in anyio.run(_asked, url, questions, list(options)):
        text = "".join(part.text for part in result.content)
        found.append(text if result.is_error else json.loads(text))
    return found


def test_an_agent_asks_what_agents_cost(tmp_path: Path) -> None:
    """Every tool answers over standard input and output, with what the REST API answers."""
    url = sqlite_url(tmp_path)
    with store_at(url) as store:
        fill(store, [*requests_of("acme", 5), *requests_of("globex", 2, seed=2)])
    questions: list[tuple[str, dict[str, Any]]] = [
        ("golden_signals", {"window": "3660d"}),
        ("stats", PERIOD),
        ("costs", PERIOD),
        ("benchmarks", {}),
        ("budgets", {}),
        ("calls", {"status": "success"}),
        ("request", {"request_id": "acme-1"}),
        ("request", {"request_id": "nothing"}),
        ("stats", {"period": "soon"}),
    ]
    signals, stats, costs, _, budgets, calls, tree, missing, wrong = asked(url, questions)
    assert signals["runs"]["total"] == 7
    assert stats["requests"] == 14
    assert set(costs["by_tenant"]) == {"acme", "globex"}
    assert budgets == []
    assert {call["status"] for call in calls} == {"success"}
    assert len(tree["steps"]) == 5
    assert "no request of this ID" in missing
    assert "soon" in wrong


def test_a_token_narrows_every_tool_to_its_tenant(tmp_path: Path) -> None:
    """One tenant's token sees that tenant alone."""
    url = sqlite_url(tmp_path)
    file, tokens = tokens_in(tmp_path)
    with store_at(url) as store:
        fill(store, [*requests_of("acme", 5), *requests_of("globex", 2, seed=2)])
    questions: list[tuple[str, dict[str, Any]]] = [
        ("stats", PERIOD),
        ("costs", PERIOD),
        ("calls", {}),
        ("request", {"request_id": "acme-1"}),
    ]
    stats, costs, calls, refused = asked(url, questions, "--tokens", str(file), "--token", tokens["globex"])
    assert stats["requests"] == 4
    assert set(costs["by_tenant"]) == {"globex"}
    assert {call["organization_id"] for call in calls} == {"globex"}
    assert "no request of this ID" in refused


def test_a_writers_token_is_refused(tmp_path: Path) -> None:
    """It may not read; the server does not start with it."""
    with store_at(sqlite_url(tmp_path)) as store, pytest.raises(ConfigurationError, match="does not read"):
        mcp_server(services_for(store), Principal("w", "writer", "acme"))
