"""Records the runs of a workflow: the agents of its executors are beneath it."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import wraps
from typing import Any, Final, TypeVar

from agent_framework import ResponseStream, WorkflowRunState

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import ActiveInvocation, Recorder, Status, attached, get_recorder, guarded
from taskpilot_obs_agent_framework.reading import COMPONENT, cause_of
from taskpilot_obs_agent_framework.streams import Followed

W = TypeVar("W")
_OBSERVED: Final = "_taskpilot_obs_observed"


def observe(workflow: W, *, recorder: Recorder | None = None) -> W:
    """Record each run of a workflow, streamed or not. Harmless when repeated.

    Args:
        workflow: what `build()` of a builder or of a functional definition made; changed in place, because workflows
            have no middleware.
        recorder: where to; the default one when left out.

    Returns:
        The very workflow.

    Raises:
        ConfigurationError: the object has no `run`, as a definition that is not built.
    """
    given: Any = workflow
    inner = getattr(given, "run", None)
    if inner is None:
        raise ConfigurationError(f"observe() takes a built workflow, got {type(workflow).__name__}")
    if hasattr(inner, _OBSERVED):
        return workflow

    @wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)  # which refuses at once what it cannot run
        used = get_recorder() if recorder is None else recorder
        if not used.enabled:
            return result
        name = str(getattr(given, "name", None) or type(given).__name__)
        if not isinstance(result, ResponseStream):
            return _awaited(used, name, result)
        Followed(used.start("invoke_workflow", name), result, _end)
        return result

    setattr(run, _OBSERVED, True)
    given.run = run
    return workflow


async def _awaited(recorder: Recorder, name: str, work: Awaitable[Any]) -> Any:
    run = recorder.start("invoke_workflow", name)
    with attached(run, cause_of):
        result = await work
        await _end(run, result)
    return result


async def _end(run: ActiveInvocation, result: Any) -> None:
    """End as the workflow states: one that waits for an answer from outside is interrupted."""
    waits = False
    with guarded(COMPONENT, run.callsite.runtime.counters):  # a result may state none, or be one of the application
        waits = result.get_final_state() is WorkflowRunState.IDLE_WITH_PENDING_REQUESTS
    run.end_as(Status.INTERRUPTED if waits else Status.SUCCESS)
