"""Beginning invocations for LangChain's runs: beneath the right parent, in its conversation, attached where safe."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks.manager import handle_event

from taskpilot_obs import context
from taskpilot_obs.abandonable import Abandonable
from taskpilot_obs.context import current_running, current_scope, request_context
from taskpilot_obs.invocation import ActiveInvocation
from taskpilot_obs.llm_invocation import LlmInvocation
from taskpilot_obs.records import Operation
from taskpilot_obs.semconv import Attr
from taskpilot_obs.site import LlmSite, Site
from taskpilot_obs_langchain import models
from taskpilot_obs_langchain.runs import Entry, innermost, own

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.recorder import Recorder

_MAX_SITES: Final = 4_000
_DISPATCH: Final = 4
"""Where `handle_event` stands on the stack: above `_by_one_call`, the opener's method and two of the handler's."""
_ENDS_WHAT_IT_BEGINS: Final = frozenset({"invoke", "_call_with_config", "generate", "run"})
_SUSPENDS: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Opener:
    """Begins invocations of one recorder.

    Args:
        recorder: whose.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tools: dict[tuple[str, str], Site] = {}
        self._models: dict[tuple[object, ...], LlmSite] = {}

    def run(self, entry: Entry, operation: Operation, name: str) -> None:
        """Begin a workflow or an agent."""
        self._begin(entry, Abandonable().at(self._recorder.site(operation, name), parent_of(entry)))
        if self._recorder.tracing is not None and _by_one_call():
            _attach(entry)

    def tool(self, entry: Entry, name: str, kind: str, call_id: object) -> None:
        """Begin a tool call; `kind` is `function` or `datastore`."""
        run = Abandonable().at(self._tool_site(name, kind), parent_of(entry))
        self._begin(entry, run)
        if run.span is None:
            return
        if isinstance(call_id, str):
            run.span.set(Attr.TOOL_CALL_ID, call_id)
        # A tool ends in the context where it began, in asynchronous code too; but on its own the context is the user's.
        if (kind == "function" and entry.above is not None) or _by_one_call():
            _attach(entry)

    def call(self, entry: Entry, said: Mapping[str, Any], settings: Mapping[str, Any]) -> LlmInvocation:
        """Begin an LLM call, from what LangChain says of it and of the model's settings."""
        metadata = said.get("metadata") or {}
        model, provider = metadata.get("ls_model_name"), metadata.get("ls_provider")
        site = self._models.get((model, provider, settings.get("openai_api_base"))) if model else None
        if site is None:
            site = self._model_site(metadata, said.get("invocation_params") or {}, settings)
        call = LlmInvocation().at(site, parent_of(entry))
        self._begin(entry, call)
        if call.span is not None:
            stated = models.options_in(metadata)
            if stated:
                call.span.set_all(stated)
            if said.get("batch_size", 1) == 1 and _by_one_call():
                _attach(entry)
        return call

    def outermost(self, entry: Entry, metadata: Mapping[str, Any] | None) -> None:
        """Find out what an outermost run is beneath, and in which conversation.

        LangGraph's thread is the session, where the request context names none.
        """
        entry.run = context.present()
        thread = metadata.get("thread_id") if metadata else None
        if not isinstance(thread, str | int):
            return
        scope = current_scope.get()
        if scope is not None and scope.session is not None:
            return
        with request_context(session_id=str(thread)) as named:
            entry.scopes = scope, named

    def _begin(self, entry: Entry, run: ActiveInvocation) -> None:
        scopes = entry.scopes
        if scopes is not None and current_scope.get() is scopes[0]:
            run.scope = scopes[1]
        own(entry, run.begin())

    def _model_site(
        self, metadata: Mapping[str, Any], params: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> LlmSite:
        asked = models.asked_for(metadata, params, settings)
        site = self._recorder.llm_site(model=asked.model, provider=asked.provider_name)
        if asked.model == metadata.get("ls_model_name"):
            if len(self._models) >= _MAX_SITES:
                self._models.clear()
            self._models[asked] = site
        return site

    def _tool_site(self, name: str, kind: str) -> Site:
        site = self._tools.get((name, kind))
        if site is None:
            if len(self._tools) >= _MAX_SITES:
                self._tools.clear()
            site = self._tools[name, kind] = Site(self._recorder, Operation.TOOL, name, {})
            site.span_attributes[Attr.TOOL_TYPE] = kind
        return site


def parent_of(entry: Entry) -> ActiveInvocation | None:
    """What a run belongs to: LangChain's parent, or what the user's code has begun beneath that."""
    if entry.above is None:
        return entry.run
    return innermost(current_running.get(), entry.above.run)


def _attach(entry: Entry) -> None:
    if entry.run is not None:
        entry.step = entry.run.attach()


def _by_one_call() -> bool:
    """Whether the function that began the run will also end it, in one go and in this context.

    Only then may a span become the current one. Generators and coroutines are suspended in between, and whoever runs
    meanwhile, or afterwards, would find it; LangChain ends what a coroutine began in another context. A batch begins
    several runs before it ends the first.
    """
    if sys._getframe(_DISPATCH).f_code is not handle_event.__code__:  # noqa: SLF001  nothing else tells who calls
        return False
    code = sys._getframe(_DISPATCH + 2).f_code  # noqa: SLF001  the same
    return not code.co_flags & _SUSPENDS and code.co_name in _ENDS_WHAT_IT_BEGINS
