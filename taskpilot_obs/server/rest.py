"""The REST API, version 1: what it answers, as Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.server import cursors, params
from taskpilot_obs.server.access import Reading
from taskpilot_obs.server.answers import answer, answer_model
from taskpilot_obs.server.examples import EXAMPLES
from taskpilot_obs.server.problems import PROBLEMS, ProblemRoute
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.server.shapes import BudgetLine, CallsPage
from taskpilot_obs.stats import (
    BenchmarkSummary,
    CostBreakdown,
    CostSummary,
    ProviderSeen,
    RunTree,
    Stats,
    TenantsReport,
)

STATS_PERIOD: Final = "24h"
COSTS_PERIOD: Final = "30d"
rest = APIRouter(prefix="/v1", route_class=ProblemRoute, responses=PROBLEMS)
RequestId = Annotated[str, Path(min_length=1, max_length=512, description="ID of the request.", examples=["req-1"])]


def _get(path: str, *models: type[BaseModel], many: bool = False) -> Callable[[Any], Any]:
    """Declare a route: its schema and an example in OpenAPI; what it returns is written as it is."""
    made: Any = answer_model(models[0])
    for model in models[1:]:
        made = made | answer_model(model)
    schema = list[made] if many else made
    example = {"content": {"application/json": {"example": EXAMPLES[path]}}}
    return rest.get(path, responses={200: {"model": schema, **example}}, response_class=JSONResponse)


def _json(value: Any) -> JSONResponse:
    return JSONResponse(answer(value), headers={"Cache-Control": "no-store"})


def _shared(ask: Questions, http: Request, make: Callable[[], Any]) -> Response:
    """An answer that everyone of the same tenant shares who asks the same within a second."""
    key = (ask.principal.tenant, http.url.path, http.url.query)
    body = ask.services.answers.get(key, lambda: bytes(_json(make()).body))
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@_get("/benchmarks/summaries", BenchmarkSummary, many=True)
def summaries(query: Annotated[params.SummariesQuery, Query()], ask: Reading, http: Request) -> Response:
    """Providers, models, prompts or days side by side: success, latency, tokens and cost."""
    return _shared(ask, http, lambda: ask.summaries(query))


@_get("/benchmarks/traces", CallsPage)
def traces(query: Annotated[params.TracesQuery, Query()], ask: Reading, request: Request) -> Response:
    """LLM calls, newest first, without anything that users or models wrote.

    `next_cursor` leads to the page that follows; pages stay stable while calls arrive.
    """
    after = None if query.cursor is None else cursors.decode(query.cursor, query.narrowing())
    page = ask.calls(query, after)
    following = None if page.next is None else cursors.encode(page.next, query.narrowing())
    found = JSONResponse({"items": answer(page.calls), "next_cursor": following}, headers={"Cache-Control": "no-store"})
    if following is not None:
        found.headers["Link"] = f'<{request.url.include_query_params(cursor=following)}>; rel="next"'
    return found


@_get("/benchmarks/providers", ProviderSeen, many=True)
def providers(_: Annotated[params.Query, Query()], ask: Reading, http: Request) -> Response:
    """The providers that there are calls of, with the first and the last one."""
    return _shared(ask, http, ask.providers)


@_get("/stats", Stats)
def stats(query: Annotated[params.StatsQuery, Query()], ask: Reading, http: Request) -> Response:
    """Calls, success, tokens, cost and latency of a stretch of time, by provider, model and agent; by default 24 h."""
    return _shared(ask, http, lambda: ask.stats(query.span(ask.now, STATS_PERIOD), query.asked()))


@_get("/costs", CostBreakdown, CostSummary)
def costs(query: Annotated[params.CostsQuery, Query()], ask: Reading, http: Request) -> Response:
    """Where the money went; by default in 30 days.

    With `period=day`, `week` or `month` it is that of the calendar so far, against the one before, with a projection.
    """
    return _shared(ask, http, lambda: ask.costs(query, COSTS_PERIOD))


@_get("/tenants", TenantsReport)
def tenants(query: Annotated[params.TenantsQuery, Query()], ask: Reading, http: Request) -> Response:
    """What each tenant used, in falling order of cost; by default in 30 days."""
    return _shared(ask, http, lambda: ask.tenants(query.span(ask.now, COSTS_PERIOD)))


@_get("/budgets", BudgetLine, many=True)
def budgets(_: Annotated[params.Query, Query()], ask: Reading) -> JSONResponse:
    """Where the configured budgets stand in their present periods."""
    return _json([BudgetLine(**status._asdict()) for status in ask.budgets()])


@_get("/golden-signals", GoldenSignals)
def golden_signals(query: Annotated[params.SignalsQuery, Query()], ask: Reading, http: Request) -> Response:
    """The five golden signals with their evidence."""
    if query.source == "prometheus":
        return _shared(ask, http, lambda: ask.signals_of_the_fleet(query.window, query.workflow))
    return _shared(ask, http, lambda: ask.signals(query.window, query.workflow, query.tenant))


@_get("/runs/{request_id}", RunTree)
def runs(request_id: RequestId, _: Annotated[params.Query, Query()], ask: Reading) -> JSONResponse:
    """The tree of one request: workflow, agents, tools and LLM calls, with what was decided and said about it."""
    return _json(ask.run_tree(request_id))
