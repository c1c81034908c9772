"""Point events of the default recorder: `taskpilot_obs.record_feedback(…)` is `get_recorder().record_feedback(…)`."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from taskpilot_obs._recording.open_runs import abandon_open_runs
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.config import get_recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs.records import AttributeValue

P = ParamSpec("P")
R = TypeVar("R")


def _of_default_recorder(method: Callable[Concatenate[Recorder, P], R]) -> Callable[P, R]:
    """A method of the default recorder as a function, with its documentation and its types."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(get_recorder(), *args, **kwargs)

    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[1:]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by `inspect`
    call.__module__, call.__qualname__ = __name__, method.__name__
    del call.__wrapped__  # the method also takes `self`
    return call


record_feedback = _of_default_recorder(Recorder.record_feedback)
"""Record a user's verdict on a request; arguments as for `Recorder.record_feedback`."""
record_policy_violation = _of_default_recorder(Recorder.record_policy_violation)
"""Record one violation found by a check of the application; arguments as for `Recorder.record_policy_violation`."""
record_guardrail_block = _of_default_recorder(Recorder.record_guardrail_block)
"""Record that a guardrail of the application blocked; arguments as for `Recorder.record_guardrail_block`."""
record_decision = _of_default_recorder(Recorder.record_decision)
"""Record a decision that was made elsewhere; arguments as for `Recorder.record_decision`."""
record_llm_call = _of_default_recorder(Recorder.record_llm_call)
"""Record an LLM call that is over already; arguments as for `Recorder.record_llm_call`."""
record_run = _of_default_recorder(Recorder.record_run)
"""Record a workflow, agent run or tool call that is over already; arguments as for `Recorder.record_run`."""
record_cache_size = _of_default_recorder(Recorder.record_cache_size)
"""Set how many entries a cache of the application holds; arguments as for `Recorder.record_cache_size`."""
flush = _of_default_recorder(Recorder.flush)
"""Wait until everything recorded so far is written; arguments as for `Recorder.flush`."""


def record_audit_event(event: str, **attributes: AttributeValue) -> None:
    """Write an application event (task created, approved, …) to the audit log, with the request ID.

    Args:
        event: what happened.
        attributes: further details, as scalars.
    """
    get_recorder().record_audit_event(event, **attributes)


def shutdown(timeout: float | None = None) -> bool:
    """Stop recording, and write queued records for at most `timeout` seconds (default 5).

    Runs that have not ended by then are recorded as `abandoned`.
    """
    recorder = get_recorder()
    abandon_open_runs(recorder.runtime)
    return recorder.shutdown(timeout)
