"""Point events: records without a duration, such as feedback and decisions."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.spans import current_ids
from taskpilot_obs.records import Decision, DecisionKind, Feedback, Origin, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs.records import Record, Scope

_SHOWN: Final = ("kind", "name", "verdict", "result", "stage", "severity", "reason")
"""The attributes of a decision's event on a span."""
MAX_RATED = 50_000
"""How many rated requests are remembered, so that a second verdict on one of them is a revision."""


class PointEvent:
    """A point event on its way to the drainer.

    Args:
        record: the event.
        run: the run in which it happened.
        verdicts: the users' verdicts so far.
    """

    __slots__ = ("_record", "_run", "_verdicts")

    def __init__(self, record: Record, run: ActiveInvocation | None, verdicts: Verdicts) -> None:
        self._record = record
        self._run = run
        self._verdicts = verdicts

    def droppable(self) -> bool:
        """Point events may be dropped, which is counted."""
        return True

    def freeze(self, records: list[Record]) -> None:
        """Append its record; feedback that repeats a verdict has none."""
        record = self._record
        if isinstance(record, Feedback):
            records.extend(self._verdicts.revise(record))
            return
        if self._run is not None and isinstance(record, Decision) and record.is_violation:
            self._run.add_violation()
        records.append(record)


class Verdicts:
    """The last verdict on each recently rated request: counted once, revised by the opposite verdict.

    Used by the drainer only.
    """

    def __init__(self) -> None:
        self._rated: OrderedDict[str, bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rated)

    def revise(self, feedback: Feedback) -> Sequence[Feedback]:
        """Return what a verdict adds to earlier ones: itself, itself as a revision, or nothing."""
        rated, request_id = self._rated, feedback.request_id
        if not request_id:  # feedback without a request ID cannot be revised
            return (feedback,)
        before = rated.pop(request_id, None)
        rated[request_id] = feedback.correct
        if len(rated) > MAX_RATED:
            rated.popitem(last=False)
        if before is None:
            return (feedback,)
        return () if before == feedback.correct else (feedback._replace(revision=True),)


def origin_of(run: ActiveInvocation | None, scope: Scope | None) -> Origin:
    """Return the identifiers that a record carries.

    Args:
        run: the run that it belongs to.
        scope: the request that it belongs to.
    """
    trace_id, span_id, sampled = run.span_ids if run is not None and run.span is not None else current_ids()
    tenant, user, session = (None, None, None) if scope is None else scope[1:4]
    if run is None:
        request_id = None if scope is None else scope.request_id
        return Origin(request_id, None, None, None, None, trace_id, span_id, sampled, tenant, user, session)
    request_id = run.request_id if scope is None else scope.request_id
    workflow, agent = run.lineage()
    return Origin(
        request_id, run.invocation_id, None, workflow, agent, trace_id, span_id, sampled, tenant, user, session
    )


def show_decision(decision: Decision) -> None:
    """Add a violation or a guardrail's decision to the span of its run as an event."""
    running = current_run()
    if running is None or running.span is None:
        return
    if decision.kind is DecisionKind.GUARDRAIL or decision.verdict is not Verdict.ALLOW:
        running.span.add_decision(**{name: getattr(decision, name) for name in _SHOWN})
