"""What the runs of one recorder share: its clock, its pipeline, and what is asked or opened around each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from taskpilot_obs._support.clock import Clock
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import NO_ATTRIBUTES, Attributes, clean_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.spans import Tracing
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.safety.checks import Checks
    from taskpilot_obs.safety.redaction import Redactor


class CallLimits(Protocol):
    """What is asked around LLM calls: limits of tokens, and budgets. A call is an `LlmInvocation`."""

    budgets: Any
    """The budgets that may refuse, or None."""

    @property
    def count_tokens(self) -> bool:
        """Whether the usage of a call is needed at its end."""

    def before(self, call: Any, args: Sequence[object], kwargs: Mapping[str, object], /) -> None:
        """Ask before a call; raises the refusal of what is in enforce mode."""

    def before_block(self, call: Any, stated: Mapping[str, object], /) -> None:
        """Ask before a block that makes a call; raises likewise."""

    async def before_async(self, call: Any, args: Sequence[object], kwargs: Mapping[str, object], /) -> None:
        """Like `before`, in an event loop."""

    def after(self, call: Any, /) -> None:
        """Count what a call took."""


class RecorderRuntime:
    """What the runs of one recorder read. The recorder alone writes it, when it is configured."""

    pipeline: Pipeline
    prices: PriceTable

    def __init__(self) -> None:
        self.enabled = False
        self.clock = Clock()
        self.now: Callable[[], int] = self.clock.now
        self.counters = InternalCounters()
        self.guard_span = guarded("span", self.counters)
        """Keeps a failure of the tracer from the user; made once, because each traced call needs it twice."""
        self.tracing: Tracing | None = None
        self.redactor: Redactor | None = None
        self.needs_slow_path = False
        """Whether calls are traced or their content is captured: one question for each call in place of two."""
        self.checks: Checks | None = None
        """The configured policies and guardrails, asked at every callsite."""
        self.limits: CallLimits | None = None
        """Set where a callsite or the recorder limits tokens, or a budget may refuse."""
        self.asks_checks = False
        """Whether checks other than a callsite's own are asked."""
        self.recording = True
        """Whether what happens is recorded. Without, runs begin and end only for the checks that may refuse them."""
        self.enforcing = True
        """Whether checks in enforce mode refuse."""
        self.llm_listeners: tuple[Any, ...] = ()
        """Objects that want to know when LLM calls begin and end (`LlmListener`)."""

    def trace_with(self, tracing: Tracing | None) -> None:
        """Open spans there from now on; None opens none."""
        self.tracing = tracing
        self.needs_slow_path = tracing is not None or self.redactor is not None

    def fit(self, attributes: Mapping[str, object]) -> Attributes:
        """A user's attributes as they may be kept: plain values, and where content is captured, without secrets."""
        plain = clean_attributes(attributes)
        if self.redactor is None or not plain:
            return plain
        return clean_attributes(self.redactor.attributes(plain))

    def checked_attributes(self, where: str, attributes: Mapping[str, object] | None) -> Mapping[str, object]:
        """The attributes that `where` was given; anything but a mapping is dropped and counted."""
        if attributes is None or type(attributes) is dict:
            return attributes or NO_ATTRIBUTES
        with guarded(where, self.counters):
            if not hasattr(attributes, "items"):
                kind = type(attributes).__name__
                raise ConfigurationError(f'attributes: given {kind}; give a mapping, as {{"step_id": "plan"}}')
            return dict(attributes.items())
        return NO_ATTRIBUTES
