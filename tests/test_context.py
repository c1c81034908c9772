"""Request identity: inherited, validated, harmless to leave anywhere."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs import LogContextFilter, get_request_id, observe_agent, request_context, track_workflow, with_context
from taskpilot_obs._recording.current_run import add_current_resolver
from taskpilot_obs._recording.invocation import ActiveInvocation, current
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.scope import current_scope
from taskpilot_obs._support.ids import REQUEST_ID, accepted_request_id
from taskpilot_obs.executors import ContextThreadPoolExecutor
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured


def test_outside_of_any_request_there_is_no_id() -> None:
    """Outside of a request there is no request ID."""
    assert get_request_id() is None


def test_identity_reaches_the_records(seen: Captured[Invocation]) -> None:
    """Request, tenant, user, session and attributes of the context stand on every invocation inside."""
    with request_context("req-1", tenant_id="acme", user_id="u", session_id="s", task_id="t-9"):
        observe_agent("a")(lambda: None)()
    (run,) = seen
    assert (run.request_id, run.tenant, run.user, run.session) == ("req-1", "acme", "u", "s")
    assert dict(run.attributes) == {"task_id": "t-9"}


def test_without_a_context_a_record_states_no_identity(seen: Captured[Invocation]) -> None:
    """Tenant, user and session of a run outside of any context are unknown, not empty."""
    observe_agent("a")(lambda: None)()
    assert (seen[0].tenant, seen[0].user, seen[0].session) == (None, None, None)


def test_inner_contexts_inherit_what_they_leave_out() -> None:
    """An inner context keeps what it does not set, and the outer one is back afterwards."""
    with request_context("outer", tenant_id="acme", a=1):
        with request_context(user_id="u", b=2) as inner:
            assert (inner.request_id, inner.tenant, inner.user) == ("outer", "acme", "u")
            assert dict(inner.attributes) == {"a": 1, "b": 2}
        assert get_request_id() == "outer"
    assert get_request_id() is None


def test_a_root_run_without_a_request_gets_an_id_that_its_children_share(seen: Captured[Invocation]) -> None:
    """Without a request context the root run's own ID ties its tree together."""
    inner = observe_agent("inner")(get_request_id)
    request_id = observe_agent("outer")(inner)()
    assert request_id is not None
    assert {run.request_id for run in seen} == {request_id}


def test_a_context_inside_a_run_keeps_the_runs_request() -> None:
    """A context that adds a user in the middle of a run does not change the request."""
    with track_workflow("w") as run, request_context(user_id="u"):
        assert get_request_id() == run.request_id


@given(st.text(max_size=200))
def test_inbound_ids_are_taken_only_when_well_formed(candidate: str) -> None:
    """An inbound ID is taken exactly if it matches the pattern whole; otherwise one is made that does."""
    accepted = accepted_request_id(candidate)
    assert REQUEST_ID.fullmatch(accepted)
    assert (accepted == candidate) == bool(REQUEST_ID.fullmatch(candidate))


def test_newlines_and_other_types_are_no_ids() -> None:
    """A trailing newline is replaced, and so are values other than text."""
    assert accepted_request_id("abc\n") != "abc\n"
    assert REQUEST_ID.fullmatch(accepted_request_id(17))


def test_leaving_in_a_foreign_context_is_harmless() -> None:
    """A context that is left where it was not entered (a generator dependency) does no harm."""
    scope = request_context("req-1")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert get_request_id() is None


def test_as_a_decorator_and_asynchronously() -> None:
    """It works as a decorator, once a call, and with `async with`."""

    @request_context(tenant_id="acme")
    def tenant() -> str | None:
        scope = current_scope.get()
        return scope.tenant if scope else None

    async def later() -> str | None:
        async with request_context("req-2"):
            await asyncio.sleep(0)
            return get_request_id()

    assert tenant() == tenant() == "acme"
    assert asyncio.run(later()) == "req-2"


def test_attribute_values_that_are_no_plain_values_are_named_by_type() -> None:
    """An attribute that is not text, a number or a bool is never called or kept: its type replaces it."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    with request_context(thing=Hostile()) as scope:  # type: ignore[arg-type]
        assert dict(scope.attributes) == {"thing": "<Hostile>"}


def test_threads_and_executors_can_be_given_the_context() -> None:
    """`with_context` and `ContextThreadPoolExecutor` carry the request to other threads."""
    with request_context("req-3"):
        bound = with_context(get_request_id)
        with ContextThreadPoolExecutor(1) as executor:
            assert executor.submit(get_request_id).result() == "req-3"
    with ThreadPoolExecutor(2) as plain:
        assert plain.submit(get_request_id).result() is None
        assert [future.result() for future in [plain.submit(bound) for _ in range(4)]] == ["req-3"] * 4


def test_a_bound_function_takes_its_arguments_in_the_context() -> None:
    """`with_context` passes positional and named arguments on, and returns what the function returns."""

    def work(first: int, *, second: int) -> tuple[str | None, int, int]:
        return get_request_id(), first, second

    with request_context("req-4"):
        bound = with_context(work)
    assert bound(1, second=2) == ("req-4", 1, 2)


def test_tasks_inherit_and_do_not_leak() -> None:
    """Concurrent tasks each see their own request."""

    async def work(name: str) -> str | None:
        with request_context(name):
            await asyncio.sleep(0.001)
            return get_request_id()

    async def many() -> list[str | None]:
        return await asyncio.gather(*(work(f"r{number}") for number in range(20)))

    assert asyncio.run(many()) == [f"r{number}" for number in range(20)]


def test_the_applications_log_records_are_stamped(caplog: pytest.LogCaptureFixture) -> None:
    """The filter stamps request, workflow and agent, leaves what is there, and empty text where there is nothing."""
    caplog.handler.addFilter(LogContextFilter())
    logger = logging.getLogger("app")
    logger.warning("outside")
    with request_context("req-4"):
        observe_agent("A")(lambda: logger.warning("inside", extra={"trace_id": "mine"}))()
    outside, inside = (vars(record) for record in caplog.records)
    assert (outside["request_id"], outside["agent"], outside["trace_id"]) == ("", "", "")
    assert (inside["request_id"], inside["agent"], inside["trace_id"]) == ("req-4", "A", "mine")


def test_a_thread_without_context_starts_a_request_of_its_own(seen: Captured[Invocation]) -> None:
    """A run in a bare thread is a root run."""
    with request_context("req-5"):
        thread = threading.Thread(target=observe_agent("alone")(lambda: None))
        thread.start()
        thread.join()
    assert seen[0].request_id != "req-5"
    assert seen[0].parent_id is None


def test_an_integration_may_say_what_runs_here(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Where a framework keeps context by itself, what its integration finds is the parent; one builds on another."""
    monkeypatch.setattr(current, "resolvers", current.resolvers)
    framework: list[ActiveInvocation] = []
    told: list[ActiveInvocation | None] = []

    def find(known: ActiveInvocation | None) -> ActiveInvocation | None:
        return framework[-1] if framework else known

    def listen(known: ActiveInvocation | None) -> ActiveInvocation | None:
        told.append(known)
        return known

    add_current_resolver(find)
    add_current_resolver(listen)
    alone = recorder.start("invoke_agent", "alone")
    assert alone.parent is None
    root = recorder.start("invoke_workflow", "w", parent=None)
    framework.append(root)
    beneath = recorder.start("invoke_agent", "a")
    assert beneath.parent is root
    assert told[-1] is root
    for run in (alone, beneath, root):  # one that is left open ends when it is collected, in the middle of another test
        run.stop()
