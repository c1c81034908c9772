"""The whole server as one application."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Unpack

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from taskpilot_obs._support.installed import is_installed
from taskpilot_obs._support.version import library_version
from taskpilot_obs.exporters.prometheus.server import ServerMetrics
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.server.access import Doorkeeper, Reading, bound
from taskpilot_obs.server.examples import with_examples
from taskpilot_obs.server.health import golden, probes
from taskpilot_obs.server.login import login_router
from taskpilot_obs.server.problems import Problem, ProblemRoute, as_problem, problem_response
from taskpilot_obs.server.rest import rest
from taskpilot_obs.server.routers import ServiceOptions, services_for
from taskpilot_obs.server.security import HEADERS, Counted, SecurityHeaders
from taskpilot_obs.server.services import Services
from taskpilot_obs.server.tokens import TokenFile
from taskpilot_obs.server.trace_buffer import TraceBuffer
from taskpilot_obs.server.verdicts import feedback_routes, into_store
from taskpilot_obs.server.web import Site, site_router
from taskpilot_obs.store import Store
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

_DESCRIPTION: Final = (
    "Questions about LLM agents, answered from a telemetry store. Times are ISO 8601 in UTC; money is text with up to "
    "12 decimals, with a number beside it (`…_float`); unknown is null and never 0; unknown parameters are refused; "
    "errors are problem documents (RFC 9457)."
)


def create_app(
    *,
    store: str | Store,
    tokens: str | os.PathLike[str] | None = None,
    cors_origins: Sequence[str] = (),
    now: Callable[[], datetime] | None = None,
    **options: Unpack[ServiceOptions],
) -> FastAPI:
    """The REST API, the pages, feedback and health as one ASGI application.

    Args:
        store: the URL of a telemetry store, or one that is open; one that is opened here is closed at shutdown.
        tokens: a token file (`taskpilot-obs token create`); None answers all callers on this machine, and no others.
        cors_origins: other sites whose pages may send requests with a token.
        now: the present; for tests.
        options: `prometheus`: base URL of a Prometheus server with this library's rules; `budgets`: the budgets to
            show; `budget_store`: the store that they are kept in, where it is not `store`, as ClickHouse cannot be;
            `thresholds`: bounds of the golden signals; `links`: links on a request's page.

    Raises:
        ConfigurationError: an argument, or the token file, is wrong.
        StoreError: the store is missing or cannot be used.
    """
    doorkeeper = Doorkeeper(None if tokens is None else TokenFile(tokens))
    services = services_for(store, **options)
    if now is not None:
        services = replace(services, now=now)
    closing = ExitStack()
    if isinstance(store, str):
        closing.callback(services.store.close)
    if isinstance(options.get("budget_store"), str) and services.budget_store is not None:
        closing.callback(services.budget_store.close)
    app = _new_app(closing)
    metrics = ServerMetrics()
    site = _mount(app, services, doorkeeper, metrics)
    buffer = _mount_ingest(app, services, doorkeeper, metrics)
    if buffer is not None:
        closing.callback(buffer.close)
    _describe(app, site)
    _wrap(app, metrics, cors_origins)
    return app


def _new_app(closing: ExitStack) -> FastAPI:
    return FastAPI(
        title="taskpilot-obs",
        version=library_version(),
        description=_DESCRIPTION,
        docs_url=None,  # Swagger's page would load its scripts from another host
        redoc_url=None,
        lifespan=_closing(closing),
    )


def _describe(app: FastAPI, site: Site) -> None:
    """Answer errors as problems, and put examples into the description of the API."""
    app.add_exception_handler(HTTPException, _answering_problems(site))
    app.add_exception_handler(Exception, _answer_crash)
    draw = app.openapi
    app.openapi = lambda: with_examples(draw())  # type: ignore[method-assign]  # FastAPI documents this way


def _wrap(app: FastAPI, metrics: ServerMetrics, cors_origins: Sequence[str]) -> None:
    """Put the middleware around all routes; the last one is the outermost."""
    if cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_headers=["Authorization"])
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Counted, metrics=metrics)


def _mount(app: FastAPI, services: Services, doorkeeper: Doorkeeper, metrics: ServerMetrics) -> Site:
    inside = [bound(services, doorkeeper.who)]
    app.include_router(rest, dependencies=inside)
    app.include_router(feedback_routes(into_store(services.store)), dependencies=inside)
    app.include_router(golden, dependencies=inside)
    app.include_router(_metrics_router(metrics), dependencies=inside)
    app.include_router(probes, dependencies=[bound(services, _anyone)])
    site = Site(services, doorkeeper)
    app.include_router(site_router(site))
    app.include_router(login_router(site))
    return site


def _metrics_router(metrics: ServerMetrics) -> APIRouter:
    routes = APIRouter(route_class=ProblemRoute, include_in_schema=False)

    @routes.get("/metrics")
    def exposition(http: Request, ask: Reading) -> Response:
        """The server's own metrics; for tokens of every tenant, because they count everyone's requests."""
        if ask.principal.tenant is not None:
            raise Problem(HTTPStatus.FORBIDDEN, "metrics count every tenant's requests; use a token of every tenant")
        body, kind = metrics.render(http.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": kind})

    return routes


async def _anyone() -> None:
    """Probes are open to everyone."""


def _mount_ingest(
    app: FastAPI, services: Services, doorkeeper: Doorkeeper, metrics: ServerMetrics
) -> TraceBuffer | None:
    """`POST /v1/traces`, where the extra `otlp` is installed."""
    if not is_installed("google.protobuf", "opentelemetry.proto"):
        return None
    from taskpilot_obs.server.otlp import otlp_routes

    store = services.store
    buffer = TraceBuffer(lambda runs: Writer(store).write(rows_of(runs)), PriceTable())
    app.include_router(otlp_routes(buffer), dependencies=[bound(services, doorkeeper.who)])
    app.state.taskpilot_obs_traces = buffer
    metrics.watch_spans(buffer.counted)
    return buffer


def _closing(stack: ExitStack) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            stack.close()

    return lifespan


def _answering_problems(site: Site) -> Callable[[Request, Exception], Any]:
    """Answer errors of requests that met no route: browsers get a page, programs a document."""

    async def handler(http: Request, error: Exception) -> Response:
        problem = as_problem(error)
        if problem is None:
            raise error
        if problem.status_code == HTTPStatus.NOT_FOUND and problem.detail == HTTPStatus.NOT_FOUND.phrase:
            problem = Problem(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        is_for_people = "text/html" in http.headers.get("accept", "") and not http.url.path.startswith("/v1/")
        return site.error(http, problem) if is_for_people else problem_response(problem)

    return handler


async def _answer_crash(_: Request, __: Exception) -> Response:
    """Answer a crash without the stack trace, which is in the log."""
    detail = "the server failed; its log says why"
    # Starlette answers a crash outside of every middleware, so the headers are added here.
    return problem_response(HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR.value, detail, dict(HEADERS)))
