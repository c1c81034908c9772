"""Tasks as workflows, which work for the request that sent them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery import signals
from celery.states import SUCCESS

from taskpilot_obs.integration import get_recorder, guarded
from taskpilot_obs.propagation import ReceivedRequest, inject

if TYPE_CHECKING:
    from taskpilot_obs.integration import ActiveInvocation, Recorder, Step

_COMPONENT: Final = "celery"
_HEADER: Final = "taskpilot_obs"
"""The header of a task's message that holds those of the request; Celery offers it as `task.request.taskpilot_obs`."""
_RUNNING: Final = "_taskpilot_obs_running"


class _Running(NamedTuple):
    request: ReceivedRequest | None
    run: ActiveInvocation | None
    step: Step | None


def carry_requests() -> None:
    """Write the current request into each task that is sent."""
    signals.before_task_publish.connect(_send, weak=False, dispatch_uid="taskpilot_obs.send")


def follow_tasks(recorder: Recorder | None, *, workflows: bool) -> None:
    """Bind each task that runs to its request, and record it.

    Args:
        recorder: records the tasks; the default recorder when None.
        workflows: whether a task is a run of its own.
    """

    def begin(task: Any = None, **_: Any) -> None:
        with guarded(_COMPONENT, (recorder or get_recorder()).counters):
            _begin(task, (recorder or get_recorder()) if workflows else None)

    def end(task: Any = None, state: str | None = None, retval: Any = None, **_: Any) -> None:
        error = sys.exc_info()[1] if state is None else retval  # without a state, it passes by while Celery tells us
        with guarded(_COMPONENT, (recorder or get_recorder()).counters):
            _end(task, None if state == SUCCESS else error)

    signals.task_prerun.connect(begin, weak=False, dispatch_uid="taskpilot_obs.begin")
    signals.task_postrun.connect(end, weak=False, dispatch_uid="taskpilot_obs.end")


def _send(headers: Any = None, **_: Any) -> None:
    if headers is None:
        return
    carried: dict[str, str] = {}
    inject(carried, baggage=True)
    if carried:
        headers[_HEADER] = carried


def _begin(task: Any, recorder: Recorder | None) -> None:
    carried = task.request.get(_HEADER)
    request = ReceivedRequest(carried, trust_baggage=True) if isinstance(carried, dict) else None
    if request is not None:
        request.__enter__()  # left by `_end`: Celery calls both around the task, in the same context
    run, step = None, None
    if recorder is not None:
        run = recorder.start("invoke_workflow", task.name)
        run.set_attribute("celery.task_id", str(task.request.id))
        run.set_attribute("celery.retries", int(task.request.retries or 0))
        step = run.attach()
    setattr(task.request, _RUNNING, _Running(request, run, step))


def _end(task: Any, error: Any) -> None:
    running: _Running | None = task.request.get(_RUNNING)
    if running is None:
        return
    delattr(task.request, _RUNNING)
    if running.run is not None:
        running.run.detach(running.step)
        if isinstance(error, BaseException) and not isinstance(error, tuple(task.throws or ())):
            running.run.fail(error)
        running.run.stop()
    if running.request is not None:
        running.request.__exit__()
