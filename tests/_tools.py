"""Tools that the tests of agent frameworks give to their agents."""

from __future__ import annotations

from taskpilot_obs import observe_tool

ran: list[str] = []
"""The cities that `get_weather` was asked about."""


@observe_tool
def lookup() -> str:
    """What a tool calls beneath."""
    return "sunny"


def get_weather(city: str) -> str:
    """The weather."""
    ran.append(city)
    return lookup()


def broken(city: str) -> str:
    """Always fails."""
    raise LookupError(city)
