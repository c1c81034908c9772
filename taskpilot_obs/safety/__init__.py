"""Policies and guardrails, which check inputs, outputs and tool calls, and the redaction of stored content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._support.late_names import late_names
from taskpilot_obs.records import Operation, Severity, Stage, Verdict
from taskpilot_obs.safety.guardrails import Check, check_with
from taskpilot_obs.safety.subjects import (
    ALLOW,
    PASSED,
    CheckInput,
    Finding,
    Guardrail,
    GuardrailResult,
    Policy,
    PolicyResult,
    Ruling,
    Subject,
    blocked,
    deny,
    require_approval,
)

if TYPE_CHECKING:
    from taskpilot_obs.safety.cedar import CedarPolicy
    from taskpilot_obs.safety.opa import AsyncOpaServerPolicy, OpaServerPolicy
    from taskpilot_obs.safety.policies import (
        AllowTools,
        DenyPattern,
        DenyTools,
        DenyWords,
        MaxInputLength,
        MaxTokens,
        RequireApproval,
    )
    from taskpilot_obs.safety.redaction import Redactor, Rule
    from taskpilot_obs.safety.rego import RegoPolicy

__all__ = [
    "ALLOW",
    "PASSED",
    "AllowTools",
    "AsyncOpaServerPolicy",
    "CedarPolicy",
    "Check",
    "CheckInput",
    "DenyPattern",
    "DenyTools",
    "DenyWords",
    "Finding",
    "Guardrail",
    "GuardrailResult",
    "MaxInputLength",
    "MaxTokens",
    "OpaServerPolicy",
    "Operation",
    "Policy",
    "PolicyResult",
    "Redactor",
    "RegoPolicy",
    "RequireApproval",
    "Rule",
    "Ruling",
    "Severity",
    "Stage",
    "Subject",
    "Verdict",
    "blocked",
    "check_with",
    "deny",
    "require_approval",
]

_HOMES = {
    **dict.fromkeys(__all__, "policies"),
    "AsyncOpaServerPolicy": "opa",
    "CedarPolicy": "cedar",
    "OpaServerPolicy": "opa",
    "Redactor": "redaction",
    "RegoPolicy": "rego",
    "Rule": "redaction",
}

__getattr__ = late_names(__name__, _HOMES)
"""Policies and redaction have patterns, which take 20 ms to compile."""
