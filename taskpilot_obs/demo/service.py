"""The service: planner, reviewer and executor as decorated coroutines that call simulated providers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from taskpilot_obs._api.blocks import track_llm
from taskpilot_obs._api.decorators import observe_agent, observe_workflow
from taskpilot_obs.demo import provider
from taskpilot_obs.demo.script import EXECUTOR, PLANNER, REVIEWER, WORKFLOW
from taskpilot_obs.demo.tools import act, no_injection
from taskpilot_obs.exceptions import RefusedError


class Service(NamedTuple):
    """A service that handles requests."""

    description: str
    handle: Callable[[str], AsyncIterator[str]]
    """Takes a request and streams the answer."""
    failures: tuple[type[Exception], ...]
    """Exceptions that it raises on purpose."""


FAILURES = (RefusedError, TimeoutError, provider.ProviderError)


@observe_agent(PLANNER, guardrails=[no_injection], mode="enforce")
async def plan(wish: str) -> str:
    """Return the steps that the request needs."""
    return await _ask(PLANNER, wish)


@observe_agent(REVIEWER)
async def review(draft: str) -> str:
    """Return what is wrong with the plan."""
    return await _ask(REVIEWER, draft)


@observe_agent(EXECUTOR)
async def execute(wish: str, _notes: str) -> AsyncIterator[str]:
    """Execute the plan and stream the answer."""
    await act(wish)
    expected = provider.expected_reply(EXECUTOR)
    async with track_llm(provider=expected.provider, model=expected.asked_model) as call:
        async for event in call.astream(provider.stream(EXECUTOR)):
            if event["type"] == "content_block_delta":
                yield event["delta"]["text"]


@observe_workflow(WORKFLOW)
async def handle(wish: str) -> AsyncIterator[str]:
    """Plan, review and execute a request."""
    notes = await review(await plan(wish))
    async for piece in execute(wish, notes):
        yield piece


async def _ask(agent: str, _prompt: str) -> str:
    expected = provider.expected_reply(agent)
    async with track_llm(provider=expected.provider, model=expected.asked_model) as call:
        response = await provider.complete(agent, on_retry=call.retry)
        call.record_response(response)
    return _text(response)


def _text(response: dict[str, Any]) -> str:
    return str(response["choices"][0]["message"]["content"])


def decorated_service() -> Service:
    """Build the service that needs only this library."""
    return Service("planner, reviewer and executor with decorators", handle, FAILURES)
