"""OpenAI's SDK through its instrumentor."""

from __future__ import annotations

import asyncio

import openai


async def call(text: str = "hi") -> None:
    """One call."""
    async with openai.AsyncOpenAI(max_retries=0) as client:
        await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": text}])


async def stream() -> None:
    """A stream that is read to its end."""
    async with openai.AsyncOpenAI() as client:
        events = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for _ in events:
            pass


async def responses() -> None:
    """The newer API."""
    async with openai.AsyncOpenAI() as client:
        await client.responses.create(model="gpt-4o-mini", input="hi")


async def crowd() -> None:
    """Twenty calls at once."""
    await asyncio.gather(*(call() for _ in range(20)))


SCENARIOS = {
    "plain": call,
    "responses": responses,
    "stream": stream,
    "fail": lambda: call("FAIL"),
    "cancel": lambda: call("HANG"),
    "crowd": crowd,
}
