"""A client beneath a layer that records LLM calls by itself: which call its request is, and when it is another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from taskpilot_obs import observe_agent, observe_llm, request_context
from taskpilot_obs._enforcement.model_calls import _others
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.integration import (
    LlmInvocation,
    ModelRequest,
    Operation,
    Recorder,
    attached,
    call_model,
    check_input,
    expect_calls,
    expect_request_elsewhere,
)
from taskpilot_obs.records import Invocation
from taskpilot_obs.safety import DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

MODEL = "gpt-4o-mini"
Within = Callable[[Callable[[], object]], object]


@pytest.fixture
def guarded() -> Iterator[Recorder]:
    """A recorder that refuses what is secret, and a client that uses it."""
    with fresh_recorder(policies=[check_with(DenyWords(["secret"]), mode="enforce")]) as recorder:
        expect_calls(recorder)
        yield recorder


@pytest.fixture
def seen(guarded: Recorder) -> Iterator[Captured[Invocation]]:
    """What it records."""
    with capture_invocations(guarded) as captured:
        yield captured


def ask(recorder: Recorder, said: str = "hello", operation: Operation = Operation.CHAT) -> str:
    """One request of a client."""
    return call_model(recorder, ModelRequest(MODEL, "openai", operation, said), lambda: "sunny")


def in_this_context(work: Callable[[], object]) -> object:
    """What a framework does that calls a model itself."""
    return work()


def in_a_thread(work: Callable[[], object]) -> object:
    """What a framework does that hands its calls to threads, with its context."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, work).result()


def in_a_bare_thread(work: Callable[[], object]) -> object:
    """Another request of the application."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def beside(work: Callable[[], object]) -> object:
    """A task that began before the call."""
    return BESIDE.run(work)


BESIDE = Context()


@pytest.mark.parametrize("within", [in_this_context, in_a_thread])
def test_the_request_of_a_call_that_is_never_current_is_that_call(
    guarded: Recorder, seen: Captured[Invocation], within: Within
) -> None:
    """A layer's call and the request of a client beneath it are one record, also in a thread; the next is another."""

    @observe_agent
    def agent() -> None:
        call = guarded.start_llm(model=MODEL)
        check_input(call, "hello")  # which makes it current for the checks alone
        within(lambda: ask(guarded))
        assert guarded.flush()
        assert list(seen) == []
        within(lambda: ask(guarded))
        call.stop()

    agent()
    assert [run.name for run in seen] == [MODEL, MODEL, "agent"]


def test_several_calls_that_wait_are_as_many_records(guarded: Recorder, seen: Captured[Invocation]) -> None:
    """Calls that a framework begins before it makes the first are claimed one by one."""
    calls = [guarded.start_llm(model=MODEL) for _ in range(5)]
    for _ in calls:
        in_a_thread(lambda: ask(guarded))
    for call in calls:
        call.stop()
    assert len(seen) == 5


@contextmanager
def other_tenant(_: LlmInvocation) -> Iterator[None]:
    with request_context(tenant_id="acme"):
        yield


@contextmanager
def answering(call: LlmInvocation) -> Iterator[None]:
    call.first_token()
    yield


@contextmanager
def once_current(call: LlmInvocation) -> Iterator[None]:
    call.detach(call.attach())
    yield


WHERE: dict[str, tuple[Callable[[LlmInvocation], AbstractContextManager[Any]] | None, Within]] = {
    "another thread": (None, in_a_bare_thread),
    "a task beside it": (None, beside),
    "another tenant": (other_tenant, in_this_context),
    "while it is answered": (answering, in_this_context),
    "a call that was current": (once_current, in_this_context),
}


@pytest.mark.parametrize("where", WHERE)
def test_a_request_of_something_else_is_asked_about(guarded: Recorder, seen: Captured[Invocation], where: str) -> None:
    """While a layer's call of the same model is open, other requests are recorded, and refused by enforced checks."""
    around, within = WHERE[where]
    call = guarded.start_llm(model=MODEL)
    with ExitStack() as stack:
        if around is not None:
            stack.enter_context(around(call))
        assert within(lambda: ask(guarded)) == "sunny"
        with pytest.raises(PolicyViolationError):
            within(lambda: ask(guarded, "secret"))
    call.stop()
    assert [run.status.value for run in seen] == ["success", "blocked", "success"]


def test_a_call_of_another_kind_or_recorder_is_asked_about(guarded: Recorder, seen: Captured[Invocation]) -> None:
    """A call of another kind, or of another recorder, does not stand for a request."""
    call = guarded.start_llm(model=MODEL, operation=Operation.EMBEDDINGS)
    other = build_recorder(registry=CollectorRegistry())
    expect_calls(other)
    foreign = other.start_llm(model=MODEL)
    with pytest.raises(PolicyViolationError):
        ask(guarded, "secret")
    foreign.stop()
    call.stop()
    other.shutdown()
    assert [run.status.value for run in seen] == ["blocked", "success"]


@pytest.mark.parametrize("own", ["decorated", "attached"])
def test_a_call_beside_that_makes_itself_current_is_left_alone(
    guarded: Recorder, seen: Captured[Invocation], own: str
) -> None:
    """In another task of one agent, a request beside a decorated call, or one in a block, is a record of its own."""
    elsewhere = Context()

    @observe_llm(model=MODEL, provider="openai")
    def decorated() -> None:
        with pytest.raises(PolicyViolationError):
            elsewhere.run(ask, guarded, "secret")

    def in_a_block() -> None:
        call = guarded.start_llm(model=MODEL)
        with attached(call):
            with pytest.raises(PolicyViolationError):
                elsewhere.run(ask, guarded, "secret")
            call.stop()

    @observe_agent
    def agent() -> None:
        nonlocal elsewhere
        elsewhere = copy_context()
        (decorated if own == "decorated" else in_a_block)()

    agent()
    assert [run.status.value for run in seen] == ["blocked", "success", "success"]


def test_a_forked_child_sends_no_request_of_its_parents_calls(guarded: Recorder, seen: Captured[Invocation]) -> None:
    """A child that is forked during a layer's call has its own requests asked about."""
    call = guarded.start_llm(model=MODEL)
    child = os.fork()
    if not child:
        try:
            ask(guarded, "secret")
        except PolicyViolationError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    ask(guarded)  # in the parent it is still that call
    call.stop()
    assert len(seen) == 1


def test_requests_elsewhere_are_forgotten_without_a_wrapped_client() -> None:
    """Where no client is wrapped, a call whose request a framework sends in another context leaves nothing behind."""
    with fresh_recorder() as recorder:
        call = recorder.start_llm(model=MODEL)
        expect_request_elsewhere(call)
        call.stop()
        assert call.number not in {**_others._waiting, **_others._elsewhere}
