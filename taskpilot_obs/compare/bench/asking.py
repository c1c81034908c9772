"""Asking an arm once, and measuring: pieces of an answer as they come, whole answers, coroutines, plain functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from taskpilot_obs._support.daemon_threads import call_in_daemon
from taskpilot_obs.compare.bench.arms import ConnectedArm, takes_max_tokens


class Heard(NamedTuple):
    """An answer, and when its first piece came."""

    text: str
    first_at: float | None
    """By `perf_counter`; None for an answer that came whole. Empty first pieces do not count."""


def asker(arm: ConnectedArm) -> Callable[[str, int], Any]:
    """A coroutine function that asks an arm and returns what was `Heard`.

    A plain function runs in a thread of its own: one that never returns holds up neither the other calls nor the exit.

    Args:
        arm: whom to ask.
    """
    limited = takes_max_tokens(arm.ask)

    def ask(prompt: str, max_tokens: int) -> Any:
        return arm.ask(prompt, max_tokens=max_tokens) if limited else arm.ask(prompt)

    if inspect.iscoroutinefunction(arm.ask) or inspect.isasyncgenfunction(arm.ask) or arm.close is not None:
        return partial(_here, ask)
    return partial(_in_thread, ask)


async def _here(ask: Callable[[str, int], Any], prompt: str, max_tokens: int) -> Heard:
    return await _heard(ask(prompt, max_tokens))


async def _in_thread(ask: Callable[[str, int], Any], prompt: str, max_tokens: int) -> Heard:
    call = partial(copy_context().run, _collected, partial(ask, prompt, max_tokens))
    found = await asyncio.wrap_future(call_in_daemon(call, "taskpilot_obs-bench"))
    return found if isinstance(found, Heard) else await _heard(found)


def _collected(ask: Callable[[], Any]) -> Any:
    """What a plain function returns; an iterator is read in its own thread."""
    found = ask()
    if isinstance(found, Iterator):
        pieces = _Pieces()
        for piece in found:
            pieces.add(piece)
        return pieces.heard()
    return found


async def _heard(found: Any) -> Heard:
    if inspect.isawaitable(found):
        found = await found
    if not isinstance(found, AsyncIterator):
        return Heard(str(found), None)
    pieces = _Pieces()
    async for piece in found:
        pieces.add(piece)
    return pieces.heard()


class _Pieces:
    """Collects the pieces of an answer."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._first_at: float | None = None

    def add(self, piece: object) -> None:
        """Take the next piece; None and empty ones are not tokens."""
        if not piece:
            return
        if self._first_at is None:
            self._first_at = perf_counter()
        self._pieces.append(str(piece))

    def heard(self) -> Heard:
        """The pieces so far as one text, and when the first came."""
        return Heard("".join(self._pieces), self._first_at)
