"""Routers for mounting in an existing application, under its own authentication."""

from __future__ import annotations

from collections.abc import Sequence

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
    budgets: Sequence[Budget] = (),
    budget_store: str | Store | None = None,
    thresholds: Thresholds | None = None,
    prometheus: str | None = None,
) -> APIRouter:
    """The REST API, for `app.include_router`.

    Args:
        store: the URL of a telemetry store, or one that is open.
        who: a FastAPI dependency that returns a `Principal`, or raises an `HTTPException`: it decides what the caller
            may do, and which tenant's data it sees.
        budgets: the budgets that `/v1/budgets` reports.
        budget_store: the store that they are kept in; None where it is `store`, which ClickHouse cannot be.
        thresholds: bounds of the golden signals; None for the defaults.
        prometheus: base URL of a Prometheus server with this library's rules.

    Raises:
        ConfigurationError: an argument is wrong.
        StoreError: the store is missing or cannot be used.
    """
    services = services_for(
        store, budgets=budgets, budget_store=budget_store, thresholds=thresholds, prometheus=prometheus
    )
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


def services_for(
    store: str | Store,
    *,
    budgets: Sequence[Budget] = (),
    budget_store: str | Store | None = None,
    thresholds: Thresholds | None = None,
    prometheus: str | None = None,
    links: Links | None = None,
) -> Services:
    """What the routers work with.

    Raises:
        ConfigurationError: an argument is wrong.
        StoreError: the store is missing or cannot be used.
    """
    if prometheus is not None:
        checked_url(prometheus)
    opened, kept_in = _opened(store), None if budget_store is None else _opened(budget_store)
    if budgets and (kept_in or opened).is_clickhouse:
        raise ConfigurationError(
            f"budget_store: {kept_in or opened} has no transactions, which budgets need; name the store that "
            "budget_store= of configure names"
        )
    return Services(
        opened,
        budgets=tuple(budgets),
        budget_store=kept_in,
        thresholds=thresholds or Thresholds(),
        prometheus=prometheus,
        links=links or Links(),
    )


def _opened(store: str | Store) -> Store:
    return store if isinstance(store, Store) else Store(store)


async def _anyone() -> None:
    """Admit everyone, because probes disclose nothing confidential."""


def _bound(services: Services | None, who: Who, *routers: APIRouter) -> APIRouter:
    found = APIRouter(route_class=ProblemRoute)
    for one in routers:
        found.include_router(one, dependencies=[bound(services, who)])
    return found
