"""Running checks: order, modes, failures, timeouts, answers, and what becomes of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.exceptions import ConfigurationError, GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.records import CheckResult, DecisionKind, Operation, Origin, Severity, Stage, Verdict
from taskpilot_obs.safety import checks as running
from taskpilot_obs.safety.checks import Checks
from taskpilot_obs.safety.guardrails import Check, check_with
from taskpilot_obs.safety.policies import AllowTools, DenyWords, MaxInputLength, MaxTokens, RequireApproval
from taskpilot_obs.safety.subjects import ALLOW, PASSED, CheckInput, PolicyResult, blocked, deny, require_approval
from taskpilot_obs.semconv import INTERNAL_ERRORS

NO_LIST: Any = DenyWords(["x"])
NO_MODE: Any = "strict"
SUBJECT = CheckInput(Operation.AGENT, Stage.INPUT, "please delete it")


def those(policies: Any, guardrails: Any, mode: Any, subject: Any) -> Any:
    checks = Checks(policies, guardrails, mode)
    return checks.at(subject.stage) + checks.of_tokens(subject.stage)


def ask(
    *policies: Any, guardrails: Any = (), mode: Any = "monitor", subject: Any = SUBJECT, counters: Any = None
) -> Any:
    """What came of the checks: whether the work may go on, and the outcomes."""
    outcomes: list[Any] = []
    return running.run(those(policies, guardrails, mode, subject), subject, outcomes, counters), outcomes


def ask_async(*policies: Any, guardrails: Any = (), mode: Any = "monitor", subject: Any = SUBJECT) -> Any:
    outcomes: list[Any] = []
    return asyncio.run(running.run_async(those(policies, guardrails, mode, subject), subject, outcomes, None)), outcomes


def both(*policies: Any, **options: Any) -> Any:
    """The same checks run synchronously and asynchronously must agree."""
    (goes_on, outcomes), (same, others) = ask(*policies, **options), ask_async(*policies, **options)
    assert goes_on is same
    assert [one._replace(duration_s=0, check=None) for one in outcomes] == [
        one._replace(duration_s=0, check=None) for one in others
    ]
    return goes_on, outcomes


def boom(_subject: Any) -> None:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("answer", "verdict", "reason", "severity"),
    [
        (None, Verdict.ALLOW, None, Severity.MEDIUM),
        (True, Verdict.ALLOW, None, Severity.MEDIUM),
        (ALLOW, Verdict.ALLOW, None, Severity.MEDIUM),
        (PASSED, Verdict.ALLOW, None, Severity.MEDIUM),
        (Verdict.ALLOW, Verdict.ALLOW, None, Severity.MEDIUM),
        (PolicyResult(Verdict.ALLOW, "approved"), Verdict.ALLOW, "approved", Severity.MEDIUM),
        (False, Verdict.DENY, None, Severity.MEDIUM),
        (Verdict.DENY, Verdict.DENY, None, Severity.MEDIUM),
        (deny("why"), Verdict.DENY, "why", Severity.MEDIUM),
        (deny("why", severity="critical"), Verdict.DENY, "why", Severity.CRITICAL),
        (blocked("why"), Verdict.DENY, "why", Severity.MEDIUM),
        (require_approval("ask"), Verdict.REQUIRE_APPROVAL, "ask", Severity.MEDIUM),
    ],
)
def test_answers(answer: Any, verdict: Any, reason: Any, severity: Any) -> None:
    """A check may answer with a ruling, a finding, a verdict, a boolean or nothing; all mean what they say."""
    goes_on, (outcome,) = both(lambda _: answer)
    assert goes_on
    assert (outcome.verdict, outcome.reason, outcome.severity) == (verdict, reason, severity)
    assert outcome.result is (CheckResult.PASSED if verdict is Verdict.ALLOW else CheckResult.WOULD_BLOCK)


def test_monitor_asks_all_and_refuses_nothing() -> None:
    """In monitor mode every check is asked, what would be refused is recorded so, and the work goes on."""
    goes_on, outcomes = both(DenyWords(["delete"]), lambda _: False, guardrails=[lambda _: blocked("x")])
    assert goes_on
    assert [outcome.result for outcome in outcomes] == [CheckResult.WOULD_BLOCK] * 3
    assert [outcome.check.kind for outcome in outcomes] == [DecisionKind.POLICY] * 2 + [DecisionKind.GUARDRAIL]


def test_enforce_stops_at_the_first_no() -> None:
    """In enforce mode the first refusal ends the asking, and the checks before it are recorded."""
    asked: list[Any] = []
    goes_on, outcomes = both(MaxInputLength(100), DenyWords(["delete"]), asked.append, mode="enforce")
    assert not goes_on
    assert [outcome.result for outcome in outcomes] == [CheckResult.PASSED, CheckResult.BLOCKED]
    assert asked == []


def test_a_check_may_have_a_mode_of_its_own() -> None:
    """One check can only be watched while the others are enforced, and the other way round."""
    words = DenyWords(["delete"])
    assert both(check_with(words, mode="monitor"), mode="enforce")[0]
    assert not both(check_with(words, mode="enforce"), mode="monitor")[0]


@pytest.mark.parametrize(
    ("mode", "on_error", "goes_on", "result", "verdict"),
    [
        ("monitor", None, True, CheckResult.BYPASSED, Verdict.ALLOW),
        ("enforce", None, False, CheckResult.ERROR, Verdict.REQUIRE_APPROVAL),
        ("monitor", "closed", True, CheckResult.ERROR, Verdict.REQUIRE_APPROVAL),
        ("enforce", "open", True, CheckResult.BYPASSED, Verdict.ALLOW),
    ],
)
def test_a_failing_check_is_open_in_monitor_and_closed_in_enforce(
    mode: Any, on_error: Any, goes_on: Any, result: Any, verdict: Any
) -> None:
    """A check that raises lets the work go on or refuses it, by default as the mode; it is never a violation."""
    counters = InternalCounters()
    went_on, outcomes = ask(check_with(boom, on_error=on_error), lambda _: True, mode=mode, counters=counters)
    assert went_on is goes_on
    assert (outcomes[0].result, outcomes[0].verdict) == (result, verdict)
    assert len(outcomes) == (2 if goes_on else 1)
    assert counters.take()[INTERNAL_ERRORS, ("check",)] == 1
    assert both(check_with(boom, on_error=on_error), mode=mode)[0] is goes_on


def test_checks_after_several_failures_are_still_asked() -> None:
    """Failures do not end the asking, wherever in the list they happen."""
    goes_on, outcomes = both(boom, boom, DenyWords(["delete"]), boom)
    assert goes_on
    assert [outcome.result.value for outcome in outcomes] == ["bypassed", "bypassed", "would_block", "bypassed"]


def test_an_answer_of_no_known_kind_is_a_failure() -> None:
    """Text, for example, is not an answer: it does not count as a yes."""
    assert both(lambda _: "no", mode="enforce")[1][0].result is CheckResult.ERROR


async def slow(_subject: Any) -> None:
    await asyncio.sleep(30)


async def judge(subject: Any) -> Any:
    await asyncio.sleep(0)
    return blocked("rude") if "delete" in subject.text else None


def returns_awaitable(subject: Any) -> Any:
    return judge(subject)


def test_asynchronous_checks_are_awaited() -> None:
    """An asynchronous check is awaited, and so is a plain function that returns an awaitable."""
    goes_on, (first, second) = ask_async(guardrails=[judge, check_with(returns_awaitable, name="lazy")])
    assert goes_on
    assert first.result is second.result is CheckResult.WOULD_BLOCK
    assert not ask_async(guardrails=[judge], mode="enforce")[0]


def test_timeout_of_an_asynchronous_check_is_a_failure() -> None:
    """A check that takes longer than its timeout has failed, and its mode says what that means."""
    (goes_on, (outcome,)) = ask_async(check_with(slow, timeout_s=0.01))
    assert goes_on
    assert outcome.result is CheckResult.BYPASSED
    assert not ask_async(check_with(slow, timeout_s=0.01), mode="enforce")[0]


def test_cancellation_passes_through_a_check() -> None:
    """Who cancels a task cancels it in the middle of a check too."""

    async def main() -> None:
        task = asyncio.create_task(running.run_async(Checks([slow]).at(Stage.INPUT), SUBJECT, [], None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_awaitable_answer_in_synchronous_code_is_a_failure() -> None:
    """A plain function that turns out to be asynchronous cannot be awaited here: a failure, not a yes."""
    goes_on, (outcome,) = ask(check_with(returns_awaitable, name="lazy"), mode="enforce")
    assert not goes_on
    assert outcome.result is CheckResult.ERROR


class Judge:
    """A guardrail with options of its own, as a user would write it."""

    name = "judge"
    stages = ("output",)

    async def __call__(self, subject: Any) -> Any:
        return subject.text != "bad"


class Strict:
    severity = "high"

    def check(self, subject: Any) -> Any:
        return not subject.text


def test_options_come_from_the_check_or_from_around_it() -> None:
    """Names, stages and severities are the check's own unless `check_with` says otherwise."""
    judged, strict, function, named = Checks(
        [check_with(Judge(), stages=["input", "output"]), Strict(), boom, check_with(boom, name="x", severity="low")]
    ).all
    assert (judged.name, judged.stages, judged.is_async) == ("judge", (Stage.INPUT, Stage.OUTPUT), True)
    assert (strict.name, strict.severity, strict.is_async) == ("Strict", Severity.HIGH, False)
    assert (function.name, function.stages) == ("boom", (Stage.INPUT,))
    assert (named.name, named.severity) == ("x", Severity.LOW)


def test_what_a_place_must_know_beforehand() -> None:
    """Which checks need asynchronous code, and which withhold output, is known when they are attached."""
    checks = Checks([judge, MaxTokens(5)], [Judge(), check_with(boom, stages="output", mode="monitor")], "enforce")
    assert checks.names_of_async() == ["judge", "judge"]
    assert checks.names_that_withhold() == ["judge"]
    assert Checks([], [Judge()], "monitor").names_that_withhold() == []


def test_passing_the_token_limit_withholds_nothing() -> None:
    """The call that passes the limit is recorded and not refused; the next one is refused without a second denial."""
    policies = [MaxTokens(10)]
    after = CheckInput(Operation.CHAT, Stage.OUTPUT, tokens_so_far=12, call_tokens=5)
    goes_on, (outcome,) = both(*policies, mode="enforce", subject=after)
    assert goes_on
    assert (outcome.verdict, outcome.result) == (Verdict.DENY, CheckResult.WOULD_BLOCK)
    assert outcome.duration_s > 0
    goes_on, (outcome,) = both(
        *policies, mode="enforce", subject=CheckInput(Operation.CHAT, Stage.INPUT, tokens_so_far=12)
    )
    assert not goes_on
    assert (outcome.verdict, outcome.result) == (Verdict.REQUIRE_APPROVAL, CheckResult.BLOCKED)


def test_an_allowing_answer_keeps_its_reason_and_its_time() -> None:
    """A check that allows may say why; how long it took is known as for one that denies."""
    _, (outcome,) = ask(lambda _: PolicyResult(Verdict.ALLOW, "fine"))
    assert (outcome.verdict, outcome.result, outcome.reason) == (Verdict.ALLOW, CheckResult.PASSED, "fine")
    assert outcome.duration_s > 0


def test_refusals_carry_who_and_why() -> None:
    """The exceptions name the policy or guardrail, the reason and the request."""
    _, (outcome,) = ask(DenyWords(["delete"]), mode="enforce")
    error = running.refusal(outcome, Stage.INPUT, "r1")
    assert isinstance(error, PolicyViolationError)
    assert (error.policy, error.reason, error.request_id) == ("deny_words", "contains a denied word", "r1")
    _, (outcome,) = ask(guardrails=[lambda _: blocked("rude")], mode="enforce")
    error = running.refusal(outcome, Stage.OUTPUT, None)
    assert isinstance(error, GuardrailBlockedError)
    assert (error.guardrail, error.stage, error.reason) == ("<lambda>", "output", "rude")


def test_the_record_that_travels() -> None:
    """A decision says who decided, about what, when, what came of it, and how long it took."""

    def slow_check(_subject: Any) -> Any:
        time.sleep(0.002)
        return deny("why", severity="high")

    _, (outcome,) = ask(slow_check)
    decision = running.as_decision(outcome, Stage.INPUT, "shell", Origin(request_id="r1"), 17)
    assert decision.duration_s is not None
    assert decision.duration_s >= 0.002
    assert decision._replace(duration_s=None) == (
        *(DecisionKind.POLICY, "slow_check", Verdict.DENY, CheckResult.WOULD_BLOCK, Origin(request_id="r1"), 17),
        *("why", Severity.HIGH, Stage.INPUT, "shell", None, {}),
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Checks(["word"]), "policy: expected"),
        (lambda: Checks([DenyWords]), "policy: expected"),
        (lambda: Checks([], [1]), "guardrail: expected"),
        (lambda: Checks("policy"), "policies: expected a list"),
        (lambda: Checks(NO_LIST), "policies: expected a list"),
        (lambda: Checks([], check_with(boom)), "guardrails: expected a list"),
        (lambda: Checks(mode=NO_MODE), "mode: expected monitor or enforce"),
        (lambda: check_with(boom, mode=NO_MODE), "mode: expected monitor or enforce"),
        (lambda: check_with(boom, on_error=NO_MODE), "on_error: expected open or closed"),
        (lambda: Checks([Check(boom, mode=NO_MODE)]), "mode: expected monitor or enforce"),
        (lambda: Checks([Check(boom, on_error=NO_MODE)]), "on_error: expected open or closed"),
        (lambda: check_with(boom, timeout_s=0), "timeout_s"),
        (lambda: check_with(boom, severity="grave"), "severity"),
        (lambda: check_with(boom, name=""), "name"),
        (lambda: check_with(boom, stages=()), "stages"),
    ],
)
def test_wrong_checks_are_refused_at_construction(make: Any, said: Any) -> None:
    """Invalid checks and wrong options are refused when the checks are attached."""
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_tools_and_approvals_run_together() -> None:
    """Policies about tools judge by agent and arguments, in one pass."""
    subject = CheckInput(Operation.TOOL, Stage.INPUT, tool="pay", agent="planner", arguments={"amount": 5})
    goes_on, outcomes = both(AllowTools(["pay"]), RequireApproval(["pay"]), mode="enforce", subject=subject)
    assert not goes_on
    assert outcomes[-1].reason == "tool 'pay' needs an approval"
