"""What the audit log says of each record: the one place where records become audit fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from operator import itemgetter
from typing import Any, NamedTuple

from taskpilot_obs.audit.encoding import MAX_STRING, MORE, Fields, Key, Layout, Value
from taskpilot_obs.audit.run_lines import RunLines, head, milliseconds
from taskpilot_obs.records import (
    AuditEvent,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Origin,
    Record,
    Severity,
    Stage,
    Started,
    Verdict,
)
from taskpilot_obs.semconv import Event, Field, LogType

Row = tuple[Layout, Key, int, tuple[Value, ...]]
"""An audit record that is no run, not yet a line: layout, what repeats, time in ns since the epoch, what varies."""


def audit_text(record: Record, service: str = "", max_string: int = MAX_STRING) -> str | None:
    """What the audit log says of a single record, as JSON on one line of ASCII without the closing brace, or None."""
    return AuditLines(service, max_string).text(record)


class AuditLines:
    """Writes records as lines of the audit log; keeps what repeats from line to line.

    Args:
        service: name of the service, for the field `service`.
        max_string: how many characters of one string are kept; what is cut carries a mark.
    """

    def __init__(self, service: str = "", max_string: int = MAX_STRING) -> None:
        self._service = service
        self._max_string = max_string
        runs = RunLines(service, max_string)
        self._writers: dict[type, Callable[[Any], str | None]] = {
            Started: runs.started,
            Invocation: runs.ended,
            Decision: self._row(_decision),
            AuditEvent: self._row(_event),
            Feedback: self._row(_feedback),
        }

    def _row(self, build: Callable[[Any, str], Row]) -> Callable[[Any], str]:
        def write(record: Record) -> str:
            layout, key, time_unix_ns, values = build(record, self._service)
            return layout.text(key, time_unix_ns, values, self._max_string)

        return write

    def text(self, record: Record) -> str | None:
        """What the log says of a record, as JSON on one line of ASCII without its closing brace, or None."""
        write = self._writers.get(type(record))
        return None if write is None else write(record)

    def fields(self, record: Record) -> Fields | None:
        """The same as a dictionary; a number that a float does not hold to the digit is a `Decimal`."""
        text = self.text(record)
        if text is None:
            return None
        fields: Fields = json.loads(text + "}", parse_float=_number, parse_int=_number)
        return fields


def _number(text: str) -> int | float | Decimal:
    """A number with every digit: money needs more than a float has."""
    if len(text) <= _SHORT and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if text in (repr(number), f"{number:.3f}") else Decimal(text)


_SHORT = 18
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
_DECISIONS = {
    DecisionKind.POLICY: (Event.POLICY_DECISION, Field.POLICY),
    DecisionKind.GUARDRAIL: (Event.GUARDRAIL_CHECK, Field.GUARDRAIL),
    DecisionKind.BUDGET: (Event.BUDGET_DECISION, Field.BUDGET),
}


def _columns(kind: type[Decision | Origin], *names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Reads these fields of a named tuple in one call; reading them one by one is what a row would cost most."""
    return itemgetter(*map(kind._fields.index, names))


_ID_COLUMNS = ("request_id", "invocation_id", "parent_id", "trace_id", "span_id", "tenant", "user", "session")


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
    level = {} if key.verdict == Verdict.ALLOW else {Field.LEVEL: "WARNING"}
    return {
        **head(LogType.DECISION, event, f"{key.name} {key.verdict}", key.service),
        **level,
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
    values = (*_ORIGIN_VALUES(origin), record.reason, milliseconds(record.duration_s), more)
    return (_DECISION, key, record.time_unix_ns, values)


def _event_fields(repeating: Key) -> Fields:
    service, event, workflow, agent = repeating
    return {**head(LogType.AUDIT, str(event), str(event), str(service)), Field.WORKFLOW: workflow, Field.AGENT: agent}


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
