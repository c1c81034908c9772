"""A wrapped client of Google's SDK, answered by a transport in this process: no key, no network."""

from __future__ import annotations

import importlib
import json
from typing import Any

from google.genai import Client, __version__, types
from taskpilot_obs_google_genai import wrap

from taskpilot_obs import observe_agent
from taskpilot_obs.testing import capture_invocations

ANSWER = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Because."}]}, "finishReason": "STOP"}],
    "modelVersion": "gemini-2.5-flash",
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11},
}


http: Any = importlib.import_module("httpx" if __version__.startswith("2.") else "httpx2")  # that of the SDK


def provider(_: Any) -> Any:
    """The model, without its provider."""
    return http.Response(200, content=json.dumps(ANSWER), headers={"content-type": "application/json"})


options = types.HttpOptions(httpx_client=http.Client(transport=http.MockTransport(provider)))
client = wrap(Client(api_key="none", http_options=options))


@observe_agent("Support")
def answer(question: str) -> str | None:
    """An agent that asks the model."""
    return client.models.generate_content(model="gemini-2.5-flash", contents=question).text


if __name__ == "__main__":
    with capture_invocations() as runs:
        print(answer("why?"))
    for run in runs:
        print(run.operation.value, run.name, run.status.value, run.usage and run.usage.input_tokens, run.cost)
