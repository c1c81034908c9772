"""The vocabulary of the library, as frozen values.

Layers exchange only these named tuples: the caller's thread hands over a run, the drainer freezes it into a
`Record`, and exporters read it. A named tuple is immutable, typed and costs a fifth of a frozen
dataclass to build, which matters at one or two a call.

Units: seconds (`_s`), nanoseconds since the Unix epoch (`_unix_ns`), USD (`Decimal`), tokens, characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Never

AttributeValue = str | bool | int | float
Attributes = Mapping[str, AttributeValue]
NO_ATTRIBUTES: Attributes = MappingProxyType({})


class _Words(StrEnum):
    """A string enumeration; the error for any other value lists the allowed ones."""

    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise ValueError(f"{value!r} is not a valid {cls.__name__}; allowed are {', '.join(cls)}")


class Usage(NamedTuple):
    """Tokens of one LLM call. Totals are inclusive; details are subsets of them and are never added on top.

    `None` means that the provider stated nothing, 0 that it stated zero. The model is that of OpenTelemetry's
    `gen_ai.usage.*`, of genai-prices and of LangChain's `usage_metadata`.
    """

    input_tokens: int | None = None
    """Every prompt token: uncached, cache reads, cache writes, tool use."""
    output_tokens: int | None = None
    """Every generated token, reasoning included."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    input_audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_image_tokens: int | None = None
    cache_read_audio_tokens: int | None = None
    """Tokens that are both audio and read from the cache."""

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None unless both are known."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    @classmethod
    def read(cls, response: object, provider: str | None = None) -> Usage | None:
        """Return the usage that a provider's response states, or None where it states none. Never raises.

        Args:
            response: any response that `taskpilot_obs.usage.read_response` takes.
            provider: the provider, in any spelling; by default recognised by the shape of the response.
        """
        return _usage_readers[0](response, provider)


_usage_readers: list[Callable[[object, str | None], Usage | None]] = []
"""The function that `Usage.read` calls, installed by `taskpilot_obs.usage` so that records import no reader."""


def install_usage_reader(read: Callable[[object, str | None], Usage | None]) -> None:
    """Let `Usage.read` call this function."""
    _usage_readers[:] = [read]


class Operation(_Words):
    """What was done; the values are those of OpenTelemetry's `gen_ai.operation.name`."""

    WORKFLOW = "invoke_workflow"
    AGENT = "invoke_agent"
    TOOL = "execute_tool"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


LLM_OPERATIONS = frozenset({Operation.CHAT, Operation.EMBEDDINGS})


class Status(_Words):
    """How an operation ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    INTERRUPTED = "interrupted"


SUCCESS: Final = Status.SUCCESS
"""For the hot path, because looking up an enumeration's member takes as long as reading a clock."""
GOOD = frozenset({SUCCESS})
BAD = frozenset({Status.ERROR, Status.TIMEOUT, Status.BLOCKED})
COUNTED = GOOD | BAD
"""The statuses behind the success rate; a run that was cancelled, abandoned or interrupted proves nothing."""
NO_USAGE: Final = Usage()
_TOLERANCE = Decimal("0.01")


class Pricing(_Words):
    """How much is known about the cost of an LLM call."""

    PRICED = "priced"
    PARTIAL = "partial"
    """The cost is known to be incomplete: `Invocation.price_gap` states why."""
    UNPRICED = "unpriced"
    FREE = "free"
    """Nothing is billed: the application's cache answered, or the provider refused the call."""


class Severity(_Words):
    """The severity of a policy violation."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Verdict(_Words):
    """A policy's decision about a text or a tool call."""

    ALLOW = "allow"
    DENY = "deny"
    REQUIRE_APPROVAL = "require_approval"


class CheckResult(_Words):
    """The result of one check: the first two for every check, the others for guardrails and failed checks."""

    PASSED = "passed"
    BLOCKED = "blocked"
    WOULD_BLOCK = "would_block"
    BYPASSED = "bypassed"
    ERROR = "error"


class Stage(_Words):
    """Where a guardrail looked."""

    INPUT = "input"
    OUTPUT = "output"


class DecisionKind(_Words):
    """Who decided."""

    POLICY = "policy"
    GUARDRAIL = "guardrail"
    BUDGET = "budget"


class Rollup(NamedTuple):
    """What all LLM and tool calls beneath an agent or workflow add up to; never added to the calls themselves."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    llm_calls: int = 0
    unpriced_calls: int = 0
    tool_calls: int = 0
    violations: int = 0


class Scope(NamedTuple):
    """The values that `request_context` sets: request, user, session, tenant and so on."""

    request_id: str
    tenant: str | None = None
    user: str | None = None
    session: str | None = None
    attributes: Attributes = NO_ATTRIBUTES


class Source(NamedTuple):
    """The service and the environment of a process, as configured."""

    service: str | None = None
    environment: str | None = None


class Origin(NamedTuple):
    """Where a record comes from: the identifiers that tie logs, spans and metrics of one request together."""

    request_id: str | None = None
    invocation_id: str | None = None
    parent_id: str | None = None
    workflow: str | None = None
    agent: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    tenant: str | None = None
    user: str | None = None
    session: str | None = None


class Started(NamedTuple):
    """An operation began. It shares `invocation_id` with the `Invocation` that ends it."""

    operation: Operation
    name: str
    request_id: str
    invocation_id: str
    parent_id: str | None
    workflow: str | None
    """Nearest enclosing workflow, or the run itself when it is one."""
    agent: str | None
    """Nearest enclosing agent, or the run itself when it is one."""
    start_unix_ns: int
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    tenant: str | None = None
    user: str | None = None
    session: str | None = None
    request_model: str | None = None
    provider: str | None = None
    input_length: int | None = None
    input_text: str | None = None
    attributes: Attributes = NO_ATTRIBUTES
    is_task: bool = False
    """Whether this run is a task: a workflow, or an agent with neither workflow nor agent above it."""


class Invocation(NamedTuple):
    """One finished operation: the fields of its `Started` in the same order, and those known only at its end."""

    status: Status
    duration_s: float
    operation: Operation
    name: str
    request_id: str
    invocation_id: str
    parent_id: str | None
    workflow: str | None
    agent: str | None
    start_unix_ns: int
    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False
    tenant: str | None = None
    user: str | None = None
    session: str | None = None
    request_model: str | None = None
    provider: str | None = None
    input_length: int | None = None
    input_text: str | None = None
    attributes: Attributes = NO_ATTRIBUTES
    is_task: bool = False
    error_type: str | None = None
    """Qualified name of the exception's class (`openai.RateLimitError`; builtins unqualified)."""
    error_message: str | None = None
    """Redacted, and present only when content capture is on."""
    output_length: int | None = None
    output_text: str | None = None
    rollup: Rollup | None = None
    error_category: str | None = None
    """For LLM calls only, like all fields below: one of `semconv.ERROR_CATEGORIES`."""
    usage: Usage | None = None
    usage_inconsistent: bool = False
    cost: Decimal | None = None
    """USD; None means unknown."""
    cost_source: str | None = None
    """`price_table`, `own_price`, `provider` (stated in the response), `caller` or None."""
    response_model: str | None = None
    streaming: bool = False
    cached: bool | None = None
    """Whether the application's own cache answered; None where the application has not said."""
    ttft_s: float | None = None
    """Time to the first token of a stream."""
    retries: int = 0
    refused: bool = False
    """Whether the call was refused, by the provider or before it was sent: nothing is billed then."""
    price_gap: str | None = None
    """Why the cost is known to be incomplete: one of `semconv.PRICE_GAPS`."""
    table_cost: Decimal | None = None
    """The cost by the price table of a call whose provider stated one, for comparison."""
    canonical_model: str | None = None
    """The one name of the model that was asked for, or else of the one that answered."""
    reservation_id: str | None = None
    """The budget reservation made before the call; this record settles it."""

    @property
    def origin(self) -> Origin:
        """Where this record comes from."""
        ids = (self.request_id, self.invocation_id, self.parent_id, self.workflow, self.agent)
        return Origin(*ids, self.trace_id, self.span_id, self.sampled, self.tenant, self.user, self.session)

    @property
    def model(self) -> str | None:
        """The model under its one name: the label of metrics, and what filters compare with."""
        return self.canonical_model or self.request_model or self.response_model

    @property
    def pricing(self) -> Pricing | None:
        """How much is known about the cost; None for operations other than LLM calls."""
        if self.operation not in LLM_OPERATIONS:
            return None
        if self.cached:
            return Pricing.FREE
        if self.cost is not None:
            return Pricing.PRICED if self.price_gap is None else Pricing.PARTIAL
        return Pricing.FREE if self.refused and self._has_no_usage else Pricing.UNPRICED

    @property
    def _has_no_usage(self) -> bool:
        return self.usage is None or self.usage == NO_USAGE

    @property
    def is_price_mismatch(self) -> bool:
        """Whether the provider stated a cost that differs from the price table's by more than 1 %."""
        if self.table_cost is None or self.cost is None:
            return False
        return abs(self.table_cost - self.cost) > _TOLERANCE * max(self.table_cost, self.cost)

    @property
    def is_usage_missing(self) -> bool:
        """Whether this is an LLM call that may have been billed but whose usage is unknown."""
        return self._has_no_usage and self.pricing not in (None, Pricing.FREE)

    @property
    def is_unpriced(self) -> bool:
        """Whether this is an LLM call whose cost is unknown.

        A cache hit costs nothing, and neither does a call that was refused. One that broke, timed out, was cancelled or
        abandoned may have been billed: without usage its cost is unknown.
        """
        return self.pricing is Pricing.UNPRICED


class Decision(NamedTuple):
    """One decision of a policy, a guardrail or a budget about a text, a tool call or a run."""

    kind: DecisionKind
    name: str
    """Name of the policy, guardrail or budget."""
    verdict: Verdict
    result: CheckResult
    """What came of it: `blocked` only where the work was really refused or withheld."""
    origin: Origin
    time_unix_ns: int
    reason: str | None = None
    severity: Severity = Severity.MEDIUM
    stage: Stage | None = None
    tool: str | None = None
    duration_s: float | None = None
    attributes: Attributes = NO_ATTRIBUTES

    @property
    def is_violation(self) -> bool:
        """Whether this is a policy violation: one `deny` of a policy, in either mode."""
        return self.kind is DecisionKind.POLICY and self.verdict is Verdict.DENY


class Feedback(NamedTuple):
    """A user's verdict on one request. With `revision` it replaces the opposite verdict given before."""

    request_id: str
    correct: bool
    revision: bool
    origin: Origin
    time_unix_ns: int
    attributes: Attributes = NO_ATTRIBUTES


class AuditEvent(NamedTuple):
    """Something that the application wants in its audit log: task created, approved, …"""

    event: str
    origin: Origin
    time_unix_ns: int
    attributes: Attributes = NO_ATTRIBUTES


class CacheSize(NamedTuple):
    """How many entries a cache of the application holds."""

    cache: str
    entries: int
    time_unix_ns: int


Record = Started | Invocation | Decision | Feedback | AuditEvent | CacheSize
