"""Records as rows: what of an invocation, a verdict or a denial is stored, in the order of the tables' columns.

A row holds only what JSON can hold, so that it can wait in a file; times are microseconds since the Unix epoch.
"""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs.records import (
    BAD,
    GOOD,
    LLM_OPERATIONS,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Pricing,
    Record,
    Rollup,
    Source,
    Status,
    Usage,
    Verdict,
)
from taskpilot_obs.semconv import NONE
from taskpilot_obs.store.money import Money, from_decimal
from taskpilot_obs.store.sketch import bin_of
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, VIOLATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


Row = tuple[str | int | float | bool | None, ...]


_UNKNOWN_SOURCE: Final = Source()

MAX_TEXT: Final = 256
"""Longest name or identifier that is stored."""
MAX_MESSAGE: Final = 2_000
FEEDBACK_COMMENT: Final = "feedback_comment"
"""Attribute of a verdict that holds its comment, redacted by the code that records it."""
_DIGEST: Final = 16
MAX_TOKENS: Final = 10**12
"""A provider's claim beyond this is nonsense, and would make sums overflow."""
MAX_MS: Final = 1e12
_NS_PER_US: Final = 1_000
_US_PER_S: Final = 1_000_000

LLM_COLUMNS: Final = tuple(column.name for column in LLM_CALLS.columns if column.name != "series_id")
"""Without the number that only the database knows."""
RUN_COLUMNS: Final = tuple(column.name for column in AGENT_RUNS.columns)
FEEDBACK_COLUMNS: Final = tuple(column.name for column in FEEDBACK.columns)
VIOLATION_COLUMNS: Final = tuple(column.name for column in VIOLATIONS.columns)
SUCCESS: Final[dict[Status, bool | None]] = {
    status: True if status in GOOD else False if status in BAD else None for status in Status
}
"""How a status counts in the success rate; None where it does not."""

PRICING: Final = {Pricing.FREE: 0, Pricing.PRICED: 1, Pricing.PARTIAL: 2, Pricing.UNPRICED: 3}
"""What a row says about its cost; NULL in rows of older versions."""

_NO_USAGE: Final = Usage()
_NO_ROLLUP: Final = Rollup()
_NO_MONEY: Final = (None, None)


class Rows(NamedTuple):
    """The rows of one batch, by table."""

    llm_calls: list[Row]
    runs: list[Row]
    feedback: list[Row]
    violations: list[Row]

    def __bool__(self) -> bool:
        return any(self)


def rows_of(records: Iterable[Record], source: Source = _UNKNOWN_SOURCE) -> Rows:
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
    said = call.attributes.get
    usage = call.usage or _NO_USAGE
    latency_ms = _milliseconds(call.duration_s)
    first_ms = None if call.ttft_s is None else _milliseconds(call.ttft_s)
    return (
        _ended_us(call),
        SUCCESS[call.status],
        call.cached,
        call.streaming,
        bin_of(latency_ms),
        None if first_ms is None else bin_of(first_ms),
        *_token_counts(usage),
        *_money(None if call.cached else call.cost),
        _rounded(latency_ms),
        None if first_ms is None else _rounded(first_ms),
        *_texts(
            call.invocation_id,
            _tenant(call),
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
        ),
        call.cost_source,
        call.status.value,
        stored_text(call.error_type),
        call.error_category,
        _message(call.error_message),
        *_texts(said("experiment"), said("variant")),
        *source,
        call.operation.value,
        *_texts(call.request_model, call.response_model, said("service_tier")),
        None if call.pricing is None else PRICING[call.pricing],
        call.price_gap,
        call.retries,
        call.input_length,
        call.output_length,
        *_texts(call.span_id, said("prompt_hash"), said("experiment_unit")),
    )


def _token_counts(usage: Usage) -> Row:
    tokens_in, tokens_out = _tokens(usage.input_tokens), _tokens(usage.output_tokens)
    total = None if tokens_in is None and tokens_out is None else (tokens_in or 0) + (tokens_out or 0)
    details = (usage.reasoning_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    return tokens_in, tokens_out, *map(_tokens, details), total


def _run(run: Invocation, source: Source) -> Row:
    said = run.attributes.get
    below = run.rollup or _NO_ROLLUP
    duration_ms = _milliseconds(run.duration_s)
    return (
        _ended_us(run),
        run.is_task,
        SUCCESS[run.status],
        bin_of(duration_ms),
        _rounded(duration_ms),
        below.violations,
        below.llm_calls,
        below.unpriced_calls,
        below.tool_calls,
        _tokens(below.input_tokens),
        _tokens(below.output_tokens),
        *_money(below.cost if run.rollup else None),
        stored_text(run.invocation_id),
        stored_text(run.parent_id),
        run.operation.value,
        stored_text(run.name),
        stored_text(run.workflow),
        stored_text(run.agent),
        run.status.value,
        stored_text(run.error_type),
        _message(run.error_message),
        stored_text(_tenant(run)),
        stored_text(run.user),
        stored_text(run.session),
        stored_text(run.request_id),
        stored_text(run.trace_id),
        stored_text(said("step_id")),
        stored_text(said("task_id")),
        stored_text(said("experiment")),
        stored_text(said("variant")),
        *source,
        *_texts(said("workflow_run_id"), said("thought_id"), said("prompt_name")),
        run.input_length,
        run.output_length,
        *_texts(run.span_id, said("experiment_unit")),
    )


def _feedback(feedback: Feedback, source: Source) -> Row:
    said, origin = feedback.attributes.get, feedback.origin
    return (
        feedback.time_unix_ns // _NS_PER_US,
        feedback.correct,
        feedback.revision,
        stored_text(said("feedback_id")) or token_hex(16),
        stored_text(feedback.request_id),
        stored_text(origin.tenant if origin.tenant is not None else said("organization_id")),
        stored_text(origin.user),
        stored_text(origin.workflow),
        stored_text(origin.agent),
        stored_text(said("prompt_name")),
        stored_text(said("experiment")),
        stored_text(said("variant")),
        *source,
        stored_text(origin.session),
        _message(said(FEEDBACK_COMMENT)),
        stored_text(said("experiment_unit")),
    )


def _violation(denial: Decision, source: Source) -> Row:
    origin = denial.origin
    return (
        denial.time_unix_ns // _NS_PER_US,
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
        *_texts(origin.session, origin.invocation_id, origin.trace_id),
    )


def _ended_us(invocation: Invocation) -> int:
    """An invocation belongs to the moment at which it ended, as in the metrics."""
    return invocation.start_unix_ns // _NS_PER_US + int(invocation.duration_s * _US_PER_S)


def _tenant(invocation: Invocation) -> Any:
    tenant = invocation.tenant
    return tenant if tenant is not None else invocation.attributes.get("organization_id")


def _milliseconds(seconds: float) -> float:
    """A negative duration, or NaN, is 0; `max` comes first because it returns its first argument where one is NaN."""
    return min(max(0.0, seconds * 1_000.0), MAX_MS)


def _rounded(milliseconds: float) -> float:
    """To whole microseconds, which is what a row keeps; its bin knows better."""
    return round(milliseconds, 3)


def _tokens(amount: int | None) -> int | None:
    if amount is None or -MAX_TOKENS <= amount <= MAX_TOKENS:
        return amount
    return MAX_TOKENS if amount > 0 else -MAX_TOKENS


def _money(cost: Decimal | None) -> Money | tuple[None, None]:
    """NULL if unknown; NaN, and an amount that no column can hold, are unknown too."""
    if cost is None:
        return _NO_MONEY
    try:
        return from_decimal(cost)
    except ValueError:
        return _NO_MONEY


def _texts(*values: Any) -> Sequence[str | None]:
    """Each as `stored_text` keeps it. All are looked at together first: nearly always there is nothing to cut out."""
    told = [value for value in values if value is not None]
    try:
        together = "".join(told)
    except TypeError:  # an attribute may be a number
        return [*map(stored_text, values)]
    short = len(together) <= MAX_TEXT or max(map(len, told)) <= MAX_TEXT
    if short and together.isascii() and "\x00" not in together and NONE not in together:
        return values
    return [*map(stored_text, values)]


def stored_text(value: Any) -> str | None:
    """A name or identifier as the store keeps it: what both databases take, and never the name of another.

    NUL, halves of surrogate pairs and what is too long are cut out; a digest of the whole takes their place, so that no
    two tenants can fall into one. One who is really named `__none__` gets a digest as well: that word stands for none.
    """
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if text != NONE and len(text) <= MAX_TEXT and "\x00" not in text and (text.isascii() or _encodable(text)):
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{_takable(text)[: MAX_TEXT - _DIGEST - 1]}~{digest}"


def named_in(codec: str, text: str) -> str:
    """A name as a database of that encoding keeps it: what it lacks is replaced by a digest of the whole."""
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
        return f"{text.encode(codec, 'replace').decode(codec)[: MAX_TEXT - _DIGEST - 1]}~{digest}"
    return text


def _message(value: Any) -> str | None:
    return None if not isinstance(value, str) else _takable(value)[:MAX_MESSAGE]


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _takable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
