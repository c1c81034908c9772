"""The real MCP server and client, in one process: tool calls, failures, cancellation, refusals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

import pytest
from _runs import table

from taskpilot_obs import observe_tool
from taskpilot_obs.records import Decision, Invocation
from taskpilot_obs.safety import DenyTools, DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

if find_spec("mcp") is None:
    assert not os.environ.get("CI"), "mcp is not installed"
    pytest.skip("mcp is NOT INSTALLED: install the dependency group `test`", allow_module_level=True)

from mcp import Client, MCPError
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, TextContent
from taskpilot_obs_mcp import REFUSED, ObservabilityMiddleware

ran: list[str] = []


@observe_tool
def lookup(city: str) -> str:
    ran.append(city)
    return f"sunny in {city}"


def get_weather(city: str) -> str:
    """The weather."""
    return lookup(city)


def broken() -> str:
    """Always fails."""
    raise LookupError


def read_note() -> str:
    """A note."""
    ran.append("note")
    return "the password is 123"


def read_record() -> CallToolResult:
    """A record, of which the text does not show all."""
    return CallToolResult(
        content=[TextContent(type="text", text="one record")], structured_content={"note": "the password is 123"}
    )


async def slow() -> str:
    """Takes longer than anybody waits."""
    ran.append("slow")
    await asyncio.sleep(60)
    return ""


def play(work: Callable[[Any], Awaitable[Any]], *middleware: Any) -> Any:
    """Run something with a client of a server."""
    server = MCPServer("weather", middleware=middleware or [ObservabilityMiddleware()])
    for tool in (get_weather, broken, read_note, read_record, slow):
        server.tool()(tool)

    async def run() -> Any:
        async with Client(server) as client:
            return await work(client)

    return asyncio.run(run())


def weather(client: Any) -> Any:
    return client.call_tool("get_weather", {"city": "Paris"})


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def test_a_tool_call(seen: Captured[Invocation]) -> None:
    """A client's call is a tool call, and what is decorated beneath it finds it; lists and the like are none."""

    async def work(client: Any) -> str:
        await client.list_tools()
        return str((await weather(client)).content[0].text)

    assert play(work) == "sunny in Paris"
    assert table(seen) == [("get_weather", None, "success"), ("lookup", "get_weather", "success")]


def test_a_tool_that_fails(seen: Captured[Invocation]) -> None:
    """The server makes a result of a tool's exception; the call is an error all the same."""
    assert play(lambda client: client.call_tool("broken", {})).is_error
    assert [(run.name, run.status.value, run.error_type) for run in seen] == [("broken", "error", "tool_error")]


def test_a_cancelled_call(seen: Captured[Invocation]) -> None:
    """A call whose client has gone is cancelled."""

    async def work(client: Any) -> None:
        task = asyncio.ensure_future(client.call_tool("slow", {}))
        while not ran:  # noqa: ASYNC110  the server runs it
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(work)
    assert table(seen) == [("slow", None, "cancelled")]


def test_concurrent_calls(seen: Captured[Invocation]) -> None:
    """Twenty calls at once are twenty records, each above its own function."""

    async def work(client: Any) -> None:
        await asyncio.gather(*(weather(client) for _ in range(20)))

    play(work)
    found = table(seen)
    assert found.count(("get_weather", None, "success")) == 20
    assert found.count(("lookup", "get_weather", "success")) == 20
    assert len({run.parent_id for run in seen if run.name == "lookup"}) == 20


def test_beneath_a_tool_of_its_name(seen: Captured[Invocation]) -> None:
    """A client in this process whose framework records the tool already: the server records it no second time."""

    @observe_tool(name="get_weather")
    async def work(client: Any) -> None:
        await weather(client)

    play(work)
    assert table(seen) == [("get_weather", None, "success"), ("lookup", "get_weather", "success")]


# --- enforcement -----------------------------------------------------------------------------------------------------


Refused = tuple[Any, list[tuple[str, str | None, str]], list[str]]


def refused(work: Callable[[Any], Awaitable[Any]], policy: Any) -> Refused:
    """The error that the client gets, the runs, and the results of the checks."""

    async def attempt(client: Any) -> Any:
        with pytest.raises(MCPError) as raised:
            await work(client)
        return raised.value

    with (
        fresh_recorder(mode="enforce", policies=[policy]) as fresh,
        capture_invocations(fresh) as seen,
        capture_records(Decision, fresh) as decisions,
    ):
        error = play(attempt)
        return error, table(seen), [one.result.value for one in decisions]


def test_a_refused_tool_does_not_run() -> None:
    """The client is told which policy refused, and of which request; the reason stays here."""
    error, runs, results = refused(weather, DenyTools(["get_weather"], name="no_weather"))
    assert ran == []
    assert (error.code, error.message) == (REFUSED, "refused by policy 'no_weather'")
    assert error.data["request_id"]
    assert runs == [("get_weather", None, "blocked")]
    assert results == ["blocked"]


def test_arguments_are_checked() -> None:
    """A policy sees what the tool is asked to do."""
    assert refused(weather, DenyWords(["Paris"]))[1] == [("get_weather", None, "blocked")]
    assert ran == []


def test_a_result_is_withheld() -> None:
    """A result that a check refuses does not reach the client."""
    policy = check_with(DenyWords(["password"]), stages="output")
    error, runs, _ = refused(lambda client: client.call_tool("read_note", {}), policy)
    assert (error.message, ran) == ("refused by policy 'deny_words'", ["note"])
    assert runs == [("read_note", None, "blocked")]


def test_structured_content_is_withheld() -> None:
    """What a check refuses in a result's structured content does not reach the client either."""
    policy = check_with(DenyWords(["password"]), stages="output")
    error, runs, _ = refused(lambda client: client.call_tool("read_record", {}), policy)
    assert error.message == "refused by policy 'deny_words'"
    assert runs == [("read_record", None, "blocked")]


def test_structured_content_is_captured() -> None:
    """With content capture, the recorded output has the structured content as well as the text."""
    with fresh_recorder(capture_content=True) as fresh, capture_invocations(fresh) as seen:
        play(lambda client: client.call_tool("read_record", {}))
        (run,) = seen
    assert run.output_text is not None
    assert "one record" in run.output_text
    assert "the password is [REDACTED:secret]" in run.output_text


def test_nothing_is_recorded_where_recording_is_off() -> None:
    """A disabled recorder leaves the server's work alone."""
    with fresh_recorder(enabled=False) as fresh, capture_invocations(fresh) as seen:
        assert not play(weather).is_error
        assert list(seen) == []
