"""A Django project in one file with an observed agent, asked by its own test client: no server, no key, no network."""

from __future__ import annotations

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.urls import path
from taskpilot_obs_django import Identity

from taskpilot_obs import observe_agent
from taskpilot_obs.propagation import inject
from taskpilot_obs.testing import capture_invocations


def identify(request: HttpRequest) -> Identity:
    """On whose behalf a request is made."""
    return Identity(tenant_id=request.headers.get("x-tenant"))


@observe_agent("Support")
def ask(_: HttpRequest) -> JsonResponse:
    """An agent, without its model; it tells the headers that it would send to the next service."""
    headers: dict[str, str] = {}
    inject(headers, baggage=True)
    return JsonResponse(headers)


urlpatterns = [path("ask", ask)]

if __name__ == "__main__":
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for this example only",  # noqa: S106
        MIDDLEWARE=["taskpilot_obs_django.ObservabilityMiddleware"],
        TASKPILOT_OBS_IDENTIFY=identify,
    )
    django.setup()
    with capture_invocations() as runs:
        print(Client().get("/ask", headers={"X-Request-ID": "req-1", "X-Tenant": "acme"}).json())
    print([(run.name, run.request_id, run.tenant, run.status.value) for run in runs])
