"""Production observability for LLM agents, in your own process.

Decorate your agents, and your Prometheus, Grafana, tracing and audit trail know what they do, what they cost, whether
they are right and whether they behave.
"""

from __future__ import annotations

from taskpilot_obs._api.blocks import track_agent, track_llm, track_tool, track_workflow
from taskpilot_obs._api.decorators import observe_agent, observe_llm, observe_tool, observe_workflow
from taskpilot_obs._api.events import (
    flush,
    record_audit_event,
    record_cache_size,
    record_decision,
    record_feedback,
    record_guardrail_block,
    record_llm_call,
    record_policy_violation,
    record_run,
    shutdown,
)
from taskpilot_obs._recording.context import get_request_id, request_context, with_context
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs.config import configure, get_recorder
from taskpilot_obs.log_context import LogContextFilter
from taskpilot_obs.usage import Usage

from taskpilot_obs.golden_signals.facade import golden_signals  # isort: skip  after the package of the same name

__all__ = [
    "LogContextFilter",
    "Usage",
    "configure",
    "current_run",
    "flush",
    "get_recorder",
    "get_request_id",
    "golden_signals",
    "observe_agent",
    "observe_llm",
    "observe_tool",
    "observe_workflow",
    "record_audit_event",
    "record_cache_size",
    "record_decision",
    "record_feedback",
    "record_guardrail_block",
    "record_llm_call",
    "record_policy_violation",
    "record_run",
    "request_context",
    "shutdown",
    "track_agent",
    "track_llm",
    "track_tool",
    "track_workflow",
    "with_context",
]
