"""From an active invocation to the frozen records that travel: the drainer's side of it.

The records are made by position, whole and past their own constructors: with keywords, or by `_replace`, the tuples
take two to five times as long, and this runs once for each call. A test holds the places to the fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._recording.callsite import NO_DETAILS
from taskpilot_obs._recording.rollups import Totals
from taskpilot_obs._support import ids
from taskpilot_obs.records import Invocation, Started, clean_attributes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taskpilot_obs._recording.callsite import Callsite, Details
    from taskpilot_obs._recording.context import Scope
    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs._recording.spans import LiveSpan
    from taskpilot_obs.records import Record, Status

LOST, UNSEEN, BEGUN, DONE = range(-1, 3)
"""What the drainer has seen of an invocation; `LOST`: its start was dropped, its end will bring both records."""

_LLM_FIELDS = Invocation._fields[Invocation._fields.index("error_category") :]
NO_LLM_CALL: tuple[object, ...] = tuple(Invocation._field_defaults[name] for name in _LLM_FIELDS)
"""The last fields of an `Invocation` that called no model."""
_new_started: Callable[[type[Started], tuple[Any, ...]], Started] = tuple.__new__
_new_invocation: Callable[[type[Invocation], tuple[Any, ...]], Invocation] = tuple.__new__


class Freezing:
    """What the drainer does with an `ActiveInvocation`, its only subclass; nothing here runs on the caller's thread."""

    __slots__ = (
        "begun",
        "callsite",
        "details",
        "ended_ns",
        "input_length",
        "number",
        "output_length",
        "parent",
        "scope",
        "span",
        "stage",
        "started_ns",
        "status",
        "totals",
    )

    callsite: Callsite
    scope: Scope | None
    parent: ActiveInvocation | None
    number: int
    started_ns: int
    ended_ns: int
    status: Status
    stage: int
    begun: Started
    totals: Totals | None
    details: Details | None
    span: LiveSpan | None
    input_length: int | None
    output_length: int | None

    def droppable(self) -> bool:
        """A start may be dropped (its end then brings both records); an end only if its start was."""
        if not self.ended_ns:
            self.stage = LOST
        return self.stage == LOST

    def freeze(self, records: list[Record]) -> None:
        """Add the records that this object stands for: `Started` when first seen, `Invocation` when seen again."""
        stage = self.stage
        if stage == BEGUN:
            # One that still runs was interrupted behind its start; one begun before the fork is the parent's to end.
            if not self.ended_ns or self.number < ids.first_number:
                return
            done = self._freeze_end()
            if self.parent is not None:
                self._fold()
            self.stage = DONE
            records.append(done)
            return
        if stage == DONE or self.number < ids.first_number:
            return
        self.begun = begun = self._freeze_start()
        # A run whose start was dropped may know already what those beneath it took.
        self.totals = None if stage == UNSEEN else getattr(self, "totals", None)
        if self.parent is not None:
            self._forget_ended_ancestors()
        self.stage = BEGUN
        records.append(begun)
        if stage != UNSEEN:
            self.freeze(records)

    def _freeze_start(self, model: str | None = None, provider: str | None = None) -> Started:
        """What is known of a run at its start. Its parent was frozen before it: the queue keeps the order."""
        callsite, scope, parent, details, span = self.callsite, self.scope, self.parent, self.details, self.span
        invocation_id = ids.text_of(self.number)
        tenant = user = session = None
        attributes = callsite.attributes
        if parent is None:
            request_id, parent_id = invocation_id, None
            (workflow, agent), is_task = callsite.root_lineage, callsite.is_inner
        else:
            request_id = parent.request_id
            parent_id = parent.begun.invocation_id if parent.stage >= BEGUN else ids.text_of(parent.number)
            (workflow, agent), is_task = self.lineage(), self.is_task()
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
                self.started_ns + callsite.host.clock.offset,
                trace_id,
                span_id,
                sampled,
                tenant,
                user,
                session,
                model,
                provider,
                self.input_length,
                None if details is None else details.input_text,
                attributes,
                is_task,
            ),
        )

    def _freeze_end(self, llm_call: tuple[object, ...] = NO_LLM_CALL) -> Invocation:
        """A finished run: how it ended, its start, what only its end brought, and what only LLM calls have."""
        begun, details, totals = self.begun, self.details or NO_DETAILS, self.totals
        took_ns = self.ended_ns - self.started_ns
        how = (self.status, took_ns / 1e9 if took_ns > 0 else 0.0)
        rollup = None if totals is None else totals.frozen()
        if details.attributes:
            begun = begun._replace(attributes=clean_attributes({**begun.attributes, **details.attributes}))
        if begun.input_length != self.input_length or begun.input_text != details.input_text:
            # `set_input` came after the start was frozen.
            begun = begun._replace(input_length=self.input_length, input_text=details.input_text)
        brought = (details.error_type, details.error_message, self.output_length, details.output_text, rollup)
        return _new_invocation(Invocation, how + begun + brought + llm_call)

    def _forget_ended_ancestors(self) -> ActiveInvocation | None:
        """Refer only to the nearest ancestor whose end the drainer has not seen."""
        above = self.parent
        while above is not None and above.stage == DONE:
            above = above.parent
        self.parent = above
        return above

    def _fold(self) -> None:
        """Add this run to the nearest ancestor that has not been frozen as ended."""
        above = self._forget_ended_ancestors()
        if above is None or (self.totals is None and self.callsite.is_inner):
            return
        totals = above.own_totals()
        if self.totals is not None:
            totals.add(self.totals)
        self._add_own(totals)

    def own_totals(self) -> Totals:
        """The sum of what happened beneath."""
        totals: Totals | None = getattr(self, "totals", None)
        if totals is None:
            totals = self.totals = Totals()
        return totals

    def add_violation(self) -> None:
        """Note a policy violation for the roll-up."""
        run = self if self.stage != DONE else self._forget_ended_ancestors()
        if run is not None:
            run.own_totals().violations += 1

    def lineage(self) -> tuple[str | None, str | None]:
        """The nearest workflow and agent. A task stands as its own workflow."""
        parent = self.parent
        if self.stage >= BEGUN:
            return self.begun.workflow, self.begun.agent
        callsite = self.callsite
        if parent is None:
            return callsite.root_lineage
        workflow, agent = parent.lineage()
        if callsite.is_agent:
            return workflow if workflow is not None or agent is not None else callsite.name, callsite.name
        return (callsite.name if callsite.is_workflow else workflow), agent

    def is_task(self) -> bool:
        """Whether this run is a task: a workflow, or an agent with neither workflow nor agent above it."""
        callsite, parent = self.callsite, self.parent
        if self.stage >= BEGUN:
            return self.begun.is_task
        return callsite.is_workflow or (callsite.is_agent and (parent is None or parent.lineage() == (None, None)))

    def _add_own(self, totals: Totals) -> None:
        """Add what this run itself is: one tool call, or one LLM call."""
        if self.callsite.is_tool:
            totals.tool_calls += 1
