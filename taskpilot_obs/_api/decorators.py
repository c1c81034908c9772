"""`observe_workflow`, `observe_agent`, `observe_tool`, `observe_llm`: wrap a function and delegate to the recorder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from taskpilot_obs._api.blocks import BlockOptions
from taskpilot_obs._api.wrapped_functions import RunFactory, decorate_with
from taskpilot_obs._enforcement.wrappers import CheckOptions, settle
from taskpilot_obs._recording.callsite import Callsite, LlmCallsite
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.model_argument import ModelArgument, model_argument
from taskpilot_obs._recording.statuses import Expected
from taskpilot_obs.config import get_recorder
from taskpilot_obs.providers.names import infer_provider
from taskpilot_obs.records import Operation

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.budgets.model import Budget

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """What `observe_agent("Name")` returns: a decorator that keeps the function's type."""

    def __call__(self, function: F, /) -> F:
        """Instrument the function."""


class Assigning(Protocol):
    """An experiment, as decorators use it."""

    def assigned(self, function: Callable[P, R]) -> Callable[P, R]:
        """Assign each call of the function."""


class ObserveOptions(BlockOptions, CheckOptions, total=False):
    """The options of `observe_workflow`, `observe_agent` and `observe_tool`."""

    experiment: Assigning | None


@overload
def observe_workflow(function: F, /) -> F: ...
@overload
def observe_workflow(name: str | None = None, **options: Unpack[ObserveOptions]) -> Decorator: ...
def observe_workflow(target: Any = None, /, *, name: str | None = None, **options: Unpack[ObserveOptions]) -> Any:
    """Record every call of a function as a workflow: a task as its users see it.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators, methods,
    classmethods, staticmethods, partials and callable objects. What it returns has the kind, the signature and the type
    of the function.

    Args:
        target: the function (when bare), or the workflow's name; by default the function's own.
        name: the same by keyword.
        options: `recorder`: where to record; the default recorder when left out.
            `attributes`: for spans and audit log, of every call.
            `expected`: exceptions that are outcomes like others (`NotFound`), as classes or as a function of the
            exception: the run is a success, and the exception passes.
            `experiment`: a `taskpilot_obs.compare.Experiment`: each call is assigned a variant by its request context.
            `policies`, `guardrails`, `mode` and `buffer`: what is asked before and after each call; `budget`: what the
            LLM calls beneath may cost.

    Returns:
        The function with its signature, or without a function the decorator.

    Raises:
        TypeError: what is decorated is a class, or not callable, or its checks cannot do their work on it: an
            asynchronous check on a synchronous function, an enforced check of the output of a stream without `buffer`;
            or the attributes are not a mapping.
        ConfigurationError: something is not a check, or an option is wrong.
    """
    return _observe(Operation.WORKFLOW, target if name is None else name, **options)


@overload
def observe_agent(function: F, /) -> F: ...
@overload
def observe_agent(name: str | None = None, **options: Unpack[ObserveOptions]) -> Decorator: ...
def observe_agent(target: Any = None, /, *, name: str | None = None, **options: Unpack[ObserveOptions]) -> Any:
    """Record every call of a function as a run of an agent; arguments as for `observe_workflow`."""
    return _observe(Operation.AGENT, target if name is None else name, **options)


@overload
def observe_tool(function: F, /) -> F: ...
@overload
def observe_tool(name: str | None = None, **options: Unpack[ObserveOptions]) -> Decorator: ...
def observe_tool(target: Any = None, /, *, name: str | None = None, **options: Unpack[ObserveOptions]) -> Any:
    """Record every call of a function as a tool call of the agent that runs; arguments as for `observe_workflow`."""
    return _observe(Operation.TOOL, target if name is None else name, **options)


@overload
def observe_llm(function: F, /) -> F: ...
@overload
def observe_llm(
    model: str | None = None,
    *,
    provider: str | None = None,
    operation: str = Operation.CHAT,
    recorder: Recorder | None = None,
    attributes: Mapping[str, object] | None = None,
    expected: Expected | None = None,
    **checks: Unpack[CheckOptions],
) -> Decorator: ...
def observe_llm(
    target: Any = None,
    /,
    *,
    model: str | None = None,
    provider: str | None = None,
    operation: str = Operation.CHAT,
    recorder: Recorder | None = None,
    attributes: Mapping[str, object] | None = None,
    expected: Expected | None = None,
    **checks: Unpack[CheckOptions],
) -> Any:
    """Record every call of a function that returns a provider's response, and read usage and model from it.

    A function that yields is read as a stream: time to first token, last usage.

    Args:
        target: the function (when bare), or the model asked for.
        model: the same by keyword; where it is left out, the function's argument `model`, `model_name` or `model_id`
            names it, or else the response.
        provider: who serves it; inferred from the model when left out.
        operation: `chat` or `embeddings`.
        recorder: where to record; the default recorder when left out.
        attributes: for spans and audit log, of every call.
        expected: as for `observe_workflow`.
        checks: as for `observe_workflow`.

    Returns:
        The function with its signature, or without a function the decorator.

    Raises:
        TypeError: as for `observe_workflow`.
        ValueError: the operation is not an LLM call.
        ConfigurationError: something is not a check, or an option is wrong.
    """
    if isinstance(target, str):
        target, model = None, model or target
    used = recorder or get_recorder()
    options = settle(**checks)
    if options.budget is not None:
        raise TypeError("a budget belongs to an agent or a workflow, or into configure(budgets=…)")
    if options.checks is not None and options.checks.count_tokens:
        raise TypeError("a limit of tokens counts the LLM calls beneath a run: attach it to a workflow or an agent")
    _require_mapping(attributes)
    shared = used.llm_callsite(model=model, provider=provider, operation=operation, attributes=attributes)
    callsite = shared.expecting(expected)

    def decorate(function: Any) -> Any:
        argument = model_argument(function) if model is None else None
        site = callsite if argument is None else _finding(callsite, argument, attributes)
        return decorate_with(function, used, RunFactory(copy(site), LlmInvocation), options)

    return decorate if target is None else decorate(target)


def _finding(callsite: LlmCallsite, argument: ModelArgument, attributes: Mapping[str, object] | None) -> LlmCallsite:
    """The callsite of a function that takes its model as an argument."""
    provider = callsite.provider or infer_provider(argument.default)
    own = LlmCallsite(callsite.runtime, callsite.operation, argument.default, provider, attributes or {})
    own.find_model, own.expected = argument.find, callsite.expected
    return own


def _observe(
    operation: Operation,
    target: Any,
    *,
    recorder: Recorder | None = None,
    attributes: Mapping[str, object] | None = None,
    expected: Expected | None = None,
    experiment: Assigning | None = None,
    **checks: Unpack[CheckOptions],
) -> Any:
    used, options = recorder or get_recorder(), settle(**checks)
    name = target if isinstance(target, str) else None
    if name is not None and not name.strip():
        raise ValueError("the name is empty: give one, or leave it out for the function's own")
    _require_mapping(attributes)

    def decorate(function: Any) -> Any:
        label = name or default_name(function)
        used.wiring.declare(operation, label)
        if options.budget is not None:
            used.wiring.watch(_scoped(options.budget, operation, label))
        callsite = Callsite(used.runtime, operation, label, attributes or {}).expecting(expected)
        callsite.checks = options.checks
        observed = decorate_with(function, used, RunFactory(callsite, ActiveInvocation), options)
        return observed if experiment is None else experiment.assigned(observed)

    return decorate if target is None or name is not None else decorate(target)


def _require_mapping(attributes: object) -> None:
    if attributes is not None and not hasattr(attributes, "items"):
        raise TypeError(f'attributes: given {type(attributes).__name__}; give a mapping, as {{"step_id": "plan"}}')


def _scoped(budget: Budget, operation: Operation, name: str) -> Budget:
    """The budget, limited to the LLM calls of this agent or workflow unless it declares another scope."""
    if operation not in (Operation.AGENT, Operation.WORKFLOW):
        raise TypeError(f"a budget belongs to an agent or a workflow, or into configure(budgets=…), not to {name!r}")
    return budget.within("agent" if operation is Operation.AGENT else "workflow", name)


def default_name(function: Any) -> str:
    """`__qualname__` after the last `<locals>.`; of a partial that of its function, of an object that of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]
