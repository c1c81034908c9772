"""A FastAPI service with /metrics and a health check that knows the golden signals.

Serve it:       uvicorn --app-dir examples fastapi_app:app
Try it offline: python examples/fastapi_app.py
"""

from typing import Annotated, Any

from fastapi import FastAPI, Header, Response

from taskpilot_obs import configure, golden_signals, observe_workflow, request_context
from taskpilot_obs.exposition import metrics_app

configure(service="taskpilot-api")
app = FastAPI()
app.mount("/metrics", metrics_app())


@observe_workflow
async def answer(question: str) -> str:
    """What the service is for."""
    if "?" not in question:
        raise ValueError("a question ends with a question mark")
    return f"42, to: {question}"


@app.get("/ask")
async def ask(question: str, x_request_id: Annotated[str | None, Header()] = None) -> dict[str, str]:
    """Answer under the caller's request ID, or a fresh one."""
    with request_context(request_id=x_request_id) as scope:
        return {"answer": await answer(question), "request_id": scope.request_id}


@app.get("/health")
def health(response: Response) -> dict[str, Any]:
    """503 while the signals of the last 15 minutes are critical."""
    signals = golden_signals("15m")
    response.status_code = 503 if signals.status == "critical" else 200
    return signals.model_dump(mode="json", include={"status", "success_rate", "p95_latency_ms", "runs"})


if __name__ == "__main__":
    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        print(client.get("/ask", params={"question": "why?"}, headers={"X-Request-ID": "req-1"}).json())
        print(client.get("/health").json())
        lines = client.get("/metrics").text.splitlines()
        print(next(line for line in lines if line.startswith("workflow_runs_total") and line.endswith(" 1.0")))
