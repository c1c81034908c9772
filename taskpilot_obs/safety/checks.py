"""Runs checks in order, times them, applies their modes, and keeps failures of the checks from the caller."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError, GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.records import NO_ATTRIBUTES, CheckResult, Decision, DecisionKind, Origin, Severity, Stage, Verdict
from taskpilot_obs.safety.asked import is_async
from taskpilot_obs.safety.guardrails import Check, Mode, as_mode, as_on_error
from taskpilot_obs.safety.options import INPUT, as_name, as_stages, one_of
from taskpilot_obs.safety.subjects import ALLOW, PASSED, CheckInput, GuardrailResult, PolicyResult
from taskpilot_obs.semconv import POLICY_VERSION

if TYPE_CHECKING:
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exceptions import RefusedError

_ALLOW: Final = Verdict.ALLOW
_PASSED: Final = CheckResult.PASSED
COMPONENT: Final = "check"
"""The component under which failures of checks are counted (`taskpilot_obs_internal_errors_total`)."""


current_checks: ContextVar[frozenset[object]] = ContextVar("taskpilot_obs_checks", default=frozenset())
"""The checks that this code is part of (`BoundCheck.itself`): the one that is asked, and those around it.

It is inherited like any context: tasks that a check starts and leaves behind remain its own.
"""


class BoundCheck(NamedTuple):
    """A check with validated options."""

    kind: DecisionKind
    name: str
    ask: Callable[[CheckInput], Any]
    severity: Severity
    stages: tuple[Stage, ...]
    refuses_at: tuple[Stage, ...]
    """The stages at which it refuses; empty in monitor mode."""
    fails_open: bool
    timeout_s: float | None
    is_async: bool
    counts_tokens: bool
    """Whether it checks the LLM calls beneath a run instead of the run."""
    version: str | None = None
    """The version of the policy, such as the hash of its text."""
    is_bypassed: bool = False
    """Whether it would refuse, but runs when the work cannot be stopped any more."""
    itself: frozenset[object] = frozenset()
    """Its function, or its method of its object, by which `current_checks` knows it."""

    def where_nothing_stops(self, stage: Stage) -> BoundCheck:
        """The check on a path that cannot refuse, where denials of an enforced check are recorded as `bypassed`."""
        return self._replace(refuses_at=(), is_bypassed=stage in self.refuses_at)


class CheckOutcome(NamedTuple):
    """The outcome of one check, from which the drainer makes a `Decision`."""

    check: BoundCheck
    verdict: Verdict
    result: CheckResult
    reason: str | None
    severity: Severity
    duration_s: float
    version: str | None = None

    @property
    def refuses(self) -> bool:
        """Whether the work must stop."""
        return self.result is CheckResult.BLOCKED or (self.result is CheckResult.ERROR and bool(self.check.refuses_at))


class Checks:
    """The policies and guardrails of one callsite, in the order in which they run: policies first.

    Args:
        policies: objects with `check(subject)`, functions of a subject, or those with options (`check_with`).
        guardrails: guardrails, in the same forms.
        mode: `monitor` or `enforce`, for checks without a mode of their own.

    Raises:
        ConfigurationError: something is not a check, or an option is wrong.
    """

    __slots__ = ("__weakref__", "_at", "_of_tokens", "all")

    def __init__(self, policies: Iterable[Any] = (), guardrails: Iterable[Any] = (), mode: Mode = "monitor") -> None:
        as_mode(mode)
        self.all: tuple[BoundCheck, ...] = (
            *(_ready(DecisionKind.POLICY, given, mode) for given in _several("policies", policies)),
            *(_ready(DecisionKind.GUARDRAIL, given, mode) for given in _several("guardrails", guardrails)),
        )
        asked = [check for check in self.all if not check.counts_tokens]
        counting = [check for check in self.all if check.counts_tokens]
        self._at = {stage: tuple(check for check in asked if stage in check.stages) for stage in Stage}
        self._of_tokens = {stage: tuple(check for check in counting if stage in check.stages) for stage in Stage}

    def at(self, stage: Stage) -> tuple[BoundCheck, ...]:
        """The checks of one stage of the work itself."""
        return self._at[stage]

    def of_tokens(self, stage: Stage) -> tuple[BoundCheck, ...]:
        """The checks before or after each LLM call beneath."""
        return self._of_tokens[stage]

    @property
    def refuse(self) -> bool:
        """Whether one of them is in enforce mode."""
        return any(check.refuses_at for check in self.all)

    @property
    def key(self) -> object:
        """A key that is equal for checks with equal names, kinds and stages."""
        return tuple((check.kind, check.name, check.stages) for check in self.all)

    @property
    def count_tokens(self) -> bool:
        """Whether there are checks of the LLM calls beneath."""
        return any(self._of_tokens.values())

    def names_of_async(self) -> list[str]:
        """Names of the checks that only asynchronous code can run."""
        return [check.name for check in self.all if check.is_async]

    def names_that_withhold(self) -> list[str]:
        """Names of the checks that withhold an output."""
        return [check.name for check in self.at(Stage.OUTPUT) if Stage.OUTPUT in check.refuses_at]


def _several(option: str, given: Iterable[Any]) -> Sequence[Any]:
    if isinstance(given, str | Check) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{option}: expected a list of checks, got {given!r}")
    return tuple(given)


def _ready(kind: DecisionKind, given: Any, mode: Mode) -> BoundCheck:
    options = given if isinstance(given, Check) else Check(given)
    check = options.check
    ask = getattr(check, "check", None) if not inspect.isroutine(check) else check
    ask = ask if callable(ask) else check
    if not callable(ask) or inspect.isclass(check):
        raise ConfigurationError(
            f"{kind.value}: expected an object with check(subject) or a function of a subject, got {check!r}"
        )
    stages = as_stages(options.stages if options.stages is not None else getattr(check, "stages", INPUT))
    enforced = as_mode(options.mode or mode) == "enforce"
    return BoundCheck(
        kind,
        as_name(options.name or _name_of(check)),
        ask,
        one_of(Severity, "severity", str(options.severity or getattr(check, "severity", Severity.MEDIUM))),
        stages,
        tuple(stage for stage in getattr(check, "refuses_at", stages) if enforced),
        as_on_error(options.on_error) == "open" if options.on_error else not enforced,
        options.timeout_s,
        is_async(ask),
        bool(getattr(check, "counts_tokens", False)),
        None if (version := getattr(check, "version", None)) is None else str(version),
        itself=frozenset((_identity_of(ask),)),
    )


def _identity_of(ask: Any) -> object:
    """What is equal at each look at a check; a bound method is a new object, equal to others of its very object."""
    return ask if inspect.isroutine(ask) else ask.__call__


def _name_of(check: Any) -> Any:
    for name in (getattr(check, "name", None), getattr(check, "__name__", None)):
        if isinstance(name, str):
            return name
    return type(check).__name__


def run(
    checks: Sequence[BoundCheck],
    subject: CheckInput | None,
    outcomes: list[CheckOutcome],
    counters: InternalCounters | None,
) -> bool:
    """Run the checks until one refuses.

    Args:
        checks: what is run, in this order.
        subject: what they check; None if it could not be read, in which case all of them fail.
        outcomes: gets the outcome of each check that ran.
        counters: counts checks that failed.

    Returns:
        Whether the work may continue.
    """
    if subject is None:
        return _fail_all(checks, outcomes)
    token = current_checks.set(current_checks.get())
    try:
        return _run(checks, subject, outcomes, guarded(COMPONENT, counters))
    finally:
        current_checks.reset(token)


def _run(checks: Sequence[BoundCheck], subject: CheckInput, outcomes: list[CheckOutcome], guard: guarded) -> bool:
    outer = current_checks.get()
    done = 0
    while done < len(checks):
        since = perf_counter()
        with guard:  # entered once for all checks, and again only after a check that failed
            while done < len(checks):
                check = checks[done]
                current_checks.set(outer | check.itself if outer else check.itself)
                answer = check.ask(subject)
                now = perf_counter()
                outcomes.append(_judge(check, subject.stage, answer, now - since))
                since = now
                done += 1
                if outcomes[-1].refuses:
                    return False
            return True
        outcomes.append(_failure(checks[done], perf_counter() - since))
        done += 1
        if outcomes[-1].refuses:
            return False
    return True


async def run_async(
    checks: Sequence[BoundCheck],
    subject: CheckInput | None,
    outcomes: list[CheckOutcome],
    counters: InternalCounters | None,
) -> bool:
    """Like `run`, but await asynchronous checks, each within its timeout."""
    if subject is None:
        return _fail_all(checks, outcomes)
    token = current_checks.set(current_checks.get())
    try:
        return await _run_async(checks, subject, outcomes, guarded(COMPONENT, counters))
    finally:
        with suppress(ValueError):  # a task that is thrown away ends in another context
            current_checks.reset(token)


async def _run_async(
    checks: Sequence[BoundCheck], subject: CheckInput, outcomes: list[CheckOutcome], guard: guarded
) -> bool:
    outer, since = current_checks.get(), perf_counter()
    for check in checks:
        outcome = None
        current_checks.set(outer | check.itself if outer else check.itself)
        with guard:
            answer = check.ask(subject)
            if not _is_yes(answer) and inspect.isawaitable(answer):
                answer = await _in_time(answer, check.timeout_s)
            now = perf_counter()
            outcome = _judge(check, subject.stage, answer, now - since)
        if outcome is None:
            now = perf_counter()
            outcome = _failure(check, now - since)
        since = now
        outcomes.append(outcome)
        if outcome.refuses:
            return False
    return True


def _is_yes(answer: object) -> bool:
    """Whether it is one of the common answers that let the work continue."""
    return answer is ALLOW or answer is None or answer is True or answer is PASSED


async def _in_time(answer: Awaitable[object], timeout_s: float | None) -> object:
    if timeout_s is None:
        return await answer
    from asyncio import timeout

    async with timeout(timeout_s):
        return await answer


def _judge(check: BoundCheck, stage: Stage, answer: object, duration_s: float) -> CheckOutcome:
    """Interpret an answer; one of an unknown type is a failure of the check."""
    if _is_yes(answer):
        return CheckOutcome(check, _ALLOW, _PASSED, None, check.severity, duration_s, check.version)
    verdict, reason, severity, version = _read(answer)
    version = version or check.version
    if verdict is Verdict.ALLOW:
        return CheckOutcome(check, verdict, CheckResult.PASSED, reason, check.severity, duration_s, version)
    result = CheckResult.BYPASSED if check.is_bypassed else CheckResult.WOULD_BLOCK
    result = CheckResult.BLOCKED if stage in check.refuses_at else result
    return CheckOutcome(check, verdict, result, reason, severity or check.severity, duration_s, version)


def _read(answer: object) -> PolicyResult:
    if isinstance(answer, PolicyResult):
        return answer._replace(verdict=Verdict(answer.verdict))
    if isinstance(answer, GuardrailResult):
        return PolicyResult(Verdict.DENY if answer.blocked else Verdict.ALLOW, answer.reason)
    if answer is False:
        return PolicyResult(Verdict.DENY)
    if isinstance(answer, Verdict):
        return PolicyResult(answer)
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("the check is asynchronous, what it checks is not")
    raise TypeError(f"a check answered with an object of type {type(answer).__name__}")


def _failure(check: BoundCheck, duration_s: float) -> CheckOutcome:
    """The outcome of a failed check. With `closed` it refuses, but that does not count as a violation."""
    verdict, result = Verdict.REQUIRE_APPROVAL, CheckResult.ERROR
    if check.fails_open:
        verdict, result = Verdict.ALLOW, CheckResult.BYPASSED
    return CheckOutcome(check, verdict, result, "the check failed", check.severity, duration_s, check.version)


def _fail_all(checks: Sequence[BoundCheck], outcomes: list[CheckOutcome]) -> bool:
    """Let all checks fail, because the subject could not be read."""
    outcomes.extend(_failure(check, 0.0) for check in checks)
    refusing = [outcome for outcome in outcomes if outcome.refuses]
    del outcomes[len(outcomes) - len(refusing) if refusing else len(outcomes) :]
    outcomes.extend(refusing[:1])
    return not refusing


def refusal(outcome: CheckOutcome, stage: Stage, request_id: str | None) -> RefusedError:
    """The exception that reports the refusal."""
    if outcome.check.kind is DecisionKind.GUARDRAIL:
        return GuardrailBlockedError(outcome.check.name, stage.value, outcome.reason, request_id=request_id)
    return PolicyViolationError(outcome.check.name, outcome.reason, request_id=request_id)


def as_decision(outcome: CheckOutcome, stage: Stage, tool: str | None, origin: Origin, time_unix_ns: int) -> Decision:
    """Make the record, on the drainer's thread."""
    return Decision(
        outcome.check.kind,
        outcome.check.name,
        outcome.verdict,
        outcome.result,
        origin,
        time_unix_ns,
        outcome.reason,
        outcome.severity,
        stage,
        tool,
        outcome.duration_s,
        NO_ATTRIBUTES if outcome.version is None else {POLICY_VERSION: outcome.version},
    )
