"""An MCP server with a tool that clients may call and one that they may not, and a client in one process."""

from __future__ import annotations

import asyncio

from mcp import Client, MCPError
from mcp.server.mcpserver import MCPServer
from taskpilot_obs_mcp import ObservabilityMiddleware

from taskpilot_obs import configure, get_recorder
from taskpilot_obs.safety import DenyTools
from taskpilot_obs.testing import capture_invocations

server = MCPServer("weather", middleware=[ObservabilityMiddleware()])


@server.tool()
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


@server.tool()
def delete_account() -> str:
    """Deletes the account."""
    raise AssertionError("the policy did not refuse")


async def main() -> None:
    """Call both."""
    async with Client(server) as client:
        result = await client.call_tool("get_weather", {"city": "Paris"})
        print(*(block.text for block in result.content if block.type == "text"))
        try:
            await client.call_tool("delete_account", {})
        except MCPError as error:
            print("refused:", error.message)


if __name__ == "__main__":
    configure(policies=[DenyTools(["delete_account"])], mode="enforce")
    with capture_invocations() as seen:
        asyncio.run(main())
        print([(run.name, run.status.value) for run in seen])
    get_recorder().drain()
