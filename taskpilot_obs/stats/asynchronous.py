"""The same questions for callers that must not block their event loop: asked on another thread."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from taskpilot_obs.stats.costs import get_cost_breakdown, get_cost_summary
from taskpilot_obs.stats.usage import get_stats, get_tenant_stats, get_tenants_report

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

P = ParamSpec("P")
T = TypeVar("T")


def _on_a_thread(ask: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(ask)
    async def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(ask, *args, **kwargs)

    asked.__name__ = asked.__qualname__ = f"a{ask.__name__}"
    return asked


aget_stats = _on_a_thread(get_stats)
aget_tenant_stats = _on_a_thread(get_tenant_stats)
aget_tenants_report = _on_a_thread(get_tenants_report)
aget_cost_breakdown = _on_a_thread(get_cost_breakdown)
aget_cost_summary = _on_a_thread(get_cost_summary)
