"""Calls of models through the client of a provider's SDK: asked about first, recorded once, streams followed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from inspect import isawaitable
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast
from weakref import ref

from taskpilot_obs._enforcement.adapters import block_above, open_llm_call
from taskpilot_obs._enforcement.asking import is_judged
from taskpilot_obs._enforcement.enforcer import Enforcer
from taskpilot_obs._enforcement.run_checks import (
    check_input,
    check_input_async,
    check_output,
    check_output_async,
)
from taskpilot_obs._enforcement.wrappers import watched
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.generators import drive, wrap_async_generator
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.scope import current_scope
from taskpilot_obs._recording.sdk_streams import follow_stream, is_stream
from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import NO_ATTRIBUTES, Operation, Status

if TYPE_CHECKING:
    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.records import Scope

_MOST_WAITING: Final = 31
"""How many calls of one context wait for a client beside the newest."""
R = TypeVar("R")


class ModelRequest(NamedTuple):
    """What a client is about to ask a model."""

    model: str | None
    provider: str | None = None
    """Who serves it; inferred from the model when None."""
    operation: Operation = Operation.CHAT
    content: object = None
    """What the model is given: a text, messages, any nesting of them."""
    arguments: Mapping[str, object] = NO_ATTRIBUTES
    """What else an estimate of the cost needs: `max_tokens` and its likes."""


def _itself(answer: object) -> object:
    return answer


def expect_calls(recorder: Recorder) -> None:
    """Watch for LLM calls that other layers record, from now on; for a client that will use `call_model`."""
    recorder.add_llm_listener(_others)


def call_model(
    recorder: Recorder, request: ModelRequest, send: Callable[[], R], read: Callable[[R], object] = _itself
) -> R:
    """Send a request to a model, record the call, and follow its stream.

    A call that another layer records already (`@observe_llm`, `track_llm`, LangChain's handler, an agent framework) is
    sent, and not recorded again. The call of a check that judges such a call is recorded: it is another one.

    Args:
        recorder: records it.
        request: what is asked.
        send: sends the request. It is not called where a check refuses.
        read: finds the model's answer, or the stream of it, in the result; None where it cannot be read.

    Returns:
        What `send` returned; a generator is replaced by one that passes everything on.

    Raises:
        RefusedError: a policy, guardrail or budget in enforce mode refused.
    """
    run = _begin(recorder, request)
    if run is None:
        return _send_within(request, send, read)
    try:
        check_input(run, request.content, arguments=request.arguments)
        result = send()
        answer = _read(run, read, result)
        stream = _streamed(run, answer)
        if stream is None:
            check_output(run, answer)
    except BaseException as error:
        run.fail(error)
        raise
    return _handed_out(run, result, answer, stream)


async def call_model_async(
    recorder: Recorder,
    request: ModelRequest,
    send: Callable[[], Awaitable[R]],
    read: Callable[[R], object] = _itself,
) -> R:
    """Like `call_model`, for an asynchronous client; `read` may be asynchronous too."""
    run = _begin(recorder, request)
    if run is None:
        return await _send_within_async(request, send, read)
    try:
        await check_input_async(run, request.content, arguments=request.arguments)
        result = await send()
        answer = _read(run, read, result)
        if isawaitable(answer):
            answer = await answer
        stream = _streamed(run, answer)
        if stream is None:
            await check_output_async(run, answer)
    except BaseException as error:
        run.fail(error)
        raise
    return _handed_out(run, result, answer, stream)


def _send_within(request: ModelRequest, send: Callable[[], R], read: Callable[[R], object]) -> R:
    """Send a request whose call is recorded already; the checks are asked about it where its recorder cannot."""
    block = block_above()
    if block is None:
        return send()
    check_input(block, request.content)
    result = send()
    answer = _read(block, read, result)
    if not is_stream(answer):
        check_output(block, answer)
    return result


async def _send_within_async(request: ModelRequest, send: Callable[[], Awaitable[R]], read: Callable[[R], object]) -> R:
    """Like `_send_within`."""
    block = block_above()
    if block is None:
        return await send()
    await check_input_async(block, request.content)
    result = await send()
    answer = _read(block, read, result)
    if isawaitable(answer):
        answer = await answer
    if not is_stream(answer):
        await check_output_async(block, answer)
    return result


def _handed_out(run: LlmInvocation, result: R, answer: object, stream: Any) -> R:
    """End the call, unless a stream goes on; return what the application gets."""
    if stream is None:
        run.end(Status.SUCCESS, answer)
        return result
    return result if stream is answer else cast(R, stream)


def count_attempt() -> None:
    """Note that the client sends the request of the current call again; for a hook that runs once per attempt."""
    run = current_run()
    if isinstance(run, LlmInvocation):
        run.retry()


def _begin(recorder: Recorder, request: ModelRequest) -> LlmInvocation | None:
    """Begin the call, current until its end; None where it is recorded already, or nothing is."""
    if not recorder.enabled:
        return None
    known = open_llm_call()
    if known is not None:
        known.record_request(model=request.model, provider=request.provider)  # a call that fails states no model
        return None
    above = current_run()
    expect_calls(recorder)
    if _others.claim(recorder, request, above):
        return None
    run = recorder.new_llm(model=request.model, provider=request.provider, operation=request.operation, parent=above)
    run.start_current()
    with guarded("model_call", recorder.counters):
        run.set_input(request.content)
    return run


def _read(run: LlmInvocation, read: Callable[[Any], object], result: object) -> object:
    """The model's answer; the result where that cannot be read, so that the checks are not asked about nothing."""
    with guarded("model_call", run.callsite.runtime.counters):
        return read(result)
    return result


def _streamed(run: LlmInvocation, result: Any) -> Any:
    """What to hand out in place of a stream, which ends the call; None for what is not a stream."""
    enforcer = Enforcer(run.callsite.runtime, run.callsite.checks)

    def checked(inner: Any) -> Any:
        return watched(inner, enforcer, run)

    if isinstance(result, GeneratorType | AsyncGeneratorType):
        run.detach()
        run.open_stream()
        inner = checked(result)
        return drive(run, inner) if isinstance(result, GeneratorType) else wrap_async_generator(lambda: (run, inner))()
    return result if follow_stream(run, result, checked) else None


class _Others:
    """The open LLM calls that others record: a client beneath them sends their request, and records nothing.

    A client finds the call in its context, where the layer makes it current. Callbacks of some frameworks (LangChain's)
    cannot. So a client asks here too: a call that was never current, began in the client's context or in one that this
    is a copy of, and agrees with its request, is taken for that request. In doubt it is not: a request that is
    recorded twice is better than one that no check has seen.
    """

    def __init__(self) -> None:
        # A plain dict, whose single operations are atomic: a call may end in a finalizer, which must not wait.
        self._waiting: dict[int, bool] = {}
        self._elsewhere: dict[int, ref[LlmInvocation]] = {}
        renew_in_child(self)

    def after_fork(self) -> None:
        """Forget the calls of the parent process, whose requests it sends."""
        self._waiting, self._elsewhere = {}, {}

    def expect_elsewhere(self, run: LlmInvocation) -> None:
        """Expect the request of a call in another context than that of its layer."""
        if run.is_announced_to(self):  # else no client is wrapped, and its end would not let go of it
            self._waiting[run.number] = True
            self._elsewhere[run.number] = ref(run)

    def claim(self, recorder: Recorder, request: ModelRequest, parent: ActiveInvocation | None) -> bool:
        """Whether an open call stands for a client's request; no other request will be told so."""
        for run in reversed(self._begun_here()):
            if not run.was_current and self._takes(run, recorder, request, parent):
                return True
        sent_elsewhere = [each() for each in list(self._elsewhere.values())]
        return any(run is not None and self._takes(run, recorder, request, parent) for run in sent_elsewhere)

    def _takes(
        self, run: LlmInvocation, recorder: Recorder, request: ModelRequest, parent: ActiveInvocation | None
    ) -> bool:
        return _agrees(run, recorder, request, parent) and self._waiting.pop(run.number, False)

    def llm_began(self, run: LlmInvocation, /) -> None:
        """Note a call of another recorder of calls."""
        if not run.was_current:
            self._waiting[run.number] = True
            _begun.set((*map(ref, self._begun_here()[-_MOST_WAITING:]), ref(run)))

    def llm_ended(self, run: LlmInvocation, /) -> None:
        """Forget the call, which has ended."""
        self._waiting.pop(run.number, None)
        self._elsewhere.pop(run.number, None)

    def _begun_here(self) -> list[LlmInvocation]:
        begun = (each() for each in _begun.get())
        return [run for run in begun if run is not None and run.number in self._waiting]


_begun: ContextVar[tuple[ref[LlmInvocation], ...]] = ContextVar("taskpilot_obs_begun_calls", default=())
"""The calls of other layers that began in this context, or in one that it is a copy of."""
_others = _Others()


def expect_request_elsewhere(run: LlmInvocation) -> None:
    """Declare that a framework sends a call's request in another context than the one in which its layer is called.

    A wrapped client beneath the same parent, asking the same model, then takes the call for its own request.
    """
    _others.expect_elsewhere(run)


def _agrees(run: LlmInvocation, recorder: Recorder, request: ModelRequest, parent: ActiveInvocation | None) -> bool:
    """Whether a call may be the one whose request a client is about to send.

    One that a check judges, or that is being answered, was sent.
    """
    if not run.is_open or run.first_token_ns or is_judged(run):
        return False
    scope = current_scope.get()
    if scope is None and parent is not None:
        scope = parent.scope
    return (
        run.callsite.runtime is recorder.runtime
        and run.parent is parent
        and (run.operation, run.request_model) == (request.operation, request.model)
        and _who(run.scope) == _who(scope)
    )


def _who(scope: Scope | None) -> tuple[str | None, str | None]:
    return (None, None) if scope is None else (scope.tenant, scope.user)
