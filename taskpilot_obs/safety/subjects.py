"""What checks judge, and their answers.

A policy returns a `PolicyResult`, a guardrail a `GuardrailResult`, about one `CheckInput`. The library turns them into
`Decision` records for metrics and the audit log, with origin, time and result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from taskpilot_obs.records import Operation, Severity, Stage, Verdict

NO_ARGUMENTS: Final[Mapping[str, object]] = MappingProxyType({})


class CheckInput(NamedTuple):
    """What a check judges: the input or the output of a run."""

    operation: Operation
    stage: Stage
    text: str = ""
    """All text of the input (strings among the arguments, including those of messages), or of the output."""
    tool: str | None = None
    """The called tool; None unless `operation` is a tool call."""
    arguments: Mapping[str, object] = NO_ARGUMENTS
    """The arguments of the call by name; empty at the output."""
    agent: str | None = None
    workflow: str | None = None
    request_id: str | None = None
    tokens_so_far: int = 0
    """Tokens of the run's LLM calls so far, including this one at its output; for LLM calls only."""
    call_tokens: int = 0
    """Tokens that this LLM call took; at its output only."""
    tenant: str | None = None
    user: str | None = None


class PolicyResult(NamedTuple):
    """The answer of a policy."""

    verdict: Verdict
    reason: str | None = None
    """For the audit log and the exception. Name the rule and do not quote the text, which may be confidential."""
    severity: Severity | None = None
    """None uses the policy's severity."""
    version: str | None = None
    """The version of the policy that decided, such as the hash of its text; None uses the policy's `version`."""


class GuardrailResult(NamedTuple):
    """The answer of a guardrail."""

    blocked: bool
    reason: str | None = None


ALLOW: Final = PolicyResult(Verdict.ALLOW)
PASSED: Final = GuardrailResult(blocked=False)


def deny(reason: str | None = None, *, severity: Severity | str | None = None) -> PolicyResult:
    """Return a policy's denial.

    Args:
        reason: names the rule, for the audit log and the exception. Do not quote the text, which may be confidential.
        severity: low, medium, high or critical; by default that of the policy.

    Raises:
        ValueError: the severity is unknown.
    """
    return PolicyResult(Verdict.DENY, reason, None if severity is None else Severity(severity))


def require_approval(reason: str | None = None) -> PolicyResult:
    """Return a policy's demand for a person's approval."""
    return PolicyResult(Verdict.REQUIRE_APPROVAL, reason)


def blocked(reason: str | None = None) -> GuardrailResult:
    """Return a guardrail's block."""
    return GuardrailResult(blocked=True, reason=reason)


PolicyAnswer = PolicyResult | Verdict | bool | None
"""None and True allow, False denies."""
GuardrailAnswer = GuardrailResult | bool | None
"""None and True pass, False blocks."""


class Policy(Protocol):
    """Anything with `check(subject)`; a plain function of a subject is a policy too.

    It may also have `name` (by default its class's), `severity` of its denials, and `stages` at which it runs (by
    default the input only).
    """

    def check(self, subject: CheckInput, /) -> PolicyAnswer | Awaitable[PolicyAnswer]:
        """Decide. May be asynchronous, where what is checked is."""


class Guardrail(Protocol):
    """Anything with `check(subject)`; a plain function of a subject is a guardrail too.

    It may also have `name` (by default its class's) and `stages` at which it runs (by default the input only).
    """

    def check(self, subject: CheckInput, /) -> GuardrailAnswer | Awaitable[GuardrailAnswer]:
        """Decide. May be asynchronous, where what is checked is."""


Subject = CheckInput
"""The earlier name of `CheckInput`."""
Ruling = PolicyResult
"""The earlier name of `PolicyResult`."""
Finding = GuardrailResult
"""The earlier name of `GuardrailResult`."""
