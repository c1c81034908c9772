"""Whether an event loop runs, found out without importing asyncio, which takes longer than the rest of this library."""

from __future__ import annotations

import sys


def in_event_loop() -> bool:
    """Whether this thread runs an event loop now."""
    asyncio = sys.modules.get("asyncio")
    # The public `get_running_loop` raises without a loop, which costs ten times as much.
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
