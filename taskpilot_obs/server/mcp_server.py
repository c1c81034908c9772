"""A read-only Model Context Protocol server about what agents do and cost, with the REST API's tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from taskpilot_obs._support.version import library_version
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.server import params
from taskpilot_obs.server.answers import answer
from taskpilot_obs.server.principal import Principal
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.server.services import Services
from taskpilot_obs.server.shapes import BudgetLine

_INSTRUCTIONS = (
    "Answers about LLM agents from their telemetry: golden signals, statistics, costs in USD, budgets, single "
    "calls, experiments and the steps of one request. Figures are null where nothing is known, never 0. "
    "Periods are written 15m, 24h, 7d."
)
_READS_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_MOST_CALLS = 50
_EXPERIMENTS_PERIOD = "30d"


def mcp_server(services: Services, principal: Principal) -> MCPServer:
    """Build the server, whose tools answer what this principal may read.

    Args:
        services: what the answers are made from.
        principal: the caller; all tools answer for it, because one client uses one pair of pipes.

    Raises:
        ConfigurationError: the principal may not read.
    """
    if not principal.may_read:
        raise ConfigurationError("token: a writer's token does not read; give a viewer's or an admin's")
    server = MCPServer("taskpilot-obs", instructions=_INSTRUCTIONS, version=library_version(), log_level="ERROR")
    tools = Tools(services, principal)
    for tool in (
        tools.golden_signals,
        tools.stats,
        tools.costs,
        tools.benchmarks,
        tools.budgets,
        tools.calls,
        tools.experiments,
        tools.request,
    ):
        server.tool(annotations=_READS_ONLY, structured_output=False)(cast(Callable[..., Any], tool))
    return server


class Tools:
    """The tools. Models read their docstrings.

    Args:
        services: what the answers are made from.
        principal: who asks.
    """

    def __init__(self, services: Services, principal: Principal) -> None:
        self._ask = partial(Questions, services, principal)  # one for each answer, because it holds the present

    def _answered(self, question: Callable[[Questions], Any]) -> str:
        try:
            return json.dumps(answer(question(self._ask())), ensure_ascii=False)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise ToolError(told) from None
        except HTTPException as error:
            raise ToolError(str(error.detail)) from None
        except ConfigurationError as error:
            raise ToolError(str(error)) from None
        except StoreError:
            raise ToolError("the telemetry store cannot be asked now") from None

    def golden_signals(self, window: str = "1h", workflow: str | None = None) -> str:
        """Are the agents healthy? Success, p95 latency, cost per success, correctness, violations, with evidence."""
        query = {"window": window, "workflow": workflow}
        return self._answered(lambda ask: _signals(ask, params.SignalsQuery.model_validate(query)))

    def stats(
        self, period: str = "24h", provider: str | None = None, model: str | None = None, agent: str | None = None
    ) -> str:
        """How many LLM calls, how many failed and why, tokens, cost and latency; by provider, model and agent."""
        given = {"period": period, "provider": provider, "model": model, "agent": agent}
        return self._answered(lambda ask: _stats(ask, params.StatsQuery.model_validate(given)))

    def costs(self, period: str = "month") -> str:
        """What was spent, by provider, model, agent and tenant; day, week and month with a projection to their end."""
        return self._answered(lambda ask: ask.costs(params.CostsQuery.model_validate({"period": period}), "30d"))

    def benchmarks(self, group_by: Literal["provider", "model", "prompt", "day"] = "model") -> str:
        """Providers, models, prompts or days of the last 30 days side by side: success, latency, tokens and cost."""
        return self._answered(lambda ask: ask.summaries(params.SummariesQuery(group_by=group_by)))

    def budgets(self) -> str:
        """The budgets: limit, spent, left, when the next period begins, and the forecast at the current rate."""
        return self._answered(lambda ask: [BudgetLine(**status._asdict()) for status in ask.budgets()])

    def calls(self, status: str | None = None, model: str | None = None, agent: str | None = None) -> str:
        """The newest 50 LLM calls, for example the failed ones (status "error"); without prompts and answers."""
        given = {"status": status, "model": model, "agent": agent, "limit": _MOST_CALLS}
        return self._answered(lambda ask: ask.calls(params.TracesQuery.model_validate(given), None).calls)

    def experiments(self, name: str | None = None) -> str:
        """The experiments (A/B tests) of the last 30 days; with a name how its variants compare, and how certainly."""
        return self._answered(lambda ask: _experiments(ask, name))

    def request(self, request_id: str) -> str:
        """All steps of one request: workflow, agents, tools, LLM calls, denials by policies, feedback of the user."""
        return self._answered(lambda ask: ask.run_tree(request_id))


def _signals(ask: Questions, query: params.SignalsQuery) -> Any:
    return ask.signals(query.stretch(ask.now), query.workflow)


def _experiments(ask: Questions, name: str | None) -> Any:
    if name is None:
        return ask.experiments(_EXPERIMENTS_PERIOD, None)
    return ask.experiment(name, _EXPERIMENTS_PERIOD, params.ExperimentOptions.model_validate({}), None)


def _stats(ask: Questions, query: params.StatsQuery) -> Any:
    return ask.stats(query.span(ask.now, "24h"), query.asked())
