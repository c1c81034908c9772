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
from taskpilot_obs.server.shapes import BudgetLine, CallsPage, ExperimentReport
from taskpilot_obs.stats import (
    BenchmarkRun,
    BenchmarkSummary,
    CostBreakdown,
    CostSummary,
    ExperimentSeen,
    ProviderSeen,
    RunTree,
    Stats,
    TenantsReport,
)

ANY: Final = ":path"
"""After the name of a path's parameter: its value may hold slashes."""
STATS_PERIOD: Final = "24h"
COSTS_PERIOD: Final = "30d"
EXPERIMENTS_PERIOD: Final = "30d"
rest = APIRouter(prefix="/v1", route_class=ProblemRoute, responses=PROBLEMS)
RequestId = Annotated[str, Path(min_length=1, max_length=512, description="ID of the request.", examples=["req-1"])]
ExperimentName = Annotated[str, Path(min_length=1, max_length=512, examples=["planner-prompt"])]


def _get(path: str, *models: type[BaseModel], many: bool = False) -> Callable[[Any], Any]:
    """Declare a route: its schema and an example in OpenAPI; what it returns is written as it is."""
    made: Any = answer_model(models[0])
    for model in models[1:]:
        made = made | answer_model(model)
    schema = list[made] if many else made
    example = {"content": {"application/json": {"example": EXAMPLES[path.replace(ANY, "")]}}}
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
        return _shared(ask, http, lambda: ask.signals_of_the_fleet(query.until_now, query.workflow))
    return _shared(ask, http, lambda: ask.signals(query.stretch(ask.now), query.workflow, query.tenant))


@_get("/runs/{request_id:path}", RunTree)
def runs(request_id: RequestId, _: Annotated[params.Query, Query()], ask: Reading) -> JSONResponse:
    """The tree of one request: workflow, agents, tools and LLM calls, with what was decided and said about it."""
    return _json(ask.run_tree(request_id))


@_get("/benchmark-runs", BenchmarkRun, many=True)
def benchmark_runs(query: Annotated[params.RunsQuery, Query()], ask: Reading, http: Request) -> Response:
    """Runs of the benchmark, newest first, each with its settings, the figures of its arms and its verdict."""
    return _shared(ask, http, lambda: ask.benchmark_runs(query.given_span(ask.now), query.limit))


@_get("/experiments", ExperimentSeen, many=True)
def experiments(query: Annotated[params.ExperimentsQuery, Query()], ask: Reading, http: Request) -> Response:
    """The experiments with tasks in a stretch of time, by default 30 days."""
    return _shared(ask, http, lambda: ask.experiments(query.span(ask.now, EXPERIMENTS_PERIOD), query.tenant))


@_get("/experiments/{name:path}", ExperimentReport)
def experiment(
    name: ExperimentName, query: Annotated[params.ExperimentQuery, Query()], ask: Reading, http: Request
) -> Response:
    """How the variants of an experiment compare with its control; its intervals hold however often one looks."""
    period = query.span(ask.now, EXPERIMENTS_PERIOD)
    return _shared(ask, http, lambda: ask.experiment(name, period, query, query.tenant))
