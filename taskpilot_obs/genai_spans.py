"""Converts finished spans of the GenAI conventions to invocations; `genai_dialects` reads their attributes.

Knows no SDK and no wire format: callers convert spans to `FinishedSpan`. Usage is read from LLM spans alone, because
spans of agents repeat the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from taskpilot_obs import genai_dialects as dialects
from taskpilot_obs._recording.attributes import clean_attributes
from taskpilot_obs._support.timestamps import NANOSECONDS
from taskpilot_obs.providers.errors import stated_category
from taskpilot_obs.providers.names import canonical, canonical_model, infer_provider
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Operation, Origin, Rollup, Status, Usage
from taskpilot_obs.semconv import Attr
from taskpilot_obs.usage.values import StatedError, from_counts

_OUR_SCOPE: Final = "taskpilot_obs"
_DEEPEST: Final = 1_000
"""How many ancestors of a span are searched; this also ends the search when parents form a cycle."""


class FinishedSpan(NamedTuple):
    """One span that has ended, without its SDK or its wire format."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_unix_ns: int
    end_unix_ns: int
    attributes: Mapping[str, Any]
    is_error: bool = False
    scope: str = ""
    """Name of the instrumentation scope."""


class SpanAbove(NamedTuple):
    """What a span inherits from those above it."""

    origin: Origin = Origin()
    operation: Operation | None = None
    scope: str = ""
    """Name of the instrumentation scope of the span above."""


def operation_of(span: FinishedSpan) -> Operation | None:
    """What a span stands for; None for one that is not of the conventions."""
    kind = dialects.kind_of(span.name, span.attributes, span.scope)
    return None if kind is None else kind.operation


def identifier(span: FinishedSpan) -> str:
    """The ID of a span's invocation: stable, so that a span that is sent twice is one row."""
    return f"{span.trace_id}{span.span_id}"


def read_span(span: FinishedSpan, above: Origin) -> Invocation | None:
    """One span as an invocation, without cost and roll-up; None for a span that is not of the conventions."""
    kind = dialects.kind_of(span.name, span.attributes, span.scope)
    if kind is None:
        return None
    operation, name = kind
    said = span.attributes.get
    is_llm = operation in LLM_OPERATIONS
    usage, inconsistent = _usage(span) if is_llm else (None, False)
    request_model = dialects.request_model_of(span.name, span.attributes)
    response_model = dialects.response_model_of(span.attributes)
    cost = dialects.cost_of(span.attributes) if is_llm else None
    error_type = _text(said("error.type"))
    status = _status(span, error_type)
    model = request_model or response_model
    return Invocation(
        status=status,
        duration_s=max(0, span.end_unix_ns - span.start_unix_ns) / NANOSECONDS,
        operation=operation,
        name=name,
        request_id=_text(said(Attr.REQUEST_ID)) or above.request_id or span.trace_id,
        invocation_id=identifier(span),
        parent_id=above.invocation_id,
        workflow=name if operation is Operation.WORKFLOW else above.workflow,
        agent=name if operation is Operation.AGENT else _agent(span, above),
        start_unix_ns=span.start_unix_ns,
        trace_id=span.trace_id,
        span_id=span.span_id,
        sampled=True,
        tenant=_text(said(Attr.TENANT_ID)),
        user=_text(said(Attr.USER_ID)) or above.user,
        session=_text(said(Attr.SESSION_ID)) or dialects.conversation_of(span.attributes) or above.session,
        request_model=request_model if is_llm else None,
        provider=_provider(span, model) if is_llm else None,
        attributes=clean_attributes(_own_attributes(span)),
        is_task=_is_task(operation, above),
        error_type=error_type,
        error_category=_category(span, status, error_type) if is_llm else None,
        usage=usage,
        usage_inconsistent=inconsistent,
        cost=cost,
        cost_source=None if cost is None else "caller",
        response_model=response_model if is_llm else None,
        streaming=dialects.is_streamed(span.attributes),
        cached=said(Attr.CACHED) if isinstance(said(Attr.CACHED), bool) else None,
        ttft_s=dialects.first_token_s(span.attributes, span.scope) if is_llm else None,
        canonical_model=canonical_model(model) if is_llm and model else None,
    )


class SpansRead(NamedTuple):
    """The result of reading the spans of a trace."""

    runs: dict[str, Invocation]
    """By span ID."""
    above: dict[str, SpanAbove]
    """What each span passes to its children, by span ID, including spans outside the conventions."""


def read_spans(spans: Iterable[FinishedSpan], known: Mapping[str, SpanAbove] | None = None) -> SpansRead:
    """The invocations of one trace by span ID, each beneath its nearest ancestor of the conventions.

    An LLM span beneath an LLM span is the same call, seen by a framework and by the client that it uses: the outer one
    stays, with the usage of the inner one where it has none. Two spans of this library are two calls, such as that of a
    check beneath the one that it judges. Agents and workflows add up what lies beneath them.

    Args:
        spans: finished spans of one trace, in any order.
        known: what spans that were read earlier pass to their children, by span ID.
    """
    by_id = {span.span_id: span for span in spans}
    found: dict[str, Invocation] = {}
    above: dict[str, SpanAbove] = dict(known or {})
    for span in by_id.values():
        for one in _from_the_top(span, by_id, above):
            handed = above.get(one.parent_id or "", SpanAbove())
            read = read_span(one, handed.origin)
            if read is not None and _is_one_call(one, read, handed):
                _fold(found, one, read, by_id)
                read = None
            if read is not None:
                found[one.span_id] = read
            above[one.span_id] = handed if read is None else below(read)._replace(scope=one.scope)
    return SpansRead(_rolled_up(found), above)


def _is_one_call(span: FinishedSpan, read: Invocation, above: SpanAbove) -> bool:
    both_ours = span.scope == above.scope == _OUR_SCOPE
    return read.operation in LLM_OPERATIONS and above.operation in LLM_OPERATIONS and not both_ours


def below(run: Invocation) -> SpanAbove:
    """What an invocation passes to the spans beneath it."""
    return SpanAbove(run.origin, run.operation)


def _from_the_top(
    span: FinishedSpan, by_id: Mapping[str, FinishedSpan], done: Mapping[str, SpanAbove]
) -> Iterator[FinishedSpan]:
    """The unread ancestors of a span, the highest first, then the span itself."""
    chain: list[FinishedSpan] = []
    seen: set[str] = set()
    at: FinishedSpan | None = span
    while at is not None and at.span_id not in done and at.span_id not in seen and len(chain) < _DEEPEST:
        chain.append(at)
        seen.add(at.span_id)
        at = by_id.get(at.parent_id or "")
    yield from reversed(chain)


def _fold(
    found: dict[str, Invocation], span: FinishedSpan, inner: Invocation, by_id: Mapping[str, FinishedSpan]
) -> None:
    at = by_id.get(span.parent_id or "")
    for _ in range(_DEEPEST):
        if at is None:
            return
        outer = found.get(at.span_id)
        if outer is not None:
            missing = {
                name: getattr(inner, name)
                for name in ("usage", "response_model", "provider", "ttft_s", "cost", "cost_source")
                if getattr(outer, name) is None
            }
            found[at.span_id] = outer._replace(**missing)
            return
        at = by_id.get(at.parent_id or "")


def _rolled_up(found: Mapping[str, Invocation]) -> dict[str, Invocation]:
    by_invocation = {run.invocation_id: key for key, run in found.items()}
    sums = {key: Rollup() for key, run in found.items() if run.operation in (Operation.AGENT, Operation.WORKFLOW)}
    for run in found.values():
        share = _share(run)
        parent = by_invocation.get(run.parent_id or "")
        for _ in range(_DEEPEST):
            if parent is None or share is None:
                break
            if parent in sums:
                sums[parent] = _added(sums[parent], share)
            parent = by_invocation.get(found[parent].parent_id or "")
    return {key: run._replace(rollup=sums[key]) if key in sums else run for key, run in found.items()}


def _share(run: Invocation) -> Rollup | None:
    if run.operation is Operation.TOOL:
        return Rollup(tool_calls=1)
    if run.operation not in LLM_OPERATIONS:
        return None
    usage = run.usage or Usage()
    return Rollup(
        usage.input_tokens or 0,
        usage.output_tokens or 0,
        run.cost or Decimal(0),
        llm_calls=1,
        unpriced_calls=int(run.cost is None and not run.cached),
    )


def _added(one: Rollup, other: Rollup) -> Rollup:
    return one._replace(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost=one.cost + other.cost,
        llm_calls=one.llm_calls + other.llm_calls,
        unpriced_calls=one.unpriced_calls + other.unpriced_calls,
        tool_calls=one.tool_calls + other.tool_calls,
    )


def _agent(span: FinishedSpan, above: Origin) -> str | None:
    return above.agent or _text(span.attributes.get(Attr.AGENT_NAME))


def _is_task(operation: Operation, above: Origin) -> bool:
    if operation is Operation.WORKFLOW:
        return True
    return operation is Operation.AGENT and above.workflow is None and above.agent is None


def _status(span: FinishedSpan, error_type: str | None) -> Status:
    stated = span.attributes.get(Attr.STATUS)
    if isinstance(stated, str) and stated in {status.value for status in Status}:
        return Status(stated)
    return dialects.status_of(error_type, is_error=span.is_error)


def _category(span: FinishedSpan, status: Status, error_type: str | None) -> str | None:
    if status is Status.SUCCESS:
        return None
    if status is Status.TIMEOUT:
        return "timeout"
    code = span.attributes.get("http.response.status_code")
    return stated_category(StatedError(code if isinstance(code, int) else None, error_type or ""))


def _provider(span: FinishedSpan, model: str | None) -> str | None:
    stated = dialects.provider_of(span.attributes)
    return canonical(stated) if stated else infer_provider(model)


def _usage(span: FinishedSpan) -> tuple[Usage | None, bool]:
    counts = dialects.counts_of(span.attributes)
    return from_counts(**counts) if counts else (None, False)


def _own_attributes(span: FinishedSpan) -> dict[str, object]:
    found = {
        name.removeprefix(Attr.USER_PREFIX): value
        for name, value in span.attributes.items()
        if name.startswith(Attr.USER_PREFIX)
    }
    prompt = _text(span.attributes.get("gen_ai.prompt.name"))
    return {**found, **({"prompt_name": prompt} if prompt else {})}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
