"""Google's real Agent Development Kit against a provider on loopback: records, ends of every kind, enforcement.

It has an environment of its own: `scripts/test_frameworks.sh google_adk`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from importlib.util import find_spec
from typing import Any

import pytest
from _provider import Provider, serving
from _runs import assert_ten_at_once, cancel_under_way, figures, judging, table
from _tools import broken, get_weather, ran

from taskpilot_obs import observe_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError, RefusedError
from taskpilot_obs.records import Invocation, Operation, Pricing, Status
from taskpilot_obs.safety import ALLOW, CheckInput, DenyTools, DenyWords, PolicyResult, check_with
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

if find_spec("google.adk") is None:
    assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "google_adk", "google-adk is not installed"
    pytest.skip("google-adk is NOT INSTALLED: run scripts/test_frameworks.sh google_adk", allow_module_level=True)

from google.adk.agents import LlmAgent, RunConfig
from google.adk.agents.run_config import StreamingMode
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.agent_tool import AgentTool
from google.genai import types
from taskpilot_obs_google_adk import ObservabilityPlugin

MODEL = "gemini-2.5-flash"
pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own, of its experiments


@pytest.fixture(scope="module", autouse=True)
def provider() -> Iterator[Provider]:
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        patch.setenv("GOOGLE_API_KEY", "x")
        yield server


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def agent(*tools: Any, name: str = "Planner", **options: Any) -> Any:
    return LlmAgent(name=name, model=MODEL, instruction="You plan.", tools=list(tools), **options)


async def events(made: Any, text: str = "hi", *, stream: bool = False) -> Any:
    """Run an agent, and yield what it says."""
    plugin = ObservabilityPlugin()
    runner = InMemoryRunner(agent=made, app_name="app", plugins=[plugin])
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    message = types.Content(role="user", parts=[types.Part(text=text)])
    config = RunConfig(streaming_mode=StreamingMode.SSE if stream else StreamingMode.NONE)
    given = {"user_id": "u", "session_id": session.id, "new_message": message, "run_config": config}
    try:
        async with aclosing(runner.run_async(**given)) as said:
            async for event in said:
                yield event
    finally:
        for each in (made, *(tool.agent for tool in made.tools if isinstance(tool, AgentTool))):
            await each.canonical_model.api_client.aio.aclose()
    assert plugin.open == 0


async def ask(made: Any, text: str = "hi", *, stream: bool = False) -> str:
    """The last text of a run."""
    said = ""
    async for event in events(made, text, stream=stream):
        parts = (event.content and event.content.parts) or []
        said = next((part.text for part in parts if part.text), said)
    return said


NESTED = [
    ("Planner", None, "success"),
    (MODEL, "Planner", "success"),
    ("get_weather", "Planner", "success"),
    ("lookup", "get_weather", "success"),
    (MODEL, "Planner", "success"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_run(seen: Captured[Invocation], stream: bool) -> None:
    """Agent, calls, tool and what is decorated beneath it stand where they belong, streamed or not."""
    assert "sunny" in asyncio.run(ask(agent(get_weather), stream=stream))
    assert table(seen) == NESTED
    calls = [run for run in seen if run.usage is not None]
    assert [figures(call) for call in calls] == [(100, 20, 40, 8)] * 2
    for call in calls:
        assert (call.provider, call.response_model, call.cost is not None) == ("gcp.gemini", MODEL, True)
    assert calls[1].streaming is stream
    assert (calls[1].ttft_s is not None) is stream
    top = next(run for run in seen if run.name == "Planner")
    assert top.rollup is not None
    assert (top.rollup.llm_calls, top.rollup.tool_calls, top.rollup.input_tokens) == (2, 2, 200)
    assert top.attributes["conversation"]


def test_failed(seen: Captured[Invocation]) -> None:
    """A failed call fails its agent, with the class of the provider's exception."""
    with pytest.raises(Exception, match="boom"):
        asyncio.run(ask(agent(), "FAIL"))
    assert [(status, run.error_type) for run, (_, _, status) in zip(seen, table(seen), strict=True)] == [
        ("error", "google.genai.errors.ServerError")
    ] * 2


def test_a_tool_that_fails(seen: Captured[Invocation]) -> None:
    """A tool's exception fails the tool and its agent."""
    with pytest.raises(LookupError):
        asyncio.run(ask(agent(broken)))
    assert {run.name: run.error_type for run in seen if run.error_type} == dict.fromkeys(
        ("broken", "Planner"), "LookupError"
    )


def test_cancelled(provider: Provider, seen: Captured[Invocation]) -> None:
    """A cancelled task leaves nothing open, and nothing of it is a success."""
    asyncio.run(cancel_under_way(provider, ask(agent(), "HANG")))
    assert [status for _, _, status in table(seen)] == ["cancelled"] * 2


def test_a_stream_that_is_left(seen: Captured[Invocation]) -> None:
    """Call and agent of a stream that is read in part are abandoned."""

    async def work() -> None:
        made = events(agent(), "SLOW", stream=True)
        async for _ in made:
            break
        await made.aclose()

    asyncio.run(work())
    assert table(seen) == [("Planner", None, "abandoned"), (MODEL, "Planner", "abandoned")]


async def leave(how: str) -> None:
    """Read the first piece of a stream, and read no further."""
    made = events(agent(), "CUT" if how == "cut" else "HALT", stream=True)
    expected: Any = {"cancelled": asyncio.CancelledError, "cut": Exception}.get(how, ())
    with suppress(expected):
        async for _ in made:
            if how == "cancelled":
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            elif how == "closed":
                break
    await made.aclose()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["closed", "cancelled", "cut"])
def test_what_a_stream_hands_out_before_it_is_left_is_judged(provider: Provider, how: str, asynchronous: bool) -> None:
    """The call of a stream that is closed, cancelled or cut is judged by what came of it."""
    with judging(asynchronous=asynchronous) as judged:
        asyncio.run(leave(how))
        provider.release()
        assert judged.asked == [("chat", "It is sunny.")]
        assert judged.results == ["bypassed"]


def test_nested_agents(seen: Captured[Invocation]) -> None:
    """An agent as the tool of another, beneath a decorated workflow."""

    @observe_workflow(name="outer")
    async def work() -> None:
        await ask(agent(AgentTool(agent(name="Researcher"))))

    asyncio.run(work())
    assert table(seen) == [
        ("outer", None, "success"),
        ("Planner", "outer", "success"),
        (MODEL, "Planner", "success"),
        ("Researcher", "Planner", "success"),
        ("Researcher", "Researcher", "success"),
        (MODEL, "Researcher", "success"),
        (MODEL, "Planner", "success"),
    ]


class Scripted(BaseLlm):  # type: ignore[misc]  # the framework may be missing
    """A model of the application, which answers by the parts of a script."""

    script: list[types.Part]

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        yield LlmResponse(content=types.Content(role="model", parts=[self.script.pop(0)]))


def transfer(name: str) -> types.Part:
    return types.Part(function_call=types.FunctionCall(name="transfer_to_agent", args={"agent_name": name}))


def test_an_agent_that_hands_over_and_is_handed_back_to(seen: Captured[Invocation]) -> None:
    """An agent that is open twice has two runs, each with its own calls and its own end."""
    planner = Scripted(model="planner", script=[transfer("Helper"), types.Part(text="done")])
    helper = LlmAgent(name="Helper", model=Scripted(model="helper", script=[transfer("Planner")]))

    async def work() -> None:
        plugin = ObservabilityPlugin()
        runner = InMemoryRunner(
            agent=LlmAgent(name="Planner", model=planner, sub_agents=[helper]), app_name="app", plugins=[plugin]
        )
        session = await runner.session_service.create_session(app_name="app", user_id="u")
        message = types.Content(role="user", parts=[types.Part(text="hi")])
        async with aclosing(runner.run_async(user_id="u", session_id=session.id, new_message=message)) as said:
            async for _ in said:
                pass
        assert plugin.open == 0

    asyncio.run(work())
    assert table(seen) == [
        ("Planner", None, "success"),
        ("planner", "Planner", "success"),
        ("transfer_to_agent", "Planner", "success"),
        ("Helper", "Planner", "success"),
        ("helper", "Helper", "success"),
        ("transfer_to_agent", "Helper", "success"),
        ("Planner", "Helper", "success"),
        ("planner", "Planner", "success"),
    ]
    assert [run.rollup.llm_calls for run in seen if run.name == "Planner" and run.rollup] == [1, 3]  # as they end


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_the_application(provider: Provider, stream: bool) -> None:
    """A call that an agent's callback answers is cached: it costs nothing, and no budget keeps anything for it."""

    def answer(*, callback_context: Any, llm_request: Any) -> LlmResponse:
        return LlmResponse(content=types.Content(role="model", parts=[types.Part(text="from the cache")]))

    before = len(provider.calls)
    with fresh_recorder(budgets=[Budget("all", limit_usd="1", period="day", action="enforce")]) as fresh:
        with capture_invocations(fresh) as seen:
            said = asyncio.run(ask(agent(before_model_callback=answer), stream=stream))
        assert fresh.flush()
        assert fresh.parts is not None
        control = fresh.parts.budgets
        assert control is not None
        (status,) = statuses(control.budgets, control.ledger, control.utc_now())
    assert (said, len(provider.calls)) == ("from the cache", before)
    assert table(seen) == [("Planner", None, "success"), (MODEL, "Planner", "success")]
    call = next(run for run in seen if run.name != "Planner")
    assert (call.cached, call.usage, call.pricing is Pricing.UNPRICED) == (True, None, False)
    assert status.spent == status.reserved == 0


def test_concurrent_runs(seen: Captured[Invocation]) -> None:
    """Ten runs at once: twenty calls, each beneath its own run."""

    async def work() -> None:
        await asyncio.gather(*(ask(agent(get_weather)) for _ in range(10)))

    asyncio.run(work())
    assert_ten_at_once(seen)


# --- enforcement -----------------------------------------------------------------------------------------------------


def refused(work: Callable[[], Any], **options: Any) -> tuple[BaseException | None, list[tuple[str, str | None, str]]]:
    """The refusal behind what a run raises, and the runs."""
    with fresh_recorder(mode="enforce", **options) as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(RuntimeError) as raised:
            asyncio.run(work())
        at: BaseException | None = raised.value
        while at is not None and not isinstance(at, RefusedError):
            at = at.__cause__
        return at, table(seen)


def test_a_refused_tool_does_not_run() -> None:
    """A policy in enforce mode aborts the run before the tool runs; tool and agent are blocked."""
    error, runs = refused(lambda: ask(agent(get_weather)), policies=[DenyTools(["get_weather"])])
    assert isinstance(error, PolicyViolationError)
    assert ran == []
    assert runs == [("Planner", None, "blocked"), (MODEL, "Planner", "success"), ("get_weather", "Planner", "blocked")]


def test_input_is_refused_before_a_model_is_asked(provider: Provider) -> None:
    """What an agent is given is checked first."""
    before = len(provider.calls)
    error, runs = refused(lambda: ask(agent(), "a secret"), policies=[DenyWords(["secret"])])
    assert isinstance(error, PolicyViolationError)
    assert (runs, len(provider.calls)) == ([("Planner", None, "blocked")], before)


class OfModels(DenyWords):
    """Denies words in what models are given, and not in what tools are."""

    def check(self, subject: CheckInput, /) -> PolicyResult:
        return super().check(subject) if subject.operation is Operation.CHAT else ALLOW


def read_note(city: str) -> dict[str, Any]:
    """A note."""
    return {"of": city, "lines": ["", {"text": "the password is 123"}]}


def test_a_tools_result_is_checked_before_a_model_sees_it(provider: Provider) -> None:
    """What a tool has returned, and what it was asked for, is part of the next call's input."""
    for word in ("password", "Paris"):
        before = len(provider.calls)
        policy = check_with(OfModels([word]), stages="input")
        error, runs = refused(lambda: ask(agent(read_note)), policies=[policy])
        assert isinstance(error, PolicyViolationError)
        assert [status for name, _, status in runs if name == MODEL] == ["success", "blocked"]
        assert ("read_note", "Planner", "success") in runs
        assert len(provider.calls) == before + 1


def test_output_is_withheld() -> None:
    """An answer that a check refuses is not handed out; its tokens are recorded, because they are billed."""
    policy = check_with(DenyWords(["sunny"]), stages="output")
    with fresh_recorder(policies=[policy], mode="enforce") as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(RuntimeError):
            asyncio.run(ask(agent()))
        assert [status for _, _, status in table(seen)] == ["blocked"] * 2
        assert seen[0].usage is not None


def test_a_cancellation_in_a_check_of_the_output_ends_the_call() -> None:
    """A caller who gives up while a check of the answer runs is billed for the answer: its call has its tokens."""

    async def give_up() -> None:
        asked = asyncio.Event()

        async def slow(_subject: object) -> bool:
            asked.set()
            await asyncio.Event().wait()
            return True

        with fresh_recorder(policies=[check_with(slow, stages="output")]) as fresh, capture_invocations(fresh) as seen:
            asking = asyncio.ensure_future(ask(agent()))
            await asked.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            call = next(each for each in seen if each.name == MODEL)
            assert call.status is Status.CANCELLED
            assert call.usage is not None

    asyncio.run(give_up())


class OddResponse(LlmResponse):  # type: ignore[misc]  # the framework may be missing where types are checked
    """An answer whose model the framework can read, and the plugin cannot."""

    def __getattribute__(self, name: str) -> Any:
        if name == "model_version" and sys._getframe(1).f_globals["__name__"].startswith("taskpilot_obs"):
            raise RuntimeError("odd")
        return super().__getattribute__(name)


class OddModel(BaseLlm):  # type: ignore[misc]  # likewise
    """A model of the application."""

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        content = types.Content(role="model", parts=[types.Part(text="It is sunny.")])
        yield OddResponse(content=content)


async def ask_odd() -> None:
    """Run an agent with that model."""
    runner = InMemoryRunner(
        agent=LlmAgent(name="Planner", model=OddModel(model="odd")), app_name="app", plugins=[ObservabilityPlugin()]
    )
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    message = types.Content(role="user", parts=[types.Part(text="hi")])
    async for _ in runner.run_async(user_id="u", session_id=session.id, new_message=message):
        pass


def test_an_odd_answer_is_not_let_through() -> None:
    """What cannot be read beside a text does not hide the text from its check."""
    error, runs = refused(ask_odd, policies=[check_with(DenyWords(["sunny"]), stages="output")])
    assert isinstance(error, PolicyViolationError)
    assert ("odd", "Planner", "blocked") in runs


def test_a_budget_refuses_the_second_call(provider: Provider) -> None:
    """A budget is asked before each model call."""
    before = len(provider.calls)
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    error, runs = refused(lambda: ask(agent(get_weather)), budgets=[budget])
    assert isinstance(error, BudgetExceededError)
    assert [status for name, _, status in runs if name == MODEL] == ["success", "blocked"]
    assert len(provider.calls) == before + 1


def test_nothing_is_recorded_where_recording_is_off() -> None:
    """A disabled recorder leaves the framework's work alone."""
    with fresh_recorder(enabled=False) as fresh, capture_invocations(fresh) as seen:
        assert "sunny" in asyncio.run(ask(agent(get_weather)))
        assert list(seen) == []
