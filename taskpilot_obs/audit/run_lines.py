"""Runs as lines of the audit log. Two lines a call make this the hot path of the log, so each is written out by hand.

What repeats from call to call (names, status, …) is built once and kept; what varies is put together in one pass.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

from taskpilot_obs.audit.encoding import members, rfc3339
from taskpilot_obs.records import BAD, LLM_OPERATIONS, Operation, Usage
from taskpilot_obs.semconv import Event, Field, LogType

if TYPE_CHECKING:
    from collections.abc import Hashable
    from decimal import Decimal

    from taskpilot_obs.audit.encoding import Fields
    from taskpilot_obs.records import Invocation, Rollup, Started

_MAX_CACHED = 4_096
_MAX_KEPT = 2_048
_MAX_SECONDS = 1e9
_SECOND = 1_000_000
_FRACTION = len("000000Z")
_RUNS = frozenset({Operation.WORKFLOW, Operation.AGENT})
_INPUT_EVENTS = {Operation.WORKFLOW: Event.WORKFLOW_INPUT, Operation.AGENT: Event.AGENT_INPUT}
_OUTCOMES = {
    Operation.WORKFLOW: (Event.WORKFLOW_OUTPUT, "Output"),
    Operation.AGENT: (Event.AGENT_OUTPUT, "Output"),
    Operation.TOOL: (Event.TOOL_CALL, "Tool"),
    Operation.CHAT: (Event.LLM_CALL, "LLM"),
    Operation.EMBEDDINGS: (Event.LLM_CALL, "Embeddings"),
}
_DIGITS = tuple(f"{number:03d}" for number in range(1_000))
"""Three digits of a microsecond; a format specification takes four times as long."""
_Text = str | None
_Ids = tuple[str, str, _Text, _Text, _Text, int, _Text, _Text, bool, _Text, _Text, _Text]
"""From `request_id` to `session` in records of runs: the identifiers, and among them four fields that are none."""


def _member(name: str) -> str:
    return f',"{name}":'


_TIMESTAMP = f'{{"{Field.TIMESTAMP}":"'
_REQUEST, _INVOCATION, _PARENT = map(_member, (Field.REQUEST_ID, Field.INVOCATION_ID, Field.PARENT_ID))
_TRACE, _SPAN = map(_member, (Field.TRACE_ID, Field.SPAN_ID))
_TENANT, _USER, _SESSION = map(_member, (Field.TENANT_ID, Field.USER_ID, Field.SESSION_ID))
_TAKEN, _GIVEN, _DURATION = map(_member, (Field.INPUT_LENGTH, Field.OUTPUT_LENGTH, Field.DURATION_MS))
_FIRST_TOKEN, _COST = map(_member, (Field.FIRST_TOKEN_MS, Field.COST))
_INPUT_TOKENS, _OUTPUT_TOKENS, _TOTAL_TOKENS = map(
    _member, (Field.INPUT_TOKENS, Field.OUTPUT_TOKENS, Field.TOTAL_TOKENS)
)


class RunLines:
    """Writes the start and the end of runs.

    Args:
        service: name of the service, in each line.
        max_string: how many characters of one string are kept.
    """

    def __init__(self, service: str, max_string: int) -> None:
        self._service = service
        self._max_string = max_string
        self._kept: dict[Hashable, str] = {}
        self._second = (0, _TIMESTAMP + rfc3339(0)[:-_FRACTION])
        """The second that most lines share, in ns, and what they begin with; one value, for threads may share it."""
        self._last_ids: tuple[_Ids | None, str] = (None, "")

    def started(self, record: Started) -> str | None:
        """The line of a start, without its closing brace; only workflows and agents have one."""
        (
            operation, name, _request, _invocation, _parent, workflow, agent, start_unix_ns, _trace, _span,
            _sampled, _tenant, _user, _session, _model, _provider, input_length, input_text, attributes, _is_task,
        ) = record  # fmt: skip
        if operation not in _RUNS:
            return None
        key = (operation, name, workflow, agent)
        repeating = self._kept.get(key)
        if repeating is None:
            repeating = self._keep(key, self._start_fields(operation, name, workflow, agent))
        second_ns, second = self._second
        micros = (start_unix_ns - second_ns) // 1_000
        if not 0 <= micros < _SECOND:
            micros, second = self._turn(start_unix_ns)
        ids = self._ids(record[2:14])
        text = f'{second}{_DIGITS[micros // 1_000]}{_DIGITS[micros % 1_000]}Z",{repeating}{ids}'
        if input_length is not None:
            text += f"{_TAKEN}{input_length:d}"
        if input_text or attributes:
            text += self._more({Field.INPUT: input_text, Field.ATTRIBUTES: attributes or None})
        return text

    def ended(self, record: Invocation) -> str:
        """The line of an end, without its closing brace."""
        (
            status, duration_s,
            operation, name, _request, _invocation, _parent, workflow, agent, start_unix_ns, _trace, _span,
            _sampled, _tenant, _user, _session, request_model, provider, input_length, input_text, attributes, _is_task,
            error_type, error_message, output_length, output_text, rollup,
            _category, usage, _inconsistent, cost, _source, response_model, streaming, cached, ttft_s, _retries,
        ) = record  # fmt: skip
        model = response_model or request_model
        key = (operation, name, status, workflow, agent, error_type, provider, model, streaming, cached)
        repeating = self._kept.get(key)
        if repeating is None:
            repeating = self._keep(key, self._end_fields(record))
        ended_unix_ns = start_unix_ns + int(duration_s * 1e9)
        second_ns, second = self._second
        micros = (ended_unix_ns - second_ns) // 1_000
        if not 0 <= micros < _SECOND:
            micros, second = self._turn(ended_unix_ns)
        ids = self._ids(record[4:16])
        sizes = ""
        if input_length is not None:
            sizes = f"{_TAKEN}{input_length:d}"
        if output_length is not None:
            sizes += f"{_GIVEN}{output_length:d}"
        if -_MAX_SECONDS < duration_s < _MAX_SECONDS:
            sizes += f"{_DURATION}{duration_s * 1e3:.3f}"
        text = f'{second}{_DIGITS[micros // 1_000]}{_DIGITS[micros % 1_000]}Z",{repeating}{ids}{sizes}'
        if operation in LLM_OPERATIONS:
            text += _llm_text(ttft_s, usage, cost)
        if attributes or rollup is not None or error_message or input_text or output_text:
            text += self._more(_rare_fields(record))
        return text

    def _ids(self, those: _Ids) -> str:
        """The identifiers; an end that follows its start at once says them again."""
        known, text = self._last_ids
        if known == those:
            return text
        text = self._new_ids(those)
        self._last_ids = those, text
        return text

    def _new_ids(self, those: _Ids) -> str:
        request_id, invocation_id, parent_id, _, _, _, trace_id, span_id, _, tenant, user, session = those
        text = f"{_REQUEST}{quoted(request_id)}{_INVOCATION}{quoted(invocation_id)}"
        if parent_id is not None:
            text += f"{_PARENT}{quoted(parent_id)}"
        if trace_id is not None:
            text += f"{_TRACE}{quoted(trace_id)}"
        if span_id is not None:
            text += f"{_SPAN}{quoted(span_id)}"
        if tenant is not None:
            text += f"{_TENANT}{quoted(tenant)}"
        if user is not None:
            text += f"{_USER}{quoted(user)}"
        if session is not None:
            text += f"{_SESSION}{quoted(session)}"
        if len(text) <= self._max_string and "\\u" not in text:
            return text
        return self._more(  # something is too long, or may be half a character
            {
                Field.REQUEST_ID: request_id,
                Field.INVOCATION_ID: invocation_id,
                Field.PARENT_ID: parent_id,
                Field.TRACE_ID: trace_id,
                Field.SPAN_ID: span_id,
                Field.TENANT_ID: tenant,
                Field.USER_ID: user,
                Field.SESSION_ID: session,
            }
        )

    def _turn(self, unix_ns: int) -> tuple[int, str]:
        """Begin another second; returns the microseconds in it, and what its lines begin with."""
        second_ns = unix_ns // 1_000_000_000 * 1_000_000_000
        self._second = second_ns, _TIMESTAMP + rfc3339(unix_ns)[:-_FRACTION]
        return (unix_ns - second_ns) // 1_000, self._second[1]

    def _more(self, fields: Fields) -> str:
        text = members(fields, self._max_string)
        return f",{text}" if text else ""

    def _start_fields(self, operation: Operation, name: str, workflow: str | None, agent: str | None) -> Fields:
        return {
            **head(LogType.AUDIT, _INPUT_EVENTS[operation], f"{name} Input", self._service),
            Field.WORKFLOW: workflow,
            Field.AGENT: agent,
        }

    def _end_fields(self, record: Invocation) -> Fields:
        event, what = _OUTCOMES[record.operation]
        log_type = LogType.ERROR if record.status in BAD else LogType.AUDIT
        return {
            **head(log_type, event, f"{record.name} {what}", self._service),
            Field.WORKFLOW: record.workflow,
            Field.AGENT: record.agent,
            Field.TOOL: record.name if record.operation == Operation.TOOL else None,
            Field.MODEL: record.model,
            Field.PROVIDER: record.provider,
            Field.STATUS: record.status,
            Field.ERROR_TYPE: record.error_type,
            Field.STREAMING: record.streaming if record.operation in LLM_OPERATIONS else record.streaming or None,
            Field.CACHED: record.cached,
        }

    def _keep(self, key: Hashable, fields: Fields) -> str:
        text = members(fields, self._max_string)
        if len(text) <= _MAX_KEPT:  # a name of megabytes is not worth the memory
            if len(self._kept) >= _MAX_CACHED:
                self._kept.clear()
            self._kept[key] = text
        return text


def head(log_type: str, event: str, said: str, service: str) -> Fields:
    """What every audit record begins with, after its time."""
    return {
        Field.LEVEL: "ERROR" if log_type == LogType.ERROR else "INFO",
        Field.LOG_TYPE: log_type,
        Field.EVENT: event,
        Field.MESSAGE: f"[{log_type.upper()}] {said}",
        Field.SERVICE: service or None,
    }


def milliseconds(seconds: float | None) -> float | None:
    """Milliseconds, to the microsecond; None for what is no duration."""
    if seconds is None:
        return None
    return round(seconds * 1e3, 3) if -_MAX_SECONDS < seconds < _MAX_SECONDS else None


def _llm_text(ttft_s: float | None, usage: Usage | None, cost: Decimal | None) -> str:
    text, first_token_ms = "", milliseconds(ttft_s)
    if first_token_ms is not None:
        text += f"{_FIRST_TOKEN}{first_token_ms}"
    if usage is not None:
        taken, given = usage.input_tokens, usage.output_tokens
        if taken is not None:
            text += f"{_INPUT_TOKENS}{taken:d}"
        if given is not None:
            text += f"{_OUTPUT_TOKENS}{given:d}"
        if taken is not None and given is not None:
            text += f"{_TOTAL_TOKENS}{taken + given}"
    if cost is not None and cost.is_finite():
        text += f"{_COST}{cost}"
    return text


def _rare_fields(record: Invocation) -> Fields:
    return {
        Field.ERROR_MESSAGE: record.error_message,
        Field.INPUT: record.input_text,
        Field.OUTPUT: record.output_text,
        **(_NOTHING if record.rollup is None else _rollup_fields(record.rollup)),
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


_NOTHING: Fields = {}
