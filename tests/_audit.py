"""Records and small helpers that the tests of the audit log share."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from taskpilot_obs.audit.query import Entry
from taskpilot_obs.audit.verify import ChainReport, verify
from taskpilot_obs.records import (
    AuditEvent,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Origin,
    Record,
    Rollup,
    Severity,
    Stage,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.usage import Usage

START_NS = 1_763_717_400_000_001_000  # 2025-11-21T09:30:00.000001Z
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
ORIGIN = Origin("req-1", "i2", "i1", "handle", "Planner", TRACE, SPAN, True, "acme", "u1", "s1")


_RUN: dict[str, Any] = {
    "request_id": "req-1",
    "invocation_id": "i2",
    "parent_id": "i1",
    "workflow": "handle",
    "agent": "Planner",
    "start_unix_ns": START_NS,
    "input_length": 12,
    "trace_id": TRACE,
    "span_id": SPAN,
    "tenant": "acme",
    "user": "u1",
    "session": "s1",
}


def started(operation: Operation = Operation.AGENT, name: str = "Planner", **changes: Any) -> Started:
    """The start of a run."""
    return Started(operation, name, **_RUN)._replace(**changes)


def finished(operation: Operation = Operation.AGENT, name: str = "Planner", **changes: Any) -> Invocation:
    """A run that ended well after 1.5 seconds."""
    return Invocation(Status.SUCCESS, 1.5, operation, name, output_length=34, **_RUN)._replace(**changes)


def llm_call(**changes: Any) -> Invocation:
    """A priced LLM call."""
    call = finished(
        Operation.CHAT,
        "gpt-4o",
        provider="openai",
        request_model="gpt-4o",
        response_model="gpt-4o-2024-08-06",
        usage=Usage(10, 20),
        cost=Decimal("0.0000525"),
        streaming=True,
        cached=False,
        ttft_s=0.25,
    )
    return call._replace(**changes)


def decision(**changes: Any) -> Decision:
    """A policy that refused."""
    first = Decision(
        DecisionKind.POLICY,
        "DenyWords",
        Verdict.DENY,
        CheckResult.BLOCKED,
        ORIGIN,
        START_NS,
        "says delete",
        Severity.HIGH,
        Stage.INPUT,
        "create_task",
        0.000012,
    )
    return first._replace(**changes)


def event(name: str = "task.created", **attributes: Any) -> AuditEvent:
    """Something that the application wants in its log."""
    return AuditEvent(name, ORIGIN, START_NS, attributes)


def samples() -> list[Record]:
    """One of each kind that leaves a line."""
    return [
        started(Operation.WORKFLOW, "handle"),
        started(),
        finished(rollup=Rollup(10, 20, Decimal("0.5"), 2, 1, 1)),
        finished(Operation.WORKFLOW, "handle", attributes={"task_id": 7, "ratio": 0.5, "is_new": True}),
        finished(Operation.TOOL, "create_task", status=Status.ERROR, error_type="ValueError"),
        llm_call(),
        llm_call(usage=None, cost=None, operation=Operation.EMBEDDINGS),
        decision(),
        decision(kind=DecisionKind.GUARDRAIL, verdict=Verdict.ALLOW, result=CheckResult.PASSED),
        decision(kind=DecisionKind.BUDGET, name="team"),
        Feedback("req-1", True, False, ORIGIN, START_NS, {"by": "u1"}),
        event(task_id="t1"),
    ]


def read(path: Path) -> list[Entry]:
    """The records of one file, parsed."""
    return [json.loads(line, parse_float=Decimal) for line in path.read_text("ascii").split("\n")[:-1]]


def whole(path: Path, **options: Any) -> ChainReport:
    """The report of a log that has one chain, which must be whole."""
    reports = verify(path, **options)
    assert [report.problem for report in reports] == [None] * len(reports)
    return reports[0]
