"""Calls of models through LangChain and agent frameworks, beside those of the SDKs in `_layers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing
from importlib.util import find_spec
from typing import Any

import pytest
from _layers import SDK_ASKERS, SDKS, Asker, Asking, Level, World, decorated, decorated_async
from _tools import get_weather

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
    return decorated(asking, lambda: ask(asking.text, config))


async def _ask_langchain_async(asking: Asking) -> Any:
    model, config = _langchain_model(asking)
    if not asking.is_streamed:
        return await decorated_async(asking, lambda: model.ainvoke(asking.text, config))

    async def stream() -> Any:
        return model.astream(asking.text, config)

    return await decorated_async(asking, stream)


# --- agent frameworks -------------------------------------------------------------------------------------------------


def _tools(asking: Asking) -> list[Any]:
    return [get_weather] if asking.call.has_tool else []


async def _run_pydantic_ai(asking: Asking, model: Any) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.capabilities import Instrumentation
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from taskpilot_obs_pydantic_ai import ObservabilityCapability

    spans = InstrumentationSettings(tracer_provider=asking.world.spans, include_content=False)
    used: list[Any] = [Instrumentation(spans), *([ObservabilityCapability()] if asking.stack.native else [])]
    agent = Agent(model, name="Planner", capabilities=used, tools=_tools(asking))
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
    agent = agent_framework.Agent(client, "You plan.", name="Planner", middleware=middleware, tools=_tools(asking))
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
    settings = agents.ModelSettings(include_usage=True)
    tools = [agents.function_tool(each) for each in _tools(asking)]
    agent = agents.Agent(name="Planner", model=model, model_settings=settings, tools=tools)
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


def _instrument_agent_framework(world: World, undo: ExitStack) -> None:
    from agent_framework import observability

    tracer = world.spans.get_tracer("agent_framework")  # it takes the global provider only
    undo.enter_context(pytest.MonkeyPatch.context()).setattr(observability, "get_tracer", lambda *_, **__: tracer)


def _instrument_openai_agents(world: World, undo: ExitStack) -> None:
    import agents
    from taskpilot_obs_openai_agents import observe

    observe(replace=True)  # it sees the runs of the process; those without the adapter opt out
    undo.callback(agents.set_trace_processors, [])


PLANNER: Level = ("invoke_agent", "Planner")
AGENTS_WORKFLOW: Level = ("invoke_workflow", "Agent workflow")


def _framework(module: str, ask: Callable[[Asking], Awaitable[Any]], sdk: str = "openai", **options: Any) -> Asker:
    seen = {"above": (PLANNER,), "above_by_spans": (PLANNER,), **options}
    return Asker(module, sdk, lambda _: None, ask, has_adapter=True, is_framework=True, **seen)


KNOWN = {
    **SDK_ASKERS,
    "langchain": Asker("langchain_openai", "openai", _ask_langchain, _ask_langchain_async, has_adapter=True),
    "pydantic_ai": _framework("pydantic_ai", _ask_pydantic_ai),
    "pydantic_ai anthropic": _framework(
        "pydantic_ai",
        _ask_pydantic_ai_anthropic,
        "anthropic",
        figures=(100, 20, 40, None),
    ),
    "agent_framework": _framework("agent_framework", _ask_agent_framework, instrument=_instrument_agent_framework),
    "openai_agents": _framework(
        "agents",
        _ask_openai_agents,
        above=(PLANNER, AGENTS_WORKFLOW),
        above_by_spans=(),
        instrument=_instrument_openai_agents,
    ),
}


def _is_installed(asker: Asker) -> bool:
    try:
        return asker.sdk in SDKS and find_spec(asker.module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


ASKERS = {name: asker for name, asker in KNOWN.items() if _is_installed(asker)}
