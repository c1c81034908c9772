"""Decorating never loses a signature, and every public name is typed: checked by mypy and pyright, never run.

A line that has to be an error carries an ignore for each checker; both report an ignore that nothing needs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar, assert_type

from taskpilot_obs import (
    LogContextFilter,
    Usage,
    configure,
    flush,
    get_recorder,
    get_request_id,
    golden_signals,
    observe_agent,
    observe_llm,
    observe_tool,
    observe_workflow,
    record_audit_event,
    record_cache_size,
    record_decision,
    record_feedback,
    record_guardrail_block,
    record_llm_call,
    record_policy_violation,
    record_run,
    request_context,
    shutdown,
    track_agent,
    track_llm,
    track_tool,
    track_workflow,
    with_context,
)
from taskpilot_obs._recording.after_the_fact import RecordedCall, RecordedRun
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.exposition import MetricsApp, MetricsServer, metrics_app, start_metrics_server
from taskpilot_obs.golden_signals import GoldenSignals
from taskpilot_obs.records import Invocation, Scope
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

T = TypeVar("T")

# --- every kind of function, bare ------------------------------------------------------------------------------------


@observe_tool
def plain(number: int, *, text: str = "") -> bool:
    return bool(number or text)


@observe_agent
async def coroutine(number: int, *, text: str = "") -> bool:
    return bool(number or text)


@observe_tool
def generator(number: int) -> Generator[int, str, bool]:
    got = yield number
    return bool(got)


@observe_agent
async def async_generator(number: int) -> AsyncGenerator[int, str]:
    yield number


@observe_tool
def iterator(number: int) -> Iterator[int]:
    yield number


@observe_workflow
async def async_iterator(number: int) -> AsyncIterator[int]:
    yield number


@observe_llm
def generic(value: T) -> list[T]:
    return [value]


@observe_llm(provider="openai", model="gpt-4o")
async def completion(prompt: str) -> dict[str, str]:
    return {"prompt": prompt}


class Agent:
    @observe_agent
    def method(self, number: int) -> str:
        return str(number)

    @observe_agent("Named")
    async def named(self, number: int) -> str:
        return str(number)

    @classmethod
    @observe_tool
    def below_classmethod(cls, number: int) -> str:
        return str(number)

    @staticmethod
    @observe_tool("static", attributes={"team": "billing"})
    def below_staticmethod(number: int) -> str:
        return str(number)


async def kinds_of_functions() -> None:
    assert_type(plain(1, text="x"), bool)
    assert_type(await coroutine(1, text="x"), bool)
    assert_type(generator(1), Generator[int, str, bool])
    assert_type(async_generator(1), AsyncGenerator[int, str])
    assert_type(iterator(1), Iterator[int])
    assert_type(async_iterator(1), AsyncIterator[int])
    assert_type(generic("x"), list[str])
    assert_type(await completion("x"), dict[str, str])
    plain("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain(1, "x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await coroutine(1, txt="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    generator()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await completion(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def kinds_of_methods(agent: Agent) -> None:
    assert_type(agent.method(1), str)
    assert_type(await agent.named(1), str)
    assert_type(Agent.below_classmethod(1), str)
    assert_type(agent.below_classmethod(1), str)
    assert_type(Agent.below_staticmethod(1), str)
    assert_type(agent.below_staticmethod(1), str)
    assert_type(Agent.method(agent, 1), str)
    agent.method("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Agent.below_classmethod("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def decorators_with_arguments(recorder: Recorder) -> None:
    def function(number: int) -> str:
        return str(number)

    assert_type(observe_workflow(function)(1), str)
    assert_type(observe_workflow()(function)(1), str)
    assert_type(observe_workflow("name")(function)(1), str)
    assert_type(observe_agent(recorder=recorder)(function)(1), str)
    assert_type(observe_tool("name", policies=[print], mode="enforce")(function)(1), str)
    assert_type(observe_agent("name", guardrails=[print], buffer=True)(function)(1), str)
    assert_type(observe_llm(model="gpt-4o", operation="embeddings")(function)(1), str)
    observe_workflow(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    observe_tool(mode="forbid")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


# --- context managers ------------------------------------------------------------------------------------------------


async def context_managers() -> None:
    with track_workflow("handle") as workflow:
        assert_type(workflow, ActiveInvocation)
    async with track_agent("PlannerAgent", attributes={"team": "billing"}) as agent:
        assert_type(agent, ActiveInvocation)
    with track_tool("create_task") as tool:
        assert_type(tool, ActiveInvocation)
    async with track_llm(provider="openai", model="gpt-4o") as call:
        assert_type(call, LlmInvocation)
        assert_type(call.stream([1, 2]), Iterator[int])
        assert_type(call.astream(async_iterator(1)), AsyncIterator[int])
        call.set_cost(Decimal("0.01"))
        call.record_usage(150, 50)
        call.first_token_after(0.5)
        assert_type(call.cost_usd, Decimal | None)
    track_llm(tenant_id="t", user_id="u", session_id="s", request_id="r")
    track_llm(tenant=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with request_context(request_id="r", tenant_id="t", step_id="plan") as scope:
        assert_type(scope, Scope)
    async with request_context(user_id="u") as scope:
        assert_type(scope.request_id, str)
    request_context(step_id=["t"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- functions -------------------------------------------------------------------------------------------------------


def point_events() -> None:
    assert_type(record_feedback("r", correct=True, attributes={"channel": "chat"}), None)
    assert_type(record_policy_violation("pii", severity="high", blocked=True, tool="send"), None)
    assert_type(record_guardrail_block("toxicity", stage="output", duration_seconds=0.1), None)
    assert_type(record_decision("pii", "deny", kind="policy", result="blocked"), None)
    call = record_llm_call(model="gpt-4o", usage=Usage(input_tokens=1), cost="0.01", agent="Planner", tenant_id="t")
    assert_type(call, RecordedCall)
    assert_type(call.cost, Decimal | None)
    assert_type(call.usage, Usage | None)
    assert_type(record_run("agent", "Planner", "success", 2.5, ended_at=0.0), RecordedRun)
    record_run("agent")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(record_audit_event("task.created", task_id="7"), None)
    assert_type(record_cache_size("answers", 10), None)
    record_feedback("r", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def configuration() -> None:
    assert_type(configure(service="s", audit_log="audit.jsonl", thresholds={"success_rate": (99, 95)}), Recorder)
    assert_type(get_recorder(), Recorder)
    assert_type(flush(timeout=1.0), bool)
    assert_type(shutdown(), bool)
    assert_type(get_request_id(), str | None)
    logging.getLogger().addFilter(LogContextFilter())
    configure(servce="s")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    configure(on_full="explode")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def signals() -> None:
    found = golden_signals(timedelta(minutes=5), workflow="handle")
    assert_type(found, GoldenSignals)
    assert_type(found.success_rate, float | None)
    assert_type(found.model_dump(), dict[str, Any])


def binding() -> None:
    def work(number: int) -> str:
        return str(number)

    bound: Callable[[int], str] = with_context(work)
    assert_type(bound(1), str)
    with_context(work)("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def serving() -> None:
    assert_type(metrics_app(), MetricsApp)
    with start_metrics_server(0) as server:
        assert_type(server, MetricsServer)
        assert_type(server.url, str)


def testing() -> None:
    with fresh_recorder(service="s") as recorder, capture_invocations(recorder) as seen:
        assert_type(recorder, Recorder)
        assert_type(seen, Captured[Invocation])
        assert_type(seen[0], Invocation)
