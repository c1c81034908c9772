"""Notices breakpoints of a graph (`interrupt_before`, `interrupt_after`), at which no node raises.

LangGraph reports them only to handlers of its own class. LangGraph is not imported for that: a handler becomes one of
that class when it first sees a graph, because the application has imported the package by then.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler


def hear_graphs(handler: BaseCallbackHandler) -> bool:
    """Notify a handler of interrupts; return False without a LangGraph that reports them (1.2 or later)."""
    told = getattr(sys.modules.get("langgraph.callbacks"), "GraphCallbackHandler", None)
    if told is None:
        return False
    if not isinstance(handler, told):
        kind: Any = type(handler)
        handler.__class__ = _told_too(kind, told)
    return True


@lru_cache(maxsize=200)
def _told_too(kind: type[Any], told: type[Any]) -> type[Any]:
    return type(kind.__name__, (kind, told), {"__module__": kind.__module__, "__doc__": kind.__doc__})
