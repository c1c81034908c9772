"""Beginning invocations for LangChain's runs: beneath the right parent, in its conversation, attached where safe."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

from langchain_core.callbacks.manager import handle_event
from langchain_core.globals import get_llm_cache

from taskpilot_obs.integration import (
    ActiveInvocation,
    Callsite,
    LlmCallsite,
    LlmInvocation,
    Operation,
    current_run,
    current_running,
    current_scope,
    guarded,
    is_judged,
    request_context,
)
from taskpilot_obs.semconv import Attr
from taskpilot_obs_langchain import models
from taskpilot_obs_langchain.runs import RunEntry, innermost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from taskpilot_obs.integration import Recorder

R = TypeVar("R", bound=ActiveInvocation)
C = TypeVar("C", bound=Callsite)

_running: Final = current_running.get
_MAX_SITES: Final = 4_000
_ENDS_WHAT_IT_BEGINS: Final = frozenset({"invoke", "_call_with_config", "generate", "run"})
_SUSPENDS: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Opener:
    """Begins invocations of one recorder.

    Args:
        recorder: whose.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._guard = guarded("langchain", recorder.counters)
        self._callsites: dict[tuple[Operation, str], Callsite] = {}
        self._tools: dict[tuple[str, str], Callsite] = {}
        self._models: dict[tuple[object, ...], LlmCallsite] = {}

    def run(self, entry: RunEntry, operation: Operation, name: str) -> None:
        """Begin a workflow or an agent."""
        callsite = self._callsites.get((operation, name))
        if callsite is None:
            if len(self._callsites) >= _MAX_SITES:
                self._callsites.clear()
            callsite = self._callsites[operation, name] = self._recorder.callsite(operation, name)
        run = self._begin(entry, ActiveInvocation, callsite)
        if run.span is not None and _by_one_call():
            entry.step = run.attach()

    def tool(self, entry: RunEntry, name: str, kind: str, call_id: object) -> None:
        """Begin a tool call; `kind` is `function` or `datastore`."""
        run = self._begin(entry, ActiveInvocation, self._tool_site(name, kind))
        if run.span is None:
            return
        if isinstance(call_id, str):
            run.span.set(Attr.TOOL_CALL_ID, call_id)
        # A tool ends in the context where it began, in asynchronous code too; but on its own the context is the user's.
        if (kind == "function" and entry.above is not None) or _by_one_call():
            entry.step = run.attach()

    def call(self, entry: RunEntry, said: Mapping[str, Any], settings: Mapping[str, Any]) -> LlmInvocation | None:
        """Begin an LLM call, from what LangChain says of it and of the model's settings.

        None where a decorated function or a `track_llm` block above records this call: the entry's run is then that.
        """
        metadata = said.get("metadata") or models.NOTHING
        try:
            callsite = self._models.get(
                (
                    metadata.get("ls_model_name"),
                    metadata.get("ls_provider"),
                    settings.get("openai_api_base"),
                    metadata.get("ls_temperature"),
                    metadata.get("ls_max_tokens"),
                )
            )
        except TypeError:  # something else than text and numbers
            callsite = None
        if callsite is None:
            callsite = self._model_site(metadata, said.get("invocation_params") or models.NOTHING, settings)
        outer = _parent_of(entry)
        if isinstance(outer, LlmInvocation) and outer.is_open and not is_judged(outer):
            outer.record_request(model=callsite.model, provider=callsite.provider)
            entry.run = outer
            return None
        call = self._begin(entry, LlmInvocation, callsite)
        own_cache = settings.get("cache")
        entry.cacheable = own_cache is not False and (get_llm_cache() is not None or models.is_cache(own_cache))
        if call.span is not None and said.get("batch_size", 1) == 1 and _by_one_call():
            entry.step = call.attach()
        return call

    def outermost(self, entry: RunEntry, metadata: Mapping[str, Any] | None) -> None:
        """Find out what an outermost run is beneath, and in which conversation.

        LangGraph's thread is the session, where the request context names none.
        """
        entry.run = current_run()
        thread = metadata.get("thread_id") if metadata else None
        if not isinstance(thread, str | int):
            return
        scope = current_scope.get()
        if scope is not None and scope.session is not None:
            return
        with self._guard, request_context(session_id=str(thread)) as named:
            entry.scopes = scope, named

    def _begin(self, entry: RunEntry, new: Callable[[C, ActiveInvocation | None], R], callsite: C) -> R:
        """Begin it, and note that the run is this invocation."""
        run = new(callsite, _parent_of(entry))
        scopes = entry.scopes
        if scopes is not None and current_scope.get() is scopes[0]:
            run.scope = scopes[1]
        run.start()
        entry.run, entry.mine = run, True
        entry.open[entry.key] = entry
        return run

    def _model_site(
        self, metadata: Mapping[str, Any], params: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> LlmCallsite:
        asked = models.asked_for(metadata, params, settings)
        options = models.options_in(metadata)
        key = models.key_of(asked, options)
        callsite = self._models.get(key)
        if callsite is None:
            if len(self._models) >= _MAX_SITES:
                self._models.clear()
            shared = self._recorder.llm_callsite(model=asked.model, provider=asked.provider_name)
            callsite = self._models[key] = LlmCallsite(
                self._recorder.runtime, shared.operation, shared.model, shared.provider, {}
            )
            callsite.span_attributes.update(options)
        return callsite

    def _tool_site(self, name: str, kind: str) -> Callsite:
        callsite = self._tools.get((name, kind))
        if callsite is None:
            if len(self._tools) >= _MAX_SITES:
                self._tools.clear()
            callsite = self._tools[name, kind] = Callsite(self._recorder.runtime, Operation.TOOL, name, {})
            callsite.span_attributes[Attr.TOOL_TYPE] = kind
        return callsite


def _parent_of(entry: RunEntry) -> ActiveInvocation | None:
    """The invocation that a run is beneath, by what LangChain says and by the context."""
    parent, running = entry.run, _running()
    if entry.above is not None and (running is not None or parent is None or parent.ended_ns):
        return innermost(running, parent)
    return parent


def _by_one_call() -> bool:
    """Whether the function that began the run will also end it, in one go and in this context.

    Only then may a span become the current one. Generators and coroutines are suspended in between, and code that runs
    meanwhile, or afterwards, would see it; LangChain ends what a coroutine began in another context. A batch begins
    several runs before it ends the first.
    """
    dispatcher = _caller_of_the_handler()
    if dispatcher is None or dispatcher.f_code is not handle_event.__code__:
        return False
    manager = dispatcher.f_back  # its `on_chain_start` or the like
    began = None if manager is None else manager.f_back
    if began is None or began.f_code.co_flags & _SUSPENDS:
        return False
    return began.f_code.co_name in _ENDS_WHAT_IT_BEGINS


def _caller_of_the_handler() -> FrameType | None:
    """The innermost frame outside of this package. LangChain passes nothing that tells who began a run."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return frame
