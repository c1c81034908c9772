"""What integrations and people with a framework of their own build upon: `taskpilot_obs.integration`."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Unpack

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

import taskpilot_obs
from taskpilot_obs import (
    Usage,
    current_run,
    integration,
    observe_agent,
    observe_tool,
    request_context,
    track_agent,
)
from taskpilot_obs.budgets import Budget
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError, PolicyViolationError
from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    RefusedError,
    answer_limits,
    attached,
    check_input,
    check_input_async,
    check_output,
    check_output_async,
    current_question,
    is_content_read,
    is_judged,
    on_failure,
    open_llm_call,
    open_run,
)
from taskpilot_obs.records import CheckResult, Decision, Invocation, Status
from taskpilot_obs.safety import CheckInput, DenyTools, check_with
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.settings import Options
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

SECOND = 1_000_000_000


def refuses_secrets(subject: CheckInput) -> str | None:
    """A guardrail: refuses texts with a secret in them."""
    return "a secret" if "secret" in subject.text else None


class Observed(NamedTuple):
    recorder: Recorder
    runs: Captured[Invocation]
    decisions: Captured[Decision]


@contextmanager
def configured(**options: Unpack[Options]) -> Iterator[Observed]:
    with (
        fresh_recorder(**options) as recorder,
        capture_invocations(recorder) as runs,
        capture_records(Decision, recorder) as decisions,
    ):
        yield Observed(recorder, runs, decisions)


# --- adopting ---------------------------------------------------------------------------------------------------------


def test_an_adopted_run_has_the_times_that_it_is_given(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """Start and end of an adopted run are those that the framework states, to the nanosecond."""
    began = time.time_ns() - 5 * SECOND
    agent = recorder.adopt("invoke_agent", "Planner", parent=None, start_unix_ns=began)
    call = recorder.adopt_llm(model="gpt-4o-mini", parent=agent, start_unix_ns=began + SECOND)
    call.first_token(at_unix_ns=began + 2 * SECOND)
    call.record_usage(input_tokens=100, output_tokens=20)
    call.stop(at_unix_ns=began + 3 * SECOND)
    agent.stop(at_unix_ns=began + 4 * SECOND)

    llm, planner = seen
    assert (planner.start_unix_ns, planner.duration_s, planner.is_task) == (began, 4.0, True)
    assert (llm.start_unix_ns, llm.duration_s, llm.ttft_s) == (began + SECOND, 2.0, 1.0)
    assert (llm.parent_id, llm.agent, llm.streaming) == (planner.invocation_id, "Planner", True)
    assert planner.rollup is not None
    assert (planner.rollup.llm_calls, planner.rollup.input_tokens) == (1, 100)


def test_an_adopted_run_opens_no_span_and_carries_the_ids_of_the_one_there_is() -> None:
    """Records of an adopted run name the framework's span; ours nest beneath it, and nothing is written to it."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("framework")

    with (
        configured(tracer_provider=provider) as (recorder, seen, _),
        tracer.start_as_current_span("invoke_agent Planner") as span,
    ):
        run = recorder.adopt("invoke_agent", "Planner", parent=None, span_context=span.get_span_context())
        step = run.attach()
        assert trace.get_current_span() is span
        recorder.start("execute_tool", "search").stop()
        run.detach(step)
        run.stop()
        tool, agent = seen

    ours, theirs = spans.get_finished_spans()
    identity = span.get_span_context()
    assert (agent.trace_id, agent.span_id) == (f"{identity.trace_id:032x}", f"{identity.span_id:016x}")
    assert agent.sampled
    assert (ours.name, ours.parent and ours.parent.span_id) == ("execute_tool search", identity.span_id)
    assert tool.parent_id == agent.invocation_id
    assert theirs.attributes == {}


def test_a_child_of_an_adopted_run_that_is_not_current_nests_beneath_its_span() -> None:
    """Where a parent is named explicitly, its adopted span is the parent of the child's span."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    span = provider.get_tracer("framework").start_span("invoke_agent Planner")
    with configured(tracer_provider=provider) as (recorder, _, _):
        run = recorder.adopt("invoke_agent", "Planner", parent=None, span_context=span.get_span_context())
        recorder.start("execute_tool", "search", parent=run).stop()
        run.stop()
    (ours,) = spans.get_finished_spans()
    assert ours.parent is not None
    assert ours.parent.span_id == span.get_span_context().span_id


def test_an_adopted_call_carries_the_ids_of_its_span(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """The record of an adopted LLM call has the span that its framework opened, and the scope that is given."""
    span = trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False)
    with request_context("req-1", tenant_id="acme") as scope:
        pass
    recorder.adopt_llm(model="gpt-4o-mini", parent=None, span_context=span, scope=scope).stop()
    (run,) = seen
    assert (run.trace_id, run.span_id) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert (run.request_id, run.tenant) == ("req-1", "acme")


def test_an_adopted_run_works_for_the_request_that_is_given(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """Identity is that of the moment at which the framework's operation began, wherever it is adopted."""
    with request_context("req-1", tenant_id="acme") as scope:
        pass
    recorder.adopt("invoke_agent", "Planner", parent=None, scope=scope).stop()
    assert (seen[0].request_id, seen[0].tenant) == ("req-1", "acme")


def test_an_end_without_an_exception_object(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """`end_as` takes status and error class as a framework reports them; an LLM call gets its error category."""
    call = recorder.adopt_llm(model="gpt-4o-mini", parent=None)
    call.end_as("error", error_type="openai.RateLimitError", error_message="slow down, user@example.org")
    tool = recorder.adopt("execute_tool", "search", parent=None)
    tool.end_as(Status.CANCELLED, error_type="asyncio.CancelledError")
    assert (seen[0].status, seen[0].error_type, seen[0].error_category, seen[0].error_message) == (
        Status.ERROR,
        "openai.RateLimitError",
        "rate_limit",
        None,
    )
    assert (seen[1].status, seen[1].error_type) == (Status.CANCELLED, None)
    with pytest.raises(ValueError, match="no_such_status"):
        tool.end_as("no_such_status")


def test_a_request_that_is_learnt_late(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """Model and provider that a framework states after the start count as asked for; what is known stays."""
    late = recorder.adopt_llm(model=None, parent=None)
    late.record_request(model="gpt-4o-mini", provider="openai")
    late.record_answer(model="gpt-4o-mini-2024-07-18", response_id="r-1", finish_reasons=["stop"])
    late.stop()
    known = recorder.adopt_llm(model="claude-sonnet-4-5", parent=None)
    known.record_request(model="other", provider="other")
    known.stop()
    assert (seen[0].request_model, seen[0].provider, seen[0].response_model) == (
        "gpt-4o-mini",
        "openai",
        "gpt-4o-mini-2024-07-18",
    )
    assert (seen[1].request_model, seen[1].provider) == ("claude-sonnet-4-5", "anthropic")


def test_an_adopted_run_that_is_forgotten_is_abandoned(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """An adopted run whose last reference goes ends as `abandoned`."""
    run = recorder.adopt("invoke_agent", "Planner", parent=None)
    del run
    gc.collect()
    assert seen[0].status is Status.ABANDONED


def test_an_llm_call_is_not_adopted_as_something_else(recorder: Recorder) -> None:
    """`adopt` refuses LLM operations, `adopt_llm` everything else."""
    with pytest.raises(ValueError, match="LLM call"):
        recorder.adopt("chat", "gpt-4o-mini")
    with pytest.raises(ValueError, match="not an LLM call"):
        recorder.adopt_llm(model="gpt-4o-mini", operation="invoke_agent")


def test_a_recorder_that_is_off_adopts_nothing() -> None:
    """With recording disabled, adopted runs are made and leave no records."""
    with configured(enabled=False) as (recorder, seen, _):
        run = recorder.adopt("invoke_agent", "Planner", parent=None)
        run.stop(at_unix_ns=time.time_ns())
        assert run.ended
        assert list(seen) == []


# --- listeners --------------------------------------------------------------------------------------------------------


class Listener:
    def __init__(self) -> None:
        self.heard: deque[tuple[str, LlmInvocation, object]] = deque()

    def llm_began(self, run: LlmInvocation, /) -> None:
        self.heard.append(("began", run, run.request_model))

    def llm_ended(self, run: LlmInvocation, /) -> None:
        self.heard.append(("ended", run, run.response_id))


USAGE = {"prompt_tokens": 3, "completion_tokens": 1}
RESPONSE: dict[str, object] = {"id": "r-1", "model": "gpt-4o-mini", "usage": USAGE}


def test_a_listener_learns_of_llm_calls_whoever_records_them(recorder: Recorder) -> None:
    """Decorators, blocks and `start_llm` announce an LLM call once, and its end with the response's ID."""
    listener = Listener()
    recorder.add_llm_listener(listener)
    recorder.add_llm_listener(listener)

    @taskpilot_obs.observe_llm(model="gpt-4o-mini")
    def decorated() -> dict[str, object]:
        return RESPONSE

    decorated()
    with taskpilot_obs.track_llm(model="gpt-4o-mini") as block:
        block.record_response(RESPONSE)
    started = recorder.start_llm(model="gpt-4o-mini")
    started.read_later(RESPONSE)
    started.stop()
    started.stop()
    with track_agent("Planner"):
        pass
    heard = [(what, known) for what, _, known in listener.heard]
    assert heard == [("began", "gpt-4o-mini"), ("ended", "r-1")] * 3


def test_a_listener_learns_of_failed_and_abandoned_calls(recorder: Recorder) -> None:
    """An LLM call that fails, or that is left, ends for listeners too."""
    listener = Listener()
    recorder.add_llm_listener(listener)
    failed = recorder.start_llm(model="gpt-4o-mini")
    failed.fail(TimeoutError())
    left = recorder.start_llm(model="gpt-4o-mini")
    listener.heard = deque((what, failed, known) for what, _, known in listener.heard)
    assert recorder.flush(30)  # what waits for the drainer keeps the call
    del left
    gc.collect()
    assert [what for what, _, _ in listener.heard] == ["began", "ended", "began", "ended"]


def test_adopted_calls_are_not_announced(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A listener that adopts does not get its own calls."""
    listener = Listener()
    recorder.add_llm_listener(listener)
    recorder.adopt_llm(model="gpt-4o-mini").stop()
    assert (len(seen), list(listener.heard)) == (1, [])


def test_a_listener_that_fails_is_counted_and_costs_nothing(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """What a listener raises reaches neither the application nor the record."""

    class Failing(Listener):
        def llm_began(self, run: LlmInvocation, /) -> None:
            raise RuntimeError("no")

    recorder.add_llm_listener(Failing())
    recorder.start_llm(model="gpt-4o-mini").stop()
    assert seen[0].status is Status.SUCCESS
    assert sum(amount for (_, labels), amount in recorder.counters.totals.items() if labels == ("llm_listener",)) == 1


def test_a_removed_listener_hears_the_end_of_what_it_saw_begin(recorder: Recorder) -> None:
    """Removing a listener leaves it no open calls."""
    listener = Listener()
    recorder.add_llm_listener(listener)
    call = recorder.start_llm(model="gpt-4o-mini")
    recorder.remove_llm_listener(listener)
    call.stop()
    recorder.start_llm(model="gpt-4o-mini").stop()
    assert [what for what, _, _ in listener.heard] == ["began", "ended"]


def test_listeners_are_bounded(recorder: Recorder) -> None:
    """Code that adds listeners again and again is told so, before calls get slow."""
    for _ in range(16):
        recorder.add_llm_listener(Listener())
    with pytest.raises(ConfigurationError, match="16 LLM listeners"):
        recorder.add_llm_listener(Listener())


# --- checks -----------------------------------------------------------------------------------------------------------


def test_configured_policies_are_asked_about_a_run() -> None:
    """`check_input` asks what is configured, raises the refusal, and records the decision as one of the run."""
    worked = []
    with configured(policies=[DenyTools(["delete"])], mode="enforce") as (recorder, seen, decisions):
        for name in ("search", "delete"):
            run = recorder.start("execute_tool", name)
            try:
                check_input(run, arguments={"path": "/"})
            except RefusedError as error:
                run.fail(error)
            else:
                worked.append(name)
                run.stop()
        assert worked == ["search"]
        assert [run.status for run in seen] == [Status.SUCCESS, Status.BLOCKED]
        assert [(each.tool, each.result) for each in decisions] == [
            ("search", CheckResult.PASSED),
            ("delete", CheckResult.BLOCKED),
        ]
        assert {each.origin.invocation_id for each in decisions} == {run.invocation_id for run in seen}


def test_checks_see_content_and_arguments() -> None:
    """A check sees a tool's arguments by name, and the text of whatever content it is given."""
    asked: list[CheckInput] = []
    with configured(policies=[check_with(asked.append, stages=("input", "output"))]) as (recorder, _, _):
        run = recorder.start("execute_tool", "search")
        check_input(run, [{"role": "user", "content": "find it"}], arguments={"city": "Rome"})
        check_output(run, {"answer": "found it"})
        run.stop()
    question, answer = asked
    assert dict(question.arguments) == {"city": "Rome"}
    assert "find it" in question.text
    assert "Rome" in question.text
    assert (question.tool, answer.tool) == ("search", "search")
    assert "found it" in answer.text


def test_asynchronous_checks_are_awaited() -> None:
    """`check_input_async` and `check_output_async` await checks that are coroutine functions."""

    async def never(subject: CheckInput) -> bool:
        await asyncio.sleep(0)
        return subject.stage == "input"

    async def main(recorder: Recorder) -> None:
        run = recorder.start("invoke_agent", "Planner")
        await check_input_async(run, "go")
        try:
            await check_output_async(run, "gone")
        except PolicyViolationError as error:
            run.fail(error)

    checks = [check_with(never, name="never", stages=("input", "output"))]
    with configured(policies=checks, mode="enforce") as (recorder, seen, _):
        asyncio.run(main(recorder))
        assert seen[0].status is Status.BLOCKED


def test_an_output_that_is_out_already_is_reported_and_not_refused() -> None:
    """What a stream has released cannot be withheld: the decision is `bypassed`."""
    checks = [check_with(lambda _: False, name="no", stages=("output",))]
    with configured(policies=checks, mode="enforce") as (recorder, _, decisions):
        run = recorder.start("invoke_agent", "Planner")
        check_output(run, "out", released=True)
        asyncio.run(check_output_async(run, "out", released=True))
        with pytest.raises(PolicyViolationError):
            check_output(run, "not out")
        run.stop()
        assert [each.result for each in decisions] == [CheckResult.BYPASSED] * 2 + [CheckResult.BLOCKED]


@pytest.mark.parametrize("enabled", [True, False])
def test_without_checks_nothing_is_asked(enabled: bool) -> None:
    """A recorder without policies and budgets, or that neither records nor enforces, decides nothing."""
    checks = [] if enabled else [DenyTools(["search"])]
    with configured(enabled=enabled, enforcement=enabled, policies=checks, mode="enforce") as (recorder, _, decisions):
        run = recorder.start("execute_tool", "search")
        check_input(run, "x")
        check_output(run, "y")
        run.stop()
        assert list(decisions) == []


# --- what runs here ---------------------------------------------------------------------------------------------------


def test_current_run_is_the_innermost(recorder: Recorder) -> None:
    """`current_run` names the run that the code is part of, and is None outside of any."""
    assert current_run() is None

    @observe_tool
    def search() -> tuple[str, str | None]:
        run = current_run()
        assert run is not None
        run.set_attribute("rows", 3)
        return run.name, run.agent

    @observe_agent("Planner")
    def plan() -> tuple[str, str | None]:
        return search()

    name, agent = plan()
    assert (name.rpartition(".")[2], agent) == ("search", "Planner")
    assert current_run() is None


# --- blocks, and work that is recorded already ------------------------------------------------------------------------


def test_a_block_of_a_run(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """`attached` makes a run current for a block; an exception that leaves it ends the run and passes as it is."""
    error = TimeoutError()

    def work() -> None:
        assert current_run() is run
        raise error

    run = recorder.start("invoke_agent", "Planner")
    with pytest.raises(TimeoutError) as raised, attached(run):
        work()
    assert raised.value is error
    assert current_run() is None
    good = recorder.start("invoke_agent", "Planner")
    with attached(good):
        pass
    assert not good.ended
    good.stop()
    assert [run.status for run in seen] == [Status.TIMEOUT, Status.SUCCESS]


def test_a_block_finds_what_a_framework_has_wrapped(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A refusal behind an exception of the framework blocks the run; `unwrap` finds other causes."""

    class FrameworkError(Exception):
        """What a framework raises in place of the cause."""

    def wrapped(run: ActiveInvocation, cause: Exception, *unwrap: Callable[[BaseException], BaseException]) -> None:
        with pytest.raises(FrameworkError), attached(run, *unwrap):
            raise FrameworkError from cause

    wrapped(recorder.start("execute_tool", "search"), RefusedError("no"))
    wrapped(recorder.start("execute_tool", "search"), KeyError("x"), lambda error: error.__cause__ or error)
    assert [(run.status, run.error_type) for run in seen] == [
        (Status.BLOCKED, "taskpilot_obs.exceptions.RefusedError"),
        (Status.ERROR, "KeyError"),
    ]


def test_work_that_a_layer_above_records(recorder: Recorder) -> None:
    """`open_run` and `open_llm_call` find the current run if it is open and of the kind and name that is meant."""
    assert open_run(Operation.TOOL) is None
    run = recorder.start("execute_tool", "search")
    with attached(run):
        assert open_run(Operation.TOOL) is open_run(Operation.TOOL, "search") is run
        assert open_run(Operation.TOOL, "other") is open_run(Operation.AGENT) is open_llm_call() is None
        run.stop()
        assert open_run(Operation.TOOL) is None
    call = recorder.start_llm(model="gpt-4o-mini")
    with attached(call):
        assert open_llm_call() is call
        call.stop()
        assert open_llm_call() is None


def test_what_a_check_does_is_not_the_work_of_the_judged_run() -> None:
    """Within a check `open_run` and `open_llm_call` do not return the run that is judged, and it is the current one."""
    looks: list[tuple[object, ...]] = []

    def look(_: object) -> None:
        question = current_question()
        assert question is not None
        above = current_run()
        known = is_judged(above), question.is_about(above), is_judged(None)
        looks.append((above, open_run(Operation.TOOL), open_llm_call(), known))

    with fresh_recorder(guardrails=[check_with(look, stages=("input", "output"), mode="enforce")]) as fresh:
        tool, call = fresh.start("execute_tool", "search"), fresh.start_llm(model="gpt-4o-mini")
        for run in (tool, call):  # not attached, as in frameworks without a block around the work
            check_input(run, "in")
            check_output(run, "out")
            assert current_run() is None
            run.stop()
    assert looks == [(run, None, None, (True, True, False)) for run in (tool, tool, call, call)]
    assert current_question() is None


@pytest.mark.parametrize(
    ("options", "read"),
    [
        (Options(), False),
        (Options(capture_content=True), True),
        (Options(policies=[DenyTools("drop_table")]), True),
        (Options(guardrails=[refuses_secrets]), True),
        (Options(budgets=[Budget("team", limit_usd=1, action="enforce")]), True),
    ],
    ids=["counted only", "captured", "policy", "guardrail", "budget"],
)
def test_whether_content_is_read(options: Options, *, read: bool) -> None:
    """`is_content_read` is true with content capture, a check or a budget, and false for what is counted only."""
    recorder = build_recorder(**(options | Options(registry=CollectorRegistry())))
    call = recorder.start_llm(model="gpt-4o-mini")
    try:
        assert is_content_read(call) is read
    finally:
        call.stop()
        recorder.shutdown()


def test_a_failure_of_the_run_above_is_told(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """`on_failure` calls back once, before the run ends by an exception, and never for another end."""
    told: list[tuple[str, str, bool]] = []

    def tell(run: ActiveInvocation, error: BaseException) -> None:
        told.append((run.name, type(error).__name__, run.is_open))
        raise RuntimeError("of the callback")

    for name in ("fails", "stops", "ends"):
        run = recorder.start("invoke_agent", name)
        on_failure(run, tell)
        on_failure(run, tell)
        run.fail(LookupError()) if name == "fails" else run.stop() if name == "stops" else run.end_as("timeout")
        on_failure(run, tell)
        run.fail(LookupError())
    assert told == [("fails", "LookupError", True)]
    assert [run.status.value for run in seen] == ["error", "success", "timeout"]
    assert recorder.counters.totals[INTERNAL_ERRORS, ("on_failure",)] == 1


def test_limits_of_an_answer() -> None:
    """`answer_limits` finds what states the length of an answer, in mappings and objects, under any client's name."""

    class Settings:
        max_tokens = 7
        temperature = 0.5

    assert answer_limits({"max_completion_tokens": 5, "max_tokens": None, "top_p": 1}) == {"max_completion_tokens": 5}
    assert answer_limits(Settings()) == {"max_tokens": 7}
    assert answer_limits(None) == answer_limits({}) == {}


# --- the door itself --------------------------------------------------------------------------------------------------


def test_the_door_is_names_only() -> None:
    """The module defines nothing itself, lists each of its names once, in order, and each is documented."""
    assert len(set(integration.__all__)) == len(integration.__all__)
    for name in integration.__all__:
        found = getattr(integration, name)
        assert getattr(found, "__module__", "") != integration.__name__
        assert not callable(found) or found.__doc__, name


def test_usage_is_the_record_that_the_application_sees(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """An adopted LLM call takes a `Usage` and a cost as any other."""
    call = recorder.adopt_llm(model="in-house", parent=None)
    call.record_usage(Usage(input_tokens=1, output_tokens=2))
    call.set_cost("0.5")
    call.stop()
    assert (seen[0].usage, str(seen[0].cost)) == (Usage(input_tokens=1, output_tokens=2), "0.5")
