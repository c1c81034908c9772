"""Reads the attributes of GenAI spans: OpenTelemetry's `gen_ai.*` from 1.27 on, OpenInference, Traceloop.

The one place that knows what these conventions call things. It knows no SDK and no wire format: the server reads spans
that arrive over OTLP with it, and the OpenTelemetry integration those of this process. What a span does not state is
None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from taskpilot_obs.records import Operation, Status
from taskpilot_obs.semconv import Attr
from taskpilot_obs.usage.shapes.base import amount

Attributes = Mapping[str, Any]

_OPERATIONS: Final = {
    "chat": Operation.CHAT,
    "generate_content": Operation.CHAT,
    "text_completion": Operation.CHAT,
    "embeddings": Operation.EMBEDDINGS,
    "execute_tool": Operation.TOOL,
    "invoke_agent": Operation.AGENT,
    "invoke_workflow": Operation.WORKFLOW,
}
_OPENINFERENCE: Final = {
    "LLM": Operation.CHAT,
    "EMBEDDING": Operation.EMBEDDINGS,
    "TOOL": Operation.TOOL,
    "RETRIEVER": Operation.TOOL,
    "AGENT": Operation.AGENT,
}
_TRACELOOP: Final = {"tool": Operation.TOOL, "agent": Operation.AGENT, "workflow": Operation.WORKFLOW}
_TRACELOOP_REQUESTS: Final = {
    "chat": Operation.CHAT,
    "completion": Operation.CHAT,
    "embedding": Operation.EMBEDDINGS,
}
_NAMED: Final = re.compile(rf"({'|'.join(_OPERATIONS)})(?: (.+))?")
"""Span names of the conventions: all there is where a framework sets attributes after the start."""
_NAMES: Final = {
    Operation.TOOL: (Attr.TOOL_NAME, "tool.name", "traceloop.entity.name"),
    Operation.AGENT: (Attr.AGENT_NAME, "graph.node.id", "agent.name", "llm.agent.name", "traceloop.entity.name"),
    Operation.WORKFLOW: (Attr.WORKFLOW_NAME, "traceloop.workflow.name", "traceloop.entity.name"),
}
_REQUEST_MODEL: Final = (Attr.REQUEST_MODEL, "llm.request.model_name", "llm.model_name", "embedding.model_name")
_PROVIDER: Final = (Attr.PROVIDER, "llm.provider", "gen_ai.system", "llm.system")
_RESPONSE_ID: Final = (Attr.RESPONSE_ID, "llm.response.id")
_SERVICE_TIER: Final = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)
_STREAMED: Final = (Attr.REQUEST_STREAM, "llm.is_streaming", "gen_ai.is_streaming")
_CONVERSATION: Final = (Attr.CONVERSATION_ID, "session.id", "traceloop.association.properties.session_id")
_COST: Final = (Attr.COST, "operation.cost", "llm.cost.total")
_COUNTS: Final = {
    "input_tokens": (Attr.INPUT_TOKENS, "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output_tokens": (Attr.OUTPUT_TOKENS, "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "cache_read_tokens": (
        Attr.CACHE_READ_TOKENS,
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        Attr.CACHE_WRITE_TOKENS,
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        Attr.REASONING_TOKENS,
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.thinking_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "input_audio_tokens": ("gen_ai.usage.details.input_audio_tokens", "llm.token_count.prompt_details.audio"),
    "output_audio_tokens": ("gen_ai.usage.details.output_audio_tokens", "llm.token_count.completion_details.audio"),
    "cache_read_audio_tokens": ("gen_ai.usage.details.cache_audio_read_tokens",),
}
"""Fields of `Usage`, and what they are called on spans, today's name first."""
_NO_PROVIDERS: Final = frozenset(
    {"ag2", "autogen", "crewai", "langchain", "microsoft.agent_framework", "strands-agents"}
)
"""Frameworks that state their own name where the provider belongs."""
_TIMEOUTS: Final = ("Timeout", "TimeoutError", "TimeoutException")
_LONGEST_WAIT_S: Final = 86_400.0
"""A longer time to the first token is an error, and would outweigh all others in a sum."""
_CANCELLED: Final = frozenset({"CancelledError", "KeyboardInterrupt", "SystemExit"})


class Quirk(NamedTuple):
    """What the spans of one instrumentation scope do differently."""

    workflows: frozenset[str] = frozenset()
    """Names of spans that call themselves an agent and are the whole run."""
    first_chunk_ms: str | None = None
    """The attribute that has the time to the first token in milliseconds."""
    wrappers: frozenset[str] = frozenset()
    """Exceptions that hide the provider's, which is their cause."""


QUIRKS: Final[Mapping[str, Quirk]] = {
    "agent_framework": Quirk(wrappers=frozenset({"ChatClientException"})),
    "openinference.instrumentation.openai_agents": Quirk(workflows=frozenset({"Agent workflow"})),
    "strands": Quirk(first_chunk_ms="gen_ai.server.time_to_first_token"),
}
"""By the beginning of the name of the instrumentation scope."""
_PLAIN: Final = Quirk()


def quirk_of(scope: str) -> Quirk:
    """What is special about a scope."""
    return next((quirk for start, quirk in QUIRKS.items() if scope.startswith(start)), _PLAIN)


class SpanMeaning(NamedTuple):
    """What a span stands for."""

    operation: Operation
    name: str
    """Of the agent, workflow or tool; the model, as far as the span's name has it, for an LLM call."""


Kind = SpanMeaning
"""The earlier name of `SpanMeaning`."""


def kind_of(span_name: str, attributes: Attributes, scope: str = "") -> SpanMeaning | None:
    """What a span stands for; None for plumbing.

    Args:
        span_name: name of the span; read where attributes are missing, because several frameworks set them late.
        attributes: as far as they are set.
        scope: name of the instrumentation scope.
    """
    operation = _operation(span_name, attributes)
    if operation is None:
        return None
    if span_name in quirk_of(scope).workflows:
        operation = Operation.WORKFLOW
    named = _NAMED.fullmatch(span_name)
    stated = first_of(attributes, _NAMES.get(operation, ()))
    given = str(attributes.get(Attr.OPERATION, ""))
    return SpanMeaning(operation, _text(stated) or (named and named[2]) or span_name.removeprefix(f"{given} ") or given)


def _operation(span_name: str, attributes: Attributes) -> Operation | None:
    stated = attributes.get(Attr.OPERATION)
    if stated is not None and str(stated) in _OPERATIONS:
        return _OPERATIONS[str(stated)]
    for key, known in (
        ("openinference.span.kind", _OPENINFERENCE),
        ("traceloop.span.kind", _TRACELOOP),
        ("llm.request.type", _TRACELOOP_REQUESTS),
    ):
        found = attributes.get(key)
        if found is not None:
            return known.get(str(found))
    named = _NAMED.fullmatch(span_name) if stated is None else None
    return _OPERATIONS[named[1]] if named else None


def counts_of(attributes: Attributes) -> dict[str, Any]:
    """The fields of `Usage` that an LLM span states. Never ask this of an agent's span: it repeats the sum."""
    found = {field: first_of(attributes, names) for field, names in _COUNTS.items()}
    return {field: value for field, value in found.items() if value is not None}


def provider_of(attributes: Attributes) -> str | None:
    """The provider; None where a framework states itself."""
    stated = _text(first_of(attributes, _PROVIDER))
    return None if stated in _NO_PROVIDERS else stated


def request_model_of(span_name: str, attributes: Attributes) -> str | None:
    """The model asked for; the span's name has it where attributes come late.

    Args:
        span_name: such as `chat gpt-4o`.
        attributes: of the span.
    """
    named = _NAMED.fullmatch(span_name)
    return _text(first_of(attributes, _REQUEST_MODEL)) or (named[2] if named else None)


def response_model_of(attributes: Attributes) -> str | None:
    """The model that answered."""
    return _text(attributes.get(Attr.RESPONSE_MODEL))


def response_id_of(attributes: Attributes) -> str | None:
    """The provider's identifier of the response."""
    return _text(first_of(attributes, _RESPONSE_ID))


def service_tier_of(attributes: Attributes) -> str | None:
    """The tier that the provider charged: `flex`, `priority`, … cost less or more."""
    return _text(first_of(attributes, _SERVICE_TIER))


def finish_reasons_of(attributes: Attributes) -> tuple[str, ...]:
    """Why the model stopped."""
    stated = attributes.get(Attr.RESPONSE_FINISH_REASONS)
    if isinstance(stated, str):
        return (stated,)
    return tuple(map(str, stated)) if isinstance(stated, Iterable) else ()


def is_streamed(attributes: Attributes) -> bool:
    """Whether the span states a stream."""
    return any(attributes.get(name) is True for name in _STREAMED)


def first_token_s(attributes: Attributes, scope: str = "") -> float | None:
    """Seconds to the first token; None if no attribute states them.

    Args:
        attributes: of the span.
        scope: name of the instrumentation that made the span, because some state milliseconds.
    """
    stated = seconds(attributes.get(Attr.RESPONSE_FIRST_CHUNK))
    in_ms = quirk_of(scope).first_chunk_ms
    if stated is None and in_ms is not None:
        found = seconds(attributes.get(in_ms))
        stated = None if found is None else found / 1000
    return stated if stated is None or stated <= _LONGEST_WAIT_S else None


def conversation_of(attributes: Attributes) -> str | None:
    """The conversation or session."""
    return _text(first_of(attributes, _CONVERSATION))


def cost_of(attributes: Attributes) -> Decimal | None:
    """The cost in USD that the span states."""
    return amount(first_of(attributes, _COST))


def status_of(error_type: str | None, *, is_error: bool) -> Status:
    """How a span ended.

    Args:
        error_type: the class of the exception, where the span states one.
        is_error: whether the span's status is an error.
    """
    if not is_error and error_type is None:
        return Status.SUCCESS
    kind = (error_type or "").rpartition(".")[2]
    if kind in _CANCELLED:
        return Status.CANCELLED
    return Status.TIMEOUT if kind.endswith(_TIMEOUTS) or kind == "timeout" else Status.ERROR


def first_of(attributes: Attributes, names: Iterable[str]) -> Any:
    """The first of these attributes that is set and not empty; None if there is none.

    Args:
        attributes: of the span.
        names: of attributes, the preferred one first.
    """
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            return value
    return None


def seconds(value: object) -> float | None:
    """A duration; None for anything but a finite number that is not negative."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < math.inf else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
