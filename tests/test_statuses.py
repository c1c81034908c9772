"""How it ended: control flow of frameworks, expected exceptions, and runs that nothing ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import (  # type: ignore[import-untyped]  # has no types
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
)
from celery.exceptions import Ignore, Reject, Retry
from django.core.exceptions import RequestAborted
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from greenlet import GreenletExit  # type: ignore[import-untyped]  # its types are a package of their own
from starlette.requests import ClientDisconnect
from werkzeug.exceptions import ClientDisconnected

from taskpilot_obs import observe_agent, observe_llm, observe_tool, observe_workflow, track_llm, track_workflow
from taskpilot_obs._recording.statuses import classify
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.integration import register_status
from taskpilot_obs.records import Status
from taskpilot_obs.testing import capture_invocations, fresh_recorder

CONTROL_FLOW = {
    Retry: Status.INTERRUPTED,
    Ignore: Status.CANCELLED,
    Reject: Status.CANCELLED,
    SoftTimeLimitExceeded: Status.TIMEOUT,
    TimeLimitExceeded: Status.TIMEOUT,
    GreenletExit: Status.CANCELLED,
    ClientDisconnect: Status.CANCELLED,
    ClientDisconnected: Status.CANCELLED,
    RequestAborted: Status.CANCELLED,
    asyncio.CancelledError: Status.CANCELLED,
    asyncio.TimeoutError: Status.TIMEOUT,
}


@pytest.mark.parametrize(
    ("raised", "status"), CONTROL_FLOW.items(), ids=lambda value: getattr(value, "__name__", value)
)
def test_control_flow_is_no_error(raised: type[BaseException], status: Status) -> None:
    """What servers and task queues raise to steer themselves ends a run with its own status, subclasses too."""
    assert classify(raised)[0] is status
    assert classify(type("Sub", (raised,), {}))[0] is status


class NoError(PolicyViolationError):
    """A refusal, whatever its policy."""

    def __init__(self) -> None:
        Exception.__init__(self, "no")


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ([TimeoutError], Status.TIMEOUT),
        ([TimeoutError, TimeoutError], Status.TIMEOUT),
        ([TimeoutError, ValueError], Status.ERROR),
        ([NoError], Status.BLOCKED),
        ([NoError, ValueError], Status.ERROR),
        ([ValueError], Status.ERROR),
    ],
)
def test_a_group_ends_a_run_as_its_members_do(members: list[type[Exception]], status: Status) -> None:
    """A task group wraps a refusal or a timeout of its tasks; the run around it has their status, groups within too."""

    async def fails(kind: type[Exception]) -> None:
        raise kind

    @observe_agent("planner")
    async def planner() -> None:
        async with asyncio.TaskGroup() as outer:
            for kind in members:
                outer.create_task(nested(kind))

    async def nested(kind: type[Exception]) -> None:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fails(kind))

    with capture_invocations() as seen, pytest.raises(ExceptionGroup):
        asyncio.run(planner())
    assert (seen[0].status, seen[0].error_type) == (status, "ExceptionGroup")


BY_NAME = {
    "langgraph.errors.GraphInterrupt": Status.INTERRUPTED,
    "langgraph.errors.ParentCommand": Status.INTERRUPTED,
    "langgraph.errors.GraphRecursionError": Status.BLOCKED,
    "agents.exceptions.MaxTurnsExceeded": Status.BLOCKED,
    "agents.exceptions.ToolOutputGuardrailTripwireTriggered": Status.BLOCKED,
    "agents.exceptions.ModelBehaviorError": Status.ERROR,
    "pydantic_ai.exceptions.UsageLimitExceeded": Status.BLOCKED,
    "pydantic_ai.exceptions.ConcurrencyLimitExceeded": Status.BLOCKED,
    "pydantic_ai.exceptions.RunCancelled": Status.CANCELLED,
    "pydantic_ai.exceptions.RunTimedOut": Status.TIMEOUT,
    "pydantic_ai.exceptions.ModelRetry": Status.INTERRUPTED,
    "pydantic_ai.exceptions.SkipToolExecution": Status.INTERRUPTED,
    "pydantic_ai.exceptions.UnexpectedModelBehavior": Status.ERROR,
    "uvicorn.protocols.utils.ClientDisconnected": Status.CANCELLED,
    "gevent.timeout.Timeout": Status.TIMEOUT,
    "celery.exceptions.MaxRetriesExceededError": Status.ERROR,
}


@pytest.mark.parametrize(("name", "status"), BY_NAME.items())
def test_frameworks_have_these_exceptions(name: str, status: Status) -> None:
    """The classes are where their names say, and end runs with their status, whether or not an integration is used."""
    module, _, kind = name.rpartition(".")
    assert classify(getattr(pytest.importorskip(module), kind))[0] is status


class PauseForHuman(Exception):  # noqa: N818  control flow, no error
    pass


def test_users_register_their_own_control_flow() -> None:
    """A class that was registered by its name ends runs with that status."""
    register_status(f"{PauseForHuman.__module__}.{PauseForHuman.__qualname__}", Status.INTERRUPTED)

    @observe_agent("asks")
    def asks() -> None:
        raise PauseForHuman

    with fresh_recorder(), capture_invocations() as seen:
        with pytest.raises(PauseForHuman):
            asks()
        assert [run.status for run in seen] == [Status.INTERRUPTED]


# Expected exceptions


class NotFound(Exception):  # noqa: N818  a name as users have them
    pass


class Missing(NotFound):
    pass


def _raise(error: Exception) -> Any:
    raise error


async def _raise_async(error: Exception) -> Any:
    raise error


def _raise_in_a_stream(error: Exception) -> Iterator[int]:
    yield 1
    raise error


KINDS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "function": (_raise, lambda result: result),
    "coroutine": (_raise_async, asyncio.run),
    "generator": (_raise_in_a_stream, list),
}
DECORATORS: dict[str, Callable[..., Any]] = {
    "workflow": observe_workflow,
    "agent": observe_agent,
    "tool": observe_tool,
    "llm": observe_llm,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decorator", DECORATORS)
@pytest.mark.parametrize(
    "expected",
    [NotFound, (KeyError, NotFound), lambda error: isinstance(error, NotFound)],
    ids=["class", "tuple", "function"],
)
def test_an_expected_exception_is_a_success_and_passes(kind: str, decorator: str, expected: Any) -> None:
    """The caller gets the exception itself; others are errors as before."""
    function, consume = KINDS[kind]
    with fresh_recorder(), capture_invocations() as seen:
        observed = DECORATORS[decorator](expected=expected)(function)
        for error, status in ((Missing("a"), Status.SUCCESS), (ValueError("b"), Status.ERROR)):
            with pytest.raises(type(error)) as caught:
                consume(observed(error))
            assert caught.value is error
            assert seen[-1].status is status
        assert seen[0].error_type is None


def test_blocks_take_expected_exceptions_too() -> None:
    """`track_*(expected=…)` counts them as success as well, and an equal block without it does not."""
    with fresh_recorder(), capture_invocations() as seen:
        for block in (
            track_workflow("w", expected=NotFound),
            track_workflow("w"),
            track_llm(model="m", expected=NotFound),
            track_llm(model="m"),
        ):
            with pytest.raises(NotFound), block:
                raise NotFound
        assert [run.status for run in seen] == [Status.SUCCESS, Status.ERROR] * 2


@pytest.mark.parametrize("wrong", [404, "NotFound", int, (NotFound, 404)])
def test_a_wrong_expectation_is_refused_at_decoration(wrong: Any) -> None:
    """The error says what is allowed."""
    with pytest.raises(TypeError, match="give exception classes"):
        observe_tool(expected=wrong)(_raise)
    with pytest.raises(TypeError, match="give exception classes"):
        track_workflow("w", expected=wrong)


def test_an_expectation_that_fails_is_an_error_of_the_run_only() -> None:
    """A function that raises costs its answer and nothing else: the user's exception passes."""

    def broken(error: BaseException) -> bool:
        raise RuntimeError("of the expectation")

    with fresh_recorder(), capture_invocations() as seen:
        with pytest.raises(NotFound):
            observe_tool(expected=broken)(_raise)(NotFound())
        assert [run.status for run in seen] == [Status.ERROR]


def test_a_client_error_of_a_web_service_can_be_expected() -> None:
    """The recipe for FastAPI: an `HTTPException` below 500 is an answer, one above is a failure."""

    def is_client_error(error: BaseException) -> bool:
        return isinstance(error, HTTPException) and error.status_code < 500

    app = FastAPI()

    @app.get("/{status}")
    @observe_workflow("serve", expected=is_client_error)
    async def serve(status: int) -> None:
        raise HTTPException(status)

    with fresh_recorder(), capture_invocations() as seen:
        client = TestClient(app)
        assert [client.get(f"/{status}").status_code for status in (404, 503)] == [404, 503]
        assert [run.status for run in seen] == [Status.SUCCESS, Status.ERROR]


# Runs that are open when the process ends

OPEN = """
import sys, threading
from taskpilot_obs import configure, observe_agent, shutdown, track_workflow, track_llm
from taskpilot_obs.integration import get_recorder

configure(audit_log={path!r})
started = threading.Event()

@observe_agent("in a daemon thread")
def works_for_ever():
    started.set()
    threading.Event().wait()

threading.Thread(target=works_for_ever, daemon=True).start()
started.wait()
block = track_workflow("entered and left open")
block.__enter__()
call = get_recorder().start_llm(model="gpt-4o")
with track_workflow("ended"):
    pass
{ending}
"""


@pytest.mark.parametrize("ending", ["", "shutdown()", "raise SystemExit(3)"], ids=["exit", "shutdown", "SystemExit"])
def test_runs_that_are_open_at_the_end_are_abandoned(ending: str, tmp_path: Path) -> None:
    """Each start in the audit log has an end, whatever the Python version: nothing is left in progress for ever."""
    path = tmp_path / "audit.jsonl"
    program = OPEN.format(path=str(path), ending=ending)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ends = {line["invocation_id"]: line["status"] for line in lines if line.get("status")}
    names = {line["invocation_id"]: line.get("agent") or line.get("workflow") or line.get("model") for line in lines}
    found = sorted((str(names[identifier]), status) for identifier, status in ends.items())
    assert found == [
        ("ended", "success"),
        ("entered and left open", "abandoned"),
        ("entered and left open", "abandoned"),
        ("in a daemon thread", "abandoned"),
    ]
