"""Callsites: the instrumented places of an application. Each computes once what its runs share."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final, Self

from taskpilot_obs._recording.attributes import clean_attributes, plain_text
from taskpilot_obs._recording.content import UNKNOWN
from taskpilot_obs._recording.spans import span_kind
from taskpilot_obs._recording.statuses import Expected, expectation
from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.providers.names import canonical, infer_provider
from taskpilot_obs.records import LLM_OPERATIONS, AttributeValue, Operation
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskpilot_obs._recording.model_argument import FindModel
    from taskpilot_obs._recording.runtime import RecorderRuntime
    from taskpilot_obs.safety.checks import Checks

_MAX_CALLSITES: Final = 4_000
"""How many callsites a recorder caches; bounded, because an application may make names at run time."""
_CHAT: Final = Operation.CHAT
_NAME_ATTRIBUTES = {
    Operation.WORKFLOW: Attr.WORKFLOW_NAME,
    Operation.AGENT: Attr.AGENT_NAME,
    Operation.TOOL: Attr.TOOL_NAME,
}


class Callsite:
    """A place in the application where runs begin.

    Args:
        runtime: the runtime of the recorder of its runs.
        operation: the operation.
        name: of the workflow, agent, tool or model.
        attributes: for spans and audit log, of every run.
    """

    __slots__ = (
        "attributes",
        "checks",
        "expected",
        "is_agent",
        "is_inner",
        "is_tool",
        "is_workflow",
        "name",
        "operation",
        "parameters",
        "root_lineage",
        "runtime",
        "span_attributes",
        "span_kind",
        "span_name",
    )

    def __init__(
        self, runtime: RecorderRuntime, operation: Operation, name: str, attributes: Mapping[str, object]
    ) -> None:
        self.runtime = runtime
        self.operation = operation
        self.name = name
        self.is_workflow = operation is Operation.WORKFLOW
        self.is_agent = operation is Operation.AGENT
        self.is_tool = operation is Operation.TOOL
        self.is_inner = self.is_workflow or self.is_agent
        """Whether its runs are inner nodes of the tree. Only leaves (tool and LLM calls) count in roll-ups."""
        self.root_lineage = (name if self.is_inner else None, name if self.is_agent else None)
        """Nearest workflow and agent of a run with nothing above it."""
        self.attributes = runtime.fit(attributes)
        self.checks: Checks | None = None
        self.parameters = UNKNOWN
        """The parameter names of the function called there."""
        self.expected: Callable[[BaseException], bool] | None = None
        """Decides whether an exception is an expected outcome, which makes its run a success."""
        self.span_name = f"{operation.value} {name}" if name else operation.value
        self.span_kind = span_kind(operation)
        self.span_attributes: dict[str, AttributeValue] = {Attr.OPERATION: operation.value}
        key = _NAME_ATTRIBUTES.get(operation)
        if key is not None:
            self.span_attributes[key] = name
        self.span_attributes.update({Attr.USER_PREFIX + key: value for key, value in self.attributes.items()})

    @property
    def shows_messages(self) -> bool:
        """Whether spans show input and output as messages: for all operations except tools."""
        return self.runtime.tracing is not None and not self.is_tool

    def __getstate__(self) -> dict[str, object]:
        """Support pickle: a read-only mapping cannot be pickled, and elsewhere the recorder is the default one."""
        slots = [name for each in type(self).__mro__ for name in getattr(each, "__slots__", ())]
        return {name: getattr(self, name) for name in slots} | {"attributes": dict(self.attributes)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.attributes = clean_attributes(self.attributes)

    def expecting(self, expected: Expected | None) -> Self:
        """Return a copy of the callsite that counts these exceptions as success.

        Raises:
            TypeError: `expected` is neither classes of exceptions nor a function.
        """
        if expected is None:
            return self
        own = copy(self)
        own.expected = expectation(expected)
        return own


class LlmCallsite(Callsite):
    """A place where a model is called.

    Args:
        runtime: the runtime of the recorder of its calls.
        operation: `chat` or `embeddings`.
        model: the model asked for.
        provider: who serves it.
        attributes: for spans and audit log, of every call.
    """

    __slots__ = ("canonical_model", "find_model", "model", "priced", "provider")

    def __init__(
        self,
        runtime: RecorderRuntime,
        operation: Operation,
        model: str | None,
        provider: str | None,
        attributes: Mapping[str, object],
    ) -> None:
        super().__init__(runtime, operation, model or "", attributes)
        self.model = model
        self.find_model: FindModel | None = None
        """Finds the model among the arguments of a decorated function."""
        self.canonical_model: str | None = None
        """The model's one name, from the first call on."""
        self.provider = provider
        self.priced = False
        """Whether an earlier call found the price table loaded; it stays loaded."""
        if provider is not None:
            self.span_attributes[Attr.PROVIDER] = provider
        if model is not None:
            self.span_attributes[Attr.REQUEST_MODEL] = model


class Callsites:
    """Cache of a recorder's callsites, shared by all runs of a name that have no attributes of their own."""

    def __init__(self, runtime: RecorderRuntime) -> None:
        self._runtime = runtime
        self._inner: BoundedDict[tuple[Operation, str], Callsite] = BoundedDict(_MAX_CALLSITES)
        self._llm: BoundedDict[tuple[str, str | None, str | None], LlmCallsite] = BoundedDict(_MAX_CALLSITES)

    def get(self, operation: Operation, name: str, attributes: Mapping[str, object] | None) -> Callsite:
        """Return the callsite of a workflow, an agent or a tool."""
        attributes = self._runtime.checked_attributes("start", attributes)
        if attributes:
            return Callsite(self._runtime, operation, name, attributes)
        found = self._inner.get((operation, name))
        if found is None:
            found = self._inner[operation, name] = Callsite(self._runtime, operation, name, {})
        return found

    def get_llm(
        self,
        operation: Operation | str,
        model: str | None,
        provider: str | None,
        attributes: Mapping[str, object] | None,
    ) -> LlmCallsite:
        """The callsite of a model.

        Raises:
            ValueError: the operation is not an LLM call.
        """
        if not (model is None or type(model) is str):
            model = plain_text(model)
        if not (provider is None or type(provider) is str):
            provider = plain_text(provider)
        key = (operation, model, provider)
        attributes = self._runtime.checked_attributes("start_llm", attributes)
        found = None if attributes else self._llm.get(key)
        if found is not None:
            return found
        served_by = canonical(provider) if provider is not None else infer_provider(model)
        made = LlmCallsite(self._runtime, llm_operation(operation), model, served_by, attributes)
        if not attributes:
            self._llm[key] = made
        return made


def inner_operation(operation: Operation | str) -> Operation:
    """Parse the operation of a run other than an LLM call.

    Raises:
        ValueError: the operation is an LLM call, or unknown.
    """
    kind = Operation(operation)
    if kind in LLM_OPERATIONS:
        raise ValueError(f"{kind.value!r} is an LLM call: begin it with start_llm(provider=…, model=…)")
    return kind


def llm_operation(operation: Operation | str) -> Operation:
    """Parse the operation of an LLM call.

    Raises:
        ValueError: the operation is not an LLM call, or unknown.
    """
    if operation is _CHAT:
        return _CHAT
    kind = Operation(operation)
    if kind not in LLM_OPERATIONS:
        raise ValueError(f"{kind.value!r} is not an LLM call: begin it with start(operation, name)")
    return kind
