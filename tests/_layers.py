"""Calls of models through the real SDKs and frameworks, each seen by any combination of the layers that may record it.

A stack is one way to ask (an SDK, a handler, a framework) with what observes it: a decorator, the framework's adapter,
a wrapped client beneath. The bridge sees the spans of all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from importlib.util import find_spec
from inspect import isawaitable
from typing import Any, NamedTuple

from _provider import Provider
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from taskpilot_obs_opentelemetry import GenAiBridge

from taskpilot_obs import observe_llm, track_llm


class Call(NamedTuple):
    """One call, and how it goes."""

    form: str
    """whole, streamed or raw."""
    outcome: str
    """answered, fails, left (a stream) or cancelled (asynchronous)."""
    has_id: bool


class Stack(NamedTuple):
    """A way to ask, and the layers that see each call of it."""

    asker: str
    is_async: bool
    decorator: str | None
    native: bool
    """Whether the framework's adapter, or LangChain's handler, is on."""
    wrapped: bool
    calls: tuple[Call, ...]


class Asker(NamedTuple):
    """How to ask by one SDK or framework."""

    module: str
    """What has to be installed."""
    sdk: str
    ask: Callable[[Asking], Any]
    ask_async: Callable[[Asking], Awaitable[Any]] | None = None
    has_adapter: bool = False
    is_framework: bool = False
    """Whether it has agents of its own: a decorator goes around these, and not around a call."""
    has_spans: bool = True
    forms: tuple[str, ...] = ("whole", "streamed")


class Asking(NamedTuple):
    """One call that is about to be made."""

    world: World
    stack: Stack
    call: Call
    text: str
    model: str

    @property
    def client(self) -> Any:
        """The SDK's client, wrapped or not."""
        return self.world.clients[ASKERS[self.stack.asker].sdk, self.stack.is_async, self.stack.wrapped]

    @property
    def is_streamed(self) -> bool:
        return self.call.form == "streamed"

    @property
    def is_left(self) -> bool:
        return self.call.outcome == "left"


class Switch(SpanProcessor):
    """Hands spans to a bridge while there is one, so that SDKs are instrumented once."""

    bridge: GenAiBridge | None = None

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self.bridge is not None:
            self.bridge.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        if self.bridge is not None:
            self.bridge.on_end(span)


class World:
    """The clients and the spans that all calls share."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.switch = Switch()
        self.spans = TracerProvider()
        self.spans.add_span_processor(self.switch)
        self.clients: dict[tuple[str, bool, bool], Any] = {}
        for sdk, make in SDKS.items():
            for wrapped in (False, True):
                for is_async in (False, True):
                    self.clients[sdk, is_async, wrapped] = make(self, is_async)

    async def close(self) -> None:
        """Close the clients."""
        for client in self.clients.values():
            closing = client.close()
            if closing is not None:
                await closing
            if hasattr(client, "aio"):
                await client.aio.aclose()

    def wrap_clients(self) -> None:
        """Let those clients that are to be wrapped record into the recorder of now."""
        for (sdk, _, wrapped), client in self.clients.items():
            if wrapped:
                WRAPS[sdk](client)

    @contextmanager
    def bridged(self, *, on: bool) -> Iterator[GenAiBridge | None]:
        """Let a bridge see the spans of a block, or nothing."""
        self.switch.bridge = GenAiBridge() if on else None
        try:
            yield self.switch.bridge
        finally:
            if self.switch.bridge is not None:
                self.switch.bridge.shutdown()
            self.switch.bridge = None


# --- clients of SDKs --------------------------------------------------------------------------------------------------


def _openai(world: World, is_async: bool) -> Any:
    import openai

    make: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
    return make(api_key="k", base_url=f"{world.provider.url}/v1", max_retries=0)


def _anthropic(world: World, is_async: bool) -> Any:
    import anthropic

    make: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    options = {"tracer_provider": world.spans}
    return make(api_key="k", base_url=world.provider.url, max_retries=0, open_telemetry=options)


def _google(world: World, is_async: bool) -> Any:
    from google.genai import Client, types

    return Client(api_key="k", http_options=types.HttpOptions(base_url=world.provider.url))


def _wrap_openai(client: Any) -> None:
    from taskpilot_obs_openai import wrap

    wrap(client)


def _wrap_anthropic(client: Any) -> None:
    from taskpilot_obs_anthropic import wrap

    wrap(client)


def _wrap_google(client: Any) -> None:
    from taskpilot_obs_google_genai import wrap

    wrap(client)


WRAPS: dict[str, Callable[[Any], None]] = {
    "openai": _wrap_openai,
    "anthropic": _wrap_anthropic,
    "google": _wrap_google,
}
_MODULES = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}
SDKS: dict[str, Callable[[World, bool], Any]] = {
    sdk: make
    for sdk, make in (("openai", _openai), ("anthropic", _anthropic), ("google", _google))
    if find_spec(_MODULES[sdk].partition(".")[0]) is not None
}


# --- the SDKs themselves ----------------------------------------------------------------------------------------------


def said(asking: Asking) -> list[Any]:
    return [{"role": "user", "content": asking.text}]


def _decorated(asking: Asking, create: Callable[[], Any]) -> Any:
    """Ask by a function that `@observe_llm` decorates, or in a `track_llm` block, and read the answer."""
    if asking.stack.decorator == "observe_llm":
        return _read(asking, observe_llm(create)())
    if asking.stack.decorator is None:
        return _read(asking, create())
    with track_llm(model=asking.model) as call:
        if asking.is_streamed:
            return _read(asking, call.stream(create()))
        answer = _read(asking, create())
        call.record_response(answer)
        return answer


def _read(asking: Asking, answer: Any) -> Any:
    if asking.call.form == "raw":
        return answer.parse()
    if not asking.is_streamed:
        return answer
    with closing(answer):
        for _ in answer:
            if asking.is_left:
                return None
    return None


async def _decorated_async(asking: Asking, create: Callable[[], Awaitable[Any]]) -> Any:
    if asking.stack.decorator == "observe_llm":

        @observe_llm
        async def ask() -> Any:
            return await create()

        return await _read_async(asking, await ask())
    if asking.stack.decorator is None:
        return await _read_async(asking, await create())
    async with track_llm(model=asking.model) as call:
        if asking.is_streamed:
            return await _read_async(asking, call.astream(await create()))
        answer = await _read_async(asking, await create())
        call.record_response(answer)
        return answer


async def _read_async(asking: Asking, answer: Any) -> Any:
    if asking.call.form == "raw":
        parsed = answer.parse()
        return await parsed if isawaitable(parsed) else parsed
    if not asking.is_streamed:
        return answer
    close = answer.aclose if hasattr(answer, "aclose") else answer.close
    try:
        async for _ in answer:
            if asking.is_left:
                return None
    finally:
        await close()
    return None


def _chat(asking: Asking) -> Callable[[], Any]:
    completions = asking.client.chat.completions
    if asking.call.form == "raw":
        completions = completions.with_raw_response
    streamed: Any = {"stream": True, "stream_options": {"include_usage": True}} if asking.is_streamed else {}
    return lambda: completions.create(model=asking.model, messages=said(asking), **streamed)


def _responses(asking: Asking) -> Callable[[], Any]:
    responses = asking.client.responses
    if asking.call.form == "raw":
        responses = responses.with_raw_response
    return lambda: responses.create(model=asking.model, input=asking.text, stream=asking.is_streamed)


def _messages(asking: Asking) -> Callable[[], Any]:
    messages = asking.client.messages
    if asking.call.form == "raw":
        messages = messages.with_raw_response
    return lambda: messages.create(model=asking.model, max_tokens=50, messages=said(asking), stream=asking.is_streamed)


def _content(asking: Asking) -> Callable[[], Any]:
    models = asking.client.aio.models if asking.stack.is_async else asking.client.models
    ask = models.generate_content_stream if asking.is_streamed else models.generate_content
    return lambda: ask(model="gemini-2.5-flash", contents=asking.text)


def _sdk(module: str, sdk: str, make: Callable[[Asking], Callable[[], Any]], **options: Any) -> Asker:
    return Asker(
        module,
        sdk,
        lambda asking: _decorated(asking, make(asking)),
        lambda asking: _decorated_async(asking, make(asking)),
        **options,
    )


# --- LangChain --------------------------------------------------------------------------------------------------------


def _langchain_model(asking: Asking) -> tuple[Any, Any]:
    from langchain_openai import ChatOpenAI
    from taskpilot_obs_langchain import ObservabilityHandler

    clients = {
        name: asking.world.clients["openai", is_async, asking.stack.wrapped].chat.completions
        for name, is_async in (("client", False), ("async_client", True))
    }
    model = ChatOpenAI(model=asking.model, api_key="k", max_retries=0, stream_usage=True, **clients)
    return model, {"callbacks": [ObservabilityHandler()] if asking.stack.native else []}


def _ask_langchain(asking: Asking) -> Any:
    model, config = _langchain_model(asking)
    ask = model.stream if asking.is_streamed else model.invoke
    return _decorated(asking, lambda: ask(asking.text, config))


async def _ask_langchain_async(asking: Asking) -> Any:
    model, config = _langchain_model(asking)
    if not asking.is_streamed:
        return await _decorated_async(asking, lambda: model.ainvoke(asking.text, config))

    async def stream() -> Any:
        return model.astream(asking.text, config)

    return await _decorated_async(asking, stream)


# --- agent frameworks -------------------------------------------------------------------------------------------------


async def _run_pydantic_ai(asking: Asking, model: Any) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.capabilities import Instrumentation
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from taskpilot_obs_pydantic_ai import ObservabilityCapability

    spans = InstrumentationSettings(tracer_provider=asking.world.spans, include_content=False)
    used: list[Any] = [Instrumentation(spans), *([ObservabilityCapability()] if asking.stack.native else [])]
    agent = Agent(model, name="Planner", capabilities=used)
    if not asking.is_streamed:
        return await agent.run(asking.text)
    async with agent.run_stream(asking.text) as result:
        async for _ in result.stream_text(debounce_by=None):
            if asking.is_left:
                break
    return None


async def _ask_pydantic_ai(asking: Asking) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return await _run_pydantic_ai(
        asking, OpenAIChatModel(asking.model, provider=OpenAIProvider(openai_client=asking.client))
    )


async def _ask_pydantic_ai_anthropic(asking: Asking) -> Any:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    return await _run_pydantic_ai(
        asking, AnthropicModel(asking.model, provider=AnthropicProvider(anthropic_client=asking.client))
    )


async def _ask_agent_framework(asking: Asking) -> Any:
    import agent_framework
    from agent_framework.openai import OpenAIChatCompletionClient
    from taskpilot_obs_agent_framework import observability_middleware

    client = OpenAIChatCompletionClient(model=asking.model, async_client=asking.client)
    middleware = observability_middleware() if asking.stack.native else []
    agent = agent_framework.Agent(client, "You plan.", name="Planner", middleware=middleware)
    if not asking.is_streamed:
        return await agent.run(asking.text)
    async for _ in agent.run(asking.text, stream=True):
        if asking.is_left:
            break
    return None


async def _ask_openai_agents(asking: Asking) -> Any:
    import agents
    from taskpilot_obs_openai_agents import ObservabilityHooks

    model = agents.OpenAIChatCompletionsModel(asking.model, asking.client)
    agent = agents.Agent(name="Planner", model=model, model_settings=agents.ModelSettings(include_usage=True))
    options: dict[str, Any] = {"run_config": agents.RunConfig(tracing_disabled=not asking.stack.native)}
    if asking.stack.native:
        options["hooks"] = ObservabilityHooks()
    if not asking.is_streamed:
        return await agents.Runner.run(agent, asking.text, **options)
    result = agents.Runner.run_streamed(agent, asking.text, **options)
    async with aclosing(result.stream_events()) as events:
        async for event in events:
            if asking.is_left and "delta" in str(getattr(getattr(event, "data", None), "type", "")):
                result.cancel()
                break
    return None


def _framework(module: str, ask: Callable[[Asking], Awaitable[Any]], sdk: str = "openai") -> Asker:
    return Asker(module, sdk, lambda _: None, ask, has_adapter=True, is_framework=True)


WITH_RAW = ("whole", "streamed", "raw")
KNOWN = {
    "openai chat": _sdk("openai", "openai", _chat, forms=WITH_RAW),
    "openai responses": _sdk("openai", "openai", _responses, forms=WITH_RAW),
    "anthropic": _sdk("anthropic", "anthropic", _messages, forms=WITH_RAW),
    "google_genai": _sdk("google.genai", "google", _content, has_spans=False),
    "langchain": Asker("langchain_openai", "openai", _ask_langchain, _ask_langchain_async, has_adapter=True),
    "pydantic_ai": _framework("pydantic_ai", _ask_pydantic_ai),
    "pydantic_ai anthropic": _framework("pydantic_ai", _ask_pydantic_ai_anthropic, "anthropic"),
    "agent_framework": _framework("agent_framework", _ask_agent_framework),
    "openai_agents": _framework("agents", _ask_openai_agents),
}
ALONE = os.environ.get("TASKPILOT_OBS_FRAMEWORK")


def _is_installed(asker: Asker) -> bool:
    return asker.sdk in SDKS and find_spec(asker.module.partition(".")[0]) is not None


ASKERS = {name: asker for name, asker in KNOWN.items() if _is_installed(asker)}


async def make(asking: Asking) -> None:
    """Make one call, which ends as it is to end; what it raises is the caller's."""
    asker = ASKERS[asking.stack.asker]
    if not asking.stack.is_async:
        await asyncio.to_thread(asker.ask, asking)
        return
    assert asker.ask_async is not None
    task = asyncio.ensure_future(asker.ask_async(asking))
    if asking.call.outcome == "cancelled":
        while not any(asking.text in each for each in asking.world.provider.hanging) and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # threads serve it
        task.cancel()
    await task
