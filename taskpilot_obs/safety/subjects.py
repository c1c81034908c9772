"""What checks are asked about, and what they may answer.

A policy answers with a `Ruling`, a guardrail with a `Finding`: small values about one question. The record that
travels to metrics and audit log, with who, when and what came of it, is a `Decision`; checks do not make it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from taskpilot_obs.records import Operation, Severity, Stage, Verdict

NO_ARGUMENTS: Final[Mapping[str, object]] = MappingProxyType({})


class Subject(NamedTuple):
    """One question to a check: may this go in, or may this come out?"""

    operation: Operation
    stage: Stage
    text: str = ""
    """All text that goes in (the strings among the arguments, those of messages included), or that comes out."""
    tool: str | None = None
    """The tool that is called; None unless `operation` is a tool call."""
    arguments: Mapping[str, object] = NO_ARGUMENTS
    """The arguments of the call by name; empty at the output."""
    agent: str | None = None
    workflow: str | None = None
    request_id: str | None = None
    tokens_so_far: int = 0
    """Tokens that the LLM calls of the run have taken, this one included at its output; for LLM calls only."""
    call_tokens: int = 0
    """Tokens that this LLM call took; at its output only."""


class Ruling(NamedTuple):
    """What a policy says about a subject."""

    verdict: Verdict
    reason: str | None = None
    """For the audit log and the exception. Name the rule, not what was said: the text may be confidential."""
    severity: Severity | None = None
    """None: the policy's own."""


class Finding(NamedTuple):
    """What a guardrail says about a subject."""

    blocked: bool
    reason: str | None = None


ALLOW: Final = Ruling(Verdict.ALLOW)
PASSED: Final = Finding(blocked=False)


def deny(reason: str | None = None, *, severity: Severity | str | None = None) -> Ruling:
    """A policy's no."""
    return Ruling(Verdict.DENY, reason, None if severity is None else Severity(severity))


def require_approval(reason: str | None = None) -> Ruling:
    """A policy's "only if a person says so"."""
    return Ruling(Verdict.REQUIRE_APPROVAL, reason)


def blocked(reason: str | None = None) -> Finding:
    """A guardrail's no."""
    return Finding(blocked=True, reason=reason)


PolicyAnswer = Ruling | Verdict | bool | None
"""None and True allow, False denies."""
GuardrailAnswer = Finding | bool | None
"""None and True pass, False blocks."""


class Policy(Protocol):
    """Anything with `check(subject)`; a plain function of a subject is a policy too.

    It may also have `name` (by default its class's), `severity` of its denials, and `stages` where it is asked (by
    default the input only).
    """

    def check(self, subject: Subject, /) -> PolicyAnswer | Awaitable[PolicyAnswer]:
        """Decide. May be asynchronous, where what is checked is."""


class Guardrail(Protocol):
    """Anything with `check(subject)`; a plain function of a subject is a guardrail too.

    It may also have `name` (by default its class's) and `stages` where it is asked (by default the input only).
    """

    def check(self, subject: Subject, /) -> GuardrailAnswer | Awaitable[GuardrailAnswer]:
        """Decide. May be asynchronous, where what is checked is."""
