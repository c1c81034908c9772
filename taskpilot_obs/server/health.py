"""Health for load balancers and Kubernetes: the process, what it needs, and the golden signals."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs.exceptions import SourceError, StoreError
from taskpilot_obs.golden_signals.http import Access, get
from taskpilot_obs.golden_signals.model import SignalStatus
from taskpilot_obs.server import params
from taskpilot_obs.server.access import Reading, services_of
from taskpilot_obs.server.answers import answer
from taskpilot_obs.server.examples import EXAMPLES
from taskpilot_obs.server.problems import PROBLEMS, ProblemRoute
from taskpilot_obs.server.services import Services
from taskpilot_obs.server.shapes import GoldenHealth, Health

State = Literal["ok", "unavailable"]
_PROBE_S: Final = 2.0
_FIGURES: Final = tuple(GoldenHealth.model_fields)

probes = APIRouter(prefix="/health", route_class=ProblemRoute)
"""Open to everyone, because they only report that the server works."""
golden = APIRouter(prefix="/health", route_class=ProblemRoute, responses=PROBLEMS)
"""Only for callers that may read, because the figures are confidential."""


def _example(path: str) -> dict[str, Any]:
    return {"content": {"application/json": {"example": EXAMPLES[path]}}}


@probes.head("/live", include_in_schema=False)
@probes.get("/live", response_model=Health, responses={200: _example("/health/live")})
async def live(_: Annotated[params.Query, Query()]) -> JSONResponse:
    """Whether the process answers; restart it where this fails."""
    return JSONResponse({"status": "ok"})


@probes.head("/ready", include_in_schema=False)
@probes.get(
    "/ready",
    response_model=Health,
    responses={200: _example("/health/ready"), 503: {"model": Health, "description": "A part is unavailable."}},
)
def ready(_: Annotated[params.Query, Query()], services: Annotated[Services, Depends(services_of)]) -> JSONResponse:
    """Whether the store, and Prometheus where it is configured, can be asked; asked at most once a second."""
    parts = services.readiness.get("parts", lambda: _parts(services))
    works = all(state == "ok" for state in parts.values())
    status = HTTPStatus.OK if works else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"status": "ok" if works else "unavailable", **parts}, status)


@golden.head("/golden", include_in_schema=False)
@golden.get(
    "/golden",
    response_model=GoldenHealth,
    responses={
        200: _example("/health/golden"),
        503: {"model": GoldenHealth, "description": "The signals are critical, or with `strict=1` a warning."},
    },
)
def golden_health(query: Annotated[params.HealthQuery, Query()], ask: Reading) -> JSONResponse:
    """The golden signals: 503 where they are critical; healthy, warning and no evidence are 200.

    Worked out at most once in five seconds, however many probes ask.
    """
    key = (ask.principal.tenant, query.window, query.workflow)
    signals = ask.services.health.get(key, lambda: ask.signals(query.window, query.workflow))
    fails = {SignalStatus.CRITICAL, SignalStatus.WARNING} if query.strict == "1" else {SignalStatus.CRITICAL}
    status = HTTPStatus.SERVICE_UNAVAILABLE if signals.status in fails else HTTPStatus.OK
    return JSONResponse({name: answer(getattr(signals, name)) for name in _FIGURES}, status)


def _parts(services: Services) -> dict[str, State]:
    parts: dict[str, State] = {"store": _store_state(services)}
    if services.prometheus is not None:
        parts["prometheus"] = _prometheus_state(services.prometheus)
    return parts


def _store_state(services: Services) -> State:
    try:
        services.store.require_usable()
    except StoreError as error:
        log_failure("server", error)
        return "unavailable"
    return "ok"


def _prometheus_state(url: str) -> State:
    try:
        get(f"{url.rstrip('/')}/-/ready", Access(timeout_s=_PROBE_S))
    except SourceError as error:
        log_failure("server", error)
        return "unavailable"
    return "ok"
