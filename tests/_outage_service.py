"""A service for gunicorn: `/?N` runs an agent N times, `/metrics` is scraped.

While the file `down` exists in the folder that SWITCHES names, the provider fails; while `deaf` exists, scrapes do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from taskpilot_obs import observe_agent, observe_llm, observe_workflow
from taskpilot_obs.exposition import metrics_wsgi_app

SWITCHES = Path(os.environ["SWITCHES"])
metrics = metrics_wsgi_app()


class ProviderDownError(Exception):
    """What a provider's client raises."""

    status_code = 503


@observe_llm(model="gpt-4o", provider="openai")
def complete() -> dict[str, Any]:
    """One call of the provider, in the shape of OpenAI's answer."""
    if (SWITCHES / "down").exists():
        raise ProviderDownError("overloaded")
    usage = {"prompt_tokens": 800, "completion_tokens": 90, "total_tokens": 890}
    return {"object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [], "usage": usage}


@observe_agent("support.triage")
def triage() -> None:
    """An agent that asks its model once."""
    complete()


@observe_workflow("support")
def support() -> None:
    """A task of a user."""
    triage()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The service."""
    if environ["PATH_INFO"] == "/metrics":
        if (SWITCHES / "deaf").exists():
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return metrics(environ, start_response)
    for _ in range(int(environ["QUERY_STRING"])):
        with contextlib.suppress(ProviderDownError):
            support()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
