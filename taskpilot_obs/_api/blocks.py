"""`track_workflow`, `track_agent`, `track_tool`, `track_llm`: the decorators' counterparts for a block of code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar, Unpack, cast

from taskpilot_obs._recording.block_call import BlockCall
from taskpilot_obs._recording.context import NOT_STATED, IdentityOptions, StatedIdentity
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.invocation import ActiveInvocation, current_running
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.statuses import Expected
from taskpilot_obs.config import get_recorder
from taskpilot_obs.records import Operation

if TYPE_CHECKING:
    from types import TracebackType

    from taskpilot_obs._recording.callsite import Callsite
    from taskpilot_obs._recording.recorder import Recorder

NO_STATEMENT: Mapping[str, int | None] = MappingProxyType({})
I_co = TypeVar("I_co", bound=ActiveInvocation, covariant=True)


class BlockOptions(TypedDict, total=False):
    """The options of `track_workflow`, `track_agent` and `track_tool`."""

    recorder: Recorder | None
    attributes: Mapping[str, object] | None
    expected: Expected | None


class Tracked(Generic[I_co]):
    """A context manager, `with` and `async with`, that yields the running invocation and ends it.

    An exception of the block decides the run's status and is re-raised.
    """

    __slots__ = ("_callsite", "_identity", "_new", "_runs", "_stated")

    def __init__(
        self,
        new: type[I_co],
        callsite: Callsite,
        stated: Mapping[str, int | None] = NO_STATEMENT,
        identity: StatedIdentity = NOT_STATED,
    ) -> None:
        self._new = new
        self._callsite = callsite
        self._stated = stated
        self._identity = identity
        self._runs: list[I_co] = []
        """Runs in progress. A block may be entered repeatedly: in a loop, recursively, in other threads and tasks."""

    def _begin(self) -> I_co:
        callsite, new = self._callsite, self._new
        run = new(callsite, current_run())
        if self._identity is not NOT_STATED:
            run.scope = self._identity.scope()
        if callsite.runtime.enabled:
            run.start_current()
        else:
            run.start()
        self._runs.append(run)
        return run

    def _end(self) -> I_co:
        """The run whose block ends: the current run, if it belongs to this block."""
        runs, here = self._runs, cast("I_co", current_running.get())
        try:
            runs.remove(here)
        except ValueError:  # exited in another context than it was entered in, or recording is off
            return runs.pop()
        return here

    def __enter__(self) -> I_co:
        run = self._begin()
        runtime = self._callsite.runtime
        if not runtime.enabled or runtime.limits is None or not isinstance(run, LlmInvocation):
            return run
        try:
            runtime.limits.before_block(run, self._stated)
        except BaseException as error:
            self._end().fail(error)
            raise
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        run = self._end()
        if error is None:
            run.stop()
        else:
            run.fail(error)

    async def __aenter__(self) -> I_co:
        run = self._begin()
        runtime = self._callsite.runtime
        if not runtime.enabled or runtime.limits is None or not isinstance(run, LlmInvocation):
            return run
        try:
            await runtime.limits.before_async(run, (), self._stated)
        except BaseException as error:
            self._end().fail(error)
            raise
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)


def track_workflow(name: str, /, **options: Unpack[BlockOptions]) -> Tracked[ActiveInvocation]:
    """Record a block of code as a workflow: a task as its users see it.

    Args:
        name: of the workflow; a metric label, so of a bounded set.
        options: `recorder`: where to record; the default recorder when left out.
            `attributes`: for span and audit log.
            `expected`: exceptions that are outcomes like others, as classes or as a function of the exception: the run
            is a success, and the exception passes.

    Returns:
        A context manager, `with` and `async with`, that yields the running invocation.

    Raises:
        TypeError: `expected` is neither classes of exceptions nor a function.
    """
    return _tracked(Operation.WORKFLOW, name, **options)


def track_agent(name: str, /, **options: Unpack[BlockOptions]) -> Tracked[ActiveInvocation]:
    """Record a block of code as a run of an agent; arguments as for `track_workflow`."""
    return _tracked(Operation.AGENT, name, **options)


def track_tool(name: str, /, **options: Unpack[BlockOptions]) -> Tracked[ActiveInvocation]:
    """Record a block of code as a tool call of the agent that runs; arguments as for `track_workflow`."""
    return _tracked(Operation.TOOL, name, **options)


def _tracked(
    operation: Operation,
    name: str,
    recorder: Recorder | None = None,
    attributes: Mapping[str, object] | None = None,
    expected: Expected | None = None,
) -> Tracked[ActiveInvocation]:
    callsite = (recorder or get_recorder()).callsite(operation, name, attributes)
    return Tracked(ActiveInvocation, callsite.expecting(expected))


def track_llm(
    *,
    model: str | None = None,
    provider: str | None = None,
    operation: str = Operation.CHAT,
    input_tokens: int | None = None,
    max_output_tokens: int | None = None,
    recorder: Recorder | None = None,
    attributes: Mapping[str, object] | None = None,
    expected: Expected | None = None,
    **identity: Unpack[IdentityOptions],
) -> Tracked[LlmInvocation]:
    """Record a block of code as an LLM call; report its outcome on the run that it yields.

    `record_response(response)` or `record_usage(input_tokens, output_tokens)`, `stream(events)`, `set_cached(…)`,
    `set_cost(…)`, `first_token()`, `first_token_after(seconds)`, `retry()`.

    Args:
        model: the model asked for.
        provider: who serves it; inferred from the model when left out.
        operation: `chat` or `embeddings`.
        input_tokens: how long the prompt is, for budgets that reserve before the call.
        max_output_tokens: the longest answer asked for, also for budgets; by default what the budget assumes.
        recorder: where to record; the default recorder when left out.
        attributes: for span and audit log.
        expected: as for `track_workflow`.
        identity: `request_id`, `tenant_id`, `user_id`, `session_id`: the request that this call works for, the
            customer, the user and the conversation; those of the context when left out.

    Returns:
        A context manager, `with` and `async with`, that yields the running call.

    Raises:
        ValueError: the operation is not an LLM call.
    """
    used = recorder or get_recorder()
    shared = used.llm_callsite(model=model, provider=provider, operation=operation, attributes=attributes)
    callsite = shared.expecting(expected)
    stated = NO_STATEMENT
    if input_tokens is not None or max_output_tokens is not None:
        stated = {"input_tokens": input_tokens, "max_output_tokens": max_output_tokens}
    given = StatedIdentity(**identity) if identity else NOT_STATED
    return Tracked(BlockCall, callsite, stated, NOT_STATED if given == NOT_STATED else given)
