"""What holds while checks are asked: what a check does belongs to the check, apart from the run that it judges."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from taskpilot_obs._recording import spans
from taskpilot_obs._recording.invocation import ActiveInvocation, current_running
from taskpilot_obs._recording.scope import current_admitted, restore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from taskpilot_obs._recording.invocation import Step
    from taskpilot_obs._recording.scope import CallReservation
    from taskpilot_obs.safety.checks import BoundCheck, CheckOutcome


class CheckQuestion:
    """The checks of one stage that are asked about a run: a block, in which that run is the current one.

    The reservation that a budget holds for the run is not current in it, because a check's call takes its own. Nor is
    the call of a client that OpenTelemetry's instrumentation follows.

    Args:
        run: the run that is judged.
        checks: what is asked, in this order.
        outcomes: gets one outcome for each check, before the next is asked.
    """

    __slots__ = ("_admitted", "_checks", "_client_call", "_outcomes", "_outer", "_run", "_step", "_token")
    _token: Token[CheckQuestion | None]
    _admitted: Token[CallReservation | None]
    _client_call: Token[Any] | None

    def __init__(self, run: ActiveInvocation, checks: Sequence[BoundCheck], outcomes: Sequence[CheckOutcome]) -> None:
        self._run = run
        self._checks = checks
        self._outcomes = outcomes
        self._outer: CheckQuestion | None = None
        self._step: Step | None = None

    def __enter__(self) -> Self:
        self._outer = _question.get()
        self._token = _question.set(self)
        self._admitted = current_admitted.set(None)
        if self._run.is_open and current_running.get() is not self._run:  # not every framework attaches its runs
            self._step = ActiveInvocation.attach(self._run)  # not its own, which would be current for its request
        self._client_call = spans.leave_client_call()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        here = restore(_question, self._token)  # a task that is thrown away ends in another context
        if here and self._client_call is not None:
            spans.detach(self._client_call)
        if self._step is not None:
            self._run.detach(self._step)
        restore(current_admitted, self._admitted)

    def is_about(self, run: object) -> bool:
        """Whether a run is judged here, or by a check around this one."""
        return self._run is run or (self._outer is not None and self._outer.is_about(run))

    def asks(self, check: BoundCheck) -> bool:
        """Whether a check waits for this code: it makes the call, or another check that does was asked about one."""
        done = len(self._outcomes)
        if done < len(self._checks) and _owner_of(self._checks[done]) is _owner_of(check):
            return True
        return self._outer is not None and self._outer.asks(check)


_question: ContextVar[CheckQuestion | None] = ContextVar("taskpilot_obs_question", default=None)


def current_question() -> CheckQuestion | None:
    """Return what is being asked of the checks that this code is part of; None outside of checks.

    It is inherited like any context: tasks that a check starts and leaves behind are its own too.
    """
    return _question.get()


def is_judged(run: object) -> bool:
    """Whether this code runs in a check that is asked about a run: what it does is not the work of that run."""
    question = _question.get()
    return question is not None and question.is_about(run)


def _owner_of(check: BoundCheck) -> Any:
    """The object that is asked: a function, or that of a method, which is another object at each look."""
    return getattr(check.ask, "__self__", check.ask)
