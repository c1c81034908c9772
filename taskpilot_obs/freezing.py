"""From an active invocation to the frozen records that travel; runs in the drainer.

By position, whole and past their own constructors: with keywords, or by `_replace`, the tuples take two to five times
as long, and this runs once for each call. A test holds the places to the fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs import ids
from taskpilot_obs.records import Invocation, Started, clean_attributes
from taskpilot_obs.site import NO_DETAILS
from taskpilot_obs.tracing import NO_SPAN

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taskpilot_obs.invocation import ActiveInvocation

_new_started: Callable[[type[Started], tuple[Any, ...]], Started] = tuple.__new__
_new_invocation: Callable[[type[Invocation], tuple[Any, ...]], Invocation] = tuple.__new__


def begin(run: ActiveInvocation) -> Started:
    """What is known of a run at its start. Its parent was frozen before it: the queue keeps the order."""
    site, scope, parent, details = run.site, run.scope, run.parent, run.details
    invocation_id = ids.text_of(run.number)
    tenant = user = session = None
    attributes = site.attributes
    if parent is None:
        request_id, parent_id = invocation_id, None
        (workflow, agent), is_task = site.root_lineage, site.is_inner
    else:
        request_id, parent_id = parent.request_id, ids.text_of(parent.number)
        (workflow, agent), is_task = run.lineage(), run.is_task()
    if scope is not None:
        request_id, tenant, user, session, free = scope
        if free:
            attributes = clean_attributes({**free, **attributes}) if attributes else free
    return _new_started(
        Started,
        (
            site.operation,
            site.name,
            request_id,
            invocation_id,
            parent_id,
            workflow,
            agent,
            run.started_ns + site.host.clock.offset,
            None,
            None,
            run.input_length,
            None if details is None else details.input_text,
            *(NO_SPAN if run.span is None else run.span.ids),
            tenant,
            user,
            session,
            attributes,
            is_task,
        ),
    )


def finish(run: ActiveInvocation) -> Invocation:
    """A finished run; what only an LLM call has is left for it to add."""
    (
        operation,
        name,
        request_id,
        invocation_id,
        parent_id,
        workflow,
        agent,
        start_unix_ns,
        _model,
        _provider,
        input_length,
        input_text,
        trace_id,
        span_id,
        sampled,
        tenant,
        user,
        session,
        attributes,
        is_task,
    ) = run.begun
    details = run.details or NO_DETAILS
    if details.attributes:
        attributes = clean_attributes({**attributes, **details.attributes})
    return _new_invocation(
        Invocation,
        (
            operation,
            name,
            run.status,
            request_id,
            invocation_id,
            parent_id,
            workflow,
            agent,
            start_unix_ns,
            max(0, run.ended_ns - run.started_ns) / 1e9,
            details.error_type,
            None,
            details.error_message,
            None,
            False,
            None,
            None,
            None,
            None,
            None,
            False,
            None,
            None,
            0,
            input_length,
            run.output_length,
            input_text,
            details.output_text,
            trace_id,
            span_id,
            sampled,
            tenant,
            user,
            session,
            attributes,
            None if run.totals is None else run.totals.frozen(),
            is_task,
        ),
    )
