"""Every integration with the recording switched off: it works, records nothing, and what enforces stays in force."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from _provider import TEXT, Provider, serving

from taskpilot_obs import observe_agent, observe_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError
from taskpilot_obs.records import Decision
from taskpilot_obs.safety import DenyWords
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder

ANSWER = "".join(TEXT)
ASKED: dict[str, Any] = {"max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
NO_ROOM = [Budget("all", limit_usd="0.0000001", action="enforce")]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as running:
        yield running


def needs(name: str) -> Any:
    """A module of a framework; where it is missing the test is skipped, or fails in CI."""
    try:
        return import_module(name)
    except ImportError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{missing.name} is NOT INSTALLED")


# --- integrations that ask a model: each returns the text of the answer -----------------------------------------------


def openai_sync(provider: Provider) -> Any:
    openai, ours = needs("openai"), needs("taskpilot_obs_openai")
    with openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0) as client:
        answer = ours.wrap(client).chat.completions.create(model="gpt-4o", **ASKED)
    return answer.choices[0].message.content


def openai_async_stream(provider: Provider) -> Any:
    openai, ours = needs("openai"), needs("taskpilot_obs_openai")

    async def ask() -> str:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0) as client:
            stream = await ours.wrap(client).chat.completions.create(model="gpt-4o", stream=True, **ASKED)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    return asyncio.run(ask())


def anthropic_sync(provider: Provider) -> Any:
    anthropic, ours = needs("anthropic"), needs("taskpilot_obs_anthropic")
    with anthropic.Anthropic(api_key="k", base_url=provider.url, max_retries=0) as client:
        return ours.wrap(client).messages.create(model="claude-sonnet-4-6", **ASKED).content[0].text


def anthropic_async_stream(provider: Provider) -> Any:
    anthropic, ours = needs("anthropic"), needs("taskpilot_obs_anthropic")

    async def ask() -> str:
        client = ours.wrap(anthropic.AsyncAnthropic(api_key="k", base_url=provider.url, max_retries=0))
        async with client, client.messages.stream(model="claude-sonnet-4-6", **ASKED) as stream:
            return "".join([text async for text in stream.text_stream])

    return asyncio.run(ask())


def google_sync(provider: Provider) -> Any:
    genai, ours = needs("google.genai"), needs("taskpilot_obs_google_genai")
    options = genai.types.HttpOptions(base_url=provider.url)
    with genai.Client(api_key="k", http_options=options) as client:
        return ours.wrap(client).models.generate_content(model="gemini-2.5-flash", contents="hello").text


def google_async(provider: Provider) -> Any:
    genai, ours = needs("google.genai"), needs("taskpilot_obs_google_genai")

    async def ask() -> Any:
        client = genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=provider.url))
        async with ours.wrap(client).aio as asking:
            return (await asking.models.generate_content(model="gemini-2.5-flash", contents="hello")).text

    return asyncio.run(ask())


def langchain_budgeted(provider: Provider) -> Any:
    openai, ours = needs("langchain_openai"), needs("taskpilot_obs_langchain")
    model = openai.ChatOpenAI(model="gpt-4o", api_key="k", base_url=f"{provider.url}/v1", max_retries=0, max_tokens=50)
    return ours.budgeted(model).invoke("hello", config={"callbacks": [ours.ObservabilityHandler()]}).content


def langchain_async_stream(provider: Provider) -> Any:
    openai, ours = needs("langchain_openai"), needs("taskpilot_obs_langchain")

    async def ask() -> str:
        model = openai.ChatOpenAI(
            model="gpt-4o", api_key="k", base_url=f"{provider.url}/v1", max_retries=0, max_tokens=50
        )
        stream = ours.budgeted(model).astream("hello", config={"callbacks": [ours.ObservabilityHandler()]})
        return "".join([chunk.content async for chunk in stream])

    return asyncio.run(ask())


def openai_agents(provider: Provider) -> Any:
    openai, agents, ours = needs("openai"), needs("agents"), needs("taskpilot_obs_openai_agents")

    async def ask() -> Any:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0) as client:
            agent = agents.Agent(name="Planner", model=agents.OpenAIChatCompletionsModel("gpt-4o", client))
            return (await agents.Runner.run(agent, "hello", hooks=ours.ObservabilityHooks())).final_output

    ours.observe(replace=True)
    try:
        return asyncio.run(ask())
    finally:
        agents.set_trace_processors([])


def pydantic_ai(provider: Provider) -> Any:
    openai, framework, ours = needs("openai"), needs("pydantic_ai"), needs("taskpilot_obs_pydantic_ai")
    models, providers = needs("pydantic_ai.models.openai"), needs("pydantic_ai.providers.openai")

    async def ask() -> Any:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0) as client:
            model = models.OpenAIChatModel("gpt-4o", provider=providers.OpenAIProvider(openai_client=client))
            agent = framework.Agent(model, capabilities=[ours.ObservabilityCapability()])
            return (await agent.run("hello")).output

    return asyncio.run(ask())


def agent_framework(provider: Provider) -> Any:
    openai, framework, ours = needs("openai"), needs("agent_framework"), needs("taskpilot_obs_agent_framework")
    clients = needs("agent_framework.openai")

    async def ask() -> Any:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0) as client:
            chat = clients.OpenAIChatCompletionClient(model="gpt-4o", async_client=client)
            agent = framework.Agent(chat, "You plan.", name="P", middleware=ours.observability_middleware())
            return (await agent.run("hello")).text

    return asyncio.run(ask())


MODELS: list[Callable[[Provider], Any]] = [
    *(openai_sync, openai_async_stream, anthropic_sync, anthropic_async_stream, google_sync, google_async),
    *(langchain_budgeted, langchain_async_stream, openai_agents, pydantic_ai, agent_framework),
]


@pytest.mark.parametrize("ask", MODELS)
def test_a_model_is_asked_and_nothing_is_recorded(provider: Provider, ask: Callable[[Provider], Any]) -> None:
    """The answer is the model's, and neither a run nor a decision is recorded."""
    with fresh_recorder(enabled=False) as off:
        with capture_invocations(off) as seen, capture_records(Decision, off) as decisions:
            assert ask(provider) == ANSWER
        assert (list(seen), list(decisions)) == ([], [])


@pytest.mark.parametrize("ask", MODELS)
def test_a_budget_refuses_though_nothing_is_recorded(provider: Provider, ask: Callable[[Provider], Any]) -> None:
    """The switch that an operator finds in an incident opens no budget; `enforcement=False` does."""
    before = len(provider.calls)
    with fresh_recorder(enabled=False, budgets=NO_ROOM) as off:
        with pytest.raises(Exception, match="budget") as raised:
            ask(provider)
        assert off.registry is not None
        assert not any(family.samples for family in off.registry.collect() if family.name == "llm_requests")
    assert isinstance(raised.value, BudgetExceededError) or isinstance(raised.value.__cause__, BudgetExceededError)
    assert len(provider.calls) == before
    with fresh_recorder(enabled=False, enforcement=False, budgets=NO_ROOM):
        assert ask(provider) == ANSWER


# --- integrations that host the application's functions ---------------------------------------------------------------


@observe_agent("Planner")
def plan(text: str) -> str:
    return f"planned {text}"


@observe_workflow("work")
def work(text: str = "it") -> str:
    return plan(text)


def fastapi(text: str) -> Any:
    ours, testing = needs("taskpilot_obs_fastapi"), needs("fastapi.testclient")
    app = needs("fastapi").FastAPI()
    app.get("/")(lambda: work(text))
    app.add_middleware(ours.ObservabilityMiddleware)
    return testing.TestClient(app).get("/").json()


def flask(text: str) -> Any:
    app, ours = needs("flask").Flask(__name__), needs("taskpilot_obs_flask")
    app.testing = True
    app.get("/")(lambda: work(text))
    app.wsgi_app = ours.ObservabilityMiddleware(app.wsgi_app)
    return app.test_client().get("/").text


def django(text: str) -> Any:
    needs("django")
    from django.conf import settings
    from django.http import HttpResponse
    from django.test import RequestFactory, override_settings
    from taskpilot_obs_django import ObservabilityMiddleware

    if not settings.configured:
        settings.configure()
    with override_settings(ALLOWED_HOSTS=["*"]):
        answer: Any = ObservabilityMiddleware(lambda _request: HttpResponse(work(text)))(RequestFactory().get("/"))
        return answer.content.decode()


def celery(text: str) -> Any:
    framework, ours = needs("celery"), needs("taskpilot_obs_celery")
    app = framework.Celery("off", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    ours.install()
    try:
        return app.task(name="off.work", shared=False)(work).delay(text).get(timeout=30)
    finally:
        for signal in ("before_task_publish", "task_prerun", "task_postrun"):
            for name in ("send", "begin", "end"):
                getattr(framework.signals, signal).disconnect(dispatch_uid=f"taskpilot_obs.{name}")


def mcp(text: str) -> Any:
    framework, ours, servers = needs("mcp"), needs("taskpilot_obs_mcp"), needs("mcp.server.mcpserver")
    server = servers.MCPServer("off", middleware=[ours.ObservabilityMiddleware()])
    server.tool()(work)

    async def call() -> Any:
        async with framework.Client(server) as client:
            try:
                answer = await client.call_tool("work", {"text": text})
            except framework.MCPError as error:
                return error
            return RuntimeError(answer.content[0].text) if answer.is_error else answer.content[0].text

    found = asyncio.run(call())
    if isinstance(found, Exception):
        raise found
    return found


def langchain_tool(text: str) -> Any:
    tools, ours = needs("langchain_core.tools"), needs("taskpilot_obs_langchain")
    tool = tools.StructuredTool.from_function(work, name="work", description="Works.")
    return tool.invoke({"text": text}, config={"callbacks": [ours.ObservabilityHandler()]})


HOSTS: list[Callable[[str], Any]] = [fastapi, flask, django, celery, mcp, langchain_tool]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_works_and_nothing_is_recorded(host: Callable[[str], Any]) -> None:
    """Functions beneath the integration return what they return, and nothing is recorded."""
    with fresh_recorder(enabled=False) as off:
        with capture_invocations(off) as seen, capture_records(Decision, off) as decisions:
            assert host("it") == "planned it"
        assert (list(seen), list(decisions)) == ([], [])


@pytest.mark.parametrize("host", HOSTS)
def test_a_policy_refuses_though_nothing_is_recorded(host: Callable[[str], Any]) -> None:
    """A policy in enforce mode refuses beneath every integration; with `enforcement=False` it does not."""
    with fresh_recorder(enabled=False, policies=[DenyWords(["delete"])], mode="enforce"):
        with pytest.raises(Exception, match="deny_words"):
            host("delete")
        assert host("it") == "planned it"
    with fresh_recorder(enabled=False, enforcement=False, policies=[DenyWords(["delete"])], mode="enforce"):
        assert host("delete") == "planned delete"
