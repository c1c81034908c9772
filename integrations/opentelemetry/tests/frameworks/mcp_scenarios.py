"""MCP servers, whose SDK states spans by itself."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp import Client, MCPError
from mcp.server.mcpserver import MCPServer
from taskpilot_obs_mcp import ObservabilityMiddleware

from taskpilot_obs import configure, observe_tool
from taskpilot_obs.safety import DenyTools

configure(policies=[DenyTools(["delete"])], mode="enforce")


@observe_tool
def lookup() -> str:
    """Something decorated beneath a tool."""
    return "sunny"


def get_weather() -> str:
    """The weather."""
    return lookup()


def broken() -> str:
    """Always fails."""
    raise LookupError


def delete() -> str:
    """Must not run."""
    raise AssertionError


async def call(*names: str, native: bool = True) -> None:
    """Call tools of a server, all at once."""
    server = MCPServer("weather", middleware=[ObservabilityMiddleware()] if native else [])
    for tool in (get_weather, broken, delete):
        server.tool()(tool)
    async with Client(server) as client:

        async def one(name: str) -> Any:
            try:
                return await client.call_tool(name, {})
            except MCPError as error:
                return error

        await asyncio.gather(*map(one, names))


SCENARIOS = {
    "bridge": lambda: call("get_weather", native=False),
    "native": lambda: call("get_weather"),
    "crowd": lambda: call(*["get_weather"] * 20),
    "broken": lambda: call("broken"),
    "refused": lambda: call("delete"),
}
