"""A small observed service, as WSGI and as ASGI, for the real servers: `/` runs an agent, `/metrics`, `/signals`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from taskpilot_obs import flush, golden_signals, observe_agent
from taskpilot_obs.exposition import Receive, Scope, Send, metrics_app, metrics_wsgi_app

metrics_of_wsgi = metrics_wsgi_app()
metrics_of_asgi = metrics_app()


@observe_agent("planner")
def plan() -> bytes:
    """What every request runs; the file that RAN names grows by a byte, which is the truth."""
    with Path(os.environ["RAN"]).open("ab", buffering=0) as file:
        file.write(b".")
    return str(os.getpid()).encode()


def signals() -> bytes:
    """The golden signals since the start, as JSON."""
    return golden_signals().model_dump_json().encode()


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The service for sync and threaded workers."""
    if environ["PATH_INFO"] == "/metrics":
        return metrics_of_wsgi(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [signals() if environ["PATH_INFO"] == "/signals" else plan()]


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """The service for uvicorn's workers."""
    if scope["type"] != "http" or scope["path"] == "/metrics":
        await metrics_of_asgi(scope, receive, send)
        return
    body = signals() if scope["path"] == "/signals" else plan()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def asgi_flushing(scope: Scope, receive: Receive, send: Send) -> None:
    """The application, flushing at its shutdown: uvicorn raises SIGTERM again after it, and that ends the process."""
    if scope["type"] != "lifespan":
        await asgi(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(flush)
    await send({"type": "lifespan.shutdown.complete"})
