"""Tracks the checks that are running.

A check's own calls are neither checked by it nor counted as the work of the run.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from taskpilot_obs._recording import spans
from taskpilot_obs._recording.invocation import ActiveInvocation, current_running
from taskpilot_obs._recording.scope import current_admitted, restore
from taskpilot_obs._support.guarded import guarded

if TYPE_CHECKING:
    from types import TracebackType

    from taskpilot_obs._recording.invocation import Step
    from taskpilot_obs._recording.scope import CallReservation


class CheckQuestion:
    """A block in which checks are asked about a run, which is the current one there.

    The reservation that a budget holds for the run is not current in it, because a check's call takes its own. Nor is
    the call of a client that OpenTelemetry's instrumentation follows.

    Args:
        run: the run that is judged.
    """

    __slots__ = ("_admitted", "_client_call", "_run", "_step", "_token", "judged")
    _token: Token[CheckQuestion | None]
    _admitted: Token[CallReservation | None]

    def __init__(self, run: ActiveInvocation) -> None:
        self._run = run
        self.judged: tuple[ActiveInvocation, ...] = (run,)
        """The run, and those that were open of the checks around."""
        self._step: Step | None = None
        self._client_call: Token[Any] | None = None

    def __enter__(self) -> Self:
        outer = _question.get()
        if outer is not None:  # those that have ended are dropped, because a check may leave tasks behind for ever
            self.judged += tuple(run for run in outer.judged if run.is_open)
        self._token = _question.set(self)
        self._admitted = current_admitted.set(None)
        try:
            self._attach()
        except BaseException:
            self._leave()
            raise
        return self

    def _attach(self) -> None:
        run = self._run
        if run.is_open and current_running.get() is not run:  # not every framework attaches its runs
            self._step = ActiveInvocation.attach(run)  # not its own, which would be current for its request
        with guarded("span", run.callsite.runtime.counters):
            self._client_call = spans.leave_client_call()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        here = restore(_question, self._token)  # a task that is thrown away ends in another context
        if here and self._client_call is not None:
            spans.detach(self._client_call)
        if self._step is not None:
            self._run.detach(self._step)
        restore(current_admitted, self._admitted)

    def is_about(self, run: object) -> bool:
        """Whether a run is judged here, or by a check around this one."""
        return any(each is run for each in self.judged)


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
