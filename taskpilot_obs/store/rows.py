"""Records as rows: what of an invocation, a verdict or a denial is stored, in the order of the tables' columns.

A row holds only what JSON can hold, so that it can wait in a file; times are microseconds since the Unix epoch.
"""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs._telemetry.sketch import bin_of
from taskpilot_obs._telemetry.values import (
    DIGEST,
    MAX_TEXT,
    NO_SOURCE,
    NS_PER_US,
    PRICING,
    SUCCESS,
    ended_us,
    milliseconds,
    money_of,
    rounded,
    stored_text,
    takable,
    tenant_of,
    texts,
    token_count,
)
from taskpilot_obs.records import (
    LLM_OPERATIONS,
    NO_USAGE,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Record,
    Rollup,
    Source,
    Usage,
    Verdict,
)
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, VIOLATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Row = tuple[str | int | float | bool | None, ...]


MAX_MESSAGE: Final = 2_000
FEEDBACK_COMMENT: Final = "feedback_comment"
"""Attribute of a verdict that holds its comment, redacted by the code that records it."""

LLM_COLUMNS: Final = tuple(column.name for column in LLM_CALLS.columns if column.name != "series_id")
"""Without the number that only the database knows."""
RUN_COLUMNS: Final = tuple(column.name for column in AGENT_RUNS.columns)
FEEDBACK_COLUMNS: Final = tuple(column.name for column in FEEDBACK.columns)
VIOLATION_COLUMNS: Final = tuple(column.name for column in VIOLATIONS.columns)

_NO_ROLLUP: Final = Rollup()


class Rows(NamedTuple):
    """The rows of one batch, by table."""

    llm_calls: list[Row]
    runs: list[Row]
    feedback: list[Row]
    violations: list[Row]

    def __bool__(self) -> bool:
        return any(self)


def rows_of(records: Iterable[Record], source: Source = NO_SOURCE) -> Rows:
    """The rows of a batch; records that the store does not keep have none.

    Args:
        records: of any kind.
        source: the service and environment that they are stored under.
    """
    rows = Rows([], [], [], [])
    for record in records:
        if isinstance(record, Invocation):
            if record.operation in LLM_OPERATIONS:
                rows.llm_calls.append(_llm_call(record, source))
            else:
                rows.runs.append(_run(record, source))
        elif isinstance(record, Feedback):
            rows.feedback.append(_feedback(record, source))
        elif isinstance(record, Decision) and record.kind is DecisionKind.POLICY and record.verdict is Verdict.DENY:
            rows.violations.append(_violation(record, source))
    return rows


def _llm_call(call: Invocation, source: Source) -> Row:
    latency_ms = milliseconds(call.duration_s)
    first_ms = None if call.ttft_s is None else milliseconds(call.ttft_s)
    pricing = call.pricing
    *ids, error_type, experiment, variant, requested, answered, tier, span_id, prompt_hash, unit = _texts_of(call)
    return (
        ended_us(call),
        SUCCESS[call.status],
        call.cached,
        call.streaming,
        bin_of(latency_ms),
        None if first_ms is None else bin_of(first_ms),
        *_token_counts(call.usage or NO_USAGE),
        *money_of(None if call.cached else call.cost),
        rounded(latency_ms),
        None if first_ms is None else rounded(first_ms),
        *ids,
        call.cost_source,
        call.status.value,
        error_type,
        call.error_category,
        _message(call.error_message),
        experiment,
        variant,
        *source,
        call.operation.value,
        requested,
        answered,
        tier,
        None if pricing is None else PRICING[pricing],
        call.price_gap,
        call.retries,
        call.input_length,
        call.output_length,
        span_id,
        prompt_hash,
        unit,
    )


def _texts_of(call: Invocation) -> Sequence[str | None]:
    """Names and identifiers in the order of their columns; together, because one call costs less than nine."""
    said = call.attributes.get
    return texts(
        call.invocation_id,
        tenant_of(call),
        call.user,
        call.session,
        said("llm_key"),
        call.provider,
        call.model,
        said("prompt_name"),
        said("step_id"),
        said("task_id"),
        said("workflow_run_id"),
        said("thought_id"),
        call.parent_id,
        call.request_id,
        call.trace_id,
        call.agent,
        call.workflow,
        call.error_type,
        said("experiment"),
        said("variant"),
        call.request_model,
        call.response_model,
        said("service_tier"),
        call.span_id,
        said("prompt_hash"),
        said("experiment_unit"),
    )


def _token_counts(usage: Usage) -> Row:
    tokens_in, tokens_out = token_count(usage.input_tokens), token_count(usage.output_tokens)
    total = None if tokens_in is None and tokens_out is None else (tokens_in or 0) + (tokens_out or 0)
    details = (usage.reasoning_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    return tokens_in, tokens_out, *map(token_count, details), total


def _run(run: Invocation, source: Source) -> Row:
    said = run.attributes.get
    below = run.rollup or _NO_ROLLUP
    duration_ms = milliseconds(run.duration_s)
    return (
        ended_us(run),
        run.is_task,
        SUCCESS[run.status],
        bin_of(duration_ms),
        rounded(duration_ms),
        below.violations,
        below.llm_calls,
        below.unpriced_calls,
        below.tool_calls,
        token_count(below.input_tokens),
        token_count(below.output_tokens),
        *money_of(below.cost if run.rollup else None),
        stored_text(run.invocation_id),
        stored_text(run.parent_id),
        run.operation.value,
        stored_text(run.name),
        stored_text(run.workflow),
        stored_text(run.agent),
        run.status.value,
        stored_text(run.error_type),
        _message(run.error_message),
        stored_text(tenant_of(run)),
        stored_text(run.user),
        stored_text(run.session),
        stored_text(run.request_id),
        stored_text(run.trace_id),
        stored_text(said("step_id")),
        stored_text(said("task_id")),
        stored_text(said("experiment")),
        stored_text(said("variant")),
        *source,
        *texts(said("workflow_run_id"), said("thought_id"), said("prompt_name")),
        run.input_length,
        run.output_length,
        *texts(run.span_id, said("experiment_unit")),
    )


def _feedback(feedback: Feedback, source: Source) -> Row:
    said, origin = feedback.attributes.get, feedback.origin
    return (
        feedback.time_unix_ns // NS_PER_US,
        feedback.correct,
        feedback.revision,
        stored_text(said("feedback_id")) or token_hex(16),
        stored_text(feedback.request_id),
        stored_text(origin.tenant if origin.tenant is not None else said("organization_id")),
        *texts(origin.user, origin.workflow, origin.agent, said("prompt_name"), said("experiment"), said("variant")),
        *source,
        stored_text(origin.session),
        _message(said(FEEDBACK_COMMENT)),
        stored_text(said("experiment_unit")),
    )


def _violation(denial: Decision, source: Source) -> Row:
    origin = denial.origin
    return (
        denial.time_unix_ns // NS_PER_US,
        token_hex(16),
        stored_text(denial.name),
        denial.severity.value,
        denial.result.value,
        stored_text(origin.request_id),
        stored_text(origin.workflow),
        stored_text(origin.agent),
        stored_text(denial.tool),
        stored_text(origin.tenant if origin.tenant is not None else denial.attributes.get("organization_id")),
        stored_text(origin.user),
        *source,
        *texts(origin.session, origin.invocation_id, origin.trace_id),
    )


def named_in(codec: str, text: str) -> str:
    """A name as a database of that encoding keeps it: what it lacks is replaced by a digest of the whole."""
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
        return f"{text.encode(codec, 'replace').decode(codec)[: MAX_TEXT - DIGEST - 1]}~{digest}"
    return text


def _message(value: Any) -> str | None:
    return None if not isinstance(value, str) else takable(value)[:MAX_MESSAGE]
