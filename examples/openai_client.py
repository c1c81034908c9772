"""The plain openai client, without a framework: a call, a stream, a cache hit.

Runs offline on an answer that is built in: python examples/openai_client.py
With OPENAI_API_KEY set it asks the real service, which costs less than a cent.
"""

import json
import os

import httpx2
from openai import OpenAI

from taskpilot_obs import golden_signals, observe_agent, track_llm
from taskpilot_obs.testing import capture_invocations

MODEL = "gpt-4o-mini"
USAGE = {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200}


def built_in(request: httpx2.Request) -> httpx2.Response:
    """What the service would answer."""
    head: dict[str, object] = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    message = {"role": "assistant", "content": "Forty-two."}
    if not json.loads(request.content).get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return httpx2.Response(200, json={**head, "choices": [choice], "usage": USAGE})
    chunks: list[dict[str, object]] = [{"choices": [{"index": 0, "delta": message}]}, {"choices": [], "usage": USAGE}]
    lines = [f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **chunk})}\n\n" for chunk in chunks]
    return httpx2.Response(
        200, text="".join([*lines, "data: [DONE]\n\n"]), headers={"Content-Type": "text/event-stream"}
    )


def make_client() -> OpenAI:
    """The real client; without a key it talks to the built-in answer."""
    if os.environ.get("OPENAI_API_KEY"):
        return OpenAI()
    return OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(built_in)))


client = make_client()
cache: dict[str, str] = {}


@observe_agent("AnswerAgent")
def ask(question: str) -> str:
    """Answer from the cache, or ask the model."""
    with track_llm(provider="openai", model=MODEL) as call:
        call.set_cached(question in cache)
        if question not in cache:
            response = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}])
            call.record_response(response)
            cache[question] = response.choices[0].message.content or ""
    return cache[question]


@observe_agent("TellingAgent")
def tell(question: str) -> None:
    """Print the answer as it comes: the time to the first token is measured, the usage comes at the end."""
    with track_llm(provider="openai", model=MODEL) as call:
        events = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},
        )
        for event in call.stream(events):
            print("".join(choice.delta.content or "" for choice in event.choices), end="", flush=True)
    print()


if __name__ == "__main__":
    with capture_invocations() as seen, client:
        print(ask("What is six times seven?"))
        print(ask("What is six times seven?"))
        tell("What is six times seven?")
        for run in seen:
            print(f"{run.operation} {run.agent}: {run.status}, cached {run.cached}, {run.usage}, {run.cost} USD")
    print(f"cost coverage: {golden_signals('15m').cost_coverage}")
