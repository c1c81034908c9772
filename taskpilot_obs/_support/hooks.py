"""Functions that users pass as options: one rule for plain and for coroutine functions.

A coroutine is awaited on the thread that called the function, which belongs to the library, within a time limit. What
could only do nothing, such as a generator function, is refused when it is configured.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable
from typing import Any, Final

from taskpilot_obs._support.event_loops import in_event_loop
from taskpilot_obs.exceptions import ConfigurationError

TIMEOUT_S: Final = 30.0
"""How long a coroutine of a hook may take; then it is cancelled, and its failure is counted as any other."""


def settled(result: Any, timeout_s: float = TIMEOUT_S) -> Any:
    """The result of a hook; a coroutine is awaited.

    Args:
        result: what the hook returned.
        timeout_s: how many seconds a coroutine may take.

    Raises:
        TimeoutError: the coroutine took longer, and was cancelled.
    """
    if not inspect.isawaitable(result):
        return result
    return _on_a_thread(result, timeout_s) if in_event_loop() else _run(result, timeout_s)


def _run(awaitable: Awaitable[Any], timeout_s: float) -> Any:
    import asyncio  # loaded where a hook is a coroutine only

    async def within() -> Any:
        return await asyncio.wait_for(awaitable, timeout_s)

    return asyncio.run(within())


def _on_a_thread(awaitable: Awaitable[Any], timeout_s: float) -> Any:
    """Await where this thread has a running event loop, which cannot wait for a coroutine of its own."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(_run(awaitable, timeout_s))
        except BaseException as error:  # noqa: BLE001  it is raised again on the thread that waits
            failed.append(error)

    thread = threading.Thread(target=work, name="taskpilot_obs-hook", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def refuse_generator(option: str, given: Any) -> None:
    """Refuse a generator function as a hook: calling it runs nothing.

    Args:
        option: the name of the option, for the message.
        given: what was passed.

    Raises:
        ConfigurationError: it is a generator function, or its `__call__` is.
    """
    own_call = inspect.getattr_static(type(given), "__call__", None)
    for each in (given, own_call):
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise ConfigurationError(
                f"{option}: given a generator function, which does nothing when it is called; allowed is a function or "
                "a coroutine function"
            )
