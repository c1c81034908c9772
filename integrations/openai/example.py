"""A wrapped client of OpenAI's SDK, answered by a transport in this process: no key, no network."""

from __future__ import annotations

import importlib
import json
from typing import Any

import openai
from openai import DefaultHttpxClient, OpenAI
from taskpilot_obs_openai import wrap

from taskpilot_obs import observe_agent
from taskpilot_obs.testing import capture_invocations

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Because."}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


http: Any = importlib.import_module("httpx" if openai.__version__.startswith("2.") else "httpx2")  # that of the SDK


def provider(_: Any) -> Any:
    """The model, without its provider."""
    return http.Response(200, content=json.dumps(ANSWER), headers={"content-type": "application/json"})


client = wrap(OpenAI(api_key="none", http_client=DefaultHttpxClient(transport=http.MockTransport(provider))))


@observe_agent("Support")
def answer(question: str) -> str | None:
    """An agent that asks the model."""
    asked = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}])
    return asked.choices[0].message.content


if __name__ == "__main__":
    with capture_invocations() as runs:
        print(answer("why?"))
    for run in runs:
        print(run.operation.value, run.name, run.status.value, run.usage and run.usage.input_tokens, run.cost)
