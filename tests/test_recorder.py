"""The recorder: starts and ends, point events, and trees of invocations under any interleaving."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs import (
    flush,
    golden_signals,
    observe_agent,
    record_audit_event,
    record_cache_size,
    record_decision,
    record_feedback,
    record_guardrail_block,
    record_llm_call,
    record_policy_violation,
    request_context,
    shutdown,
    track_agent,
    track_llm,
    track_tool,
    track_workflow,
)
from taskpilot_obs._api.blocks import Tracked
from taskpilot_obs._recording.callsite import _MAX_CALLSITES
from taskpilot_obs._recording.invocation import ActiveInvocation, current_running
from taskpilot_obs._recording.point_events import MAX_RATED
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.statuses import classify, register_status
from taskpilot_obs._support.clock import Clock
from taskpilot_obs.budgets import Budget
from taskpilot_obs.config import get_recorder
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.records import (
    AuditEvent,
    CacheSize,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Record,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.semconv import INTERNAL_ERRORS, RECORDS_DROPPED
from taskpilot_obs.testing import Captured, FixedClock, capture_invocations, capture_records, fresh_recorder

Shape: TypeAlias = "tuple[Shape, ...]"
"""A tree, as the tuple of its children."""


def gauge(recorder: Recorder, name: str) -> float:
    """The sum of a family's samples."""
    recorder.drain()
    assert recorder.registry is not None
    return sum(s.value for family in recorder.registry.collect() for s in family.samples if s.name == name)


def test_start_and_stop_by_hand(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A run begun by hand has an explicit parent, and ending it twice is harmless."""
    root = recorder.start("invoke_workflow", "w", parent=None)
    child = recorder.start("invoke_agent", "a", parent=root, attributes={"k": 1})
    child.set_attribute("more", "x")
    child.stop()
    child.fail(ValueError())
    child.stop()
    root.fail(TimeoutError())
    agent, workflow = seen
    assert agent.parent_id == workflow.invocation_id
    assert (agent.status, agent.workflow, dict(agent.attributes)) == (Status.SUCCESS, "w", {"k": 1, "more": "x"})
    assert (workflow.status, workflow.error_type) == (Status.TIMEOUT, "TimeoutError")
    assert root.ended
    assert (root.operation, root.name) == (Operation.WORKFLOW, "w")


def test_start_refuses_what_it_cannot_begin(recorder: Recorder) -> None:
    """An unknown operation, and an LLM call begun as something else, are refused with what to do."""
    with pytest.raises(ValueError, match="dance"):
        recorder.start("dance", "x")
    with pytest.raises(ValueError, match="start_llm"):
        recorder.start("chat", "x")
    with pytest.raises(ValueError, match="is not an LLM call"):
        recorder.start_llm(model="m", operation="invoke_agent")


def test_a_run_that_is_never_ended_does_not_leak(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """Runs that are never ended are closed as abandoned when they are forgotten; the gauges settle."""
    for _ in range(1000):
        recorder.start("invoke_agent", "forgotten")
    gc.collect()
    assert [run.status for run in seen] == [Status.ABANDONED] * 1000
    assert gauge(recorder, "agent_active_runs") == 0


def test_tasks_that_respawn_tasks_build_no_chain(recorder: Recorder) -> None:
    """A run refers to no ancestor that has ended, so that endless respawning keeps nothing alive."""
    run = recorder.start("invoke_agent", "first", parent=None)
    for _ in range(1000):
        following = recorder.start("invoke_agent", "next", parent=run)
        run.stop()
        run = following
        recorder.drain()
    length, ancestor = 0, run.parent
    while ancestor is not None:
        length, ancestor = length + 1, ancestor.parent
    assert length <= 1
    run.stop()


@pytest.mark.parametrize(
    ("track", "operation"),
    [(track_workflow, Operation.WORKFLOW), (track_agent, Operation.AGENT), (track_tool, Operation.TOOL)],
)
def test_context_managers_sync_and_async(
    seen: Captured[Invocation], track: Callable[[str], Tracked[ActiveInvocation]], operation: Operation
) -> None:
    """Blocks of code are recorded like functions, with and without `async`; exceptions go on."""

    async def later() -> None:
        async with track("b"):
            await asyncio.sleep(0)

    with track("a") as run:
        run.set_input("in")
        run.set_output("output")
    asyncio.run(later())
    with pytest.raises(KeyError), track("c"):
        raise KeyError
    assert [(done.operation, done.name, done.status) for done in seen] == [
        (operation, "a", Status.SUCCESS),
        (operation, "b", Status.SUCCESS),
        (operation, "c", Status.ERROR),
    ]
    assert (seen[0].input_length, seen[0].output_length) == (2, 6)


def test_a_context_manager_left_elsewhere_is_harmless(
    seen: Captured[Invocation], caplog: pytest.LogCaptureFixture
) -> None:
    """A block that is left in another context than it was entered in ends all the same, without a log line."""

    async def outer() -> None:
        block = track_agent("a")
        await asyncio.create_task(enter(block))
        block.__exit__(None, None, None)

    async def enter(block: Tracked[ActiveInvocation]) -> None:
        block.__enter__()

    asyncio.run(outer())
    assert [run.status for run in seen] == [Status.SUCCESS]
    assert caplog.records == []


def test_one_block_in_many_tasks_and_threads(seen: Captured[Invocation]) -> None:
    """A block that several tasks or threads share ends the run of the one that leaves it, and leaves none current."""
    block = track_agent("shared")

    async def stay(seconds: float) -> ActiveInvocation:
        async with block as run:
            await asyncio.sleep(seconds)
        assert run.ended
        assert current_running.get() is None
        return run

    async def overlap() -> list[ActiveInvocation]:
        return [*await asyncio.gather(stay(0.001), stay(0.02), stay(0.01))]

    def in_thread(number: int) -> ActiveInvocation:
        barrier.wait(10)
        with block as run:
            barrier.wait(10)
            time.sleep(0.002 * (number % 3))
        assert run.ended
        assert current_running.get() is None
        return run

    runs = asyncio.run(overlap())
    barrier = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        runs += pool.map(in_thread, range(6))
    assert {run.invocation_id for run in seen} == {run.invocation_id for run in runs}
    assert [run.parent_id for run in seen] == [None] * 9


class Timeout(Exception):  # noqa: N818  named as libraries name theirs
    """Ends in Timeout."""


class ReadTimeoutException(Timeout):
    """Ends in TimeoutException."""


class Interrupt(Exception):  # noqa: N818  control flow
    """A framework's control flow."""


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (ValueError("x"), Status.ERROR, "ValueError"),
        (TimeoutError(), Status.TIMEOUT, "TimeoutError"),
        (ReadTimeoutException(), Status.TIMEOUT, f"{__name__}.ReadTimeoutException"),
        (asyncio.CancelledError(), Status.CANCELLED, "asyncio.exceptions.CancelledError"),
        (SystemExit(), Status.CANCELLED, "SystemExit"),
        (GeneratorExit(), Status.ABANDONED, "GeneratorExit"),
        (PolicyViolationError("p", "r"), Status.BLOCKED, "taskpilot_obs.exceptions.PolicyViolationError"),
    ],
)
def test_what_exceptions_stand_for(error: BaseException, status: Status, name: str) -> None:
    """Each kind of exception ends a run with its status, and names itself as OpenTelemetry does."""
    assert classify(type(error)) == (status, name)


def test_frameworks_can_register_their_control_flow() -> None:
    """An integration says by name that an exception class is control flow; subclasses follow."""
    register_status(f"{__name__}.Interrupt", Status.INTERRUPTED)
    assert classify(type("Sub", (Interrupt,), {}))[0] is Status.INTERRUPTED


def test_classes_made_at_run_time_are_not_kept() -> None:
    """The memory of classified classes is bounded."""
    from taskpilot_obs._recording import statuses

    for number in range(statuses._MAX_CLASSES + 10):
        classify(type(f"E{number}", (Exception,), {}))
    assert len(statuses._known) <= statuses._MAX_CLASSES


def test_hostile_exceptions_arrive_unharmed(seen: Captured[Invocation]) -> None:
    """An exception whose text raises is recorded by class, and arrives as the same object."""

    class Hostile(Exception):  # noqa: N818  hostile by name
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    error = Hostile()
    with fresh_recorder(capture_content=True) as fresh, capture_invocations(fresh) as runs:
        with pytest.raises(Hostile) as caught, track_agent("a"):
            raise error
        assert caught.value is error
        assert runs[0].status is Status.ERROR


def test_point_events_carry_where_they_happened(recorder: Recorder) -> None:
    """Decisions, feedback and audit events carry request, run, agent and tenant."""
    with (
        capture_records(Decision) as decisions,
        capture_records(Feedback) as words,
        capture_records(AuditEvent) as events,
        capture_records(CacheSize) as sizes,
        request_context("req-1", tenant_id="acme", user_id="u", session_id="s"),
        track_agent("A") as run,
    ):
        record_policy_violation("no-pii", reason="mail", severity="high", tool="send")
        record_guardrail_block("toxicity", stage="output", duration_seconds=0.01)
        record_decision("allowlist", "allow", attributes={"k": "v"})
        record_feedback(correct=True)
        record_audit_event("task.approved", by="u7")
        record_cache_size("prompts", 17)
        origin = recorder.origin()
        assert origin.invocation_id == run.invocation_id
        violation, block, allowed = decisions
        assert {decision.origin for decision in decisions} == {origin}
        assert (origin.request_id, origin.agent, origin.tenant, origin.user, origin.session) == (
            "req-1",
            "A",
            "acme",
            "u",
            "s",
        )
        assert (violation.kind, violation.verdict, violation.result) == (
            DecisionKind.POLICY,
            Verdict.DENY,
            CheckResult.WOULD_BLOCK,
        )
        assert (block.kind, block.result, block.stage) == (DecisionKind.GUARDRAIL, CheckResult.BLOCKED, "output")
        assert (allowed.result, dict(allowed.attributes)) == (CheckResult.PASSED, {"k": "v"})
        assert (words[0].request_id, words[0].correct, words[0].revision) == ("req-1", True, False)
        assert (events[0].event, dict(events[0].attributes)) == ("task.approved", {"by": "u7"})
        assert (sizes[0].cache, sizes[0].entries) == ("prompts", 17)


def test_point_events_outside_of_a_run(recorder: Recorder) -> None:
    """Events may occur outside of any run and any request."""
    with capture_records(AuditEvent) as events:
        record_audit_event("deployed")
        with request_context("req-2"):
            record_audit_event("approved")
    assert [event.origin.request_id for event in events] == [None, "req-2"]
    assert events[0].origin.invocation_id is None


def test_words_outside_of_the_vocabulary_are_refused() -> None:
    """A severity, stage, verdict or status that does not exist is refused where it is said."""
    with pytest.raises(ValueError, match="dire"):
        record_policy_violation("p", severity="dire")
    with pytest.raises(ValueError, match="middle"):
        record_guardrail_block("g", stage="middle")
    with pytest.raises(ValueError, match="perhaps"):
        record_decision("p", "perhaps")
    with pytest.raises(ValueError, match="'great' is not a valid Status; allowed are success, error, timeout"):
        record_llm_call(model="m", status="great")


def test_feedback_counts_once_and_can_be_revised() -> None:
    """A request is counted once; the opposite verdict later is a revision, the same one nothing."""
    with capture_records(Feedback) as words:
        for correct in (True, True, False, False, True):
            record_feedback("req-1", correct=correct)
        record_feedback("req-2", correct=False)
    assert [(word.request_id, word.correct, word.revision) for word in words] == [
        ("req-1", True, False),
        ("req-1", False, True),
        ("req-1", True, True),
        ("req-2", False, False),
    ]
    assert golden_signals().user_confirmed_correctness_percent == 50


def test_a_verdict_that_cannot_be_read_is_counted_as_an_error() -> None:
    """A `correct` whose truth raises reaches no caller, and records nothing."""

    class Hostile:
        def __bool__(self) -> bool:
            raise RuntimeError

    hostile: Any = Hostile()
    with capture_records(Feedback) as words:
        record_feedback("req-1", correct=hostile)
    assert not words
    assert get_recorder().counters.totals[INTERNAL_ERRORS, ("record_feedback",)] == 1


def test_feedback_on_no_request_is_never_a_revision() -> None:
    """Words without a request ID are each counted: there is nothing that they could revise."""
    with capture_records(Feedback) as words:
        record_feedback(correct=True)
        record_feedback(correct=False)
    assert [(word.correct, word.revision) for word in words] == [(True, False), (False, False)]


def test_only_the_last_rated_requests_are_remembered(recorder: Recorder) -> None:
    """The memory of rated requests is bounded."""
    for number in range(MAX_RATED + 10):
        record_feedback(str(number), correct=True)
    recorder.drain()
    assert recorder.parts is not None
    assert len(recorder.parts.verdicts) == MAX_RATED


def test_rollups_reach_every_level(seen: Captured[Invocation]) -> None:
    """Tokens, cost, tool calls and violations beneath a run are summed on it, once a level."""
    with track_workflow("w"):
        for _ in range(2):
            with track_agent("a"):
                with track_llm(model="gpt-4o") as call:
                    call.record_usage(input_tokens=150, output_tokens=50)
                with track_tool("t"):
                    record_policy_violation("p")
        with track_llm(model="nobody-knows-this-model", provider="openai") as call:
            call.record_usage(input_tokens=1, output_tokens=1)
    by_name = {run.name: run for run in seen}
    agent, workflow = by_name["a"].rollup, by_name["w"].rollup
    assert agent is not None
    assert workflow is not None
    assert (agent.input_tokens, agent.llm_calls, agent.tool_calls, agent.violations) == (150, 1, 1, 1)
    assert (workflow.input_tokens, workflow.output_tokens) == (301, 101)
    assert (workflow.llm_calls, workflow.unpriced_calls, workflow.tool_calls, workflow.violations) == (3, 1, 2, 2)
    assert agent.cost == Decimal("0.000875")
    assert workflow.cost == Decimal("0.00175")


def test_a_child_that_outlives_its_parent_counts_for_the_task(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """What a background task spends after its agent ended still counts for the workflow that runs."""
    workflow = recorder.start("invoke_workflow", "w", parent=None)
    agent = recorder.start("invoke_agent", "a", parent=workflow)
    call = recorder.start_llm(model="gpt-4o", parent=agent)
    call.record_usage(input_tokens=150, output_tokens=50)
    agent.stop()
    recorder.drain()
    call.stop()
    workflow.stop()
    assert [run.name for run in seen] == ["a", "gpt-4o", "w"]
    assert seen[2].rollup is not None
    assert seen[2].rollup.cost == Decimal("0.000875")
    assert seen[0].rollup is None


def test_a_fixed_clock_gives_exact_durations() -> None:
    """With a clock that a test moves, durations and times are exact."""
    clock = FixedClock(1_000_000_000)
    with fresh_recorder(clock=clock) as recorder, capture_invocations(recorder) as runs:
        with track_agent("a"):
            clock.advance(2.5)
        assert (runs[0].duration_s, runs[0].start_unix_ns) == (2.5, 1_000_000_000)


def test_a_clock_that_steps_back_gives_no_negative_duration() -> None:
    """A duration is never negative."""
    clock = FixedClock()
    with fresh_recorder(clock=clock) as recorder, capture_invocations(recorder) as runs:
        with track_agent("a"):
            clock.advance(-5)
        assert runs[0].duration_s == 0


def test_flush_and_shutdown_on_the_default_recorder(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """`flush` and `shutdown` speak for the default recorder."""
    with track_agent("a"):
        pass
    assert flush()
    assert len(seen) == 1
    assert shutdown()


def test_a_recorder_without_parts_says_what_to_do() -> None:
    """Reading from a recorder that was never configured is a clear error."""
    with pytest.raises(RuntimeError, match="configure"):
        Recorder().drain()


Tree = st.recursive(st.just(()), lambda children: st.lists(children, min_size=1, max_size=3).map(tuple), max_leaves=12)
OPERATIONS = (Operation.WORKFLOW, Operation.AGENT, Operation.TOOL)


class Expected:
    """What a test knows of the runs that it makes."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[str | None, str, Status]] = {}
        self.lock = threading.Lock()

    def add(self, run: ActiveInvocation, parent: str | None, request: str, status: Status) -> None:
        with self.lock:
            self.runs[run.invocation_id] = (parent, request, status)


async def grow(
    recorder: Recorder, tree: Shape, expected: Expected, parent: str | None, request: str, salt: int
) -> None:
    """Run a tree: children concurrently as tasks, every third leaf in a thread, every fifth run failing."""
    track = (track_workflow, track_agent, track_tool)[salt % 3]
    fails = salt % 5 == 0
    try:
        with track(f"n{salt % 7}") as run:
            expected.add(run, parent, request, Status.ERROR if fails else Status.SUCCESS)
            await asyncio.sleep(0)
            grown = [
                grow(recorder, child, expected, run.invocation_id, request, salt * 3 + number + 1)
                for number, child in enumerate(tree)
            ]
            await asyncio.gather(*grown)
            if not tree and salt % 3 == 0:
                await asyncio.to_thread(leaf, expected, run.invocation_id, request)
            if fails:
                raise ValueError
    except ValueError:
        pass


def leaf(expected: Expected, parent: str, request: str) -> None:
    with track_tool("leaf") as run:
        expected.add(run, parent, request, Status.SUCCESS)


@settings(max_examples=60, deadline=None)
@given(st.lists(Tree, min_size=1, max_size=4))
def test_trees_under_random_interleavings(trees: list[Shape]) -> None:
    """Whatever the interleaving of tasks and threads, parents, requests and statuses are right, and starts = ends."""
    expected = Expected()

    async def forest(recorder: Recorder) -> None:
        async def one(number: int, tree: Shape) -> None:
            with request_context(f"req-{number}"):
                await grow(recorder, tree, expected, None, f"req-{number}", number + 1)

        await asyncio.gather(*(one(number, tree) for number, tree in enumerate(trees)))

    with (
        fresh_recorder() as recorder,
        capture_invocations(recorder) as runs,
        capture_records(Started, recorder) as begun,
    ):
        asyncio.run(forest(recorder))
        got = {run.invocation_id: (run.parent_id, run.request_id, run.status) for run in runs}
        assert got == expected.runs
        assert sorted(start.invocation_id for start in begun) == sorted(got)
        assert gauge(recorder, "agent_active_runs") == 0
        assert gauge(recorder, "workflow_active_runs") == 0


def test_counts_are_exact_over_threads(recorder: Recorder) -> None:
    """Sixteen threads that switch all the time lose and double nothing."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(_run_many, [500] * 16))
    finally:
        sys.setswitchinterval(before)
    recorder.drain()
    assert gauge(recorder, "agent_runs_total") == 8000
    assert gauge(recorder, "agent_active_runs") == 0


def _run_many(count: int) -> None:
    for _ in range(count):
        with track_agent("a"):
            pass


def test_frozen_records_have_every_value_in_its_place(recorder: Recorder) -> None:
    """The tuples that are built by position hold what their fields say, for a run with everything in it."""
    assert Invocation._fields[2 : 2 + len(Started._fields)] == Started._fields
    with (
        fresh_recorder(capture_content=True) as full,
        capture_records(Started, full) as begun,
        capture_invocations(full) as runs,
        request_context("req-1", tenant_id="t", user_id="u", session_id="s", a=1),
    ):
        root = full.start("invoke_workflow", "w", parent=None)
        run = full.start("invoke_agent", "a", parent=root, attributes={"b": 2})
        run.set_input("in")
        run.set_output("out!")
        run.fail(ValueError("no"))
        start, end = begun[1], runs[0]
        for name in Started._fields:
            if name not in {"input_length", "input_text", "request_model", "provider"}:
                assert getattr(start, name) == getattr(end, name), name
        assert (start.operation, start.name, start.workflow, start.agent) == (Operation.AGENT, "a", "w", "a")
        assert (start.request_id, start.tenant, start.user, start.session) == ("req-1", "t", "u", "s")
        assert (start.invocation_id, start.parent_id) == (run.invocation_id, root.invocation_id)
        assert (start.trace_id, start.span_id, start.sampled, start.is_task) == (None, None, False, False)
        assert dict(end.attributes) == {"a": 1, "b": 2}
        assert (end.input_length, end.output_length, end.input_text, end.output_text) == (2, 4, "in", "out!")
        assert (end.status, end.error_type, end.error_message) == (Status.ERROR, "ValueError", "no")
        assert (end.error_category, end.usage, end.usage_inconsistent, end.cost) == (None, None, False, None)
        assert (end.streaming, end.cached, end.ttft_s, end.retries, end.rollup) == (False, None, None, 0, None)
        assert abs(end.start_unix_ns - time.time_ns()) < 60e9
        root.stop()


def test_steps_in_foreign_contexts_are_harmless(recorder: Recorder) -> None:
    """A run is current between `attach` and `detach`; undone elsewhere, twice or after its end nothing happens."""
    run = recorder.start("invoke_agent", "a", parent=None)
    step = run.attach()
    assert recorder.origin().invocation_id == run.invocation_id
    run.detach(step)
    run.detach(contextvars.copy_context().run(run.attach))
    run.detach()
    contextvars.copy_context().run(run.reattach)
    run.detach()
    run.stop()
    run.reattach()
    assert recorder.origin().invocation_id is None


def test_a_run_stands_for_its_records_once(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A run whose records were taken gives none a second time, and still knows whether it was a task."""
    run = recorder.start("invoke_agent", "a", parent=None)
    run.stop()
    assert len(seen) == 1
    again: list[Record] = []
    run.freeze(again)
    assert not again
    assert run.is_task()


def test_places_with_names_made_at_run_time_are_not_kept(recorder: Recorder) -> None:
    """The memory of shared places is bounded, of models too."""
    for number in range(_MAX_CALLSITES + 10):
        recorder.callsite(Operation.AGENT, f"agent-{number}")
        recorder.llm_callsite(model=f"model-{number}", provider="p")
    assert len(recorder._callsites._inner) <= _MAX_CALLSITES
    assert len(recorder._callsites._llm) <= _MAX_CALLSITES


def test_point_events_are_bounded_like_runs(recorder: Recorder) -> None:
    """While no thread can drain, events past twice the capacity are dropped and counted to the unit."""
    with fresh_recorder(queue_capacity=64) as small, capture_records(AuditEvent, small) as events:
        with small.pipeline._lock:
            for _ in range(1_000):
                record_audit_event("deployed")
        assert 0 < len(events) < 1_000
        assert small.parts is not None
        dropped = small.parts.counters.totals[RECORDS_DROPPED, ("window", "queue_full")]
        assert len(events) + dropped == 1_000


def test_a_clock_follows_the_wall_clock_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The anchor is renewed when it is ten seconds old and not before; what the wall clock says then is what counts."""
    clock = Clock()
    clock.offset = 0
    clock.refresh()
    assert clock.offset == 0
    clock._anchored -= 10_000_000_001
    before = time.time_ns()
    clock.refresh()
    assert before <= clock.unix_ns(clock.now()) <= time.time_ns() + 1_000_000


def test_switched_off_a_block_is_a_run_that_has_ended() -> None:
    """A context manager of a recorder that is switched off yields a run that takes everything and records nothing."""
    with fresh_recorder(enabled=False) as off, track_agent("a") as run:
        run.set_attribute("k", 1)
        assert run.ended
        assert off.pipeline.backlog == 0


def test_switched_off_nothing_is_loaded_or_started() -> None:
    """An LLM call while the library is switched off loads no price table and starts no thread."""
    code = """
import sys, threading
from taskpilot_obs import observe_llm, track_llm
ask = observe_llm(model="gpt-4o")(lambda: {})
ask()
with track_llm(model="gpt-4o") as call:
    call.record_usage(input_tokens=1)
assert not [name for name in sys.modules if name.startswith("genai_prices")]
assert threading.active_count() == 1
"""
    environment = os.environ | {"TASKPILOT_OBS_ENABLED": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_a_run_whose_start_was_dropped_knows_what_its_calls_took() -> None:
    """What was spent beneath a task that began while the queue was full is in its roll-up, and in the metrics."""
    with fresh_recorder(queue_capacity=64) as small, capture_invocations(small) as seen:
        with small.pipeline._lock:
            while small.pipeline.backlog < 128:
                with track_tool("t"):
                    pass
            task = track_workflow("w")
            task.__enter__()
        small.drain()
        with track_llm(model="gpt-4o") as call:
            call.set_cost("0.5")
        small.drain()
        task.__exit__(None, None, None)
        rollup = next(run.rollup for run in seen if run.name == "w")
        assert rollup is not None
        assert (rollup.llm_calls, rollup.cost) == (1, Decimal("0.5"))
        assert gauge(small, "workflow_cost_usd_total") == 0.5


def test_runs_past_twice_the_capacity_are_dropped_whole(recorder: Recorder) -> None:
    """While no thread can drain, a run is recorded whole or not at all, and each record that is lost is counted."""
    with (
        fresh_recorder(queue_capacity=64) as small,
        capture_records(Started, small) as begun,
        capture_invocations(small) as runs,
    ):
        with small.pipeline._lock:
            for _ in range(1_000):
                with track_agent("a"):
                    pass
        assert 0 < len(runs) < 1_000
        assert {start.invocation_id for start in begun} == {run.invocation_id for run in runs}
        assert small.parts is not None
        dropped = small.parts.counters.totals[RECORDS_DROPPED, ("window", "queue_full")]
        assert len(begun) + len(runs) + dropped == 2_000
        assert gauge(small, "agent_active_runs") == 0


def test_a_reason_is_redacted_where_content_is_kept() -> None:
    """The reason of a decision may quote what it is about: its secrets are hidden."""
    with fresh_recorder(capture_content=True) as keeps, capture_records(Decision, keeps) as decisions:
        record_policy_violation("no-mail", reason="wrote to jane@example.org")
        assert "jane@example.org" not in (decisions[0].reason or "")
        assert (decisions[0].reason or "").startswith("wrote to ")


def test_the_budget_of_a_function_is_wired_to_its_recorders_runtime(recorder: Recorder) -> None:
    """A decorated function's own budget refuses calls beneath it, and the decision is recorded."""

    @observe_agent("spender", recorder=recorder, budget=Budget("own", limit_usd="0.000001", action="enforce"))
    def spend() -> None:
        with track_llm(model="gpt-4o", input_tokens=1_000, recorder=recorder):
            raise AssertionError

    with capture_records(Decision, recorder) as decisions:
        with pytest.raises(BudgetExceededError):
            spend()
        assert [(each.name, each.result) for each in decisions] == [("own", CheckResult.BLOCKED)]
    recorder.wiring.own_budgets = ()


def test_an_input_that_is_stated_late_is_on_the_record(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """An input that is set after the start was taken replaces that of the start, though its text is not captured."""
    with track_agent("a", recorder=recorder) as run:
        recorder.drain()
        run.set_input("x" * 1_000)
    assert [(done.input_length, done.input_text) for done in seen] == [(1_000, None)]
