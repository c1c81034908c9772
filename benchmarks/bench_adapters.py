"""What an adapter of a framework costs a model call, beside the bar of 60 µs: the framework with one, less without.

Run: python benchmarks/bench_adapters.py [--quick]

Each framework runs with models that answer at once, with an adapter that does nothing where it needs one, and with
ours. Of OpenAI Agents, a turn in which the model is called once and one in which it is called nine times are compared:
what the eight further calls cost is the adapter's share of a call, without that of the agent, its run and its tools. A
turn that uses a tool has a tool call besides, which is in no figure. The others call an adapter before and after a call
of a model, by hooks, callbacks, events or a span; there these are measured, and of Agent Framework the whole call of
its client. Rounds of the two are interleaved, and the best of each is taken.

What counts is the time of the calling thread, without a tracer, content capture and checks. What is read off this
thread, as the usage that most answers state, is not in it. Frameworks that are not installed are left out, and named.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from importlib.util import find_spec
from typing import Any

from taskpilot_obs import configure, get_recorder
from taskpilot_obs.semconv import INTERNAL_ERRORS

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
    """The hooks around a request, the fifth of a conversation."""
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
    from pydantic_ai.models import ModelRequestContext, ModelRequestParameters
    from pydantic_ai.models.test import TestModel
    from pydantic_ai.usage import RequestUsage
    from taskpilot_obs_pydantic_ai import ObservabilityCapability

    said = ModelRequest(parts=[UserPromptPart(content="hi")])
    usage = RequestUsage(input_tokens=100, output_tokens=20)
    answer = ModelResponse(parts=[TextPart("Hello.")], usage=usage, model_name="gpt-4o-mini", finish_reason="stop")
    request = ModelRequestContext(
        model=TestModel(model_name="gpt-4o-mini"),
        messages=[said, answer] * 4 + [said],
        model_settings=None,
        model_request_parameters=ModelRequestParameters(),
    )
    capability = ObservabilityCapability()

    async def model(_: Any) -> Any:
        return answer

    async def call() -> None:
        await capability.wrap_model_request(None, request_context=request, handler=model)
        await capability.prepare_model_request(None, request)

    return await difference_us(call, lambda: model(request))


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


async def further_us(ours: Callable[[int], Work], theirs: Callable[[int], Work]) -> float:
    """What a further call within a run costs more with ours; each makes a run with so many calls."""
    one = await difference_us(ours(1), theirs(1))
    more = await difference_us(ours(1 + MORE_CALLS), theirs(1 + MORE_CALLS))
    return (more - one) / MORE_CALLS


async def agents() -> float:
    """OpenAI Agents: the spans of a further call of the model within a turn, as a model that asks again opens them."""
    import agents as sdk
    from agents.tracing import generation_span
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText
    from taskpilot_obs_openai_agents import ObservabilityProcessor

    text = ResponseOutputText(type="output_text", text="Hello.", annotations=[])
    done = ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[text])
    usage = {"input_tokens": 100, "output_tokens": 20}

    class Scripted(sdk.Model):  # type: ignore[misc]
        def __init__(self, calls: int) -> None:
            self.calls = calls

        async def get_response(self, *_: Any, **__: Any) -> Any:
            for _call in range(self.calls):
                with generation_span(model="gpt-4o-mini") as span:
                    span.span_data.usage, span.span_data.output = usage, [{"role": "assistant", "content": "Hello."}]
            return sdk.ModelResponse(output=[done], usage=sdk.Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    class Nothing(sdk.TracingProcessor):  # type: ignore[misc]
        def _ignore(self, *_: Any) -> None:
            """Nothing."""

        on_trace_start = on_trace_end = on_span_start = on_span_end = shutdown = force_flush = _ignore

    def work(processor: Any, calls: int) -> Work:
        planner = sdk.Agent(name="Planner", model=Scripted(calls))

        async def run() -> None:
            sdk.set_trace_processors([processor])
            await sdk.Runner.run(planner, "hi")

        return run

    return await further_us(partial(work, ObservabilityProcessor()), partial(work, Nothing()))


async def google_adk() -> float:
    """Google ADK: the callbacks around a call of a model."""
    from types import SimpleNamespace

    from google.adk.models import LlmRequest, LlmResponse
    from google.genai import types
    from taskpilot_obs_google_adk import ObservabilityPlugin

    said = types.Content(role="user", parts=[types.Part(text="hi")])
    usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=100, candidates_token_count=20)
    request = LlmRequest(model="gemini-2.5-flash", contents=[said])
    response = LlmResponse(content=said, usage_metadata=usage, finish_reason="STOP")
    where = SimpleNamespace(invocation_id="1", agent_name="Planner")
    plugin = ObservabilityPlugin()

    async def call() -> None:
        await plugin.before_model_callback(callback_context=where, llm_request=request)
        await plugin.after_model_callback(callback_context=where, llm_response=response)

    return await difference_us(call, _nothing)


async def strands() -> float:
    """Strands: the middleware around a call of a model, that streams one piece."""
    from types import SimpleNamespace

    from strands.middleware import ModelStopReason
    from taskpilot_obs_strands import ObservabilityPlugin

    message = {"role": "assistant", "content": [{"text": "Hello."}]}
    usage = {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120}
    stop = ModelStopReason("end_turn", message, usage, {"latencyMs": 1})
    asked = [{"role": "user", "content": [{"text": "hi"}]}]
    model = SimpleNamespace(get_config=lambda: {"model_id": "gpt-4o-mini"})

    class Planner:
        """An agent, to which the plugin refers weakly."""

    context = SimpleNamespace(messages=asked, system_prompt="-", model=model, agent=Planner())
    plugin = ObservabilityPlugin()

    async def answer(_: Any) -> Any:
        yield {"event": {"contentBlockDelta": {"delta": {"text": "Hello."}}}}
        yield stop

    async def call() -> None:
        async for _ in plugin._model(context, answer):  # noqa: SLF001  what `init_agent` hands to the framework
            pass

    async def plain() -> None:
        async for _ in answer(context):
            pass

    return await difference_us(call, plain)


async def litellm() -> float:
    """LiteLLM: the hooks of an asynchronous call."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would be fetched
    from types import SimpleNamespace

    from litellm import ModelResponse
    from taskpilot_obs_litellm import ObservabilityCallback

    callback = ObservabilityCallback()
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    response = ModelResponse(id="1", model="gpt-4o-mini", usage=usage)
    document = response.model_dump_json()
    messages = [{"role": "user", "content": "hi"}]

    async def call() -> None:
        details = {"call_type": "acompletion", "custom_llm_provider": "openai", "model": "gpt-4o-mini"}
        asked = {
            "litellm_logging_obj": SimpleNamespace(model_call_details=details),
            "model": "gpt-4o-mini",
            "custom_llm_provider": "openai",
            "messages": messages,
        }
        await callback.async_pre_call_deployment_hook(asked, "acompletion")
        callback.log_pre_api_call("gpt-4o-mini", messages, details)
        details["original_response"] = document  # as LiteLLM notes it before it calls the next hook
        await callback.async_post_call_success_deployment_hook(asked, response, "acompletion")

    return await difference_us(call, _nothing)


async def crewai() -> float:
    """crewAI: the hook before a call of a model, and the events of its start and its end."""
    os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "CREWAI_TESTING": "true"}
    from types import SimpleNamespace

    from taskpilot_obs_crewai import Observer

    observer = Observer()
    llm = SimpleNamespace(model="gpt-4o-mini", provider="openai", stream=False, max_tokens=None)
    messages = [{"role": "user", "content": "hi"}]
    hook = SimpleNamespace(messages=messages, llm=llm, executor=object())
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    stated = {"messages": messages, "stream": False, "call_id": "1", "event_id": "1", "started_event_id": "1"}
    begun = SimpleNamespace(type="llm_call_started", **stated)
    answered = {"usage": usage, "finish_reason": "stop", "response_id": "1", "response": "Hello."}
    ended = SimpleNamespace(type="llm_call_completed", **stated, **answered)

    async def call() -> None:
        observer._before_model(hook)  # noqa: SLF001  what `start` registers
        observer._sink(llm, begun)  # noqa: SLF001  likewise
        observer._sink(llm, ended)  # noqa: SLF001  likewise

    return await difference_us(call, _nothing)


async def _nothing() -> None:
    """What calls cost without an adapter: nothing."""


MEASURES: dict[str, Callable[[], Coroutine[Any, Any, float]]] = {
    "agent_framework": agent_framework,
    "openai_agents": agents,
    "pydantic_ai": pydantic_ai,
    "google_adk": google_adk,
    "strands": strands,
    "crewai": crewai,
    "litellm": litellm,
    "haystack": haystack,
}
IMPORTED_AS = {"openai_agents": "agents", "google_adk": "google.adk"}


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def main() -> int:
    """Print one line for each framework; returns the exit code."""
    configure()
    worst = 0.0
    for name, measure in MEASURES.items():
        if not _is_installed(IMPORTED_AS.get(name, name)):
            print(f"{name}: not installed")
            continue
        cost = asyncio.run(measure())
        failed = [key for key in get_recorder().counters.totals if key[0] == INTERNAL_ERRORS]
        if failed:  # what fails is cheap
            print(f"{name}: NOT MEASURED, its adapter failed: {failed}")
            return 2
        worst = max(worst, cost)
        print(f"{name}: {cost:.0f} µs a model call (bar {BAR_US:.0f})")
    return int(worst > BAR_US)


if __name__ == "__main__":
    sys.exit(main())
