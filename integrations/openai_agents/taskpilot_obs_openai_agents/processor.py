"""A tracing processor: traces are workflows, their spans are agents, tools and LLM calls."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from agents import TracingProcessor, add_trace_processor, set_trace_processors

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    Status,
    Step,
    current_run,
    get_recorder,
    guarded,
    note_sound_dropped,
    unwrap_refusal,
)
from taskpilot_obs.records import CheckResult, DecisionKind, Verdict
from taskpilot_obs_openai_agents import model_calls

__all__ = ["ObservabilityProcessor", "observe"]

logger = logging.getLogger("taskpilot_obs")

_COMPONENT: Final = "openai_agents"
_OPERATIONS: Final = {"agent": Operation.AGENT, "function": Operation.TOOL}
"""What the spans of agents and tools stand for."""


def observe(*, recorder: Recorder | None = None, replace: bool = False) -> ObservabilityProcessor:
    """Record every run of the SDK in this process.

    Args:
        recorder: where to; the default one when left out.
        replace: remove the other processors, the SDK's own among them, which sends traces to OpenAI.

    Returns:
        The processor, which is registered with the SDK.
    """
    processor = ObservabilityProcessor(recorder)
    if replace:
        set_trace_processors([processor])
        logger.info("openai_agents: other trace processors are replaced: no traces are sent to OpenAI")
    else:
        add_trace_processor(processor)
        logger.info("openai_agents: the SDK's own trace processor stays, and may send traces to OpenAI")
    return processor


class _Trace:
    """What is open of one trace."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder = recorder
        self.run = run = recorder.start(Operation.WORKFLOW, name)
        self.guard = guarded(_COMPONENT, recorder.counters)
        """For the spans of the trace, of which each call and tool has one."""
        self.step: Step = run.attach()
        self.above: dict[str, ActiveInvocation] = {}
        """The run at or above each open span."""
        self.open: dict[str, tuple[ActiveInvocation, Step]] = {}
        self.fault: BaseException | None = None
        self.error: str | None = None


class ObservabilityProcessor(TracingProcessor):  # type: ignore[misc]  # the SDK may be missing where types are checked
    """Turns the SDK's spans into runs. It is called synchronously, in the context of the work.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._given = recorder
        self._traces: dict[str, _Trace] = {}

    @property
    def open(self) -> int:
        """How many traces have not ended."""
        return len(self._traces)

    @property
    def _recorder(self) -> Recorder:
        return get_recorder() if self._given is None else self._given

    # --- the SDK's side ----------------------------------------------------------------------------------------------

    def on_trace_start(self, trace: Any) -> None:
        """Begin a workflow."""
        recorder = self._recorder
        with guarded(_COMPONENT, recorder.counters):
            self._traces[trace.trace_id] = _Trace(recorder, trace.name)

    def on_trace_end(self, trace: Any) -> None:
        """End it as its last agent ended: the SDK does not state how a trace ends."""
        with guarded(_COMPONENT, self._recorder.counters):
            known = self._traces.pop(trace.trace_id, None)
            if known is not None:
                known.run.detach(known.step)
                for run, _ in reversed(known.open.values()):
                    run.end_as(Status.ABANDONED)
                _end(known.run, sys.exc_info()[1] or known.fault, known.error)

    def on_span_start(self, span: Any) -> None:
        """Begin a run where the span stands for one."""
        known = self._traces.get(span.trace_id)
        if known is not None:
            with known.guard:
                _begin(known, span, known.above.get(span.parent_id or "") or current_run() or known.run)

    def on_span_end(self, span: Any) -> None:
        """End the run of the span."""
        known = self._traces.get(span.trace_id)
        if known is not None:
            with known.guard:
                _finish(known, span)

    def shutdown(self) -> None:
        """Nothing of its own to write; runs that are open end as abandoned."""
        self._traces.clear()

    def force_flush(self) -> None:
        """Wait until what was recorded is written."""
        self._recorder.flush()


def _begin(known: _Trace, span: Any, above: ActiveInvocation) -> None:
    run = _run_for(known.recorder, span.span_data, above)
    known.above[span.span_id] = above if run is None else run
    if run is not None:
        known.open[span.span_id] = (run, run.attach())


def _run_for(recorder: Recorder, data: Any, above: ActiveInvocation) -> ActiveInvocation | None:
    kind = data.type
    if kind == "generation":
        return _call(recorder, above, data.model, None)
    if kind == "response":
        return _call(recorder, above, None, "openai")
    operation = _OPERATIONS.get(kind)
    if operation is None:
        return None
    run = recorder.start(operation, data.name, parent=above)
    if operation is Operation.AGENT:
        model_calls.expect_spans(run)
    return run


def _call(recorder: Recorder, above: ActiveInvocation, model: str | None, provider: str | None) -> LlmInvocation:
    """The call that the hooks asked about, or a new one; a retry of the SDK is a new one."""
    call = model_calls.claim(above)
    if call is None:
        return recorder.start_llm(model=model, provider=provider, parent=above)
    call.record_request(model=model, provider=provider)
    return call


def _finish(known: _Trace, span: Any) -> None:
    data, error = span.span_data, sys.exc_info()[1]
    above = known.above.pop(span.span_id, known.run)
    opened = known.open.pop(span.span_id, None)
    if opened is None:
        _note_event(known.recorder, data, above)
        return
    run, step = opened
    run.detach(step)
    stated = None if error is not None or not span.error else "agents.exceptions.AgentsException"
    if isinstance(run, LlmInvocation):
        _write_answer(run, data)
        if error is None and stated is None and not _is_answered(data):
            run.end_as(Status.CANCELLED)
    if data.type == "agent":
        known.fault, known.error = error, stated
        if (unanswered := model_calls.claim(run)) is not None:
            model_calls.end_unanswered(unanswered, error)
    _end(run, error, stated)


def _note_event(recorder: Recorder, data: Any, run: ActiveInvocation) -> None:
    """Note a hand-off as an attribute of the agent that hands over, and a guardrail as a decision."""
    if data.type == "handoff" and data.to_agent is not None:
        run.set_attribute("handoff", data.to_agent)
    elif data.type == "guardrail":
        step = run.attach()
        try:
            recorder.record_decision(
                data.name,
                Verdict.DENY if data.triggered else Verdict.ALLOW,
                kind=DecisionKind.GUARDRAIL,
                result=CheckResult.BLOCKED if data.triggered else CheckResult.PASSED,
            )
        finally:
            run.detach(step)


def _is_answered(data: Any) -> bool:
    """Whether a model answered: a span without an answer and without an error was cancelled."""
    return data.response is not None if data.type == "response" else bool(data.output or data.usage)


def _write_answer(run: LlmInvocation, data: Any) -> None:
    if data.type == "response":
        if data.response is not None:
            run.record_request(model=data.response.model)
            _read(run, data.response)
    elif data.usage:
        _read(run, {"usage": data.usage, "output": data.output})  # beside an answer, zeros are unknown


def _read(run: LlmInvocation, answer: object) -> None:
    """Take usage and model from an answer, off this thread, and keep its content where that is captured."""
    note_sound_dropped(run)
    run.read_later(answer)
    run.observe_output(answer)


def _end(run: ActiveInvocation, error: BaseException | None, stated: str | None) -> None:
    if error is not None:
        run.fail(unwrap_refusal(error))
    elif stated is not None:
        run.end_as(Status.ERROR, error_type=stated)
    else:
        run.stop()
