"""Checks around observed calls: what is refused, when, how the run ends, and what is counted."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from taskpilot_obs._api.blocks import track_agent, track_llm, track_workflow
from taskpilot_obs._api.decorators import observe_agent, observe_llm, observe_tool, observe_workflow
from taskpilot_obs.config import configure, get_recorder
from taskpilot_obs.exceptions import ConfigurationError, GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.records import CheckResult, Decision, DecisionKind, Severity, Stage, Status, Verdict
from taskpilot_obs.safety.guardrails import check_with
from taskpilot_obs.safety.policies import AllowTools, DenyWords, MaxInputLength, MaxTokens, RequireApproval
from taskpilot_obs.safety.subjects import blocked, deny
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder

NO_MODE: Any = "strict"
WORDS = DenyWords(["delete"], severity="high")


@pytest.fixture
def decisions(recorder: Any) -> Any:
    with capture_records(Decision, recorder) as captured:
        yield captured


def sample(recorder: Any, name: Any, **labels: Any) -> Any:
    recorder.drain()
    return recorder.registry.get_sample_value(name, labels)


def given_back(lazy: Any) -> Any:
    return lazy


def nothing(_given: Any) -> None:
    pass


def done(*_given: Any, **_named: Any) -> str:
    return "done"


def toxic(subject: Any) -> Any:
    return blocked("rude") if "rude" in subject.text else None


def out(check: Any = toxic, **options: Any) -> Any:
    return check_with(check, stages="output", **options)


def collect(kind: Any, function: Any, *args: Any) -> Any:
    """Call an observed function of any kind to its end."""
    if kind == "coroutine":
        return asyncio.run(function(*args))
    if kind == "async generator":

        async def read() -> Any:
            return [item async for item in function(*args)]

        return asyncio.run(read())
    return list(function(*args)) if kind == "generator" else function(*args)


def make(kind: Any, answer: Any, **options: Any) -> Any:
    """An observed agent of a kind, and the list of what it was called with."""
    called = []

    def plain(text: Any) -> Any:
        called.append(text)
        return answer

    async def coroutine(text: Any) -> Any:
        called.append(text)
        return answer

    def generator(text: Any) -> Any:
        called.append(text)
        yield from answer.split()

    async def async_generator(text: Any) -> Any:
        called.append(text)
        for word in answer.split():
            yield word

    functions = {
        "plain": plain,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }
    return observe_agent("Agent", **options)(functions[kind]), called


KINDS = ("plain", "coroutine", "generator", "async generator")


@pytest.mark.parametrize("kind", KINDS)
def test_enforced_input_check_refuses_before_the_work_starts(
    recorder: Any, seen: Any, decisions: Any, kind: Any
) -> None:
    """Whatever the kind of function, a refused call never reaches it, is recorded as one blocked run, and says why."""
    agent, called = make(kind, "fine", policies=[MaxInputLength(50), WORDS], mode="enforce")
    with pytest.raises(PolicyViolationError, match="deny_words") as caught:
        collect(kind, agent, "please delete it")
    assert called == []
    (run,) = seen
    assert (run.status, run.error_type) == (Status.BLOCKED, "taskpilot_obs.exceptions.PolicyViolationError")
    assert caught.value.request_id == run.request_id
    allowed, denied = decisions
    assert (allowed.name, allowed.verdict, allowed.result) == ("max_input_length", Verdict.ALLOW, CheckResult.PASSED)
    assert (denied.verdict, denied.result, denied.severity) == (Verdict.DENY, CheckResult.BLOCKED, Severity.HIGH)
    assert (denied.stage, denied.origin.invocation_id) == (Stage.INPUT, run.invocation_id)
    assert (denied.origin.agent, denied.origin.workflow) == ("Agent", "Agent")
    assert denied.duration_s > 0
    violations = {"workflow": "Agent", "agent": "Agent", "policy": "deny_words", "severity": "high"}
    assert sample(recorder, "policy_violations_total", **violations) == 1
    assert sample(recorder, "workflow_runs_with_violations_total", workflow="Agent") == 1
    assert sample(recorder, "workflow_runs_total", workflow="Agent", status="blocked") == 1
    assert run.rollup.violations == 1


@pytest.mark.parametrize("kind", KINDS)
def test_monitor_records_and_lets_through(recorder: Any, seen: Any, decisions: Any, kind: Any) -> None:
    """In monitor mode the work is done and its output handed out; what would be refused is counted once."""
    agent, called = make(kind, "how rude", policies=[WORDS], guardrails=[toxic, out()])
    result = collect(kind, agent, "delete")
    assert result == ("how rude" if kind in ("plain", "coroutine") else ["how", "rude"])
    assert called == ["delete"]
    assert seen[0].status is Status.SUCCESS
    assert [(each.kind.value, each.stage.value, each.result.value) for each in decisions] == [
        ("policy", "input", "would_block"),
        ("guardrail", "input", "passed"),
        ("guardrail", "output", "would_block"),
    ]
    blocks = {"agent": "Agent", "guardrail": "toxic", "stage": "output"}
    assert sample(recorder, "guardrail_blocks_total", **blocks) == 0
    checks = {"guardrail": "toxic", "stage": "output", "result": "would_block"}
    assert sample(recorder, "guardrail_checks_total", **checks) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_enforced_output_check_withholds(recorder: Any, seen: Any, kind: Any) -> None:
    """An output that is refused is not handed out: not returned, and of a buffered stream not one item."""
    agent, called = make(kind, "how rude", guardrails=[out()], mode="enforce", buffer=True)
    with pytest.raises(GuardrailBlockedError, match="rude") as caught:
        collect(kind, agent, "hello")
    assert called == ["hello"]
    assert caught.value.stage == "output"
    assert seen[0].status is Status.BLOCKED
    blocks = {"agent": "Agent", "guardrail": "toxic", "stage": "output"}
    assert sample(recorder, "guardrail_blocks_total", **blocks) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_enforced_checks_let_good_calls_through(seen: Any, decisions: Any, kind: Any) -> None:
    """A call that every check passes is as it would be without them."""
    agent, _ = make(kind, "all good", policies=[WORDS], guardrails=[out()], mode="enforce", buffer=True)
    assert collect(kind, agent, "hello") == ("all good" if kind in ("plain", "coroutine") else ["all", "good"])
    assert seen[0].status is Status.SUCCESS
    assert {each.result for each in decisions} == {CheckResult.PASSED}


def test_words_over_several_items_of_a_stream_are_seen_whole(decisions: Any) -> None:
    """A stream is judged as one text, not item by item."""

    @observe_agent("Agent", guardrails=[out()])
    def agent() -> Any:
        yield "how ru"
        yield "de"

    assert list(agent()) == ["how ru", "de"]
    assert decisions[0].result is CheckResult.WOULD_BLOCK


def test_generator_is_checked_at_its_first_step(decisions: Any) -> None:
    """Making a generator asks nothing; its first step does."""
    agent, _ = make("generator", "x", policies=[WORDS], mode="enforce")
    stream = agent("delete")
    assert len(decisions) == 0
    with pytest.raises(PolicyViolationError):
        next(stream)


def test_generator_protocol_survives_checks(seen: Any) -> None:
    """`send`, `throw`, `close` and the return value reach the function through its checks."""

    @observe_agent("Agent", guardrails=[out()])
    def agent() -> Any:
        got: list[Any] = []
        while len(got) < 3:
            try:
                got.append((yield len(got)))
            except KeyError:
                got.append("thrown")
        return got

    def consume() -> Any:
        return (yield from agent())

    stream = consume()
    assert next(stream) == 0
    assert stream.send("a") == 1
    assert stream.throw(KeyError()) == 2
    with pytest.raises(StopIteration) as end:
        stream.send("b")
    assert end.value.value == ["a", "thrown", "b"]
    closed = agent()
    assert next(closed) == 0
    closed.close()
    assert [run.status for run in seen] == [Status.SUCCESS, Status.ABANDONED]


def test_async_generator_protocol_survives_checks(seen: Any) -> None:
    """`asend`, `athrow` and `aclose` reach the function through its checks."""

    @observe_agent("Agent", guardrails=[out()])
    async def agent() -> Any:
        got: list[Any] = []
        while len(got) < 2:
            try:
                got.append((yield len(got)))
            except KeyError:
                got.append("thrown")

    async def main() -> None:
        stream = agent()
        assert await stream.asend(None) == 0
        assert await stream.asend("a") == 1
        with pytest.raises(StopAsyncIteration):
            await stream.athrow(KeyError())
        closed = agent()
        assert await closed.asend(None) == 0
        await closed.aclose()
        unopened = agent()
        await unopened.aclose()

    asyncio.run(main())
    assert [run.status for run in seen][:2] == [Status.SUCCESS, Status.ABANDONED]


def test_buffered_stream_is_released_whole_with_its_result(seen: Any) -> None:
    """A stream that was held back and passed gives every item and its return value."""

    @observe_agent("Agent", guardrails=[out()], mode="enforce", buffer=True)
    def agent() -> Any:
        yield "a"
        yield "b"
        return 7

    def consume() -> Any:
        return (yield from agent())

    stream = consume()
    assert [next(stream), next(stream)] == ["a", "b"]
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == 7
    assert seen[0].status is Status.SUCCESS


def test_what_a_plain_function_returns_lazily_is_checked_when_it_ends(seen: Any, decisions: Any) -> None:
    """A plain function may return a coroutine or a generator: its output is checked when there is one."""

    async def answer() -> Any:
        return "how rude"

    def words() -> Any:
        yield "how rude"

    async def async_words() -> Any:
        yield "how rude"

    agent = observe_agent("Agent", guardrails=[out(mode="enforce")])(given_back)

    async def main() -> Any:
        with pytest.raises(GuardrailBlockedError):
            await agent(answer())
        return [item async for item in agent(async_words())]

    assert asyncio.run(main()) == ["how rude"]
    assert list(agent(words())) == ["how rude"]
    assert [run.status for run in seen] == [Status.BLOCKED, Status.SUCCESS, Status.SUCCESS]
    assert Counter(each.result for each in decisions) == {CheckResult.BLOCKED: 1, CheckResult.BYPASSED: 2}


async def judge(subject: Any) -> Any:
    await asyncio.sleep(0)
    return blocked("rude") if "rude" in subject.text else None


@pytest.mark.parametrize("kind", ["coroutine", "async generator"])
def test_asynchronous_checks_of_asynchronous_functions(seen: Any, kind: Any) -> None:
    """An asynchronous check works before and after what is asynchronous."""
    agent, _ = make(kind, "how rude", guardrails=[out(judge)], mode="enforce", buffer=True)
    with pytest.raises(GuardrailBlockedError):
        collect(kind, agent, "hello")
    watched, _ = make(kind, "how rude", guardrails=[check_with(judge, stages=["input", "output"])])
    assert collect(kind, watched, "hello")
    assert [run.status for run in seen] == [Status.BLOCKED, Status.SUCCESS]


@pytest.mark.parametrize("kind", ["plain", "generator"])
def test_asynchronous_check_on_a_synchronous_function_is_refused_at_decoration(kind: Any) -> None:
    """A synchronous function cannot wait for a check; that is said when it is decorated."""
    with pytest.raises(TypeError, match="cannot wait for the asynchronous check 'judge'"):
        make(kind, "x", guardrails=[judge])


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_withholding_what_is_yielded_is_refused_at_decoration(kind: Any) -> None:
    """An enforced check of the output of a stream needs `buffer=True`; that is said when it is decorated."""
    with pytest.raises(TypeError, match="buffer=True"):
        make(kind, "x", guardrails=[out()], mode="enforce")
    make(kind, "x", guardrails=[out()], mode="monitor")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"policies": "x"}, ConfigurationError),
        ({"policies": [3]}, ConfigurationError),
        ({"guardrails": [3]}, ConfigurationError),
        ({"policies": [WORDS], "mode": "strict"}, ConfigurationError),
        ({"policy": [WORDS]}, TypeError),
    ],
)
@pytest.mark.parametrize("decorator", [observe_workflow, observe_agent, observe_tool])
def test_wrong_options_are_refused_at_decoration(decorator: Any, options: Any, error: Any) -> None:
    """Invalid checks, unknown modes and unknown options are refused when a function is decorated."""
    with pytest.raises(error):
        decorator("X", **options)


def test_signature_and_kind_survive() -> None:
    """A function with checks still looks like itself."""

    async def agent(text: str, *, depth: int = 1) -> str:
        return text

    observed = observe_agent("Agent", policies=[WORDS], guardrails=[out()], mode="enforce")(agent)
    assert inspect.iscoroutinefunction(observed)
    assert inspect.signature(observed) == inspect.signature(agent)
    assert observed.__name__ == "agent"


def test_tool_policies_see_the_arguments_by_name(seen: Any, decisions: Any) -> None:
    """Policies about tools judge by the tool's name, the agent that calls it, and the arguments with their defaults."""
    asked: list[Any] = []

    @observe_tool("refund", policies=[AllowTools({"refund": lambda call: call["amount"] <= 100})], mode="enforce")
    def refund(order: Any, amount: Any = 50, *, note: Any = "") -> Any:
        return f"{order} {amount} {note}"

    @observe_agent("Planner", policies=[check_with(asked.append, name="watch")])
    def plan(**options: Any) -> Any:
        return refund(*options["call"])

    assert plan(call=["o1"]) == "o1 50 "
    assert plan(call=["o1", 100]) == "o1 100 "
    with pytest.raises(PolicyViolationError, match="tool 'refund' is not allowed so"):
        plan(call=["o1", 101])
    assert [(run.name, run.status.value) for run in seen][-2:] == [("refund", "blocked"), ("Planner", "blocked")]
    denied = [each for each in decisions if each.verdict is Verdict.DENY]
    assert [(each.tool, each.origin.agent, each.name) for each in denied] == [("refund", "Planner", "allow_tools")]
    assert asked[0].arguments == {"call": ["o1"]}
    assert asked[0].text == "o1"


def test_approval_of_a_tool_call(seen: Any) -> None:
    """A tool that needs an approval is refused without one, which is not a violation, and runs with it."""
    granted = set()
    policy = RequireApproval(["pay"], approved=lambda subject: subject.arguments["to"] in granted)

    @observe_tool("pay", policies=[policy], mode="enforce")
    def pay(to: Any) -> Any:
        return to

    with pytest.raises(PolicyViolationError, match="needs an approval"):
        pay("x")
    granted.add("x")
    assert pay("x") == "x"
    assert sample(get_recorder(), "policy_decisions_total", policy="require_approval", decision="require_approval") == 1
    assert sample(get_recorder(), "policy_decisions_total", policy="require_approval", decision="allow") == 1
    assert [run.status for run in seen] == [Status.BLOCKED, Status.SUCCESS]


class Message:
    def __init__(self, content: Any) -> None:
        self.content = content


@pytest.mark.parametrize(
    "said",
    [
        "delete",
        ["hello", {"role": "user", "content": "delete"}],
        [Message("hello"), Message([{"type": "text", "text": "delete"}])],
        ({"deep": [[("delete",)]]},),
        SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content="delete"))]),
    ],
)
def test_text_is_found_in_messages_and_containers(said: Any) -> None:
    """The text that goes in is what the strings say, also those in lists, dicts and messages."""
    agent = observe_agent("Agent", policies=[WORDS], mode="enforce")(nothing)
    with pytest.raises(PolicyViolationError):
        agent(said)


def test_bounds_of_reading() -> None:
    """Text nested too deep, numbers and classes are not read; a value that contains itself ends."""
    loop: list[object] = []
    loop.append(loop)
    agent = observe_agent("Agent", policies=[WORDS], mode="enforce")(done)
    assert agent(loop, 1, 2.5, Message, None, key=2) == "done"
    assert agent(*["x"] * 10_500, "delete") == "done"


class Unreadable:
    @property
    def content(self) -> None:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("mode", "on_error", "allowed"), [("monitor", None, True), ("enforce", None, False), ("enforce", "open", True)]
)
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_what_cannot_be_read_is_as_if_the_checks_had_failed(
    seen: Any, decisions: Any, kind: Any, mode: Any, on_error: Any, allowed: Any
) -> None:
    """Arguments that cannot be read do not pass: the checks have failed, with the effect of `on_error`."""
    agent, _ = make(
        kind,
        "x",
        policies=[check_with(WORDS, on_error=on_error), check_with(MaxInputLength(5), on_error=on_error)],
        mode=mode,
    )
    if allowed:
        assert collect(kind, agent, Unreadable()) == "x"
        assert [each.result for each in decisions] == [CheckResult.BYPASSED] * 2
    else:
        with pytest.raises(PolicyViolationError, match="the check failed"):
            collect(kind, agent, Unreadable())
        assert [each.result for each in decisions] == [CheckResult.ERROR]
    assert seen[0].status is (Status.SUCCESS if allowed else Status.BLOCKED)


def test_output_that_cannot_be_read_is_withheld(decisions: Any) -> None:
    """A result that cannot be read is not handed out where its check is enforced."""
    agent, _ = make("plain", Unreadable(), guardrails=[out()], mode="enforce")
    with pytest.raises(GuardrailBlockedError, match="the check failed"):
        agent("hello")
    assert [each.result for each in decisions] == [CheckResult.ERROR]


def test_a_failing_check_is_counted_and_logged_and_no_violation(recorder: Any, caplog: Any) -> None:
    """The failure of a check is counted as ours, named in the log without its text, and violates no policy."""

    def broken(_subject: Any) -> None:
        raise RuntimeError("secret")

    agent, _ = make("plain", "x", policies=[broken], guardrails=[check_with(broken, name="rail")])
    with caplog.at_level(logging.ERROR):
        assert agent("hello") == "x"
    assert "check failed with RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    assert sample(recorder, "taskpilot_obs_internal_errors_total", where="check") == 2
    assert sample(recorder, "guardrail_checks_total", guardrail="rail", stage="input", result="bypassed") == 1
    place = {"workflow": "Agent", "agent": "Agent", "policy": "broken", "severity": "medium"}
    assert sample(recorder, "policy_violations_total", **place) == 0


# --- checks of a whole recorder --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_checks_of_the_recorder_apply_to_what_is_decorated_before_and_after(kind: Any) -> None:
    """`configure(policies=…)` reaches every decorated function, whenever it was decorated, besides its own checks."""
    before, _ = make(kind, "x")
    assert collect(kind, before, "delete")
    with fresh_recorder(policies=[WORDS], mode="enforce") as recorder:
        after, _ = make(kind, "x", guardrails=[toxic])
        with capture_records(Decision, recorder) as decisions, capture_invocations(recorder) as seen:
            for agent in (before, after):
                with pytest.raises(PolicyViolationError):
                    collect(kind, agent, "delete")
            assert collect(kind, after, "rude")
            assert [each.name for each in decisions] == ["deny_words", "deny_words", "deny_words", "toxic"]
            assert [run.status for run in seen] == [Status.BLOCKED, Status.BLOCKED, Status.SUCCESS]
    assert collect(kind, before, "delete")


def test_recorder_wide_checks_that_do_not_fit_are_refused_at_decoration() -> None:
    """A function that the recorder's checks cannot do their work on cannot be decorated."""
    with fresh_recorder(guardrails=[judge]), pytest.raises(TypeError, match="cannot wait"):
        make("plain", "x")


def test_recorder_wide_checks_that_came_later_do_what_they_can() -> None:
    """Configured after decoration, an asynchronous check fails on synchronous functions; a stream is only watched."""
    plain, _ = make("plain", "x")
    stream, _ = make("generator", "how rude")
    with (
        fresh_recorder(guardrails=[judge, out(mode="enforce")]) as later,
        capture_records(Decision, later) as decisions,
    ):
        assert plain("hello") == "x"
        assert list(stream("hello")) == ["how", "rude"]
        assert [each.result.value for each in decisions] == ["bypassed", "passed", "bypassed", "bypassed"]


def test_wrong_configuration_changes_nothing(recorder: Any) -> None:
    """A wrong check is refused by `configure`, and the configuration before stays."""
    with pytest.raises(ConfigurationError):
        configure(policies=[3])
    with pytest.raises(ConfigurationError, match="mode"):
        configure(mode=NO_MODE)
    assert recorder.runtime.checks is None


@pytest.mark.parametrize("own", [True, False])
def test_turning_the_recording_off_leaves_enforcement_on(own: Any) -> None:
    """What was refused stays refused, without a record of it; only `enforcement=False` lets it pass."""
    places: Any = {"policies": [WORDS], "mode": "enforce"}
    for enforcement in (True, False):
        options: Any = {} if own else places
        with fresh_recorder(enabled=False, enforcement=enforcement, **options) as recorder:
            with capture_records(Decision, recorder) as decisions, capture_invocations(recorder) as seen:
                agent, _ = make("plain", "x", **(places if own else {}))
                if enforcement:
                    with pytest.raises(PolicyViolationError):
                        agent("delete")
                else:
                    assert agent("delete") == "x"
                assert agent("fine") == "x"
            assert enforcement or (list(decisions), list(seen)) == ([], [])
            assert sample(recorder, "policy_violations_total") is None


def test_what_only_monitors_is_not_asked_while_nothing_is_recorded() -> None:
    """Its answer would go nowhere."""
    asked: list[str] = []

    def watch(subject: Any) -> None:
        asked.append(subject.text)

    with fresh_recorder(enabled=False):
        agent, _ = make("plain", "x", policies=[check_with(WORDS, mode="enforce"), check_with(watch, mode="monitor")])
        assert agent("fine") == "x"
        assert asked == []


def test_without_enforcement_what_would_be_refused_is_recorded() -> None:
    """The switch of an operator who must let everything pass, and wants to see it."""
    with fresh_recorder(enforcement=False) as recorder, capture_records(Decision, recorder) as decisions:
        agent, _ = make("plain", "x", policies=[WORDS], mode="enforce")
        assert agent("delete") == "x"
        assert [each.result for each in decisions] == [CheckResult.WOULD_BLOCK]


def test_series_exist_before_the_first_decision(recorder: Any) -> None:
    """The series of an attached check are at 0 before it is first asked, and of one that is configured too."""
    make("plain", "x", policies=[check_with(WORDS, name="early")], guardrails=[check_with(toxic, name="rail")])
    assert sample(recorder, "policy_decisions_total", policy="early", decision="deny") == 0
    assert sample(recorder, "guardrail_checks_total", guardrail="rail", stage="input", result="blocked") == 0
    with fresh_recorder(policies=[check_with(WORDS, name="general")]) as other:
        assert sample(other, "policy_decisions_total", policy="general", decision="deny") == 0


# --- tokens ----------------------------------------------------------------------------------------------------------


@observe_llm(model="gpt-4o")
def chat(tokens: Any) -> Any:
    return {"model": "gpt-4o", "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}}


def task(calls: Any, **options: Any) -> Any:
    """A workflow that makes these LLM calls through an agent."""

    @observe_workflow("Task", **options)
    def run() -> None:
        with track_agent("Agent"):
            for tokens in calls:
                chat(tokens)

    return run


@pytest.mark.parametrize("where", ["workflow", "recorder"])
def test_tokens_of_a_task(seen: Any, decisions: Any, where: Any) -> None:
    """Passing the limit is one violation; in monitor mode all calls are made, and each task is counted separately."""
    limit: Any = {"policies": [MaxTokens(100)]}
    run = task([60, 60, 60], **(limit if where == "workflow" else {}))
    if where == "recorder":
        with fresh_recorder(**limit) as other, capture_records(Decision, other) as found:
            run()
            run()
            verdicts = Counter(each.verdict for each in found)
            assert sample(other, "workflow_runs_with_violations_total", workflow="Task") == 2
    else:
        run()
        run()
        verdicts = Counter(each.verdict for each in decisions)
        assert sample(get_recorder(), "workflow_runs_with_violations_total", workflow="Task") == 2
        assert {each.origin.workflow for each in decisions} == {"Task"}
        assert len(seen) == 10
    # Per run: before the calls allow, allow, ask; after them allow, deny, allow.
    assert verdicts == {Verdict.DENY: 2, Verdict.REQUIRE_APPROVAL: 2, Verdict.ALLOW: 8}


def test_tokens_enforced(seen: Any, decisions: Any) -> None:
    """In enforce mode the call that passes the limit is answered, the next one refused, without a second violation."""
    with pytest.raises(PolicyViolationError, match="the run has taken more than 100 tokens"):
        task([60, 60, 60], policies=[MaxTokens(100)], mode="enforce")()
    assert [(run.name, run.status.value) for run in seen] == [
        ("gpt-4o", "success"),
        ("gpt-4o", "success"),
        ("gpt-4o", "blocked"),
        ("Agent", "blocked"),
        ("Task", "blocked"),
    ]
    assert sum(each.is_violation for each in decisions) == 1
    assert seen[-1].rollup.violations == 1


def test_tokens_of_tracked_calls(seen: Any) -> None:
    """Calls in a `with` block and recorded after the fact count like decorated ones; cache hits take nothing."""

    @observe_agent("Agent", policies=[MaxTokens(100)], mode="enforce")
    def agent() -> None:
        with track_llm(model="gpt-4o") as call:
            call.record_usage(input_tokens=1_000, output_tokens=0)
            call.set_cached(True)
        with track_llm(model="gpt-4o") as call:
            call.record_usage(input_tokens=60, output_tokens=30)
        get_recorder().record_llm_call(model="gpt-4o", usage={"input_tokens": 11, "output_tokens": 0})
        with track_workflow("inner"), track_llm(model="gpt-4o"):
            raise AssertionError("refused before")

    with pytest.raises(PolicyViolationError):
        agent()
    assert [run.status.value for run in seen] == ["success", "success", "success", "blocked", "blocked", "blocked"]


def test_tokens_of_asynchronous_calls(seen: Any) -> None:
    """Asynchronous LLM calls are counted and refused like the others."""

    @observe_llm(model="gpt-4o")
    async def call() -> Any:
        return {"model": "gpt-4o", "usage": {"prompt_tokens": 60, "completion_tokens": 60}}

    @observe_workflow("Task", policies=[MaxTokens(100)], mode="enforce")
    async def run() -> None:
        await call()
        await call()

    with pytest.raises(PolicyViolationError):
        asyncio.run(run())
    assert [run.status.value for run in seen] == ["success", "blocked", "blocked"]


def test_answer_that_is_withheld_was_paid(recorder: Any, seen: Any) -> None:
    """The tokens of an LLM call whose answer is withheld are counted: they are spent."""

    @observe_llm(model="gpt-4o", guardrails=[out()], mode="enforce")
    def call() -> Any:
        return {
            "model": "gpt-4o",
            "choices": [{"message": {"content": "how rude"}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2},
        }

    def chunks() -> Any:
        yield {"model": "gpt-4o", "choices": [{"delta": {"content": "how rude"}}]}
        yield {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}

    streamed = observe_llm(model="gpt-4o", guardrails=[out()], mode="enforce", buffer=True)(chunks)
    with pytest.raises(GuardrailBlockedError):
        call()
    with pytest.raises(GuardrailBlockedError):
        list(streamed())
    assert [(run.status, run.usage.input_tokens, run.usage.output_tokens) for run in seen] == [
        (Status.BLOCKED, 7, 2)
    ] * 2


def test_token_policy_on_a_single_call_is_refused() -> None:
    """A limit of many calls on one call has no meaning; that is said at decoration."""
    with pytest.raises(TypeError, match="attach it to a workflow"):
        observe_llm(model="gpt-4o", policies=[MaxTokens(5)])(lambda: None)


# --- other ways in ---------------------------------------------------------------------------------------------------


def test_methods_partials_and_objects() -> None:
    """Checks work on methods, classmethods, staticmethods, partials and callable objects."""

    class Service:
        @observe_agent("m", policies=[WORDS], mode="enforce")
        def method(self, text: Any) -> Any:
            return text

        @observe_agent("c", policies=[WORDS], mode="enforce")
        @classmethod
        def of_class(cls, text: Any) -> Any:
            return text

        @observe_agent("s", policies=[WORDS], mode="enforce")
        @staticmethod
        def static(text: Any) -> Any:
            return text

        def __call__(self, text: Any) -> Any:
            return text

    options: Any = {"policies": [WORDS], "mode": "enforce"}
    partial = observe_agent("p", **options)(functools.partial(Service().method, text="hello"))
    called = observe_agent("o", **options)(Service())
    builtin = observe_agent("b", **options)(len)
    for function in (Service().method, Service.of_class, Service.static, called, builtin):
        with pytest.raises(PolicyViolationError):
            function("delete")
    assert (Service().method("x"), Service.of_class("x"), called("x"), builtin("x"), partial()) == (
        "x",
        "x",
        "x",
        1,
        "hello",
    )


def test_functions_without_a_signature() -> None:
    """A built-in that does not tell its parameters is checked by what it is called with."""
    smallest = observe_agent("min", policies=[WORDS], mode="enforce")(min)
    assert smallest("b", "a") == "a"
    with pytest.raises(PolicyViolationError):
        smallest("delete", "a")


def test_decisions_beyond_a_full_queue_are_dropped_and_counted() -> None:
    """When nothing drains and the queue is full twice over, decisions are dropped and counted; calls go on."""
    with fresh_recorder(queue_capacity=64) as recorder, capture_records(Decision, recorder) as decisions:
        agent, _ = make("plain", "x", policies=[WORDS])
        with recorder.pipeline._lock:
            assert [agent("hello") for _ in range(300)] == ["x"] * 300
        kept = len(decisions)
        assert kept < 300
        assert sample(recorder, "agent_runs_total", agent="Agent", status="success") is not None


def test_nested_refusal_blocks_every_level_that_it_passes(recorder: Any, seen: Any) -> None:
    """Each level that a refusal passes ends blocked; the violation is counted once; who catches it goes on."""

    @observe_agent("Inner", policies=[lambda _: deny("no", severity="low")], mode="enforce")
    def inner() -> None:
        raise AssertionError("refused before")

    @observe_agent("Middle")
    def middle() -> None:
        inner()

    @observe_workflow("Outer")
    def outer() -> Any:
        try:
            middle()
        except PolicyViolationError as refused:
            return refused.reason

    assert outer() == "no"
    assert [(run.name, run.status.value) for run in seen] == [
        ("Inner", "blocked"),
        ("Middle", "blocked"),
        ("Outer", "success"),
    ]
    violations = [metric for metric in recorder.registry.collect() if metric.name == "policy_violations"]
    assert sum(each.value for metric in violations for each in metric.samples if each.name.endswith("_total")) == 1


def test_checks_that_live_elsewhere(recorder: Any, decisions: Any) -> None:
    """`record_policy_violation`, `record_guardrail_block` and `record_decision` count like checks of our own."""
    with track_agent("Agent"):
        recorder.record_policy_violation("theirs", severity="critical")
        recorder.record_guardrail_block("their_rail", stage="output")
        recorder.record_decision("theirs", "allow")
    place = {"workflow": "Agent", "agent": "Agent", "policy": "theirs", "severity": "critical"}
    assert sample(recorder, "policy_violations_total", **place) == 1
    assert sample(recorder, "guardrail_blocks_total", agent="Agent", guardrail="their_rail", stage="output") == 1
    assert [each.kind for each in decisions] == [DecisionKind.POLICY, DecisionKind.GUARDRAIL, DecisionKind.POLICY]
