"""Calls of models through the real SDKs, each seen by any combination of the layers that may record it.

A stack is one way to ask (an SDK, a handler, a framework) with what observes it: a decorator, the framework's adapter,
a wrapped client beneath. The bridge sees the spans of all. `_layers_of_frameworks` has the handlers and frameworks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from importlib.util import find_spec
from inspect import isawaitable
from types import MappingProxyType
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
    has_tool: bool = False
    """Whether the agent has a tool, which it calls before it answers."""


class Stack(NamedTuple):
    """A way to ask, and the layers that see each call of it."""

    asker: str
    is_async: bool
    decorator: str | None
    native: bool
    """Whether the framework's adapter, or LangChain's handler, is on."""
    wrapped: bool
    calls: tuple[Call, ...]


Level = tuple[str, str]
"""Operation and name of a run."""


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
    outcomes: tuple[str, ...] = ("answered", "fails", "left", "cancelled")
    above: tuple[Level, ...] = ()
    """The runs that its adapter records around a call, the innermost first."""
    above_by_spans: tuple[Level, ...] = ()
    """The runs that the bridge records around a call where the adapter is off."""
    above_by_both: tuple[Level, ...] = ()
    """The runs around a call where both are on; those of its adapter when left out."""
    figures: tuple[int | None, ...] = (100, 20, 40, 8)
    """Tokens of a call: input, output, cached, reasoning."""
    own_figures: tuple[int | None, ...] = (100, 20, 40, 8)
    """Those that the framework itself states."""
    names_model: bool = True
    """Whether its adapter knows which model is asked."""
    natives: tuple[bool, ...] = (False, True)
    """Whether its adapter may be off, and on."""
    may_be_wrapped: bool = True
    """Whether a wrapped client beneath it adds no second record."""
    environment: Mapping[str, str] = MappingProxyType({})
    """Environment variables that it reads when it is imported."""
    instrument: Callable[[World, ExitStack], None] | None = None
    """Turns on, until the stack unwinds, what sees all of its calls."""
    observe: Callable[[], AbstractContextManager[object]] | None = None
    """Turns on an adapter that sees all of its calls."""


class Asking(NamedTuple):
    """One call that is about to be made."""

    world: World
    asker: Asker
    stack: Stack
    call: Call
    text: str
    model: str

    @property
    def client(self) -> Any:
        """The SDK's client, wrapped or not."""
        return self.world.clients[self.asker.sdk, self.stack.is_async, self.stack.wrapped]

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


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


_MODULES = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}
SDKS: dict[str, Callable[[World, bool], Any]] = {
    sdk: make
    for sdk, make in (("openai", _openai), ("anthropic", _anthropic), ("google", _google))
    if is_installed(_MODULES[sdk])
}


# --- the SDKs themselves ----------------------------------------------------------------------------------------------


def said(asking: Asking) -> list[Any]:
    return [{"role": "user", "content": asking.text}]


def decorated(asking: Asking, create: Callable[[], Any]) -> Any:
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


async def decorated_async(asking: Asking, create: Callable[[], Awaitable[Any]]) -> Any:
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
    return lambda: ask(model=asking.model, contents=asking.text)


def _sdk(module: str, sdk: str, make: Callable[[Asking], Callable[[], Any]], **options: Any) -> Asker:
    return Asker(
        module,
        sdk,
        lambda asking: decorated(asking, make(asking)),
        lambda asking: decorated_async(asking, make(asking)),
        **options,
    )


WITH_RAW = ("whole", "streamed", "raw")
SDK_ASKERS = {
    "openai chat": _sdk("openai", "openai", _chat, forms=WITH_RAW),
    "openai responses": _sdk("openai", "openai", _responses, forms=WITH_RAW),
    "anthropic": _sdk("anthropic", "anthropic", _messages, forms=WITH_RAW, figures=(100, 20, 40, None)),
    "google_genai": _sdk("google.genai", "google", _content, has_spans=False),
}


async def make(asking: Asking) -> None:
    """Make one call, which ends as it is to end; what it raises is the caller's."""
    asker = asking.asker
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
