"""What the audit log says of each record: the one place where records become audit fields."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from operator import itemgetter
from typing import Any, NamedTuple

from taskpilot_obs.audit.encoding import MAX_STRING, MORE, Fields, Key, Layout, Value
from taskpilot_obs.records import (
    BAD,
    LLM_OPERATIONS,
    AuditEvent,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Origin,
    Record,
    Severity,
    Stage,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.semconv import Event, Field, LogType

Row = tuple[Layout, Key, int, tuple[Value, ...]]
"""One audit record, not yet a dictionary nor a line: layout, what repeats, time in ns since the epoch, what varies."""


def audit_record(record: Record, service: str = "", *, max_string: int = MAX_STRING) -> Fields | None:
    """What the audit log says of a record, without `seq` and the hashes, or None where it says nothing.

    Args:
        record: any record of the library.
        service: name of the service, for the field `service`.
        max_string: how many characters of one string are kept; what is cut carries a mark.
    """
    row = audit_row(record, service)
    if row is None:
        return None
    layout, key, time_unix_ns, values = row
    return layout.fields(key, time_unix_ns, values, max_string)


def audit_text(record: Record, service: str = "", max_string: int = MAX_STRING) -> str | None:
    """The same as JSON on one line of ASCII, without the closing brace."""
    build = _BUILDERS.get(type(record))
    row = None if build is None else build(record, service)
    if row is None:
        return None
    layout, key, time_unix_ns, values = row
    return layout.text(key, time_unix_ns, values, max_string)


def audit_row(record: Record, service: str) -> Row | None:
    """The row of a record, or None where the audit log says nothing of it."""
    build = _BUILDERS.get(type(record))
    return None if build is None else build(record, service)


_IDS = (
    Field.REQUEST_ID,
    Field.INVOCATION_ID,
    Field.PARENT_ID,
    Field.TRACE_ID,
    Field.SPAN_ID,
    Field.TENANT_ID,
    Field.USER_ID,
    Field.SESSION_ID,
)
_RUNS = frozenset({Operation.WORKFLOW, Operation.AGENT})
_INPUT_EVENTS = {Operation.WORKFLOW: Event.WORKFLOW_INPUT, Operation.AGENT: Event.AGENT_INPUT}
_OUTCOMES = {
    Operation.WORKFLOW: (Event.WORKFLOW_OUTPUT, "Output"),
    Operation.AGENT: (Event.AGENT_OUTPUT, "Output"),
    Operation.TOOL: (Event.TOOL_CALL, "Tool"),
    Operation.CHAT: (Event.LLM_CALL, "LLM"),
    Operation.EMBEDDINGS: (Event.LLM_CALL, "Embeddings"),
}
_DECISIONS = {
    DecisionKind.POLICY: (Event.POLICY_DECISION, Field.POLICY),
    DecisionKind.GUARDRAIL: (Event.GUARDRAIL_CHECK, Field.GUARDRAIL),
    DecisionKind.BUDGET: (Event.BUDGET_DECISION, Field.BUDGET),
}
_MAX_MICROS = 1e15


def _columns(kind: type[Started | Invocation | Decision | Origin], *names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Reads these fields of a named tuple in one call; reading them one by one is what a row would cost most."""
    return itemgetter(*map(kind._fields.index, names))


_ID_COLUMNS = ("request_id", "invocation_id", "parent_id", "trace_id", "span_id", "tenant", "user", "session")


def _head(log_type: str, event: str, said: str, service: str) -> Fields:
    level = {LogType.ERROR: "ERROR"}.get(log_type, "INFO")
    return {
        Field.LEVEL: level,
        Field.LOG_TYPE: log_type,
        Field.EVENT: event,
        Field.MESSAGE: f"[{log_type.upper()}] {said}",
        Field.SERVICE: service or None,
    }


def _ms(seconds: float | None) -> float | None:
    """Milliseconds, to the microsecond; None for what is no duration."""
    if seconds is None:
        return None
    micros = seconds * 1e6
    return int(micros + 0.5) / 1e3 if -_MAX_MICROS < micros < _MAX_MICROS else None


class _StartedKey(NamedTuple):
    service: str
    operation: Operation
    name: str
    workflow: str | None
    agent: str | None


def _started_fields(repeating: Key) -> Fields:
    key = _StartedKey._make(repeating)
    return {
        **_head(LogType.AUDIT, _INPUT_EVENTS[key.operation], f"{key.name} Input", key.service),
        Field.WORKFLOW: key.workflow,
        Field.AGENT: key.agent,
    }


_STARTED = Layout(_started_fields, (*_IDS, Field.INPUT_LENGTH, MORE))
_STARTED_KEY = _columns(Started, *_StartedKey._fields[1:])
_STARTED_VALUES = _columns(Started, *_ID_COLUMNS, "input_length")


def _started(record: Started, service: str) -> Row | None:
    if record.operation not in _RUNS:
        return None
    more = None
    if record.attributes or record.input_text:
        more = _more(((Field.INPUT, record.input_text), (Field.ATTRIBUTES, record.attributes or None)))
    key = (service, *_STARTED_KEY(record))
    return (_STARTED, key, record.start_unix_ns, (*_STARTED_VALUES(record), more))


class _RunKey(NamedTuple):
    service: str
    operation: Operation
    name: str
    status: Status
    workflow: str | None
    agent: str | None
    error_type: str | None
    provider: str | None
    response_model: str | None
    request_model: str | None
    streaming: bool
    cached: bool | None


def _run_fields(repeating: Key) -> Fields:
    key = _RunKey._make(repeating)
    event, what = _OUTCOMES[key.operation]
    log_type = LogType.ERROR if key.status in BAD else LogType.AUDIT
    return {
        **_head(log_type, event, f"{key.name} {what}", key.service),
        Field.WORKFLOW: key.workflow,
        Field.AGENT: key.agent,
        Field.TOOL: key.name if key.operation == Operation.TOOL else None,
        Field.MODEL: key.response_model or key.request_model,
        Field.PROVIDER: key.provider,
        Field.STATUS: key.status,
        Field.ERROR_TYPE: key.error_type,
        Field.STREAMING: key.streaming if key.operation in LLM_OPERATIONS else key.streaming or None,
        Field.CACHED: key.cached,
    }


_RUN_FIELDS = (*_IDS, Field.INPUT_LENGTH, Field.OUTPUT_LENGTH, Field.DURATION_MS)
_LLM_FIELDS = (Field.FIRST_TOKEN_MS, Field.INPUT_TOKENS, Field.OUTPUT_TOKENS, Field.TOTAL_TOKENS, Field.COST)
_RUN = Layout(_run_fields, (*_RUN_FIELDS, MORE))
_LLM = Layout(_run_fields, (*_RUN_FIELDS, *_LLM_FIELDS, MORE))
_RUN_KEY = _columns(Invocation, *_RunKey._fields[1:])
_RUN_VALUES = _columns(Invocation, *_ID_COLUMNS, "input_length", "output_length")
_RARE = _columns(Invocation, "attributes", "rollup", "input_text", "output_text", "error_message")


def _invocation(record: Invocation, service: str) -> Row:
    key = (service, *_RUN_KEY(record))
    duration_s = record.duration_s
    ended = record.start_unix_ns + int(duration_s * 1e9)
    more = _more_of_run(record) if any(_RARE(record)) else None
    values = (*_RUN_VALUES(record), _ms(duration_s))
    if record.operation not in LLM_OPERATIONS:
        return _RUN, key, ended, (*values, more)
    return (_LLM, key, ended, (*values, _ms(record.ttft_s), *_tokens(record), _finite(record.cost), more))


def _tokens(record: Invocation) -> tuple[int | None, int | None, int | None]:
    usage = record.usage
    if usage is None:
        return None, None, None
    taken, given = usage.input_tokens, usage.output_tokens
    return taken, given, None if taken is None or given is None else taken + given


def _finite(cost: Decimal | None) -> Decimal | None:
    return cost if cost is not None and cost.is_finite() else None


def _more_of_run(record: Invocation) -> Fields | None:
    fields: list[tuple[str, Value]] = [
        (Field.ERROR_MESSAGE, record.error_message),
        (Field.INPUT, record.input_text),
        (Field.OUTPUT, record.output_text),
    ]
    rollup = record.rollup
    if rollup is not None and rollup.llm_calls:
        fields += [
            (Field.INPUT_TOKENS, rollup.input_tokens),
            (Field.OUTPUT_TOKENS, rollup.output_tokens),
            (Field.TOTAL_TOKENS, rollup.input_tokens + rollup.output_tokens),
            (Field.COST, _finite(rollup.cost) if rollup.unpriced_calls < rollup.llm_calls else None),
            (Field.LLM_CALLS, rollup.llm_calls),
            (Field.UNPRICED_CALLS, rollup.unpriced_calls or None),
        ]
    if rollup is not None and rollup.tool_calls:
        fields.append((Field.TOOL_CALLS, rollup.tool_calls))
    return _more((*fields, (Field.ATTRIBUTES, record.attributes or None)))


def _more(fields: tuple[tuple[str, Value], ...]) -> Fields | None:
    return {name: value for name, value in fields if value is not None} or None


_ORIGIN_VALUES = _columns(Origin, *_ID_COLUMNS)


class _DecisionKey(NamedTuple):
    service: str
    workflow: str | None
    agent: str | None
    kind: DecisionKind
    name: str
    verdict: Verdict
    result: CheckResult
    severity: Severity
    stage: Stage | None
    tool: str | None


def _decision_fields(repeating: Key) -> Fields:
    key = _DecisionKey._make(repeating)
    event, decider = _DECISIONS[key.kind]
    head = _head(LogType.DECISION, event, f"{key.name} {key.verdict}", key.service)
    if key.verdict != Verdict.ALLOW:
        head[Field.LEVEL] = "WARNING"
    return {
        **head,
        Field.WORKFLOW: key.workflow,
        Field.AGENT: key.agent,
        Field.TOOL: key.tool,
        decider: key.name,
        Field.STAGE: key.stage,
        Field.DECISION: key.verdict,
        Field.RESULT: key.result,
        Field.SEVERITY: key.severity if key.verdict == Verdict.DENY else None,
    }


_DECISION = Layout(_decision_fields, (*_IDS, Field.REASON, Field.DURATION_MS, MORE))
_DECISION_KEY = _columns(Decision, *_DecisionKey._fields[3:])


def _decision(record: Decision, service: str) -> Row:
    origin = record.origin
    key = (service, origin.workflow, origin.agent, *_DECISION_KEY(record))
    more = _more(((Field.ATTRIBUTES, record.attributes or None),))
    values = (*_ORIGIN_VALUES(origin), record.reason, _ms(record.duration_s), more)
    return (_DECISION, key, record.time_unix_ns, values)


def _event_fields(repeating: Key) -> Fields:
    service, event, workflow, agent = repeating
    return {**_head(LogType.AUDIT, str(event), str(event), str(service)), Field.WORKFLOW: workflow, Field.AGENT: agent}


_EVENT = Layout(_event_fields, (*_IDS, MORE))


def _event(record: AuditEvent, service: str) -> Row:
    origin = record.origin
    more = _more(((Field.ATTRIBUTES, record.attributes or None),))
    key = (service, record.event, origin.workflow, origin.agent)
    return (_EVENT, key, record.time_unix_ns, (*_ORIGIN_VALUES(origin), more))


def _feedback(record: Feedback, service: str) -> Row:
    origin = record.origin._replace(request_id=record.request_id)
    more: Fields = {Field.CORRECT: record.correct, Field.REVISION: record.revision}
    if record.attributes:
        more[Field.ATTRIBUTES] = record.attributes
    key = (service, Event.FEEDBACK, origin.workflow, origin.agent)
    return (_EVENT, key, record.time_unix_ns, (*_ORIGIN_VALUES(origin), more))


_BUILDERS: dict[type, Callable[..., Row | None]] = {
    Started: _started,
    Invocation: _invocation,
    Decision: _decision,
    AuditEvent: _event,
    Feedback: _feedback,
}
