"""A FastAPI service with an observed, streamed agent, asked by its own test client: no server, no key, no network."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from taskpilot_obs_fastapi import Identity, ObservabilityMiddleware

from taskpilot_obs import observe_agent
from taskpilot_obs.propagation import inject
from taskpilot_obs.testing import capture_invocations


def identify(connection: HTTPConnection) -> Identity:
    """On whose behalf a request is made."""
    return Identity(tenant_id=connection.headers.get("x-tenant"))


app = FastAPI()
app.add_middleware(ObservabilityMiddleware, identify=identify)


@observe_agent("Support")
async def answer() -> AsyncIterator[str]:
    """An agent, without its model; it tells the headers that it would send to the next service."""
    headers: dict[str, str] = {}
    inject(headers, baggage=True)
    for name, value in headers.items():
        yield f"{name}: {value}\n"


@app.get("/ask")
async def ask() -> StreamingResponse:
    """The route."""
    return StreamingResponse(answer(), media_type="text/plain")


if __name__ == "__main__":
    with capture_invocations() as runs:
        print(TestClient(app).get("/ask", headers={"X-Request-ID": "req-1", "X-Tenant": "acme"}).text)
    print([(run.name, run.request_id, run.tenant, run.status.value) for run in runs])
