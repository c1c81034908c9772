"""Budgets for agents of `create_agent`. Separate from `budgets`, because it needs the package `langchain`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import AgentMiddleware

from taskpilot_obs_langchain.budgets import budgeted

if TYPE_CHECKING:
    from langchain.agents.middleware import ModelRequest, ModelResponse
    from langchain_core.language_models import BaseChatModel

    from taskpilot_obs.integration import Recorder


class BudgetMiddleware(AgentMiddleware):
    """Middleware for `create_agent` that asks the budgets before each model call of the agent.

    Args:
        recorder: whose budgets; the default recorder when left out.
    """

    def __init__(self, *, recorder: Recorder | None = None) -> None:
        super().__init__()
        self._recorder = recorder
        self._last: tuple[BaseChatModel, BaseChatModel] | None = None

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Let the request go on with a model that asks."""
        return handler(request.override(model=self._asking(request.model)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Let the request of an asynchronous agent go on with a model that asks."""
        return await handler(request.override(model=self._asking(request.model)))

    def _asking(self, model: BaseChatModel) -> BaseChatModel:
        last = self._last
        if last is None or last[0] is not model:
            last = self._last = (model, budgeted(model, recorder=self._recorder))
        return last[1]
