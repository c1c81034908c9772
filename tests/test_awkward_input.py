"""What users hand in that is not what the signatures say: it costs them nothing but the value itself."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from taskpilot_obs import (
    observe_llm,
    record_audit_event,
    record_guardrail_block,
    record_policy_violation,
    request_context,
    track_agent,
    track_llm,
    track_tool,
)
from taskpilot_obs._recording.context import get_request_id
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.generators import drive
from taskpilot_obs.config import get_recorder
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Decision, Operation, Status
from taskpilot_obs.settings import Settings
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder

if TYPE_CHECKING:
    from pathlib import Path

    from taskpilot_obs._api.blocks import Tracked

USER = UUID("12345678-1234-5678-1234-567812345678")


class _Loud(str):
    """Text with methods of its own."""

    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("asked")


@pytest.mark.parametrize(
    ("given", "kept"),
    [(USER, str(USER)), (42, "42"), (b"u", "<bytes>"), (object(), "<object>"), (_Loud("u"), "u")],
    ids=["uuid", "int", "bytes", "object", "subclass"],
)
def test_an_id_that_is_no_text_is_kept_as_text(given: Any, kept: str, tmp_path: Path) -> None:
    """A UUID or a number as user, tenant or session reaches the audit log as text, and costs no other record."""
    path = tmp_path / "audit.jsonl"
    with fresh_recorder(audit_log=path) as recorder:
        record_audit_event("before")
        with request_context(user_id=given, tenant_id=given, session_id=given), track_agent("Planner"):
            pass
        record_audit_event("after")
        assert recorder.flush()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["before", "agent.input", "agent.output", "after"]
    for line in lines[1:3]:
        assert (line["user_id"], line["tenant_id"], line["session_id"]) == (kept, kept, kept)


@pytest.mark.parametrize("name", ["tenant", "user", "session"])
def test_an_identity_without_its_ending_is_kept_and_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """`tenant=` is an attribute, that statistics miss: the log names it and what to write; the request continues."""
    with request_context("req-1", plan="gold", **{name: "acme"}) as scope:
        assert scope.attributes == {"plan": "gold", name: "acme"}
    (said,) = caplog.messages
    assert f"request_context() takes {name}_id=…, not {name}=…" in said


def test_a_decision_of_awkward_values_costs_no_other_record(tmp_path: Path) -> None:
    """An exception as reason, a list as name, an object as tool, text as a duration: named by type, or left out."""
    path = tmp_path / "audit.jsonl"
    with fresh_recorder(audit_log=path) as recorder, capture_records(Decision) as seen:
        record_audit_event("before")
        awkward: Any = ["no", "name"]
        record_policy_violation(awkward, reason=ValueError("x"), tool=object())  # type: ignore[arg-type]
        record_guardrail_block("g", duration_seconds="soon")  # type: ignore[arg-type]
        record_audit_event("after")
        assert recorder.flush()
        violation, block = seen
    assert (violation.name, violation.reason, violation.tool) == ("<list>", "<ValueError>", "<object>")
    assert block.duration_s is None
    assert len(path.read_text().splitlines()) == 4


def test_a_name_or_parent_of_no_use_raises_and_leaves_no_noise() -> None:
    """A wrong argument of `start` is an error of the caller; the invocation that never began ends in silence."""
    wrong: Any = ["no", "name"]
    with fresh_recorder() as recorder:
        with pytest.raises(TypeError):
            recorder.start(Operation.AGENT, wrong)
        with pytest.raises(AttributeError):
            recorder.start(Operation.AGENT, "Planner", parent=wrong)
        gc.collect()  # pytest makes an unraisable exception an error


def test_detaching_twice_is_harmless() -> None:
    """A framework that says twice that a step is over breaks nothing."""
    with fresh_recorder() as recorder:
        run = recorder.start(Operation.AGENT, "Planner")
        step = run.attach()
        run.detach(step)
        run.detach(step)
        run.stop()
    assert current_run() is None


async def _enter(call: Tracked[Any]) -> None:
    async with call:
        pass


def test_a_block_entered_again_is_another_run() -> None:
    """A kept context manager records each time that it is entered, and leaves nothing current behind."""
    with fresh_recorder(), capture_invocations() as seen:
        agent, call = track_agent("Planner"), track_llm(model="gpt-4o")
        for _ in range(2):
            with agent, call:
                pass
            asyncio.run(_enter(call))
            assert current_run() is None
            assert get_request_id() is None
        with track_tool("search"):
            pass
        assert [run.name for run in seen] == ["gpt-4o", "Planner", "gpt-4o"] * 2 + ["search"]
        assert seen[-1].parent_id is None


class _Interrupts:
    """A response on whose reading Ctrl-C falls."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


def test_a_call_interrupted_while_its_response_is_read_ends() -> None:
    """Ctrl-C at that moment is the user's to see, but the call is over: nothing stays open or current."""

    @observe_llm(model="gpt-4o")
    def ask() -> _Interrupts:
        return _Interrupts()

    with fresh_recorder(), capture_invocations() as seen:
        with pytest.raises(KeyboardInterrupt):
            ask()
        assert [run.status for run in seen] == [Status.SUCCESS]
        assert current_run() is None


class _Closing(Generator[int, None, int]):
    """A generator whose `close` returns what it returned, as all do from Python 3.13 on."""

    def send(self, _value: None, /) -> int:
        return 1

    def throw(self, *_error: Any) -> int:
        raise AssertionError

    def close(self) -> Any:
        return 5


def test_close_returns_what_the_generator_returns() -> None:
    """The value of `close`, from Python 3.13 on, passes through; the run is abandoned as ever."""
    with fresh_recorder() as recorder, capture_invocations() as seen:
        steps = drive(recorder.start(Operation.TOOL, "count"), _Closing())
        assert next(steps) == 1
        closed: object = steps.close()  # type: ignore[func-returns-value]
        assert closed == (5 if sys.version_info >= (3, 13) else None)
        assert [run.status for run in seen] == [Status.ABANDONED]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"registry": 5}, "registry: given 5; .*register\\(\\) and collect\\(\\)"),
        ({"tracer_provider": "otel"}, "tracer_provider: given 'otel'; .*get_tracer\\(\\)"),
        ({"audit_key": ""}, "audit_key: given a secret; .*at least 1"),
        ({"redaction_key": ""}, "redaction_key: given a secret; .*at least 1"),
        ({"audit_log": 5}, "^audit_log: given 5;"),
    ],
)
def test_an_option_of_no_use_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    """What cannot work is a configuration error that names the option, before anything is replaced."""
    with pytest.raises(ConfigurationError, match=words):
        Settings.resolve(options, {})
    assert get_recorder().settings.service


def test_a_request_context_decorates_coroutine_functions() -> None:
    """As a decorator it holds while a coroutine runs, not only while it is made; a generator is refused."""

    @request_context("req-1")
    async def work() -> str | None:
        return get_request_id()

    @request_context("req-2")
    def plain() -> str | None:
        return get_request_id()

    def steps() -> Generator[None, None, None]:
        yield

    async def later_steps() -> AsyncGenerator[None, None]:
        yield

    assert (asyncio.run(work()), plain(), get_request_id()) == ("req-1", "req-2", None)
    with pytest.raises(TypeError, match="steps is a generator"):
        request_context("req-3")(steps)
    with pytest.raises(TypeError, match="later_steps is a generator"):
        request_context("req-3")(later_steps)
