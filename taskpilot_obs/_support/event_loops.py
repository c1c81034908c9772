"""Whether an event loop runs, found out without importing asyncio, which takes longer than the rest of this library."""

from __future__ import annotations

import sys


def in_event_loop() -> bool:
    """Whether this thread runs an event loop now."""
    # The public `get_running_loop` raises without a loop, which costs ten times as much. While another thread imports
    # asyncio, the module is there without its functions, and no loop can run yet.
    find = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return find is not None and find() is not None
