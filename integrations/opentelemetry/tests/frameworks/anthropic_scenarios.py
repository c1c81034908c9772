"""Anthropic's SDK, which states spans by itself."""

from __future__ import annotations

import asyncio

import anthropic

ASK = {"model": "claude-haiku-4-5", "max_tokens": 10}


async def call(text: str = "hi") -> None:
    """One call."""
    async with anthropic.AsyncAnthropic(max_retries=0) as client:
        await client.messages.create(messages=[{"role": "user", "content": text}], **ASK)


async def stream() -> None:
    """A stream that is read to its end."""
    asked = [{"role": "user", "content": "hi"}]
    async with anthropic.AsyncAnthropic() as client, client.messages.stream(messages=asked, **ASK) as events:
        async for _ in events:
            pass


async def crowd() -> None:
    """Twenty calls at once."""
    await asyncio.gather(*(call() for _ in range(20)))


SCENARIOS = {
    "plain": call,
    "stream": stream,
    "fail": lambda: call("FAIL"),
    "cancel": lambda: call("HANG"),
    "crowd": crowd,
}
