"""A tracer of Haystack: pipelines are workflows; their agents, tools and generators become runs beneath."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from haystack import tracing

from taskpilot_obs.integration import (
    CURRENT,
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    Status,
    attached,
    check_input,
    check_output,
    current_run,
    get_recorder,
    guarded,
    open_llm_call,
)
from taskpilot_obs.providers.names import infer_provider

__all__ = ["ObservabilityTracer", "observe"]

_UNNAMED: Final = "pipeline"
_COMPONENT: Final = "haystack"
_TOOL_ERROR: Final = "haystack.tools.errors.ToolInvocationError"
_current: contextvars.ContextVar[ObservabilitySpan | None] = contextvars.ContextVar("haystack_span", default=None)


def observe(recorder: Recorder | None = None) -> ObservabilityTracer:
    """Record every pipeline and agent of Haystack in this process, in place of its other tracer.

    Args:
        recorder: where to; the default one when left out.
    """
    tracer = ObservabilityTracer(recorder)
    tracing.enable_tracing(tracer)
    return tracer


class ObservabilitySpan(tracing.Span):  # type: ignore[misc]  # Haystack may be missing where types are checked
    """One span of Haystack, and the run that it stands for.

    Args:
        run: the run; None where the span stands for none.
        component: the name of the pipeline's component at or above it.
    """

    def __init__(self, run: ActiveInvocation | None, component: str | None) -> None:
        self.run = run
        self.component = component
        self.failed = False

    def set_tag(self, key: str, value: Any) -> None:
        """Note that a tool failed: Haystack makes a message of its exception."""
        if key == "haystack.tool.error" and value:
            self.failed = True

    def set_content_tag(self, key: str, value: Any) -> None:
        """Ask about an input before the work and about an output after it, and read usage; content is not kept.

        Raises:
            RefusedError: a check in enforce mode refused. Haystack has not called the tool or the model.
        """
        run = self.run
        if run is None or not run.is_open:
            return
        if key.endswith(".input"):
            _ask(run, value)
        elif key.endswith(".output") and not self.failed:
            if isinstance(run, LlmInvocation) and isinstance(value, Mapping):
                with guarded(_COMPONENT, run.callsite.runtime.counters):
                    _note_answer(run, value)
            check_output(run, value)


class ObservabilityTracer(tracing.Tracer):  # type: ignore[misc]  # Haystack may be missing where types are checked
    """Turns Haystack's spans into runs: `tracing.enable_tracing(ObservabilityTracer())`.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._given = recorder

    @property
    def _recorder(self) -> Recorder:
        return get_recorder() if self._given is None else self._given

    def current_span(self) -> ObservabilitySpan | None:
        """The innermost span of this context."""
        return _current.get()

    @contextmanager
    def trace(
        self, operation_name: str, tags: dict[str, Any] | None = None, parent_span: Any = None
    ) -> Iterator[ObservabilitySpan]:
        """Open a span for a block, with its run as the current one."""
        above = parent_span if isinstance(parent_span, ObservabilitySpan) else _current.get()
        tags = tags or {}
        component = tags.get("haystack.component.name") or (None if above is None else above.component)
        run = None
        with guarded(_COMPONENT, self._recorder.counters):
            run = self._run_for(operation_name, tags, component, above)
        span = ObservabilitySpan(run, component)
        token = _current.set(span)
        try:
            yield from _observed(span)
        finally:
            _current.reset(token)

    def _run_for(
        self, name: str, tags: Mapping[str, Any], component: str | None, above: ObservabilitySpan | None
    ) -> ActiveInvocation | None:
        parent: Any = CURRENT if current_run() is not None or above is None else above.run
        if name == "haystack.pipeline.run":
            return self._recorder.start("invoke_workflow", self._pipeline_name(tags), parent=parent)
        if name == "haystack.agent.run":
            return self._recorder.start("invoke_agent", component or "Agent", parent=parent)
        if name == "haystack.agent.step.tool":
            return self._recorder.start("execute_tool", str(tags.get("haystack.tool.name") or "tool"), parent=parent)
        operation = _model_operation(name, str(tags.get("haystack.component.type")))
        if operation is None or open_llm_call() is not None:
            return None  # a generator within a generator is one call
        return self._recorder.start_llm(model=None, operation=operation, parent=parent)

    def _pipeline_name(self, tags: Mapping[str, Any]) -> str:
        with guarded(_COMPONENT, self._recorder.counters):  # metadata is the application's
            return str((tags.get("haystack.pipeline.metadata") or {}).get("name") or _UNNAMED)
        return _UNNAMED


def _model_operation(name: str, kind: str) -> Operation | None:
    """The operation of a span that stands for a call of a model, by the class of the component."""
    if name in ("haystack.agent.step.llm", "haystack.chat_generator.run"):
        return Operation.CHAT
    if name != "haystack.component.run":
        return None
    if kind.endswith("Generator"):
        return Operation.CHAT
    return Operation.EMBEDDINGS if kind.endswith("Embedder") else None


def _observed(span: ObservabilitySpan) -> Iterator[ObservabilitySpan]:
    run = span.run
    if run is None:
        yield span
        return
    with attached(run):
        yield span
    if span.failed:
        run.end_as(Status.ERROR, error_type=_TOOL_ERROR)
    else:
        run.stop()


def _ask(run: ActiveInvocation, given: Any) -> None:
    if run.operation is Operation.TOOL:
        check_input(run, arguments=given if isinstance(given, Mapping) else {"input": given})
        return
    given = given if isinstance(given, Mapping) else {"input": given}
    content = next((given[name] for name in ("messages", "prompt", "text", "documents") if given.get(name)), given)
    check_input(run, content, arguments=given.get("generation_kwargs") or {})


def _note_answer(run: LlmInvocation, output: Mapping[str, Any]) -> None:
    """Read model, usage and finish reasons from what generators and embedders say about their answers."""
    said = [getattr(reply, "meta", None) for reply in output.get("replies") or ()]
    stated = output.get("meta")
    metas = [meta for meta in (*said, *(stated if isinstance(stated, list) else [stated])) if isinstance(meta, Mapping)]
    for meta in metas[:1]:
        run.record_request(model=meta.get("model"), provider=infer_provider(meta.get("model")))
        run.record_answer(model=meta.get("model"))
        if meta.get("usage"):
            run.record_usage(meta["usage"])
        began = meta.get("completion_start_time")
        if isinstance(began, str):
            run.first_token(at_unix_ns=int(datetime.fromisoformat(began).timestamp() * 1e9))
    run.record_answer(finish_reasons=[str(meta["finish_reason"]) for meta in metas if meta.get("finish_reason")])
