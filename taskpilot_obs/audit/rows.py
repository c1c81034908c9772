"""Converts records to the fields of the audit log.

Each kind of record has three parts: a key of repeating values (names, status), the fields made from that key, and the
values that differ from call to call. `RecordLayout` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from taskpilot_obs._support.timestamps import NANOSECONDS
from taskpilot_obs.audit.encoding import MAX_STRING, MORE, Fields, IdsText, Key, RecordLayout, Row, Value
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
    Rollup,
    Severity,
    Stage,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.semconv import Event, Field, LogType


def audit_text(record: Record, service: str = "", max_string: int = MAX_STRING) -> str | None:
    """The audit record of a single record, as JSON on one line of ASCII without the closing brace, or None."""
    return AuditLines(service, max_string).text(record)


class AuditLines:
    """Encodes records as lines of the audit log, and caches the parts that repeat.

    Args:
        service: name of the service, for the field `service`.
        max_string: how many characters of one string are kept; cut strings are marked.
    """

    def __init__(self, service: str = "", max_string: int = MAX_STRING) -> None:
        ids = IdsText(max_string)
        self._layouts = {
            kind: RecordLayout(row, partial(repeating, service), varying, ids)
            for kind, (row, repeating, varying) in _KINDS.items()
        }

    def text(self, record: Record) -> str | None:
        """The audit record as JSON on one line of ASCII without its closing brace; None for a record without one."""
        layout = self._layouts.get(type(record))
        return None if layout is None else layout.text(record)

    def fields(self, record: Record) -> Fields | None:
        """The audit record as a dictionary; a number that a float does not represent exactly is a `Decimal`."""
        text = self.text(record)
        if text is None:
            return None
        fields: Fields = json.loads(text + "}", parse_float=_number, parse_int=_number)
        return fields


def _number(text: str) -> int | float | Decimal:
    """Parse a number with all digits, because money needs more than a float has."""
    if len(text) <= _SHORT and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if text in (repr(number), f"{number:.3f}") else Decimal(text)


_SHORT = 18
_MAX_SECONDS = 1e9


def milliseconds(seconds: float | None) -> float | None:
    """Convert to milliseconds, rounded to microseconds; None for an invalid duration."""
    if seconds is None:
        return None
    # Whole microseconds first, because `round` takes three times as long.
    return int(seconds * 1e6 + 0.5) / 1e3 if -_MAX_SECONDS < seconds < _MAX_SECONDS else None


def _common(log_type: str, event: str, said: str, service: str) -> Fields:
    """The fields that every audit record has."""
    return {
        Field.LEVEL: "ERROR" if log_type == LogType.ERROR else "INFO",
        Field.LOG_TYPE: log_type,
        Field.EVENT: event,
        Field.MESSAGE: f"[{log_type.upper()}] {said}",
        Field.SERVICE: service or None,
    }


_ID_COLUMNS = ("request_id", "invocation_id", "parent_id", "trace_id", "span_id", "tenant", "user", "session")


def _columns(kind: type[Decision | Invocation | Origin | Started], *names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Read fields of a named tuple in one call, because reading them one by one would take most of the row's time."""
    return itemgetter(*map(kind._fields.index, names))


def _more(fields: Fields) -> Fields | None:
    """The rare fields of a record; None if it has none."""
    return {name: value for name, value in fields.items() if value is not None} or None


# --- runs: two lines for each observed call, and so the hot path of the log ------------------------------------------

_INPUT_EVENTS = {Operation.WORKFLOW: Event.WORKFLOW_INPUT, Operation.AGENT: Event.AGENT_INPUT}
_OUTCOMES = {
    Operation.WORKFLOW: (Event.WORKFLOW_OUTPUT, "Output"),
    Operation.AGENT: (Event.AGENT_OUTPUT, "Output"),
    Operation.TOOL: (Event.TOOL_CALL, "Tool"),
    Operation.CHAT: (Event.LLM_CALL, "LLM"),
    Operation.EMBEDDINGS: (Event.LLM_CALL, "Embeddings"),
}
_START_KEY = _columns(Started, "operation", "name", "workflow", "agent")
_START_IDS = _columns(Started, *_ID_COLUMNS)
_START_VARYING = (Field.INPUT_LENGTH, MORE)


def _start_fields(service: str, key: Key) -> Fields:
    operation, name, workflow, agent = key
    return {
        **_common(LogType.AUDIT, _INPUT_EVENTS[operation], f"{name} Input", service),
        Field.WORKFLOW: workflow,
        Field.AGENT: agent,
    }


def _start_row(record: Started) -> Row | None:
    """Make the row of a start, which only workflows and agents have."""
    if record.operation not in _INPUT_EVENTS:
        return None
    more = None
    if record.input_text or record.attributes:
        more = _more({Field.INPUT: record.input_text, Field.ATTRIBUTES: record.attributes or None})
    return _START_KEY(record), record.start_unix_ns, _START_IDS(record), (record.input_length, more)


class _EndKey(NamedTuple):
    operation: Operation
    name: str
    status: Status
    workflow: str | None
    agent: str | None
    error_type: str | None
    error_category: str | None
    provider: str | None
    request_model: str | None
    response_model: str | None
    streaming: bool
    cached: bool | None


_END_KEY = _columns(Invocation, *_EndKey._fields)
_END_IDS = _columns(Invocation, *_ID_COLUMNS)
_END_SIZES = _columns(Invocation, "input_length", "output_length")
_LLM_FIELDS = (Field.FIRST_TOKEN_MS, Field.INPUT_TOKENS, Field.OUTPUT_TOKENS, Field.TOTAL_TOKENS, Field.COST)
_END_VARYING = (Field.INPUT_LENGTH, Field.OUTPUT_LENGTH, Field.DURATION_MS, MORE, *_LLM_FIELDS)
_END_MORE = _columns(Invocation, "attributes", "rollup", "error_message", "input_text", "output_text", "price_gap")


def _end_fields(service: str, key: Key) -> Fields:
    end = _EndKey._make(key)
    event, what = _OUTCOMES[end.operation]
    log_type = LogType.ERROR if end.status in BAD else LogType.AUDIT
    return {
        **_common(log_type, event, f"{end.name} {what}", service),
        Field.WORKFLOW: end.workflow,
        Field.AGENT: end.agent,
        Field.TOOL: end.name if end.operation == Operation.TOOL else None,
        Field.MODEL: end.response_model or end.request_model,
        Field.PROVIDER: end.provider,
        Field.STATUS: end.status,
        Field.ERROR_TYPE: end.error_type,
        Field.ERROR_CATEGORY: end.error_category,
        Field.STREAMING: end.streaming if end.operation in LLM_OPERATIONS else end.streaming or None,
        Field.CACHED: end.cached,
    }


def _end_row(record: Invocation) -> Row:
    duration_s = record.duration_s
    more = _more(_rare_fields(record)) if any(_END_MORE(record)) else None
    values = (*_END_SIZES(record), milliseconds(duration_s), more)
    if record.operation in LLM_OPERATIONS:
        values += _llm_values(record)
    return _END_KEY(record), record.start_unix_ns + int(duration_s * NANOSECONDS), _END_IDS(record), values


def _llm_values(record: Invocation) -> tuple[Value, ...]:
    usage, cost = record.usage, record.cost
    taken, given = (None, None) if usage is None else (usage.input_tokens, usage.output_tokens)
    total = None if taken is None or given is None else taken + given
    return milliseconds(record.ttft_s), taken, given, total, _finite(cost)


def _rare_fields(record: Invocation) -> Fields:
    return {
        Field.ERROR_MESSAGE: record.error_message,
        Field.INPUT: record.input_text,
        Field.OUTPUT: record.output_text,
        Field.PRICE_GAP: record.price_gap,
        **({} if record.rollup is None else _rollup_fields(record.rollup)),
        Field.ATTRIBUTES: record.attributes or None,
    }


def _rollup_fields(rollup: Rollup) -> Fields:
    fields: Fields = {}
    if rollup.llm_calls:
        fields = {
            Field.INPUT_TOKENS: rollup.input_tokens,
            Field.OUTPUT_TOKENS: rollup.output_tokens,
            Field.TOTAL_TOKENS: rollup.input_tokens + rollup.output_tokens,
            Field.COST: _finite(rollup.cost) if rollup.unpriced_calls < rollup.llm_calls else None,
            Field.LLM_CALLS: rollup.llm_calls,
            Field.UNPRICED_CALLS: rollup.unpriced_calls or None,
        }
    if rollup.tool_calls:
        fields[Field.TOOL_CALLS] = rollup.tool_calls
    return fields


def _finite(cost: Decimal | None) -> Decimal | None:
    return cost if cost is not None and cost.is_finite() else None


# --- decisions, events, feedback -------------------------------------------------------------------------------------

_DECISIONS = {
    DecisionKind.POLICY: (Event.POLICY_DECISION, Field.POLICY),
    DecisionKind.GUARDRAIL: (Event.GUARDRAIL_CHECK, Field.GUARDRAIL),
    DecisionKind.BUDGET: (Event.BUDGET_DECISION, Field.BUDGET),
}
_ORIGIN_IDS = _columns(Origin, *_ID_COLUMNS)


class _DecisionKey(NamedTuple):
    workflow: str | None
    agent: str | None
    kind: DecisionKind
    name: str
    verdict: Verdict
    result: CheckResult
    severity: Severity
    stage: Stage | None
    tool: str | None


_DECISION_KEY = _columns(Decision, *_DecisionKey._fields[2:])
_DECISION_VARYING = (Field.REASON, Field.DURATION_MS, MORE)


def _decision_fields(service: str, key: Key) -> Fields:
    decision = _DecisionKey._make(key)
    event, decider = _DECISIONS[decision.kind]
    level = {} if decision.verdict == Verdict.ALLOW else {Field.LEVEL: "WARNING"}
    return {
        **_common(LogType.DECISION, event, f"{decision.name} {decision.verdict}", service),
        **level,
        Field.WORKFLOW: decision.workflow,
        Field.AGENT: decision.agent,
        Field.TOOL: decision.tool,
        decider: decision.name,
        Field.STAGE: decision.stage,
        Field.DECISION: decision.verdict,
        Field.RESULT: decision.result,
        Field.SEVERITY: decision.severity if decision.verdict == Verdict.DENY else None,
    }


def _decision_row(record: Decision) -> Row:
    origin = record.origin
    key = (origin.workflow, origin.agent, *_DECISION_KEY(record))
    more = _more({Field.ATTRIBUTES: record.attributes or None})
    values = (record.reason, milliseconds(record.duration_s), more)
    return key, record.time_unix_ns, _ORIGIN_IDS(origin), values


_EVENT_VARYING = (MORE,)


def _event_fields(service: str, key: Key) -> Fields:
    event, workflow, agent = key
    return {**_common(LogType.AUDIT, str(event), str(event), service), Field.WORKFLOW: workflow, Field.AGENT: agent}


def _event_row(record: AuditEvent) -> Row:
    origin = record.origin
    more = _more({Field.ATTRIBUTES: record.attributes or None})
    return (record.event, origin.workflow, origin.agent), record.time_unix_ns, _ORIGIN_IDS(origin), (more,)


def _feedback_row(record: Feedback) -> Row:
    origin = record.origin._replace(request_id=record.request_id)
    more: Fields = {Field.CORRECT: record.correct, Field.REVISION: record.revision}
    if record.attributes:
        more[Field.ATTRIBUTES] = record.attributes
    return (Event.FEEDBACK, origin.workflow, origin.agent), record.time_unix_ns, _ORIGIN_IDS(origin), (more,)


_KINDS: dict[type, tuple[Callable[[Any], Row | None], Callable[[str, Key], Fields], tuple[str, ...]]] = {
    Started: (_start_row, _start_fields, _START_VARYING),
    Invocation: (_end_row, _end_fields, _END_VARYING),
    Decision: (_decision_row, _decision_fields, _DECISION_VARYING),
    AuditEvent: (_event_row, _event_fields, _EVENT_VARYING),
    Feedback: (_feedback_row, _event_fields, _EVENT_VARYING),
}
"""For each kind of record: its row, the fields of its key, and the names of its varying fields."""
