"""LangChain and LangGraph: one callback handler that records runs, agents, tools and LLM calls.

    chain.invoke(question, config={"callbacks": [ObservabilityHandler()]})

or, without touching call sites:

    with observe_langchain():
        chain.invoke(question)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskpilot_obs_langchain.attachment import observe_langchain, with_stream_usage
from taskpilot_obs_langchain.budgets import budgeted
from taskpilot_obs_langchain.handler import ObservabilityHandler

if TYPE_CHECKING:
    from taskpilot_obs_langchain.budget_middleware import BudgetMiddleware

__all__ = ["BudgetMiddleware", "ObservabilityHandler", "budgeted", "observe_langchain", "with_stream_usage"]


def __getattr__(name: str) -> Any:
    """Middleware at first use: it needs `langchain`, which takes a second to import, beside `langchain-core`."""
    if name == "BudgetMiddleware":
        from taskpilot_obs_langchain.budget_middleware import BudgetMiddleware

        return BudgetMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
