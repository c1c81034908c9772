"""The live spans of this process as a tree, and the runs that some of them stand for."""

from __future__ import annotations

import sys
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from taskpilot_obs.genai_dialects import SpanMeaning, kind_of
from taskpilot_obs.integration import ActiveInvocation, Scope, current_question, is_within
from taskpilot_obs.records import LLM_OPERATIONS
from taskpilot_obs_opentelemetry.outcomes import SpanOutcome

MOST_LIVE: Final = 10_000
"""Live spans that are kept; past it the oldest is forgotten."""


class Node:
    """A live span."""

    __slots__ = (
        "around",
        "around_was_open",
        "beneath",
        "ended",
        "failure",
        "fault",
        "folded",
        "lent",
        "parent",
        "question",
        "root",
        "run",
        "scope",
        "span",
        "took",
    )

    def __init__(
        self, span: ReadableSpan, parent: Node | None, around: ActiveInvocation | None, scope: Scope | None
    ) -> None:
        self.span = span
        self.parent = parent
        self.root: Node = self if parent is None else parent.root
        self.around = around
        """The run that was current when the span began, without those of spans."""
        self.around_was_open = around is not None and not around.ended
        """Whether it ran then: a stream's span may end after the run that a middleware records of it."""
        self.scope = scope
        self.question = current_question()
        """What checks were being asked when the span began: it is then a check's own."""
        self.run: ActiveInvocation | None = None
        self.folded = False
        """Whether it repeats the run above."""
        self.lent = False
        """Whether something beneath has given its usage to the call above."""
        self.took: dict[str, object] = {}
        """The usage that the same call stated beneath."""
        self.beneath: ReadableSpan | None = None
        """The span of an inner layer of the same call: it may know of a stream what this one does not state."""
        self.failure: SpanOutcome | None = None
        """How the last request beneath failed, where an inner layer of the same call states it."""
        self.ended = False
        self.fault = sys.exc_info()[1]
        """What was being handled when it began, and is none of its own."""

    def kind(self) -> SpanMeaning | None:
        """What it stands for, as far as its attributes are set."""
        scope = self.span.instrumentation_scope
        return kind_of(self.span.name, self.span.attributes or {}, "" if scope is None else scope.name)

    def begins_beneath_a_run(self) -> bool:
        """Whether a run began between the parent's span and this one: a decorated function that was called there."""
        if self.around is None:
            return False
        return self.parent is None or not is_within(self.parent.around, self.around)

    def begins_in_a_check(self) -> bool:
        """Whether checks began to be asked between the parent's span and this one."""
        return self.question is not None and (self.parent is None or self.parent.question is not self.question)

    def judges(self, run: ActiveInvocation) -> bool:
        """Whether a check that is asked about a run began the span, which is then none of that run's."""
        return self.question is not None and self.question.is_about(run)

    def began_within(self, run: ActiveInvocation) -> bool:
        """Whether a run above was open when the span began."""
        return not run.ended or (run is self.around and self.around_was_open)

    def forget_plumbing(self) -> None:
        """Refer to no ancestor that has ended without a run, so that tasks that start tasks build no chain."""
        while (above := self.parent) is not None and above.ended and above.run is None:
            if self.begins_beneath_a_run():
                self.parent = None
            else:
                self.parent, self.around, self.around_was_open = above.parent, above.around, above.around_was_open

    def llm_above(self) -> Node | None:
        """The span above that stands for the same LLM call; a decorated function or a check between parts them."""
        at = self
        while at.parent is not None and not at.begins_beneath_a_run() and not at.begins_in_a_check():
            at = at.parent
            kind = at.kind()
            if kind is not None:
                return at if kind.operation in LLM_OPERATIONS and at.lasted_beyond(self.span.start_time or 0) else None
        return None

    def lasted_beyond(self, time_unix_ns: int) -> bool:
        """Whether the span ended after a time, or has not ended.

        Where a stream is left, the span of an inner layer may end after that of an outer one.
        """
        return not self.ended or (self.span.end_time or 0) > time_unix_ns
