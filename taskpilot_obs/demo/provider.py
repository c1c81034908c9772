"""Simulated providers, which answer in the formats of real ones, with their latencies and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from taskpilot_obs.demo.script import current_request, reply_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs.demo.script import Reply

_FIRST_TOKEN_SHARE = 0.35
"""Share of a streamed answer's time before its first token."""


class ProviderError(Exception):
    """A provider refused or failed.

    Args:
        status: the HTTP status that it answered with.
    """

    def __init__(self, status: int) -> None:
        self.status_code = status
        super().__init__(f"the provider answered with status {status}")


def expected_reply(agent: str) -> Reply:
    """The scripted answer of an agent's provider to the current request."""
    return reply_to(current_request.get(), agent)


async def complete(agent: str, *, on_retry: Callable[[], None]) -> dict[str, Any]:
    """Answer in the format of OpenAI's chat completions.

    Raises:
        ProviderError: no attempt succeeded.
    """
    reply = expected_reply(agent)
    async for _ in attempts(reply):
        on_retry()
    await asyncio.sleep(reply.latency_s)
    return {
        "object": "chat.completion",
        "model": reply.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
            "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        },
    }


async def stream(agent: str) -> AsyncIterator[dict[str, Any]]:
    """Answer as Anthropic's stream of events. A stream is not retried.

    Raises:
        ProviderError: it failed.
    """
    reply = expected_reply(agent)
    await _fail(reply)
    usage = {"input_tokens": reply.input_tokens, "output_tokens": 1}
    yield {"type": "message_start", "message": {"type": "message", "model": reply.model, "usage": usage}}
    async for piece in pieces(reply):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": reply.output_tokens},
    }
    yield {"type": "message_stop"}


async def attempts(reply: Reply) -> AsyncIterator[int]:
    """Numbers of the attempts that fail and are retried.

    Raises:
        ProviderError: the last attempt failed too.
    """
    for number in range(1, reply.attempts):
        await asyncio.sleep(reply.latency_s / 4)
        yield number
    await _fail(reply)


async def _fail(reply: Reply) -> None:
    """Raise if the last attempt fails."""
    if reply.error_status is not None:
        await asyncio.sleep(reply.latency_s / 4)
        raise ProviderError(reply.error_status)


async def pieces(reply: Reply) -> AsyncIterator[str]:
    """Yield the words of the answer, spread over its duration."""
    words = reply.text.split()
    await asyncio.sleep(reply.latency_s * _FIRST_TOKEN_SHARE)
    for word in words:
        yield f"{word} "
        await asyncio.sleep(reply.latency_s * (1 - _FIRST_TOKEN_SHARE) / len(words))
