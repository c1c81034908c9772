"""What an adapter of a framework costs a model call, beside the bar of 60 µs: the framework with one, less without.

Run: python benchmarks/bench_adapters.py [--quick]

Agent Framework: one call of a chat client whose model answers at once, with a middleware that does nothing, and with
ours. Pydantic AI: runs of an agent with one call and with nine, each with a capability that does nothing and with ours;
what the eight further calls cost is the adapter's share of a call, without that of the agent and its run. Haystack: a
component that calls a model, with a tracer that does nothing, and with ours. The best of many short rounds, in turns.
Frameworks that are not installed are left out.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from taskpilot_obs import configure

ROUNDS = 8 if "--quick" in sys.argv else 40
CALLS = 50
BAR_US = 60.0
MORE_CALLS = 8

Work = Callable[[], Awaitable[object]]


async def seconds(work: Work) -> float:
    """The time of one call, of a round of them."""
    start = time.thread_time()  # of the caller: the machine and the drainer are not asked
    for _ in range(CALLS):
        await work()
    return (time.thread_time() - start) / CALLS


async def difference_us(with_it: Work, without: Work) -> float:
    """What the one takes more than the other."""
    await seconds(with_it)
    await seconds(without)
    pairs = [(await seconds(with_it), await seconds(without)) for _ in range(ROUNDS)]
    return (min(each for each, _ in pairs) - min(each for _, each in pairs)) * 1e6


async def agent_framework() -> float:
    """A call of a chat client."""
    import agent_framework as af
    from taskpilot_obs_agent_framework import ChatObserver

    class Client(af.ChatMiddlewareLayer, af.BaseChatClient):  # type: ignore[misc]
        model = "gpt-4o-mini"

        async def _inner_get_response(self, **_: Any) -> Any:
            usage = {"input_token_count": 100, "output_token_count": 20}
            return af.ChatResponse(messages=[af.Message("assistant", ["Hello."])], usage_details=usage)

    class Nothing(af.ChatMiddleware):  # type: ignore[misc]
        async def process(self, context: Any, call_next: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002  likewise
            await call_next()

    asked = [af.Message("user", ["hi"])]
    ours, theirs = Client(middleware=[ChatObserver()]), Client(middleware=[Nothing()])
    return await difference_us(lambda: ours.get_response(asked), lambda: theirs.get_response(asked))


async def pydantic_ai() -> float:
    """A further call within a run: what nine calls cost more than one, with ours and without."""
    from pydantic_ai import Agent, ModelRetry
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.models.test import TestModel
    from taskpilot_obs_pydantic_ai import ObservabilityCapability

    class Nothing(AbstractCapability):  # type: ignore[misc]
        async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:  # noqa: ARG002  the framework's signature
            return await handler()

        async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:  # noqa: ARG002
            return await handler(request_context)

        async def prepare_model_request(self, ctx: Any, request_context: Any) -> Any:  # noqa: ARG002
            return request_context

    def work(capability: Any, calls: int) -> Work:
        model = TestModel(model_name="gpt-4o-mini")
        agent = Agent(model, name="Planner", capabilities=[capability], retries=MORE_CALLS)

        @agent.output_validator  # type: ignore[untyped-decorator]
        def again(ctx: Any, output: Any) -> Any:
            if ctx.retry < calls - 1:
                raise ModelRetry("once more")
            return output

        return lambda: agent.run("hi")

    one = await difference_us(work(ObservabilityCapability(), 1), work(Nothing(), 1))
    more = await difference_us(work(ObservabilityCapability(), 1 + MORE_CALLS), work(Nothing(), 1 + MORE_CALLS))
    return (more - one) / MORE_CALLS


async def haystack() -> float:
    """A component that calls a model."""
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    from haystack import tracing
    from haystack.tracing.tracer import NullTracer
    from taskpilot_obs_haystack import ObservabilityTracer

    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    answer = {"meta": [{"model": "gpt-4o-mini", "usage": usage, "finish_reason": "stop"}]}
    tags = {"haystack.component.name": "llm", "haystack.component.type": "OpenAIGenerator"}

    def work(tracer: Any) -> Work:
        async def call() -> None:
            tracing.enable_tracing(tracer)
            with tracing.tracer.trace("haystack.component.run", tags=tags) as span:
                span.set_content_tag("haystack.component.input", {"prompt": "hi"})
                span.set_content_tag("haystack.component.output", answer)

        return call

    return await difference_us(work(ObservabilityTracer()), work(NullTracer()))


def main() -> int:
    """Print one line for each framework; returns the exit code."""
    configure()
    worst = 0.0
    for name, measure in (("agent_framework", agent_framework), ("pydantic_ai", pydantic_ai), ("haystack", haystack)):
        if find_spec(name) is None:
            print(f"{name}: not installed")
            continue
        cost = asyncio.run(measure())
        worst = max(worst, cost)
        print(f"{name}: {cost:.0f} µs a model call (bar {BAR_US:.0f})")
    return int(worst > BAR_US)


if __name__ == "__main__":
    sys.exit(main())
