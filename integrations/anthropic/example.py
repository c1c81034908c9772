"""A wrapped client of Anthropic's SDK, answered by a transport in this process: no key, no network."""

from __future__ import annotations

import json

import httpx2 as http
from anthropic import Anthropic, DefaultHttpxClient
from taskpilot_obs_anthropic import wrap

from taskpilot_obs import observe_agent
from taskpilot_obs.testing import capture_invocations

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-6",
    "content": [{"type": "text", "text": "Because."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 2},
}


def provider(_: http.Request) -> http.Response:
    """The model, without its provider."""
    return http.Response(200, content=json.dumps(ANSWER), headers={"content-type": "application/json"})


client = wrap(Anthropic(api_key="none", http_client=DefaultHttpxClient(transport=http.MockTransport(provider))))


@observe_agent("Support")
def answer(question: str) -> str:
    """An agent that asks the model."""
    asked = client.messages.create(
        model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": question}]
    )
    return "".join(block.text for block in asked.content if block.type == "text")


if __name__ == "__main__":
    with capture_invocations() as runs:
        print(answer("why?"))
    for run in runs:
        print(run.operation.value, run.name, run.status.value, run.usage and run.usage.input_tokens, run.cost)
