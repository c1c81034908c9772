"""Checks of LLM calls only: token limits and budgets."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from taskpilot_obs._enforcement.enforcer import in_force, report, subject_of
from taskpilot_obs._recording.rollups import Totals
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import Stage
from taskpilot_obs.safety import checks as running
from taskpilot_obs.safety.subjects import NO_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskpilot_obs._recording.components import Declares
    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs._recording.llm_invocation import LlmInvocation
    from taskpilot_obs._recording.runtime import RecorderRuntime
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.budgets.admission import AdmissionController
    from taskpilot_obs.safety.checks import BoundCheck, CheckOutcome, Checks
    from taskpilot_obs.safety.subjects import CheckInput


def declare_checks(expected: Sequence[Checks], declares: Declares, counters: InternalCounters) -> None:
    """Create the series of these checks at 0."""
    with guarded("declare", counters):
        for check in (check for checks in expected for check in checks.all):
            declares.declare_check(check.kind, check.name, check.stages)


def limits_for(
    runtime: RecorderRuntime, expected: Sequence[Checks], budgets: AdmissionController | None
) -> LlmLimits | None:
    """The checks of each LLM call; None if there are none.

    Args:
        runtime: the recorder's runtime; its existing limits keep their counts.
        expected: all checks, of which some may limit tokens.
        budgets: the recorder's budgets.
    """
    before = runtime.limits
    tokens = before.tokens if isinstance(before, LlmLimits) else None
    if tokens is None and any(checks.count_tokens for checks in expected):
        tokens = TokenLimits(runtime)
    asked = budgets if budgets is not None and budgets.asks else None
    return None if tokens is None and asked is None else LlmLimits(tokens, asked)


class LlmLimits:
    """Checks of LLM calls only: token limits and budgets. Each recorder has one.

    Args:
        tokens: the token limits of runs.
        budgets: the budgets that may refuse.
    """

    __slots__ = ("budgets", "tokens")

    def __init__(self, tokens: TokenLimits | None, budgets: AdmissionController | None) -> None:
        self.tokens = tokens
        self.budgets = budgets

    @property
    def count_tokens(self) -> bool:
        """Whether the usage of a call is needed at its end."""
        return self.tokens is not None

    def before(self, call: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Check before an LLM call; raises the refusal of a check in enforce mode."""
        if self.tokens is not None:
            self.tokens.before(call)
        if self.budgets is not None:
            self.budgets.before(call, args, kwargs)

    async def before_async(self, call: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Like `before`, without blocking the event loop while a store is queried."""
        if self.tokens is not None:
            self.tokens.before(call)
        if self.budgets is not None:
            await self.budgets.before_async(call, args, kwargs)

    def before_block(self, call: LlmInvocation, stated: Mapping[str, object]) -> None:
        """Check before a `with` block that makes an LLM call; raises like `before`."""
        if self.tokens is not None:
            self.tokens.before(call)
        if self.budgets is not None:
            self.budgets.before_block(call, stated)

    def after(self, call: LlmInvocation) -> None:
        """Count the tokens of an LLM call; budgets read them from its record."""
        if self.tokens is not None:
            self.tokens.after(call)


class TokenLimits:
    """Tokens taken by the LLM calls beneath each run with a token policy. Each recorder has one."""

    def __init__(self, runtime: RecorderRuntime) -> None:
        self._runtime = runtime
        self._taken: WeakKeyDictionary[ActiveInvocation, Totals] = WeakKeyDictionary()
        self._lock = Lock()

    def before(self, call: LlmInvocation) -> None:
        """Check before an LLM call; raises the refusal of a check in enforce mode."""
        for run, checks in self._watched(call, Stage.INPUT):
            with self._lock:
                totals = self._taken.get(run)
                taken = 0 if totals is None else totals.tokens
            self._ask(call, checks, subject_of(call, Stage.INPUT, "", NO_ARGUMENTS)._replace(tokens_so_far=taken))

    def after(self, call: LlmInvocation) -> None:
        """Count the tokens of an LLM call, then check; nothing is withheld.

        The result of an agent, which sums its calls, counts where these calls are not counted themselves.
        """
        usage = call.usage
        if usage is None or call.cached:
            return
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if not tokens:
            return
        with guarded(running.COMPONENT, self._runtime.counters):
            for run, checks in self._watched(call, Stage.OUTPUT):
                with self._lock:
                    totals = self._taken.setdefault(run, Totals())
                    if not totals.book(usage, call.sums):
                        continue
                    taken = totals.tokens
                subject = subject_of(call, Stage.OUTPUT, "", NO_ARGUMENTS)
                subject = subject._replace(tokens_so_far=taken, call_tokens=tokens)
                self._ask(call, [check._replace(refuses_at=()) for check in checks], subject)

    def _ask(self, call: LlmInvocation, checks: Sequence[BoundCheck], subject: CheckInput) -> None:
        outcomes: list[CheckOutcome] = []
        goes_on = running.run(checks, subject, outcomes, self._runtime.counters)
        report(call, subject.stage, outcomes, goes_on=goes_on)

    def _watched(self, call: LlmInvocation, stage: Stage) -> Iterator[tuple[ActiveInvocation, tuple[BoundCheck, ...]]]:
        """The runs above the call with a token policy of their own, and the task for those of the recorder."""
        top: ActiveInvocation = call
        run = call.parent
        while run is not None:
            own = run.callsite.checks
            if own is not None and (checks := in_force(self._runtime, own.of_tokens(stage))):
                yield run, checks
            top, run = run, run.parent
        general = self._runtime.checks
        if general is not None and (checks := in_force(self._runtime, general.of_tokens(stage))):
            yield top, checks
