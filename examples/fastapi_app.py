"""A FastAPI service with /metrics, health, feedback and the REST API over its own telemetry store.

Serve it:       uvicorn --app-dir examples fastapi_app:app
Try it offline: python examples/fastapi_app.py
"""

import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from taskpilot_obs import configure, flush, observe_workflow, request_context
from taskpilot_obs.exposition import metrics_app
from taskpilot_obs.server import Principal, feedback_router, health_router, router

STORE = f"sqlite:///{Path(tempfile.mkdtemp(prefix='taskpilot-')) / 'telemetry.db'}"
USERS = {"ann-key": Principal("ann", "admin", None), "acme-key": Principal("acme", "viewer", "acme")}
"""Stands for your own authentication."""

configure(service="taskpilot-api", store=STORE)
app = FastAPI()


def who(x_api_key: Annotated[str | None, Header()] = None) -> Principal:
    """The caller: the routers show what this principal may see, and no other tenant."""
    if x_api_key not in USERS:
        raise HTTPException(401, "send X-API-Key")
    return USERS[x_api_key]


app.mount("/metrics", metrics_app())
app.include_router(health_router(store=STORE, who=who))  # /health/live, /health/ready, /health/golden
app.include_router(feedback_router(who=who))  # POST /v1/feedback, into this process's metrics, audit log and store
app.include_router(router(store=STORE, who=who), prefix="/observability")  # /observability/v1/…


@observe_workflow
async def answer(question: str) -> str:
    """What the service is for."""
    if "?" not in question:
        raise ValueError("not a question: it has no question mark")
    return f"42, to: {question}"


@app.get("/ask")
async def ask(question: str, x_request_id: Annotated[str | None, Header()] = None) -> dict[str, str]:
    """Answer under the caller's request ID, or a fresh one."""
    with request_context(request_id=x_request_id, tenant_id="acme") as scope:
        return {"answer": await answer(question), "request_id": scope.request_id}


if __name__ == "__main__":
    import shutil

    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        print(client.get("/ask", params={"question": "why?"}, headers={"X-Request-ID": "req-1"}).json())
        rated = {"request_id": "req-1", "correct": True}
        print(client.post("/v1/feedback", json=rated, headers={"X-API-Key": "ann-key"}).json())
        flush()
        print(client.get("/health/golden", headers={"X-API-Key": "ann-key"}).json())
        steps = client.get("/observability/v1/runs/req-1", headers={"X-API-Key": "acme-key"}).json()["steps"]
        print([(step["operation"], step["name"], step["status"]) for step in steps])
        lines = client.get("/metrics").text.splitlines()
        print(next(line for line in lines if line.startswith("workflow_runs_total") and line.endswith(" 1.0")))
    shutil.rmtree(Path(STORE.removeprefix("sqlite:///")).parent, ignore_errors=True)
