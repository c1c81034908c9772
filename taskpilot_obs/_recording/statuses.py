"""The status and the `error.type` of an exception, computed once per class."""

from __future__ import annotations

from collections.abc import Callable

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.exceptions import RefusedError
from taskpilot_obs.records import Status

Expected = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Accepted by `expected=`: exception classes, or a function that decides whether an exception is expected."""

_MAX_CLASSES = 2_000
_BY_NAME = {
    "builtins.GeneratorExit": Status.ABANDONED,
    "builtins.KeyboardInterrupt": Status.CANCELLED,
    "builtins.SystemExit": Status.CANCELLED,
    "asyncio.exceptions.CancelledError": Status.CANCELLED,
    "concurrent.futures._base.CancelledError": Status.CANCELLED,
    "trio.Cancelled": Status.CANCELLED,
    "builtins.TimeoutError": Status.TIMEOUT,
    # Control-flow exceptions of task queues, servers and frameworks that may pass through decorated functions.
    "greenlet.GreenletExit": Status.CANCELLED,
    "starlette.requests.ClientDisconnect": Status.CANCELLED,
    "werkzeug.exceptions.ClientDisconnected": Status.CANCELLED,
    "django.core.exceptions.RequestAborted": Status.CANCELLED,
    "uvicorn.protocols.utils.ClientDisconnected": Status.CANCELLED,
    "celery.exceptions.Retry": Status.INTERRUPTED,
    "celery.exceptions.Ignore": Status.CANCELLED,
    "celery.exceptions.Reject": Status.CANCELLED,
    "celery.exceptions.TaskRevokedError": Status.CANCELLED,
    "billiard.exceptions.SoftTimeLimitExceeded": Status.TIMEOUT,
    "billiard.exceptions.TimeLimitExceeded": Status.TIMEOUT,
    "billiard.exceptions.Terminated": Status.CANCELLED,
    "dramatiq.errors.Retry": Status.INTERRUPTED,
    "dramatiq.middleware.time_limit.TimeLimitExceeded": Status.TIMEOUT,
    "dramatiq.middleware.shutdown.Shutdown": Status.CANCELLED,
    "huey.exceptions.RetryTask": Status.INTERRUPTED,
    "huey.exceptions.CancelExecution": Status.CANCELLED,
    "temporalio.exceptions.CancelledError": Status.CANCELLED,
    "temporalio.exceptions.TerminatedError": Status.CANCELLED,
    "langgraph.errors.GraphBubbleUp": Status.INTERRUPTED,
    "langgraph.errors.GraphRecursionError": Status.BLOCKED,
    "haystack.core.errors.PipelineMaxComponentRuns": Status.BLOCKED,
    "google.adk.agents.invocation_context.LlmCallsLimitExceededError": Status.BLOCKED,
    "workflows.errors.WorkflowCancelledByUser": Status.CANCELLED,
    "agents.exceptions.MaxTurnsExceeded": Status.BLOCKED,
    "agents.exceptions.InputGuardrailTripwireTriggered": Status.BLOCKED,
    "agents.exceptions.OutputGuardrailTripwireTriggered": Status.BLOCKED,
    "agents.exceptions.ToolInputGuardrailTripwireTriggered": Status.BLOCKED,
    "agents.exceptions.ToolOutputGuardrailTripwireTriggered": Status.BLOCKED,
    "pydantic_ai.exceptions.UsageLimitExceeded": Status.BLOCKED,
    "pydantic_ai.exceptions.ConcurrencyLimitExceeded": Status.BLOCKED,
    "pydantic_ai.exceptions.RunCancelled": Status.CANCELLED,
    "pydantic_ai.exceptions.RunTimedOut": Status.TIMEOUT,
    "pydantic_ai.exceptions.ModelRetry": Status.INTERRUPTED,
    "pydantic_ai.exceptions.RetryModelRequest": Status.INTERRUPTED,
    "pydantic_ai.exceptions.SkipModelRequest": Status.INTERRUPTED,
    "pydantic_ai.exceptions.SkipToolExecution": Status.INTERRUPTED,
    "pydantic_ai.exceptions.SkipToolValidation": Status.INTERRUPTED,
    "pydantic_ai.exceptions.ToolRetryError": Status.INTERRUPTED,
    "pydantic_ai.exceptions.CallDeferred": Status.INTERRUPTED,
    "pydantic_ai.exceptions.ApprovalRequired": Status.INTERRUPTED,
}
_TIMEOUT_SUFFIXES = ("Timeout", "TimeoutError", "TimeoutException")
_known: BoundedDict[type[BaseException], tuple[Status, str]] = BoundedDict(_MAX_CLASSES)


def register_status(class_name: str, status: Status) -> None:
    """Register the status with which an exception class and its subclasses end operations.

    Use it where a framework raises to steer its own control flow: a hand-over, a retry, a pause for a human.

    Args:
        class_name: module and qualified name, so that the framework is not imported.
        status: how the operation ended.
    """
    _BY_NAME[class_name] = status
    _known.clear()


def classify(kind: type[BaseException]) -> tuple[Status, str]:
    """Return the status and the `error.type`: qualified with the module, or bare for builtins, as in OpenTelemetry."""
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = (_status(kind), error_type(kind))
    return found


def outcome_of(error: BaseException) -> tuple[Status, str]:
    """Return the status and the `error.type` of an exception; a group has the status that all its members share.

    `asyncio.TaskGroup` wraps what its tasks raise, a refusal or a timeout too.
    """
    status, name = classify(type(error))
    if status is Status.ERROR and isinstance(error, BaseExceptionGroup):
        shared = {outcome_of(member)[0] for member in error.exceptions}
        status = shared.pop() if len(shared) == 1 else status
    return status, name


def error_type(kind: type[BaseException]) -> str:
    """Return the `error.type` of a class: `openai.RateLimitError`, `ValueError`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _status(kind: type[BaseException]) -> Status:
    if issubclass(kind, RefusedError):
        return Status.BLOCKED
    for ancestor in kind.__mro__:
        status = _BY_NAME.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if status is not None:
            return status
        if ancestor.__name__.endswith(_TIMEOUT_SUFFIXES):
            return Status.TIMEOUT
    return Status.ERROR


def status_of_name(name: str) -> Status:
    """The status that an exception stands for whose class is known by name only.

    Args:
        name: qualified with the module, builtins bare.
    """
    known = _BY_NAME.get(name) or _BY_NAME.get(f"builtins.{name}")
    return known or (Status.TIMEOUT if name.endswith(_TIMEOUT_SUFFIXES) else Status.ERROR)


def expectation(given: Expected | None) -> Callable[[BaseException], bool] | None:
    """Return the function that decides whether an exception is expected; None if none is.

    Args:
        given: the value of `expected=`.

    Raises:
        TypeError: the value is neither an exception class, nor a tuple of them, nor a function.
    """
    if given is None:
        return None
    classes = given if isinstance(given, tuple) else (given,)
    if all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        return lambda error: isinstance(error, classes)  # type: ignore[arg-type]  # classes, as was just asked
    if callable(given) and not isinstance(given, type):
        return given
    raise TypeError(
        f"expected: given {given!r}; give exception classes, or a function of an exception that returns a bool"
    )
