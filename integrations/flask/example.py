"""A Flask service with an observed agent, asked by its own test client: no server, no key, no network."""

from __future__ import annotations

from flask import Flask
from taskpilot_obs_flask import Identity, ObservabilityMiddleware
from werkzeug.wrappers import Request

from taskpilot_obs import observe_agent
from taskpilot_obs.propagation import inject
from taskpilot_obs.testing import capture_invocations


def identify(request: Request) -> Identity:
    """On whose behalf a request is made."""
    return Identity(tenant_id=request.headers.get("x-tenant"))


app = Flask(__name__)
app.wsgi_app = ObservabilityMiddleware(app.wsgi_app, identify=identify)  # type: ignore[method-assign]  # as Flask says


@app.get("/ask")
@observe_agent("Support")
def ask() -> dict[str, str]:
    """An agent, without its model; it tells the headers that it would send to the next service."""
    headers: dict[str, str] = {}
    inject(headers, baggage=True)
    return headers


if __name__ == "__main__":
    with capture_invocations() as runs:
        print(app.test_client().get("/ask", headers={"X-Request-ID": "req-1", "X-Tenant": "acme"}).json)
    print([(run.name, run.request_id, run.tenant, run.status.value) for run in runs])
