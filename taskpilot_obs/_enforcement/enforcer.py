"""Runs checks before and after the work of a callsite, and reports their results as decisions of the run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from taskpilot_obs._enforcement.asking import CheckQuestion
from taskpilot_obs._recording.block_call import is_limited
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.point_events import origin_of
from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import RefusedError
from taskpilot_obs.records import CheckResult, DecisionKind, Operation, Stage, Verdict
from taskpilot_obs.safety import checks as running
from taskpilot_obs.safety.subjects import NO_ARGUMENTS, CheckInput
from taskpilot_obs.safety.texts import texts_in
from taskpilot_obs.semconv import INTERNAL_ERRORS, WarningCode

if TYPE_CHECKING:
    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs._recording.runtime import RecorderRuntime
    from taskpilot_obs._recording.spans import LiveSpan
    from taskpilot_obs.records import Record
    from taskpilot_obs.safety.checks import BoundCheck, CheckOutcome, Checks

logger = logging.getLogger("taskpilot_obs")

BYPASSED = "bypassed"
"""The component that counts decisions that could not be enforced (`taskpilot_obs_internal_errors_total`)."""
_LONGEST_REASON = 1_000
_DEEPEST_CAUSE = 16
_redact: Callable[[str], str] | None = None


class Streamed(list[Any]):
    """The items of a stream: pieces of one text."""


class Enforcer:
    """The checks of one callsite: those of its recorder, then its own.

    Each method runs the checks of a stage, reports the results, and raises the refusal of a check in enforce mode.

    Args:
        runtime: of the recorder.
        own: the checks attached to the callsite; None if there are none.
        function: the function called there, to name its arguments; None if arguments are passed by name.
    """

    __slots__ = ("_defaults", "_is_method", "_names", "_runtime", "own")

    def __init__(
        self, runtime: RecorderRuntime, own: Checks | None, function: Callable[..., Any] | None = None
    ) -> None:
        self._runtime = runtime
        self.own = own
        self._names, self._defaults = ((), {}) if function is None else _parameters(function)
        self._is_method = self._names[:1] in (("self",), ("cls",))

    @property
    def runtime(self) -> RecorderRuntime:
        """What the recorder whose checks these are works with."""
        return self._runtime

    def at(self, stage: Stage) -> tuple[BoundCheck, ...]:
        """The checks of a stage."""
        general = self._runtime.checks
        own = () if self.own is None else self.own.at(stage)
        return in_force(self._runtime, own if general is None else general.at(stage) + own)

    def _for(self, run: ActiveInvocation, stage: Stage) -> tuple[BoundCheck, ...]:
        """The checks to ask about a run.

        Those of the recorder are not asked about the model calls and agents of a check, which hold what is judged
        already: violations would count twice, and judges would judge each other. Tools that a check calls are asked
        about, because its model may have been talked into them. No check is asked about what it does itself.
        """
        asked = running.current_checks.get()
        if not asked:
            return self.at(stage)
        only_own = run.operation is not Operation.TOOL
        checks = self._own_at(stage) if only_own else self.at(stage)
        return tuple(check for check in checks if asked.isdisjoint(check.itself))

    def _own_at(self, stage: Stage) -> tuple[BoundCheck, ...]:
        return () if self.own is None else in_force(self._runtime, self.own.at(stage))

    def ask_in(self, run: ActiveInvocation, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Check the input, before the work."""
        limits = self._runtime.limits
        if limits is not None and is_limited(run):
            limits.before(run, args, kwargs)
        ready = self._for(run, Stage.INPUT)
        if ready:
            self._ask(run, ready, Stage.INPUT, self._question(run, args, kwargs))

    async def ask_in_async(self, run: ActiveInvocation, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Check the input, before asynchronous work."""
        limits = self._runtime.limits
        if limits is not None and is_limited(run):
            await limits.before_async(run, args, kwargs)
        ready = self._for(run, Stage.INPUT)
        if ready:
            await self._ask_async(run, ready, Stage.INPUT, self._question(run, args, kwargs))

    def ask_out(self, run: ActiveInvocation, result: object) -> None:
        """Check the output, before the result is returned."""
        ready = self._for(run, Stage.OUTPUT)
        if not ready:
            return
        try:
            self._ask(run, ready, Stage.OUTPUT, self._answer(run, result))
        except BaseException:  # a caller that cancels or times out is billed too
            note_withheld(run, result)
            raise

    async def ask_out_async(self, run: ActiveInvocation, result: object) -> None:
        """Check the output of asynchronous work, before the result is returned."""
        ready = self._for(run, Stage.OUTPUT)
        if not ready:
            return
        try:
            await self._ask_async(run, ready, Stage.OUTPUT, self._answer(run, result))
        except BaseException:  # a caller that cancels or times out is billed too
            note_withheld(run, result)
            raise

    def ask_too_late(self, run: ActiveInvocation, result: object) -> None:
        """Check a stream that has been yielded: refusals are recorded, but nothing can be withheld."""
        ready = tuple(check.where_nothing_stops(Stage.OUTPUT) for check in self._for(run, Stage.OUTPUT))
        if ready:
            self._ask(run, ready, Stage.OUTPUT, self._answer(run, result))

    async def ask_too_late_async(self, run: ActiveInvocation, result: object, within_s: float = inf) -> None:
        """Check an asynchronous stream that has been yielded; no check may take longer than `within_s`."""
        ready = tuple(check.where_nothing_stops(Stage.OUTPUT) for check in self._for(run, Stage.OUTPUT))
        if within_s < inf:
            ready = tuple(each._replace(timeout_s=min(each.timeout_s or inf, within_s)) for each in ready)
        if ready:
            await self._ask_async(run, ready, Stage.OUTPUT, self._answer(run, result))

    def _question(
        self, run: ActiveInvocation, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> CheckInput | None:
        """The input to check; None if it cannot be read."""
        with guarded(running.COMPONENT, self._runtime.counters):
            arguments = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
            said = texts_in((*args, *kwargs.values()), machine=self._is_method and bool(args))
            return subject_of(run, Stage.INPUT, "\n".join(said), arguments)
        return None

    def _answer(self, run: ActiveInvocation, result: object) -> CheckInput | None:
        """The output to check; None if it cannot be read."""
        with guarded(running.COMPONENT, self._runtime.counters):
            pieces = isinstance(result, Streamed)
            said = ("" if pieces else "\n").join(texts_in((result,), keys=not pieces))
            return subject_of(run, Stage.OUTPUT, said, NO_ARGUMENTS)
        return None

    def _ask(
        self, run: ActiveInvocation, ready: Sequence[BoundCheck], stage: Stage, subject: CheckInput | None
    ) -> None:
        outcomes: list[CheckOutcome] = []
        with CheckQuestion(run):
            goes_on = running.run(ready, subject, outcomes, self._runtime.counters)
        report(run, stage, outcomes, goes_on=goes_on)

    async def _ask_async(
        self, run: ActiveInvocation, ready: Sequence[BoundCheck], stage: Stage, subject: CheckInput | None
    ) -> None:
        outcomes: list[CheckOutcome] = []
        with CheckQuestion(run):
            goes_on = await running.run_async(ready, subject, outcomes, self._runtime.counters)
        report(run, stage, outcomes, goes_on=goes_on)


def in_force(runtime: RecorderRuntime, checks: tuple[BoundCheck, ...]) -> tuple[BoundCheck, ...]:
    """The checks that apply under the recorder's switches.

    Without `enforcement` no check refuses; without recording only checks that may refuse run.
    """
    if not runtime.enforcing:
        checks = tuple(check._replace(refuses_at=()) for check in checks)
    return checks if runtime.recording else tuple(check for check in checks if check.refuses_at)


def unwrap_refusal(error: BaseException) -> BaseException:
    """Return the refusal that a framework has wrapped into an exception (`__cause__`), else the exception itself."""
    at: BaseException | None = error
    for _ in range(_DEEPEST_CAUSE):  # some frameworks raise an exception from itself
        if at is None or isinstance(at, RefusedError):
            break
        at = at.__cause__
    return at if isinstance(at, RefusedError) else error


def subject_of(run: ActiveInvocation, stage: Stage, text: str, arguments: Mapping[str, object]) -> CheckInput:
    """Build the subject of a check."""
    tenant, user = (None, None) if run.scope is None else run.scope[1:3]
    return CheckInput(
        run.operation,
        stage,
        text,
        _tool_of(run),
        arguments,
        run.agent,
        run.workflow,
        run.request_id,
        tenant=tenant,
        user=user,
    )


def note_withheld(run: ActiveInvocation, result: object) -> None:
    """Read the usage of an LLM call whose answer its caller does not get, because its tokens are billed anyway."""
    if not isinstance(run, LlmInvocation):
        return
    if not isinstance(result, Streamed):
        run.note_response(result)
        return
    for item in result:
        run.note_item(item)


def _tool_of(run: ActiveInvocation) -> str | None:
    return run.name if run.operation is Operation.TOOL else None


def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, object]]:
    """Names of positional parameters, and the defaults of all, as far as the signature is known."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in without a signature
        return (), {}
    positional = tuple(
        each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    )
    return positional, {each.name: each.default for each in parameters if each.default is not each.empty}


class _Report:
    """The outcomes of one stage's checks, queued for the drainer."""

    __slots__ = ("at_ns", "outcomes", "run", "stage")

    def __init__(self, run: ActiveInvocation, stage: Stage, outcomes: list[CheckOutcome]) -> None:
        self.run = run
        self.stage = stage
        self.outcomes = outcomes
        self.at_ns = run.callsite.runtime.now()

    def droppable(self) -> bool:
        return True

    def freeze(self, records: list[Record]) -> None:
        run, stage = self.run, self.stage
        time_unix_ns = run.callsite.runtime.clock.unix_ns(self.at_ns)
        origin, tool = origin_of(run, run.scope), _tool_of(run)
        decisions = [running.as_decision(outcome, stage, tool, origin, time_unix_ns) for outcome in self.outcomes]
        for decision in decisions:
            if decision.is_violation:
                run.add_violation()
        records.extend(decisions)


def report(run: ActiveInvocation, stage: Stage, outcomes: list[CheckOutcome], *, goes_on: bool) -> None:
    """Queue the outcomes, and raise the refusal if there is one."""
    runtime = run.callsite.runtime
    safe = [each if each.reason is None else _safe(each) for each in outcomes]
    runtime.pipeline.put(_Report(run, stage, safe))
    if run.span is not None:
        with guarded("span", runtime.counters):
            _add_events(run.span, stage, safe)
    for outcome in safe:
        if outcome.check.is_bypassed and outcome.result is CheckResult.BYPASSED:
            note_bypass(runtime, outcome.check.kind.value, outcome.check.name, "its answer arrived after the work")
    if not goes_on:
        raise running.refusal(outcomes[-1], stage, run.request_id)


def _add_events(span: LiveSpan, stage: Stage, outcomes: Sequence[CheckOutcome]) -> None:
    """Add policy violations and guardrail decisions to the run's span as events."""
    for outcome in outcomes:
        check = outcome.check
        if check.kind is DecisionKind.GUARDRAIL or outcome.verdict is not Verdict.ALLOW:
            span.add_decision(
                kind=check.kind,
                name=check.name,
                verdict=outcome.verdict,
                result=outcome.result,
                stage=stage,
                severity=outcome.severity,
                reason=outcome.reason,
                policy_version=outcome.version,
            )


_MAX_TOLD = 1_000
_told: BoundedDict[tuple[str, str], None] = BoundedDict(_MAX_TOLD)


def note_bypass(runtime: RecorderRuntime, kind: str, name: str, why: str) -> None:
    """Count that a check in enforce mode could not refuse, and log it once.

    Args:
        runtime: of the recorder.
        kind: `policy`, `guardrail` or `budget`.
        name: of the check.
        why: the reason, for the log.
    """
    runtime.counters.add(INTERNAL_ERRORS, (BYPASSED,))
    if (kind, name) not in _told:
        _told[kind, name] = None
        logger.warning(
            "taskpilot_obs: %s %r in enforce mode was bypassed: %s [%s]", kind, name, why, WarningCode.CHECK_BYPASSED
        )


def _safe(outcome: CheckOutcome) -> CheckOutcome:
    """The outcome with its reason redacted, because a user's check may quote the content that it saw."""
    global _redact  # noqa: PLW0603  made when first needed: its patterns take 20 ms to compile
    if _redact is None:
        from taskpilot_obs.safety.redaction import Redactor

        _redact = Redactor(max_length=_LONGEST_REASON).text
    return outcome._replace(reason=_redact(str(outcome.reason)))
