"""Routers for mounting in an existing application, under its own authentication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from fastapi import APIRouter

from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.http import checked_url
from taskpilot_obs.golden_signals.thresholds import Thresholds
from taskpilot_obs.server.access import Who, bound
from taskpilot_obs.server.health import golden, probes
from taskpilot_obs.server.problems import ProblemRoute
from taskpilot_obs.server.rest import rest
from taskpilot_obs.server.services import Links, Services
from taskpilot_obs.server.verdicts import feedback_routes, into_recorder, into_store
from taskpilot_obs.store import Store


def router(
    *,
    store: str | Store,
    who: Who,
    **options: Unpack[ServiceOptions],
) -> APIRouter:
    """The REST API, for `app.include_router`.

    Args:
        store: the URL of a telemetry store, or one that is open.
        who: a FastAPI dependency that returns a `Principal`, or raises an `HTTPException`: it decides what the caller
            may do, and which tenant's data it sees.
        options: `budgets`: the budgets that `/v1/budgets` reports; `budget_store`: the store that they are kept in,
            where it is not `store`, as ClickHouse cannot be; `thresholds`: bounds of the golden signals; `prometheus`:
            base URL of a Prometheus server with this library's rules.

    Raises:
        ConfigurationError: an argument is wrong.
        StoreError: the store is missing or cannot be used.
    """
    services = services_for(store, **options)
    return _bound(services, who, rest, feedback_routes(into_store(services.store)))


def feedback_router(*, who: Who, store: str | Store | None = None) -> APIRouter:
    """`POST /v1/feedback` alone, for `app.include_router`.

    Args:
        who: a FastAPI dependency that returns a `Principal`, or raises an `HTTPException`.
        store: write verdicts into this store; None hands them to the default recorder, which counts them in its metrics
            and writes them to the audit log and to its own store.

    Raises:
        ConfigurationError: the URL is wrong.
        StoreError: the store is missing or cannot be used.
    """
    routes = feedback_routes(into_recorder if store is None else into_store(_opened(store)))
    return _bound(None, who, routes)


def health_router(
    *, store: str | Store, who: Who, thresholds: Thresholds | None = None, prometheus: str | None = None
) -> APIRouter:
    """`/health/live`, `/health/ready` and `/health/golden`, for `app.include_router`.

    Args:
        store: the URL of a telemetry store, or one that is open.
        who: a FastAPI dependency that returns a `Principal`; used by `/health/golden` only.
        thresholds: bounds of the golden signals; None for the defaults.
        prometheus: base URL of a Prometheus server, which has to be ready too.

    Raises:
        ConfigurationError: an argument is wrong.
        StoreError: the store is missing or cannot be used.
    """
    services = services_for(store, thresholds=thresholds, prometheus=prometheus)
    found = APIRouter(route_class=ProblemRoute)
    found.include_router(probes, dependencies=[bound(services, _anyone)])
    found.include_router(golden, dependencies=[bound(services, who)])
    return found


class ServiceOptions(TypedDict, total=False):
    """What the API answers from beside its store."""

    budgets: Sequence[Budget]
    budget_store: str | Store | None
    thresholds: Thresholds | None
    prometheus: str | None
    links: Links | None


def services_for(store: str | Store, **options: Unpack[ServiceOptions]) -> Services:
    """What the routers work with.

    Args:
        store: the URL of a telemetry store, or one that is open.
        options: as for `create_app`.

    Raises:
        ConfigurationError: an argument is wrong.
        StoreError: the store is missing or cannot be used.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "prometheus" in given:
        checked_url(given["prometheus"])
    opened = _opened(store)
    if "budget_store" in given:
        given["budget_store"] = _opened(given["budget_store"])
    services = Services(opened, **given | {"budgets": tuple(given.get("budgets", ()))})
    kept_in = services.budget_store or opened
    if services.budgets and kept_in.is_clickhouse:
        raise ConfigurationError(
            f"budget_store: {kept_in} has no transactions, which budgets need; name the store that "
            "budget_store= of configure names"
        )
    return services


def _opened(store: str | Store) -> Store:
    return store if isinstance(store, Store) else Store(store)


async def _anyone() -> None:
    """Admit everyone, because probes disclose nothing confidential."""


def _bound(services: Services | None, who: Who, *routers: APIRouter) -> APIRouter:
    found = APIRouter(route_class=ProblemRoute)
    for one in routers:
        found.include_router(one, dependencies=[bound(services, who)])
    return found
