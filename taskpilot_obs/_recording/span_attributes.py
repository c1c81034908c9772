"""The attributes that a run sets on its span, at its start and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs.records import SUCCESS
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from taskpilot_obs._recording.callsite import Callsite
    from taskpilot_obs._recording.details import Details
    from taskpilot_obs._recording.spans import LiveSpan
    from taskpilot_obs.records import AttributeValue, Scope, Status


def start_attributes(
    callsite: Callsite, scope: Scope | None, request_id: str, details: Details | None
) -> dict[str, AttributeValue]:
    """Return the attributes with which a span is created, so that samplers see them.

    Args:
        callsite: the callsite of the run.
        scope: the scope of its request.
        request_id: the request's identifier, which a run outside of any request has too.
        details: what is recorded of its input.
    """
    attributes = callsite.span_attributes.copy()
    attributes[Attr.REQUEST_ID] = request_id
    if scope is not None:
        _, tenant, user, session, free = scope
        if tenant is not None:
            attributes[Attr.TENANT_ID] = tenant
        if user is not None:
            attributes[Attr.USER_ID] = user
        if session is not None:
            attributes[Attr.CONVERSATION_ID] = session
        if free:
            attributes.update({Attr.USER_PREFIX + name: value for name, value in free.items()})
    if details is not None:
        attributes.update(details.input_attributes())
    return attributes


def write_outcome(live: LiveSpan, status: Status, details: Details | None) -> None:
    """Set the status and the error; a success needs no attribute."""
    if status is not SUCCESS:
        live.set(Attr.STATUS, status.value)
    if details is not None and details.error_type is not None:
        live.set(Attr.ERROR_TYPE, details.error_type)
        live.set_failed(details.error_type, details.error_message)
