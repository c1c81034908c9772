"""What an invocation belongs to: its recorder, and the place in the code where it begins."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Protocol, Self

from taskpilot_obs._recording.content import UNKNOWN, input_messages
from taskpilot_obs._recording.spans import span_kind
from taskpilot_obs._recording.statuses import Expected, expectation
from taskpilot_obs.records import NO_ATTRIBUTES, Attributes, AttributeValue, Operation, clean_attributes
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from taskpilot_obs._enforcement.enforcer import Limits
    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.llm_invocation import LlmInvocation
    from taskpilot_obs._recording.model_argument import FindModel
    from taskpilot_obs._recording.spans import Tracing
    from taskpilot_obs._support.clock import Clock
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs._support.guarded import guarded
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.records import DecisionKind, Stage
    from taskpilot_obs.safety.checks import Checks
    from taskpilot_obs.safety.redaction import Redactor
    from taskpilot_obs.semconv import Metric


class Declares(Protocol):
    """An exporter that wants to know names before their first run."""

    def declare(self, operation: Operation, name: str) -> None:
        """Expect runs of this name."""

    def declare_check(self, kind: DecisionKind, name: str, stages: Iterable[Stage]) -> None:
        """Expect decisions of this check."""

    def book(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter that no record stands for."""

    def set_gauge(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge that no record stands for."""


class LlmListener(Protocol):
    """Learns when LLM calls begin and end, on the thread that runs them.

    Both methods must return at once and must not block: an abandoned call ends in a finalizer, which may run anywhere.
    Append to a `collections.deque`, or look something up. What they raise is counted and logged.
    """

    def llm_began(self, run: LlmInvocation, /) -> None:
        """An LLM call has begun."""

    def llm_ended(self, run: LlmInvocation, /) -> None:
        """It has ended; usage, response ID and status are known as far as they ever will be."""


class Host:
    """What an invocation needs of its recorder; the recorder is the only subclass."""

    enabled: bool
    now: Callable[[], int]
    pipeline: Pipeline
    clock: Clock
    counters: InternalCounters
    guard_span: guarded
    """Keeps a failure of the tracer from the user; made once, for it stands in the hot path."""
    tracing: Tracing | None
    redactor: Redactor | None
    thorough: bool = False
    """Whether calls are traced or their content is captured: one question of the hot path in place of two."""
    prices: PriceTable
    checks: Checks | None = None
    """Policies and guardrails of every place."""
    limits: Limits | None = None
    """Where any place or the recorder limits tokens, or a budget may refuse."""
    llm_listeners: tuple[LlmListener, ...] = ()
    """Who wants to know of LLM calls as they begin and end."""
    gated: bool = False
    """Whether checks other than a place's own are asked."""
    recording: bool = True
    """Whether what happens is recorded. Without, runs begin and end only for the checks that may refuse them."""
    enforcing: bool = True
    """Whether checks in enforce mode refuse."""

    def fit(self, attributes: Mapping[str, object]) -> Attributes:
        """A user's attributes as they may be kept: plain values, and where content is captured, without secrets."""
        plain = clean_attributes(attributes)
        if self.redactor is None or not plain:
            return plain
        return clean_attributes(self.redactor.attributes(plain))


class Callsite:
    """A place that is instrumented: what all invocations begun there share, worked out once."""

    __slots__ = (
        "attributes",
        "checks",
        "expected",
        "host",
        "is_agent",
        "is_inner",
        "is_tool",
        "is_workflow",
        "name",
        "operation",
        "parameters",
        "root_lineage",
        "span_attributes",
        "span_kind",
        "span_name",
    )

    def __init__(self, host: Host, operation: Operation, name: str, attributes: Mapping[str, object]) -> None:
        self.host = host
        self.operation = operation
        self.name = name
        self.is_workflow = operation is Operation.WORKFLOW
        self.is_agent = operation is Operation.AGENT
        self.is_tool = operation is Operation.TOOL
        self.is_inner = self.is_workflow or self.is_agent
        """Whether its runs are nodes of the tree: what counts for those above are the leaves, tool and LLM calls."""
        is_task = self.is_workflow or self.is_agent
        self.root_lineage = (name if is_task else None, name if self.is_agent else None)
        """Nearest workflow and agent of a run with nothing above it."""
        self.attributes = host.fit(attributes)
        self.checks: Checks | None = None
        self.parameters = UNKNOWN
        """What the function that is called there names its arguments."""
        self.expected: Callable[[BaseException], bool] | None = None
        """Tells whether an exception is an outcome like others: its run is a success."""
        self.span_name = f"{operation.value} {name}" if name else operation.value
        self.span_kind = span_kind(operation)
        self.span_attributes: dict[str, AttributeValue] = {Attr.OPERATION: operation.value}
        key = _NAME_ATTRIBUTES.get(operation)
        if key is not None:
            self.span_attributes[key] = name
        self.span_attributes.update({Attr.USER_PREFIX + key: value for key, value in self.attributes.items()})

    def __getstate__(self) -> dict[str, object]:
        """For pickle: a read-only mapping cannot be pickled, and the recorder becomes the default one elsewhere."""
        slots = [name for each in type(self).__mro__ for name in getattr(each, "__slots__", ())]
        return {name: getattr(self, name) for name in slots} | {"attributes": dict(self.attributes)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.attributes = clean_attributes(self.attributes)

    def expecting(self, expected: Expected | None) -> Self:
        """The same callsite, where these exceptions count as success.

        Raises:
            TypeError: `expected` is neither classes of exceptions nor a function.
        """
        if expected is None:
            return self
        own = copy(self)
        own.expected = expectation(expected)
        return own

    @property
    def shows_messages(self) -> bool:
        """Whether spans show what goes in and comes out as messages: all but those of tools."""
        return self.host.tracing is not None and not self.is_tool


class LlmCallsite(Callsite):
    """A place where a model is called.

    Args:
        host: the recorder.
        operation: `chat` or `embeddings`.
        model: the model asked for.
        provider: who serves it.
        attributes: for spans and audit log.
    """

    __slots__ = ("canonical_model", "find_model", "model", "priced", "provider")

    def __init__(
        self,
        host: Host,
        operation: Operation,
        model: str | None,
        provider: str | None,
        attributes: Mapping[str, object],
    ) -> None:
        super().__init__(host, operation, model or "", attributes)
        self.model = model
        self.canonical_model: str | None = None
        """The model's one name, from the first call on."""
        self.provider = provider
        self.find_model: FindModel | None = None
        """Finds the model among the arguments of a decorated function."""
        self.priced = False
        """Whether the price table was in memory at an earlier call: it stays there."""
        if provider is not None:
            self.span_attributes[Attr.PROVIDER] = provider
        if model is not None:
            self.span_attributes[Attr.REQUEST_MODEL] = model


_NAME_ATTRIBUTES = {
    Operation.WORKFLOW: Attr.WORKFLOW_NAME,
    Operation.AGENT: Attr.AGENT_NAME,
    Operation.TOOL: Attr.TOOL_NAME,
}


class Details:
    """What most invocations have nothing of."""

    __slots__ = (
        "attributes",
        "error_message",
        "error_type",
        "input_messages",
        "input_text",
        "output_stated",
        "output_text",
    )

    def __init__(self) -> None:
        self.attributes: Attributes = NO_ATTRIBUTES
        self.error_type: str | None = None
        self.error_message: str | None = None
        self.input_text: str | None = None
        self.input_messages: str | None = None
        """What went in, in the form of OpenTelemetry; for the span."""
        self.output_text: str | None = None
        self.output_stated = False
        """Whether the application said what came out: that wins over what is observed."""

    def keep_input(self, value: object, redactor: Redactor, *, as_messages: bool) -> None:
        """Keep what went in, redacted; as messages too, where a span will show them."""
        self.input_text = redactor.value(value)
        self.input_messages = input_messages(value, redactor.text) if as_messages else None

    def input_attributes(self) -> dict[str, AttributeValue]:
        """What went in, for the span; nothing where content is not captured."""
        kept = {Attr.INPUT_TEXT: self.input_text, Attr.INPUT_MESSAGES: self.input_messages}
        return {key: text for key, text in kept.items() if text is not None}

    def keep_text(self, item: str, limit: int) -> None:
        """Keep what a stream says, a little beyond what will be shown, for the redactor to see whole."""
        kept = self.output_text or ""
        if len(kept) < limit and not self.output_stated:
            self.output_text = kept + item


NO_DETAILS = Details()


def text_length(args: tuple[object, ...], kwargs: Mapping[str, object]) -> int | None:
    """How many characters of text a function was called with; None where no argument is text.

    By exact type: a subclass may have a `__len__` of its own.
    """
    length = None
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) is str:
            length = len(value) if length is None else length + len(value)
    return length
