"""Calls of models through LangChain and agent frameworks, beside those of the SDKs in `_layers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from typing import Any

import pytest
from _layers import SDK_ASKERS, SDKS, Asker, Asking, Level, World, decorated, decorated_async, is_installed, said
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


# --- frameworks with an environment of their own ----------------------------------------------------------------------


def _litellm_arguments(asking: Asking) -> dict[str, Any]:
    streamed: Any = {"stream": True, "stream_options": {"include_usage": True}} if asking.is_streamed else {}
    base = {"model": f"openai/{asking.model}", "messages": said(asking), "client": asking.client, "max_retries": 0}
    return {**base, **streamed, "api_key": "k", "api_base": f"{asking.world.provider.url}/v1"}


def _ask_litellm(asking: Asking) -> Any:
    import litellm

    return decorated(asking, lambda: litellm.completion(**_litellm_arguments(asking)))


async def _ask_litellm_async(asking: Asking) -> Any:
    import litellm

    return await decorated_async(asking, lambda: litellm.acompletion(**_litellm_arguments(asking)))


def _instrument_litellm(_: World, __: ExitStack) -> None:
    import litellm

    litellm.logging_callback_manager._reset_all_callbacks()  # those of other tests are in lists of its own


@contextmanager
def _observe_litellm() -> Iterator[None]:
    import litellm
    from taskpilot_obs_litellm import observe

    observe()
    try:
        yield
    finally:
        litellm.logging_callback_manager._reset_all_callbacks()


async def _ask_haystack(asking: Asking) -> Any:
    from haystack.components.agents import Agent
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import create_tool_from_function
    from haystack.utils import Secret

    async def note(_: Any) -> None:
        """Take a piece of the stream."""

    streamed: Any = {"streaming_callback": note, "generation_kwargs": {"stream_options": {"include_usage": True}}}
    generator = OpenAIChatGenerator(
        Secret.from_token("k"), asking.model, **(streamed if asking.is_streamed else {}), max_retries=0
    )
    generator.async_client = asking.client
    agent = Agent(chat_generator=generator, tools=[create_tool_from_function(each) for each in _tools(asking)])
    return await agent.run_async(messages=[ChatMessage.from_user(asking.text)])


@contextmanager
def _observe_haystack() -> Iterator[None]:
    from haystack import tracing
    from taskpilot_obs_haystack import observe

    observe()
    try:
        yield
    finally:
        tracing.disable_tracing()


async def _ask_strands(asking: Asking) -> Any:
    from strands import Agent, tool
    from strands.models.openai import OpenAIModel
    from taskpilot_obs_strands import ObservabilityPlugin

    model = OpenAIModel(client=asking.client, model_id=asking.model)
    options: dict[str, Any] = {"plugins": [ObservabilityPlugin()]} if asking.stack.native else {}
    options |= {"tools": [tool(each) for each in _tools(asking)], "retry_strategy": None, "callback_handler": None}
    agent = Agent(model=model, name="Planner", **options)
    if not asking.is_streamed:
        return await agent.invoke_async(asking.text)
    async with aclosing(agent.stream_async(asking.text)) as events:
        async for event in events:
            if asking.is_left and "data" in event:
                break
    return None


def _instrument_strands(world: World, undo: ExitStack) -> None:
    from strands.telemetry import tracer

    found = tracer.get_tracer()  # it takes the global provider only
    spans = world.spans.get_tracer(found.service_name)
    undo.enter_context(pytest.MonkeyPatch.context()).setattr(found, "tracer", spans)


async def _ask_google_adk(asking: Asking) -> Any:
    from google.adk.agents import LlmAgent, RunConfig
    from google.adk.agents.run_config import StreamingMode
    from google.adk.models import Gemini
    from google.adk.runners import InMemoryRunner
    from google.genai import types
    from taskpilot_obs_google_adk import ObservabilityPlugin

    client = asking.client
    pinned = type("Pinned", (Gemini,), {"api_client": property(lambda _: client), "__module__": __name__})
    agent = LlmAgent(name="Planner", model=pinned(model=asking.model), instruction="You plan.", tools=_tools(asking))
    plugins = [ObservabilityPlugin()] if asking.stack.native else []
    runner = InMemoryRunner(agent=agent, app_name="app", plugins=plugins)
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    message = types.Content(role="user", parts=[types.Part(text=asking.text)])
    config = RunConfig(streaming_mode=StreamingMode.SSE if asking.is_streamed else StreamingMode.NONE)
    given = {"user_id": "u", "session_id": session.id, "new_message": message, "run_config": config}
    async with aclosing(runner.run_async(**given)) as events:
        async for event in events:
            if asking.is_left and event.partial:
                break
    return None


def _instrument_google_adk(world: World, undo: ExitStack) -> None:
    from google.adk.telemetry import tracing

    spans = world.spans.get_tracer("gcp.vertex.agent")  # it takes the global provider only
    undo.enter_context(pytest.MonkeyPatch.context()).setattr(tracing.tracer, "_real_tracer", spans)


async def _ask_crewai(asking: Asking) -> Any:
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool

    base = f"{asking.world.provider.url}/v1"
    llm = LLM(model=f"openai/{asking.model}", base_url=base, api_key="k", max_retries=0, stream=asking.is_streamed)
    llm._client = asking.world.clients["openai", False, asking.stack.wrapped]
    llm._async_client = asking.client
    tools = [tool("get_weather")(each) for each in _tools(asking)]
    agent = Agent(role="Planner", goal="Answer.", backstory="-", llm=llm, tools=tools, max_retry_limit=0)
    task = Task(description=asking.text, expected_output="a text", agent=agent)
    return await Crew(agents=[agent], tasks=[task], name="support").akickoff()


def _instrument_crewai(_: World, undo: ExitStack) -> None:
    from taskpilot_obs_crewai import observe

    observe()  # for the process: its handlers stay


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
    "litellm": Asker(
        "litellm",
        "openai",
        _ask_litellm,
        _ask_litellm_async,
        has_adapter=True,
        has_spans=False,  # OpenAI's instrumentor sees requests of its older versions only
        instrument=_instrument_litellm,
        observe=_observe_litellm,
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # it would be fetched when LiteLLM is imported
    ),
    "haystack": _framework(
        "haystack",
        _ask_haystack,
        above=(("invoke_agent", "Agent"),),
        above_by_spans=(),
        names_model=False,
        outcomes=("answered", "fails", "cancelled"),
        observe=_observe_haystack,
        environment={"HAYSTACK_TELEMETRY_ENABLED": "False"},
    ),
    "strands": _framework("strands", _ask_strands, own_figures=(100, 20, 40, None), instrument=_instrument_strands),
    "google_adk": _framework(
        "google.adk",
        _ask_google_adk,
        "google",
        above_by_spans=(PLANNER, ("invoke_workflow", "Planner")),
        above_by_both=(PLANNER, ("invoke_workflow", "Planner")),
        outcomes=("answered", "fails", "cancelled"),
        may_be_wrapped=False,  # its README states it
        instrument=_instrument_google_adk,
    ),
    "crewai": _framework(
        "crewai",
        _ask_crewai,
        above=(PLANNER, ("invoke_workflow", "support")),
        natives=(True,),
        outcomes=("answered", "fails"),
        instrument=_instrument_crewai,
        environment={
            "CREWAI_DISABLE_TELEMETRY": "true",
            "CREWAI_TRACING_ENABLED": "false",
            "CREWAI_TESTING": "true",
        },
    ),
}


ASKERS = {name: asker for name, asker in KNOWN.items() if asker.sdk in SDKS and is_installed(asker.module)}
