"""What the runs of one recorder share: its clock, its pipeline, its checks and its tracing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from taskpilot_obs._recording.attributes import clean_attributes
from taskpilot_obs._support.clock import Clock
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import NO_ATTRIBUTES, Attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.spans import Tracing
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.safety.checks import Checks
    from taskpilot_obs.safety.redaction import Redactor


class CallLimits(Protocol):
    """Checks around LLM calls: token limits and budgets. A call is an `LlmInvocation`."""

    budgets: Any
    """The budgets that may refuse, or None."""

    @property
    def count_tokens(self) -> bool:
        """Whether the usage of a call is needed at its end."""

    def before(self, call: Any, args: Sequence[object], kwargs: Mapping[str, object], /) -> None:
        """Check before a call; raises the refusal of a check in enforce mode."""

    def before_block(self, call: Any, stated: Mapping[str, object], /) -> None:
        """Check before a block that makes a call; raises like `before`."""

    async def before_async(self, call: Any, args: Sequence[object], kwargs: Mapping[str, object], /) -> None:
        """Like `before`, in an event loop."""

    def after(self, call: Any, /) -> None:
        """Count the tokens of a call."""


class RecorderRuntime:
    """The state that the runs of one recorder read. Only the recorder writes it, in `configure`."""

    pipeline: Pipeline
    prices: PriceTable

    def __init__(self) -> None:
        self.enabled = False
        self.clock = Clock()
        self.now: Callable[[], int] = self.clock.now
        self.counters = InternalCounters()
        self.guard_span = guarded("span", self.counters)
        """Suppresses failures of the tracer; made once, because each traced call uses it twice."""
        self.tracing: Tracing | None = None
        self.redactor: Redactor | None = None
        self.needs_slow_path = False
        """Whether calls are traced or their content captured: one test per call instead of two."""
        self.checks: Checks | None = None
        """The configured policies and guardrails, which run at every callsite."""
        self.limits: CallLimits | None = None
        """Set if a callsite or the recorder limits tokens, or a budget may refuse."""
        self.asks_checks = False
        """Whether checks other than a callsite's own run."""
        self.recording = True
        """Whether runs are recorded. If not, runs begin and end only for checks that may refuse them."""
        self.enforcing = True
        """Whether checks in enforce mode refuse."""
        self.llm_listeners: tuple[Any, ...] = ()
        """Objects notified when LLM calls begin and end (`LlmListener`)."""

    def trace_with(self, tracing: Tracing | None) -> None:
        """Open spans with this tracing from now on; None opens none."""
        self.tracing = tracing
        self.needs_slow_path = tracing is not None or self.redactor is not None

    def fit(self, attributes: Mapping[str, object]) -> Attributes:
        """Clean a user's attributes: plain values only and, with content capture, without secrets."""
        plain = clean_attributes(attributes)
        if self.redactor is None or not plain:
            return plain
        return clean_attributes(self.redactor.attributes(plain))

    def checked_attributes(self, where: str, attributes: Mapping[str, object] | None) -> Mapping[str, object]:
        """Return the attributes given to `where`; anything but a mapping is dropped and counted."""
        if attributes is None or attributes is NO_ATTRIBUTES:
            return NO_ATTRIBUTES
        if type(attributes) is dict:
            return attributes or NO_ATTRIBUTES
        with guarded(where, self.counters):
            if not hasattr(attributes, "items"):
                kind = type(attributes).__name__
                raise ConfigurationError(f'attributes: given {kind}; give a mapping, as {{"step_id": "plan"}}')
            return dict(attributes.items())
        return NO_ATTRIBUTES
