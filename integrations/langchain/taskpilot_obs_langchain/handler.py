"""The callback handler: LangChain's events, as invocations that begin and end."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from langchain_core.callbacks import BaseCallbackHandler

from taskpilot_obs.config import get_recorder
from taskpilot_obs.integration import LlmInvocation, RefusedError, guarded
from taskpilot_obs.records import SUCCESS, Operation, Status
from taskpilot_obs_langchain import answers, checks, dropped, middleware, models, streams
from taskpilot_obs_langchain.breakpoints import hear_graphs
from taskpilot_obs_langchain.chains import PLUMBING, ROOT, ChainKind, agent_name, is_own_node, is_pause, kind_of
from taskpilot_obs_langchain.opening import Opener
from taskpilot_obs_langchain.run_config import note_config
from taskpilot_obs_langchain.runs import Link, RunEntry, close, end_beneath, link, mark_left, note, runs_of, take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from taskpilot_obs.integration import Recorder

_WORKFLOW: Final = Operation.WORKFLOW


class ObservabilityHandler(BaseCallbackHandler):
    """Records LangChain and LangGraph runs: `config={"callbacks": [ObservabilityHandler()]}`.

    One handler serves any number of concurrent runs, synchronous and asynchronous. It never raises into a chain.

    Args:
        root: the kind of the outermost run. By default a workflow, or an agent for a `create_agent` graph; within a
            `@observe_workflow` or another recorded run it is not a separate run, unless you declare its kind here.
        name: a name for the outermost run, if its own (`RunnableSequence`, `LangGraph`) is too general.
        nodes: names of the agents that a graph's nodes are, where they differ from the nodes' own; None leaves a node
            out, as `{"tools": None}` does for a `ToolNode`, whose tools then belong to the run above.
        recorder: where to record; the default recorder when left out.

    Raises:
        ValueError: `root` is neither "workflow" nor "agent".
    """

    run_inline = True  # in order, on the event loop's thread: nothing here waits
    # Plain attributes: LangChain asks before every event, and a property costs as much as the event.
    ignore_llm = False
    ignore_chain = False
    ignore_agent = False
    ignore_retriever = False
    ignore_chat_model = False
    ignore_retry = False
    ignore_custom_event = True

    def __init__(
        self,
        *,
        root: Literal["workflow", "agent"] | None = None,
        name: str | None = None,
        nodes: Mapping[str, str | None] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        if root not in {None, "workflow", "agent"}:
            raise ValueError(f'root: given {root!r}; allowed are "workflow", "agent" and None')
        self._recorder = recorder or get_recorder()
        self._runs = runs_of(self._recorder)
        self._root = {None: None, "workflow": Operation.WORKFLOW, "agent": Operation.AGENT}[root]
        self._name = name
        self._nodes = dict(nodes or {})
        self._open = Opener(self._recorder)
        self._guard = guarded("langchain", self._recorder.counters)
        self._silent = self._runs.silent
        self._hears_graphs = False
        self._stated = self._runs.stated

    @property
    def raise_error(self) -> bool:  # type: ignore[override]  # LangChain's is a plain attribute
        """Whether LangChain lets the exception pass that it handles now: a refusal, and nothing else.

        LangChain asks only while it handles an exception of a handler.
        """
        return isinstance(sys.exception(), RefusedError)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """A pickled handler, or a model that holds one, records by the default recorder of the process it reaches."""
        root: Any = None if self._root is None else self._root.value.removeprefix("invoke_")
        return partial(ObservabilityHandler, root=root, name=self._name, nodes=self._nodes), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> ObservabilityHandler:
        """A model that is copied with the handler in it goes on recording where it did."""
        return self

    # --- chains, graphs and their nodes ------------------------------------------------------------------------------

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin the run of a chain, a graph or a node; ask the input checks, whose refusal is raised."""
        under = None if parent_run_id is None else self._runs.get(parent_run_id.int)
        if under is not None and not metadata:
            link(self._runs, run_id, under, under.node if type(under) is Link else under)
            return
        if not self._recorder.enabled:
            return
        with self._guard:
            entry = note(self._runs, self, run_id, under)
            if entry is None:
                return
            if metadata and not self._hears_graphs:
                self._hears_graphs = hear_graphs(self)
            called = name or _name_in(serialized)
            kind = kind_of(called, tags, metadata, entry.above) if metadata else ROOT
            if kind is PLUMBING:
                return
            self._begin_chain(entry, kind, called, metadata)
            if entry.mine:
                note_config(entry.run, metadata, tags)
            if (
                entry.mine
                and entry.run is not None
                and (type(inputs) is str or self._recorder.runtime.redactor is not None)
            ):
                entry.run.set_input(inputs)  # of anything but text only the content is of interest, where it is wanted
        if self._recorder.runtime.asks_checks:
            checks.before(self, self._runs, run_id, inputs)

    def _begin_chain(self, entry: RunEntry, kind: ChainKind, called: str, metadata: Mapping[str, Any] | None) -> None:
        if entry.above is None:
            self._open.outermost(entry, metadata)
        if kind is ROOT:
            if self._root is not None or entry.run is None:
                self._open.run(entry, self._root or _WORKFLOW, self._name or called)
        elif kind is ChainKind.STEP:
            entry.hook = middleware.hook_of(called)
        elif kind is ChainKind.AGENT:
            named = self._nodes.get(called, called)
            if named is not None:
                self._open.run(entry, Operation.AGENT, named)
        else:
            entry.graph = True
            if is_own_node(called, entry.above):
                return
            outermost = entry.above is None
            operation = self._root if outermost and self._root is not None else Operation.AGENT
            given = self._name if outermost else None
            self._open.run(entry, operation, given or agent_name(called, metadata))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End the run of a chain, a graph or a node; ask the output checks before."""
        entry = self._runs.pop(run_id.int, None)
        if type(entry) is not RunEntry:
            return
        if self._recorder.runtime.asks_checks and not entry.paused:
            checks.after(self._runs, entry, outputs, released="inputs" in kwargs)
        close(self._runs, entry)
        if entry.hook is not None:
            self._decide(entry, entry.hook, outputs)
        with self._guard:
            if "inputs" in kwargs:
                mark_left(entry)
            if entry.mine and entry.run is not None:
                if entry.paused:
                    entry.run.end(Status.INTERRUPTED)
                elif entry.left:
                    entry.run.end(Status.ABANDONED)
                else:
                    entry.run.end(SUCCESS, outputs)

    def on_interrupt(self, event: Any) -> None:
        """Note that a graph stops at a breakpoint or to ask a human: its run will end as `interrupted`."""
        entry = self._runs.get(event.run_id.int) if event.run_id is not None else None
        if type(entry) is RunEntry:
            entry.paused = True

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End the run of a chain with the status of its exception, and what is still open beneath a cancelled one."""
        entry = self._runs.pop(run_id.int, None)
        if entry is None:
            return
        with self._guard:
            if not isinstance(error, Exception | GeneratorExit):
                end_beneath(self._runs, entry, error)
            if type(entry) is RunEntry:
                self._fail_chain(entry, error)

    def _fail_chain(self, entry: RunEntry, error: BaseException) -> None:
        close(self._runs, entry)
        if entry.hook is not None:
            self._decide(entry, entry.hook, error)
        if entry.above is not None and is_pause(type(error)):
            entry.above.paused = True
        if entry.mine and entry.run is not None:
            entry.run.fail(error)

    def _decide(self, entry: RunEntry, hook: middleware.Hook, outcome: object) -> None:
        """Report a guardrail's decision as one of the agent whose guardrail it is."""
        run = entry.run
        step = run.attach() if run is not None else None
        try:
            with self._guard:
                middleware.report(self._recorder, hook, outcome)
        finally:
            if run is not None and step is not None:
                run.detach(step)

    # --- models ------------------------------------------------------------------------------------------------------

    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **said: Any) -> None:
        """Begin an LLM call with chat messages; checks and budgets are asked, and their refusal is raised."""
        with self._guard:
            call = self._begin_call(serialized, said)
            if call is not None and messages:
                call.input_length = models.length_of(messages[0])
                if call.provider in models.DROPS_MODALITIES:
                    if models.has_media(call.request_model, messages[0]):
                        call.leave_unpriced()
                    elif (said.get("invocation_params") or models.NOTHING).get("cached_content"):
                        call.note_dropped("input_audio_tokens", "input_image_tokens")
                if self._recorder.runtime.redactor is not None:
                    call.set_input(models.plain(messages[0]))
        if self._recorder.runtime.asks_checks:
            checks.before_call(self, self._runs, said, messages)

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **said: Any) -> None:
        """Begin an LLM call with a prompt; checks and budgets are asked, and their refusal is raised."""
        with self._guard:
            call = self._begin_call(serialized, said)
            if call is not None and prompts:
                call.set_input(prompts[0])
        if self._recorder.runtime.asks_checks:
            checks.before_call(self, self._runs, said, prompts)

    def _begin_call(self, serialized: Mapping[str, Any] | None, said: Mapping[str, Any]) -> LlmInvocation | None:
        entry = self._note(said)
        if entry is None:
            return None
        settings = serialized.get("kwargs") if serialized else None
        settings = settings if type(settings) is dict else models.NOTHING
        call = self._open.call(entry, said, settings)
        if call is None:
            return None
        if call.provider == dropped.ANTHROPIC:
            entry.gap = dropped.gap_asked_for(said.get("invocation_params") or models.NOTHING, settings)
        self._silent[entry.key] = call
        note_config(call, said.get("metadata"), said.get("tags"))
        return call

    def _note(self, said: Mapping[str, Any]) -> RunEntry | None:
        if not self._recorder.enabled:
            return None
        parent = said.get("parent_run_id")
        under = None if parent is None else self._runs.get(parent.int)
        entry = note(self._runs, self, said["run_id"], under)
        if under is None and entry is not None:
            self._open.outermost(entry, said.get("metadata"))
        return entry

    def on_llm_new_token(
        self, token: Any, *, run_id: UUID, chunk: Any = None, parent_run_id: Any = None, tags: Any = None, **kwargs: Any
    ) -> None:
        """Note the first token of a call, and the text of all tokens for checks and budgets.

        Everything that LangChain passes is named: gathering it would cost more than the rest.
        """
        if self._recorder.runtime.asks_checks:
            checks.note_token(self, self._runs, run_id, token)
        if self._silent:
            call = self._silent.pop(run_id.int, None)
            if call is not None:
                call.first_token()
                self._look(run_id, chunk)
                return
        if not token or self._stated:
            self._look(run_id, chunk)

    def _look(self, run_id: UUID, chunk: Any) -> None:
        with self._guard:
            streams.look(self._runs, run_id.int, chunk)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a part of a message, as models send it that stream in LangChain's newer way."""
        if self._recorder.runtime.asks_checks:
            checks.note_token(self, self._runs, run_id, (event.get("delta") or {}).get("text"))
        if self._silent and str(event.get("event")).startswith("content-block"):
            call = self._silent.pop(run_id.int, None)
            if call is not None:
                call.first_token()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """End an LLM call with the usage, model and content of its answer; ask the output checks before."""
        entry = self._runs.pop(run_id.int, None)
        if type(entry) is not RunEntry or not isinstance(entry.run, LlmInvocation):
            return
        repeated = streams.repeated(self._runs, entry.key) if self._stated else None
        if not entry.mine:
            checks.lend_answer(entry.run, response)
            return
        close(self._runs, entry)
        if entry.gap is not None:
            dropped.note_asked(entry.run, entry.gap)
        with self._guard:
            answers.note_answer(entry.run, response, cacheable=entry.cacheable, repeated=repeated)
        if self._recorder.runtime.asks_checks:
            checks.after_call(entry.run, response, left=entry.left)
        entry.run.end(Status.ABANDONED if entry.left else SUCCESS)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End an LLM call as its exception says, with the usage that was stated before it."""
        repeated = streams.repeated(self._runs, run_id.int)
        entry, call = checks.take_call(self._runs, run_id)
        if entry is None or call is None:
            return
        if entry.gap is not None:
            dropped.note_asked(call, entry.gap)
        with self._guard:
            answers.note_partial_answer(call, kwargs.get("response"), repeated)
        call.fail(error)

    def on_retry(self, retry_state: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a retry of an LLM call."""
        entry = self._runs.get(run_id.int)
        if type(entry) is RunEntry and entry.owner is self and isinstance(entry.run, LlmInvocation):
            entry.run.retry()

    # --- tools and retrievers ----------------------------------------------------------------------------------------

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **said: Any) -> None:
        """Begin a tool call; ask the input checks, whose refusal is raised."""
        self._begin_tool("function", serialized, input_str, said)
        if self._recorder.runtime.asks_checks:
            checks.before_tool(self, self._runs, input_str, said)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool call; one that returns a message with an error in place of a result is an `error`."""
        entry = take(self._runs, run_id)
        if entry is None or not entry.mine or entry.run is None:
            return
        with self._guard:
            entry.run.set_output(checks.content_of(output))
        if self._recorder.runtime.asks_checks:
            checks.after_tool(entry.run, output)
        entry.run.end(Status.ERROR if checks.is_failure(output) else Status.SUCCESS)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a tool call with the status of its exception."""
        entry = take(self._runs, run_id)
        if entry is None or not entry.mine or entry.run is None:
            return
        if entry.above is not None and is_pause(type(error)):
            entry.above.paused = True
        entry.run.fail(error)

    def on_retriever_start(self, serialized: dict[str, Any], query: str, **said: Any) -> None:
        """Begin a tool call for a retriever; ask the input checks, whose refusal is raised."""
        self._begin_tool("datastore", serialized, query, said)
        if self._recorder.runtime.asks_checks:
            checks.before_tool(self, self._runs, query, said)

    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        """End the tool call of a retriever; ask the output checks about what it found."""
        entry = take(self._runs, run_id)
        if entry is not None and entry.mine and entry.run is not None:
            found = models.texts_of(documents) if self._recorder.runtime.redactor else None
            if self._recorder.runtime.asks_checks:
                checks.after_tool(entry.run, documents)
            entry.run.end(SUCCESS, found)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End the tool call of a retriever with the status of its exception."""
        self.on_tool_error(error, run_id=run_id)

    def _begin_tool(self, kind: str, serialized: Mapping[str, Any] | None, asked: str, said: Mapping[str, Any]) -> None:
        with self._guard:
            entry = self._note(said)
            if entry is not None:
                self._open.tool(entry, said.get("name") or _name_in(serialized), kind, said.get("tool_call_id"))
                note_config(entry.run, said.get("metadata"), said.get("tags"))
                if entry.run is not None:
                    entry.run.set_input(asked)


def _name_in(serialized: Mapping[str, Any] | None) -> str:
    """A name out of what LangChain serialises: its own, or that of its class."""
    said = serialized or {}
    path = said.get("id")
    return str(said.get("name") or (path[-1] if isinstance(path, list) and path else None) or "LangChain")
