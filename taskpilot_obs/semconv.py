"""Every name that leaves the process: metrics, labels, span attributes, audit fields. No other module spells one.

Metric names follow Prometheus' conventions (base units, `_total` on counters only). Span names and attributes are those
of the OpenTelemetry GenAI conventions (semantic-conventions-genai, status Development); the published Python constants
are deprecated and incomplete, so the table is ours. What the conventions lack lives under `taskpilot.*`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from taskpilot_obs.records import CheckResult, Severity, Stage, Status, Verdict

NONE: Final = "__none__"
"""A label without a value (an empty label vanishes from the exposition)."""
OTHER: Final = "__other__"
"""The value that replaces names beyond a label's bound, so that sums over the label stay exact."""


class Label:
    """Names of metric labels."""

    WORKFLOW: Final = "workflow"
    AGENT: Final = "agent"
    TOOL: Final = "tool"
    MODEL: Final = "model"
    PROVIDER: Final = "provider"
    STATUS: Final = "status"
    TOKEN_TYPE: Final = "token_type"  # noqa: S105  no password, and neither is the next
    DETAIL: Final = "detail"
    ERROR_TYPE: Final = "error_type"
    CACHE: Final = "cache"
    POLICY: Final = "policy"
    SEVERITY: Final = "severity"
    DECISION: Final = "decision"
    GUARDRAIL: Final = "guardrail"
    STAGE: Final = "stage"
    RESULT: Final = "result"
    VERDICT: Final = "verdict"
    BUDGET: Final = "budget"
    PERIOD: Final = "period"
    EXPORTER: Final = "exporter"
    REASON: Final = "reason"
    WHERE: Final = "where"
    METRIC: Final = "metric"
    VERSION: Final = "version"
    SERVICE: Final = "service"
    SERVICE_VERSION: Final = "service_version"
    EXPERIMENT: Final = "experiment"
    VARIANT: Final = "variant"
    MEASURE: Final = "measure"
    ROUTE: Final = "route"
    METHOD: Final = "method"
    STATUS_CODE: Final = "status_code"


LABEL_BOUNDS: Final[dict[str, int]] = {
    Label.WORKFLOW: 100,
    Label.AGENT: 200,
    Label.TOOL: 200,
    Label.MODEL: 100,
    Label.PROVIDER: 30,
    Label.POLICY: 100,
    Label.GUARDRAIL: 50,
    Label.CACHE: 50,
    Label.BUDGET: 100,
    Label.EXPORTER: 30,
    Label.WHERE: 100,
    Label.EXPERIMENT: 50,
    Label.VARIANT: 20,
}
"""How many names a label admits; the rest folds into `__other__`. Labels not listed have a fixed set of values."""
MAX_CHILDREN: Final = 2_000
"""Most combinations of label values that one family admits."""

TOKEN_TYPES: Final = ("input", "output")
TOKEN_DETAILS: Final = ("cache_read", "cache_write", "reasoning", "input_audio", "output_audio")
ERROR_CATEGORIES: Final = (
    "rate_limit",
    "timeout",
    "auth",
    "bad_request",
    "context_length",
    "content_filter",
    "connection",
    "server",
    "inconsistent",
    "other",
)
VERDICTS: Final = ("correct", "incorrect")
MEASURES: Final = ("success", "cost", "p50", "p95", "correctness", "tokens", "violations")
PERIODS: Final = ("day", "week", "month", "total", "minute", "hour")


class PriceGap:
    """Why a cost is known to be incomplete: values of the label `reason` of `llm_partially_priced_requests_total`."""

    SERVER_TOOLS: Final = "server_tools"  # web search, code execution, …: billed by use
    FEES: Final = "fees"  # each request or search is billed besides the tokens
    SURCHARGE: Final = "surcharge"  # a region or a mode multiplies the price
    MEDIA: Final = "media"  # audio, video or images, whose tokens are not stated apart
    OTHER_MODEL: Final = "other_model"  # a part of the call ran on another model
    CONTRADICTION: Final = "contradiction"  # the stated total contradicts its parts
    DETAILS_DROPPED: Final = "details_dropped"  # a framework drops what the provider states
    SUMMED: Final = "summed"  # several calls in one sum, whose price depends on the length of each
    UPSTREAM: Final = "upstream"  # a router states its own fee only, and the provider behind it bills the rest


PRICE_GAPS: Final = tuple(value for name, value in vars(PriceGap).items() if name.isupper())


class WarningCode:
    """Stable codes in square brackets at the end of lines of the log: anchors of `docs/troubleshooting.md`."""

    AUDIT_LOG_BROKEN: Final = "audit-log-broken"
    AUDIT_LOG_CUT: Final = "audit-log-cut"
    BUDGET_CHARGES_LOST: Final = "budget-charges-lost"
    BUDGET_OTHER_LIMITS: Final = "budget-other-limits"
    CHECK_BYPASSED: Final = "check-bypassed"
    EXPERIMENT_STOPPED: Final = "experiment-stopped"
    IMPORTED_TOO_EARLY: Final = "imported-too-early"
    IMPORTED_TWICE: Final = "imported-twice"
    INTERNAL_ERROR: Final = "internal-error"
    NO_PRICE: Final = "no-price"
    NOT_CONFIGURED: Final = "not-configured"
    NOT_INSTRUMENTED: Final = "not-instrumented"
    SEPARATE_METRICS: Final = "separate-metrics"
    SPOOL_UNWRITABLE: Final = "spool-unwritable"
    STREAM_NOT_FOLLOWED: Final = "stream-not-followed"


WARNING_CODES: Final = tuple(value for name, value in vars(WarningCode).items() if name.isupper())


class DropReason:
    """Values of the label `reason` of `taskpilot_obs_records_dropped_total`."""

    QUEUE_FULL: Final = "queue_full"
    EXPORT_FAILED: Final = "export_failed"
    SHUTDOWN: Final = "shutdown"


DROP_REASONS: Final = (DropReason.QUEUE_FULL, DropReason.EXPORT_FAILED, DropReason.SHUTDOWN)
FIXED_VALUES: Final[dict[str, tuple[str, ...]]] = {
    Label.STATUS: tuple(Status),
    Label.TOKEN_TYPE: TOKEN_TYPES,
    Label.DETAIL: TOKEN_DETAILS,
    Label.ERROR_TYPE: ERROR_CATEGORIES,
    Label.SEVERITY: tuple(Severity),
    Label.DECISION: tuple(Verdict),
    Label.STAGE: tuple(Stage),
    Label.RESULT: tuple(CheckResult),
    Label.VERDICT: VERDICTS,
    Label.PERIOD: PERIODS,
    Label.MEASURE: MEASURES,
}
"""The values of each label that is bounded by nature, and means the same in every family."""


def fixed_values(family: str, label: str) -> tuple[str, ...]:
    """The values of a label that is bounded by nature, in one family; none if the label is not.

    Args:
        family: the name of a metric family.
        label: one of its labels.
    """
    return REASONS.get(family, ()) if label == Label.REASON else FIXED_VALUES.get(label, ())


RUN_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Agents, LLM calls and tools, in seconds. 2 and 5 are bounds because the alerts ask about them."""
WORKFLOW_BUCKETS: Final = (*RUN_BUCKETS, 1800.0, 3600.0)
FIRST_TOKEN_BUCKETS: Final = RUN_BUCKETS[: RUN_BUCKETS.index(60.0) + 1]
CALL_BUCKETS: Final = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0, 80.0, 120.0, 200.0, 500.0)
"""LLM or tool calls beneath one run of an agent."""
CHECK_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Kind(StrEnum):
    """Type of a metric family."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric family of the contract."""

    name: str
    """As exposed: counters end in `_total`."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, help_text, labels)


def _gauge(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, help_text, labels)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, help_text, labels, buckets)


WORKFLOW_RUNS = _counter(
    "workflow_runs_total", "Finished runs of a task, by how they ended.", Label.WORKFLOW, Label.STATUS
)
WORKFLOW_DURATION = _histogram(
    "workflow_duration_seconds", "Duration of a task, whatever its status.", WORKFLOW_BUCKETS, Label.WORKFLOW
)
WORKFLOW_ACTIVE = _gauge("workflow_active_runs", "Tasks running now.", Label.WORKFLOW)
WORKFLOW_VIOLATION_RUNS = _counter(
    "workflow_runs_with_violations_total", "Finished tasks with at least one policy violation.", Label.WORKFLOW
)
WORKFLOW_COST = _counter(
    "workflow_cost_usd_total",
    "USD spent on LLM calls of finished tasks, by how the task ended; a roll-up, never add it to llm_cost_usd_total.",
    Label.WORKFLOW,
    Label.STATUS,
)

AGENT_RUNS = _counter("agent_runs_total", "Finished agent runs, by how they ended.", Label.AGENT, Label.STATUS)
AGENT_DURATION = _histogram(
    "agent_run_duration_seconds", "Duration of an agent run, whatever its status.", RUN_BUCKETS, Label.AGENT
)
AGENT_ACTIVE = _gauge("agent_active_runs", "Agent runs in progress.", Label.AGENT)
AGENT_LLM_CALLS = _histogram(
    "agent_run_llm_calls",
    "LLM calls beneath one agent run, those of nested agents included.",
    CALL_BUCKETS,
    Label.AGENT,
)
AGENT_TOOL_CALLS = _histogram(
    "agent_run_tool_calls",
    "Tool calls beneath one agent run, those of nested agents included.",
    CALL_BUCKETS,
    Label.AGENT,
)
TOOL_CALLS = _counter(
    "agent_tool_calls_total", "Finished tool calls, by how they ended.", Label.AGENT, Label.TOOL, Label.STATUS
)
TOOL_DURATION = _histogram(
    "agent_tool_call_duration_seconds", "Duration of a tool call, whatever its status.", RUN_BUCKETS, Label.TOOL
)

LLM_REQUESTS = _counter(
    "llm_requests_total",
    "Finished LLM calls, by how they ended. Retries within a call are not counted here.",
    Label.AGENT,
    Label.MODEL,
    Label.PROVIDER,
    Label.STATUS,
)
LLM_DURATION = _histogram(
    "llm_request_duration_seconds",
    "Duration of an LLM call, to the last token.",
    RUN_BUCKETS,
    Label.MODEL,
    Label.PROVIDER,
)
LLM_FIRST_TOKEN = _histogram(
    "llm_time_to_first_token_seconds",
    "Time from the start of a streamed LLM call to its first token.",
    FIRST_TOKEN_BUCKETS,
    Label.MODEL,
    Label.PROVIDER,
)
LLM_ACTIVE = _gauge("llm_active_requests", "LLM calls in progress.", Label.AGENT, Label.PROVIDER)
LLM_TOKENS = _counter(
    "llm_tokens_total",
    "Tokens as the provider states them; input includes cache reads and writes, output includes reasoning.",
    Label.AGENT,
    Label.MODEL,
    Label.PROVIDER,
    Label.TOKEN_TYPE,
)
LLM_TOKEN_DETAILS = _counter(
    "llm_token_details_total",
    "Subsets of llm_tokens_total: never add them to it.",
    Label.MODEL,
    Label.PROVIDER,
    Label.DETAIL,
)
LLM_COST = _counter(
    "llm_cost_usd_total", "Cost in USD of the LLM calls with a known price.", Label.AGENT, Label.MODEL, Label.PROVIDER
)
LLM_UNPRICED = _counter(
    "llm_unpriced_requests_total",
    "LLM calls whose cost is unknown: no price for the model, or no usage from the provider.",
    Label.MODEL,
    Label.PROVIDER,
)
LLM_PARTIALLY_PRICED = _counter(
    "llm_partially_priced_requests_total",
    "LLM calls whose cost is known to be incomplete, by why; each counts once.",
    Label.MODEL,
    Label.PROVIDER,
    Label.REASON,
)
LLM_BILLABLE = _counter(
    "llm_billable_requests_total",
    "LLM calls that may cost something: neither answered by the application's cache nor refused.",
    Label.MODEL,
    Label.PROVIDER,
)
LLM_PRICE_MISMATCHES = _counter(
    "llm_price_mismatches_total",
    "LLM calls whose provider stated a cost that differs from the price table's by more than 1 %.",
    Label.MODEL,
    Label.PROVIDER,
)
LLM_USAGE_MISSING = _counter(
    "llm_usage_missing_total", "LLM calls for which the provider stated no usage.", Label.MODEL, Label.PROVIDER
)
LLM_USAGE_INCONSISTENT = _counter(
    "llm_usage_inconsistent_total",
    "LLM calls whose stated usage contradicts itself (details above totals, negative numbers).",
    Label.MODEL,
    Label.PROVIDER,
)
LLM_ERRORS = _counter(
    "llm_errors_total", "Failed LLM calls, by cause.", Label.AGENT, Label.MODEL, Label.PROVIDER, Label.ERROR_TYPE
)
LLM_RETRIES = _counter("llm_retries_total", "Attempts beyond the first of an LLM call.", Label.MODEL, Label.PROVIDER)
LLM_CACHE_HITS = _counter(
    "llm_cache_hits_total", "LLM calls that the application's own cache answered.", Label.AGENT, Label.MODEL
)
LLM_CACHE_MISSES = _counter(
    "llm_cache_misses_total", "LLM calls that the application's own cache could not answer.", Label.AGENT, Label.MODEL
)
LLM_CACHE_SIZE = _gauge("llm_cache_size", "Entries in a cache of the application.", Label.CACHE)

POLICY_VIOLATIONS = _counter(
    "policy_violations_total",
    "Denials by a policy, in monitor and in enforce mode.",
    Label.WORKFLOW,
    Label.AGENT,
    Label.POLICY,
    Label.SEVERITY,
)
POLICY_DECISIONS = _counter("policy_decisions_total", "Decisions of policies.", Label.POLICY, Label.DECISION)
GUARDRAIL_BLOCKS = _counter(
    "guardrail_blocks_total",
    "Inputs and outputs that a guardrail really blocked.",
    Label.AGENT,
    Label.GUARDRAIL,
    Label.STAGE,
)
GUARDRAIL_CHECKS = _counter(
    "guardrail_checks_total", "Checks by guardrails, by what came of them.", Label.GUARDRAIL, Label.STAGE, Label.RESULT
)
GUARDRAIL_CHECK_DURATION = _histogram(
    "guardrail_check_duration_seconds", "Duration of one guardrail check.", CHECK_BUCKETS, Label.GUARDRAIL
)

FEEDBACK = _counter("llm_feedback_total", "First verdict of a user on a request.", Label.VERDICT)
FEEDBACK_REVISIONS = _counter(
    "llm_feedback_revisions_total", "Verdicts that replaced the opposite one, under the new verdict.", Label.VERDICT
)

BUDGET_LIMIT = _gauge("llm_budget_limit_usd", "Limit of a budget in USD.", Label.BUDGET, Label.PERIOD)
BUDGET_SPENT = _gauge(
    "llm_budget_spent_usd", "Spent of a budget in its current period, in USD.", Label.BUDGET, Label.PERIOD
)
BUDGET_RESERVED = _gauge(
    "llm_budget_reserved_usd", "Reserved for calls in progress, in USD.", Label.BUDGET, Label.PERIOD
)
BUDGET_ASSUMED = _gauge(
    "llm_budget_assumed_usd", "Spent of a budget that is an estimate, in USD.", Label.BUDGET, Label.PERIOD
)
BUDGET_USED_RATIO = _gauge(
    "llm_budget_used_ratio", "Share of a budget that is spent, 1 = all.", Label.BUDGET, Label.PERIOD
)
BUDGET_RESETS = _gauge(
    "llm_budget_resets_timestamp_seconds",
    "When the current period of a budget ends, in seconds since the Unix epoch.",
    Label.BUDGET,
    Label.PERIOD,
)
BUDGET_OTHER_LIMITS = _gauge(
    "llm_budget_other_limits",
    "Other limits that processes keep under this budget's name in the same store; 0 is right.",
    Label.BUDGET,
    Label.PERIOD,
)
BUDGET_REFUSALS = _counter("llm_budget_refusals_total", "Calls that a budget refused.", Label.BUDGET, Label.PERIOD)

RECORDS = _counter("taskpilot_obs_records_total", "Records handed to an exporter.", Label.EXPORTER)
RECORDS_DROPPED = _counter(
    "taskpilot_obs_records_dropped_total", "Records that an exporter did not get, by why.", Label.EXPORTER, Label.REASON
)
EXPORT_ERRORS = _counter("taskpilot_obs_export_errors_total", "Batches on which an exporter failed.", Label.EXPORTER)
INTERNAL_ERRORS = _counter(
    "taskpilot_obs_internal_errors_total",
    "Failures inside the instrumentation, kept from the application.",
    Label.WHERE,
)
LABEL_OVERFLOW = _counter(
    "taskpilot_obs_label_overflow_total", "Observations folded into __other__ because a label was full.", Label.METRIC
)
QUEUE_SIZE = _gauge("taskpilot_obs_queue_size", "Records that wait for an exporter.", Label.EXPORTER)
INFO = _gauge(
    "taskpilot_obs_info",
    "The library and the service that it observes; always 1.",
    Label.VERSION,
    Label.SERVICE,
    Label.SERVICE_VERSION,
)
START_TIME = _gauge(
    "taskpilot_obs_start_time_seconds",
    "When the counters of this exposition began at 0, in seconds since the Unix epoch; of workers, the first's.",
)

EXPERIMENT_RUNS = _counter(
    "experiment_runs_total",
    "Finished tasks of an experiment, by the variant that they were assigned and how they ended.",
    Label.EXPERIMENT,
    Label.VARIANT,
    Label.STATUS,
)
EXPERIMENT_DURATION = _histogram(
    "experiment_duration_seconds",
    "Duration of a task of an experiment, whatever its status.",
    WORKFLOW_BUCKETS,
    Label.EXPERIMENT,
    Label.VARIANT,
)
EXPERIMENT_COST = _counter(
    "experiment_cost_usd_total",
    "USD spent on the LLM calls of an experiment with a known price; a part of llm_cost_usd_total.",
    Label.EXPERIMENT,
    Label.VARIANT,
)
EXPERIMENT_FEEDBACK = _counter(
    "experiment_feedback_total",
    "Verdicts of users on requests of an experiment, given while the experiment was in their context.",
    Label.EXPERIMENT,
    Label.VARIANT,
    Label.VERDICT,
)
EXPERIMENT_GUARDRAILS_BROKEN = _counter(
    "experiment_guardrails_broken_total",
    "Guardrails that a variant was found to break with certainty, whereupon a process stopped the experiment.",
    Label.EXPERIMENT,
    Label.VARIANT,
    Label.MEASURE,
)
EXPERIMENT_STOPPED: Final = "experiment_stopped"
"""The audit event of a broken guardrail, with experiment, variant and measure."""

REASONS: Final[dict[str, tuple[str, ...]]] = {
    LLM_PARTIALLY_PRICED.name: PRICE_GAPS,
    RECORDS_DROPPED.name: DROP_REASONS,
}
"""The values of the label `reason`, by family."""
METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""The whole contract, in the order of definition."""

SERVER_REQUESTS: Final = _counter(
    "taskpilot_obs_server_requests_total", "Answers of the server.", Label.ROUTE, Label.METHOD, Label.STATUS_CODE
)
SERVER_DURATION: Final = _histogram(
    "taskpilot_obs_server_request_duration_seconds",
    "Time from a request to the server until its answer.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    Label.ROUTE,
)
SERVER_SPANS: Final = _counter(
    "taskpilot_obs_server_spans_total",
    "Spans that the server took: received, ignored, written, late; and traces that were torn.",
    Label.RESULT,
)
SERVER_METRICS: Final = (SERVER_REQUESTS, SERVER_DURATION, SERVER_SPANS)
"""What `taskpilot-obs serve` states of itself; applications have none of it, so the contract leaves it out."""


class Attr:
    """Names of span attributes."""

    OPERATION: Final = "gen_ai.operation.name"
    PROVIDER: Final = "gen_ai.provider.name"
    AGENT_NAME: Final = "gen_ai.agent.name"
    WORKFLOW_NAME: Final = "gen_ai.workflow.name"
    TOOL_NAME: Final = "gen_ai.tool.name"
    TOOL_TYPE: Final = "gen_ai.tool.type"
    TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
    TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
    TOOL_RESULT: Final = "gen_ai.tool.call.result"
    CONVERSATION_ID: Final = "gen_ai.conversation.id"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    REQUEST_STREAM: Final = "gen_ai.request.stream"
    REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
    REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    RESPONSE_ID: Final = "gen_ai.response.id"
    RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    RESPONSE_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
    INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
    CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
    CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
    REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
    INPUT_MESSAGES: Final = "gen_ai.input.messages"
    OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
    ERROR_TYPE: Final = "error.type"
    EXCEPTION_TYPE: Final = "exception.type"
    DECISION: Final = "taskpilot.decision"
    EXCEPTION_MESSAGE: Final = "exception.message"

    REQUEST_ID: Final = "taskpilot.request.id"
    STATUS: Final = "taskpilot.status"
    TENANT_ID: Final = "taskpilot.tenant.id"
    USER_ID: Final = "taskpilot.user.id"
    SESSION_ID: Final = "taskpilot.session.id"
    COST: Final = "taskpilot.cost.usd"
    CACHED: Final = "taskpilot.cached"
    INPUT_TEXT: Final = "taskpilot.input"
    OUTPUT_TEXT: Final = "taskpilot.output"
    ROLLUP_INPUT_TOKENS: Final = "taskpilot.rollup.input_tokens"
    ROLLUP_OUTPUT_TOKENS: Final = "taskpilot.rollup.output_tokens"
    ROLLUP_COST: Final = "taskpilot.rollup.cost.usd"
    ROLLUP_LLM_CALLS: Final = "taskpilot.rollup.llm_calls"
    ROLLUP_TOOL_CALLS: Final = "taskpilot.rollup.tool_calls"
    USER_PREFIX: Final = "taskpilot.attributes."
    """A user's own attributes live beneath this prefix, on spans."""


class Field:
    """Names of audit-log fields."""

    TIMESTAMP: Final = "timestamp"
    LEVEL: Final = "level"
    MESSAGE: Final = "message"
    LOG_TYPE: Final = "log_type"
    EVENT: Final = "event"
    REQUEST_ID: Final = "request_id"
    INVOCATION_ID: Final = "invocation_id"
    PARENT_ID: Final = "parent_id"
    TRACE_ID: Final = "trace_id"
    SPAN_ID: Final = "span_id"
    SERVICE: Final = "service"
    WORKFLOW: Final = "workflow"
    AGENT: Final = "agent"
    TOOL: Final = "tool"
    MODEL: Final = "model"
    PROVIDER: Final = "provider"
    STATUS: Final = "status"
    ERROR_TYPE: Final = "error_type"
    ERROR_CATEGORY: Final = "error_category"
    ERROR_MESSAGE: Final = "error_message"
    DURATION_MS: Final = "duration_ms"
    INPUT_LENGTH: Final = "input_length"
    OUTPUT_LENGTH: Final = "output_length"
    INPUT: Final = "input"
    OUTPUT: Final = "output"
    INPUT_TOKENS: Final = "input_tokens"
    OUTPUT_TOKENS: Final = "output_tokens"
    TOTAL_TOKENS: Final = "total_tokens"
    STREAMING: Final = "streaming"
    CACHED: Final = "cached"
    FIRST_TOKEN_MS: Final = "time_to_first_token_ms"  # noqa: S105  no password
    COST: Final = "cost_usd"
    PRICE_GAP: Final = "price_gap"
    TENANT_ID: Final = "tenant_id"
    USER_ID: Final = "user_id"
    SESSION_ID: Final = "session_id"
    POLICY: Final = "policy"
    GUARDRAIL: Final = "guardrail"
    BUDGET: Final = "budget"
    STAGE: Final = "stage"
    DECISION: Final = "decision"
    RESULT: Final = "result"
    SEVERITY: Final = "severity"
    REASON: Final = "reason"
    CORRECT: Final = "correct"
    REVISION: Final = "revision"
    LLM_CALLS: Final = "llm_calls"
    TOOL_CALLS: Final = "tool_calls"
    UNPRICED_CALLS: Final = "unpriced_calls"
    LOGGER: Final = "logger"
    EXCEPTION: Final = "exception"
    ATTRIBUTES: Final = "attributes"
    """A user's own attributes: one object under this key, so that none can be mistaken for a field of the library."""
    SEQ: Final = "seq"
    PREV_HASH: Final = "prev_hash"
    HASH: Final = "hash"


POLICY_VERSION: Final = "policy_version"
"""The attribute of decisions that names the version of the policy that decided."""


class LogType:
    """Values of the audit field `log_type`."""

    AUDIT: Final = "audit"
    DECISION: Final = "decision"
    ERROR: Final = "error"


class Event:
    """Values of the audit field `event` that the library itself writes; any other is the application's."""

    WORKFLOW_INPUT: Final = "workflow.input"
    WORKFLOW_OUTPUT: Final = "workflow.output"
    AGENT_INPUT: Final = "agent.input"
    AGENT_OUTPUT: Final = "agent.output"
    TOOL_CALL: Final = "tool.call"
    LLM_CALL: Final = "llm.call"
    POLICY_DECISION: Final = "policy.decision"
    GUARDRAIL_CHECK: Final = "guardrail.check"
    BUDGET_DECISION: Final = "budget.decision"
    FEEDBACK: Final = "user.feedback"
    CHAIN_START: Final = "chain.start"
