"""Makes the frozen records of a run.

The records are made by position, bypassing their constructors: by keyword, or by `_replace`, named tuples take two to
five times as long, and this happens twice for each call (`benchmarks/bench_core.py`, process CPU). A test checks that
the positions match the fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from taskpilot_obs._recording.attributes import clean_attributes
from taskpilot_obs._recording.details import NO_DETAILS
from taskpilot_obs._support import ids
from taskpilot_obs.records import Invocation, Started

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taskpilot_obs._recording.callsite import Callsite
    from taskpilot_obs._recording.details import Details
    from taskpilot_obs._recording.rollups import Totals
    from taskpilot_obs._recording.spans import LiveSpan
    from taskpilot_obs.records import Scope, Status

_LLM_FIELDS = Invocation._fields[Invocation._fields.index("error_category") :]
NO_LLM_CALL: tuple[object, ...] = tuple(Invocation._field_defaults[name] for name in _LLM_FIELDS)
"""The last fields of an `Invocation` that called no model."""
_new_started: Callable[[type[Started], tuple[Any, ...]], Started] = tuple.__new__
_new_invocation: Callable[[type[Invocation], tuple[Any, ...]], Invocation] = tuple.__new__


class Run(Protocol):
    """The values that records are made of: an `ActiveInvocation`."""

    scope: Scope | None
    number: int
    started_ns: int
    ended_ns: int
    status: Status
    begun: Started
    totals: Totals | None
    details: Details | None
    span: LiveSpan | None
    input_length: int | None
    output_length: int | None

    @property
    def callsite(self) -> Callsite:
        """The callsite where it began."""

    @property
    def parent(self) -> Run | None:
        """The run around it."""

    @property
    def request_id(self) -> str:
        """The ID of its request."""

    @property
    def invocation_id(self) -> str:
        """The ID that its records share."""

    def lineage(self) -> tuple[str | None, str | None]:
        """The nearest workflow and agent."""

    def is_task(self) -> bool:
        """Whether it is a task."""


def start_of(run: Run, model: str | None, provider: str | None) -> Started:
    """Make the record of a run's start. Its parent was frozen before it, because the queue keeps the order."""
    callsite, scope, parent, details, span = run.callsite, run.scope, run.parent, run.details, run.span
    invocation_id = ids.text_of(run.number)
    tenant = user = session = None
    attributes = callsite.attributes
    if parent is None:
        request_id, parent_id = invocation_id, None
        (workflow, agent), is_task = callsite.root_lineage, callsite.is_inner
    else:
        request_id, parent_id = parent.request_id, parent.invocation_id
        (workflow, agent), is_task = run.lineage(), run.is_task()
    if scope is not None:
        request_id, tenant, user, session, free = scope
        if free:
            attributes = clean_attributes({**free, **attributes}) if attributes else free
    trace_id = span_id = None
    sampled = False
    if span is not None:
        trace_id, span_id, sampled = span.ids
    return _new_started(
        Started,
        (
            callsite.operation,
            callsite.name,
            request_id,
            invocation_id,
            parent_id,
            workflow,
            agent,
            run.started_ns + callsite.runtime.clock.offset,
            trace_id,
            span_id,
            sampled,
            tenant,
            user,
            session,
            model,
            provider,
            run.input_length,
            None if details is None else details.input_text,
            attributes,
            is_task,
        ),
    )


def end_of(run: Run, llm_call: tuple[object, ...] = NO_LLM_CALL) -> Invocation:
    """Make the record of a finished run: status, the fields of its start, those of its end, those of LLM calls."""
    begun, details, totals = run.begun, run.details or NO_DETAILS, run.totals
    took_ns = run.ended_ns - run.started_ns
    how = (run.status, took_ns / 1e9 if took_ns > 0 else 0.0)
    rollup = None if totals is None else totals.frozen()
    if begun.input_length is not run.input_length or begun.input_text is not details.input_text:
        # `set_input` came after the start was frozen.
        begun = begun._replace(input_length=run.input_length, input_text=details.input_text)
    if details.attributes:
        begun = begun._replace(attributes=clean_attributes({**begun.attributes, **details.attributes}))
    brought = (details.error_type, details.error_message, run.output_length, details.output_text, rollup)
    return _new_invocation(Invocation, how + begun + brought + llm_call)
