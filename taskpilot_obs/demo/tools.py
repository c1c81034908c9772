"""Tools of the demo's executor, with their policies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from taskpilot_obs._api.decorators import observe_tool
from taskpilot_obs.demo.script import Fate, current_request
from taskpilot_obs.safety.policies import DenyTools, DenyWords

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_DOMAIN: Final = "@example.com"
SEARCH_TIMEOUT_S: Final = 0.8

no_injection = DenyWords(["ignore previous instructions", "system prompt"], name="prompt_injection")
no_deletion = DenyTools(["delete_project"], name="no_deletion", severity="critical")


def _is_outside(arguments: Mapping[str, object]) -> bool:
    return not str(arguments["to"]).endswith(OWN_DOMAIN)


inside_recipients = DenyTools({"send_email": _is_outside}, name="inside_recipients", severity="low")


@observe_tool("search_board")
async def search_board(query: str) -> int:
    """Count matching items on the board; may time out."""
    is_stuck = current_request.get().fate is Fate.TOOL_TIMEOUT
    async with asyncio.timeout(SEARCH_TIMEOUT_S):
        await asyncio.sleep(2 * SEARCH_TIMEOUT_S if is_stuck else 0.03)
    return len(query) % 7


@observe_tool("create_task")
async def create_task(title: str) -> str:
    """Create a task on the board."""
    await asyncio.sleep(0.02)
    return f"task: {title[:40]}"


@observe_tool("delete_project", policies=[no_deletion], mode="enforce")
async def delete_project(name: str) -> str:
    """Delete a project: the policy refuses it."""
    return f"deleted {name}"  # pragma: no cover - the policy in front never lets it run


@observe_tool("send_email", policies=[inside_recipients])
async def send_email(to: str, text: str) -> str:
    """Send an e-mail; the policy records external recipients without refusing."""
    await asyncio.sleep(0.02)
    return f"sent {len(text)} characters to {to}"


async def act(wish: str) -> str:
    """Execute the tool that the request needs.

    Raises:
        PolicyViolationError: it asks for what is forbidden.
        TimeoutError: the board does not answer.
    """
    await search_board(wish)
    match current_request.get().fate:
        case Fate.DELETION:
            return await delete_project("Apollo")
        case Fate.OUTSIDE_EMAIL:
            return await send_email("bob@elsewhere.test", wish)
    return await create_task(wish)
