"""The errors of the library.

TaskpilotError
├── ConfigurationError (ValueError)      an option is wrong: raised when the object is made, never later
├── MissingExtraError (ImportError)      an optional package is needed; the message names the extra
├── RefusedError                         asked for by name: a check in `enforce` mode said no
│   ├── PolicyViolationError
│   ├── GuardrailBlockedError
│   ├── BudgetExceededError
│   └── BudgetUnavailableError            nobody can say whether the budget has room, and it is closed then
├── SourceError                          golden signals could not be read from where they were asked
│   └── RulesNotLoadedError              the Prometheus server answers, but the recording rules are not there
├── AuditLogError                        an audit log is unreadable or fails verification
└── StoreError                           the telemetry store cannot be used
    ├── StoreUnavailableError            … now: the database does not answer, or is locked
    └── StoreVersionError                … because it was written by another version
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal


class TaskpilotError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigurationError(TaskpilotError, ValueError):
    """An option is wrong. The message says which, what was given and what is allowed."""


class MissingExtraError(TaskpilotError, ImportError):
    """A feature needs an optional package.

    Args:
        feature: what the caller wanted.
        extra: the extra of `taskpilot-obs` that brings the package.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.feature = feature
        self.extra = extra
        super().__init__(f"{feature} needs the extra {extra!r}: pip install 'taskpilot-obs[{extra}]'")


class RefusedError(TaskpilotError):
    """A check in `enforce` mode refused the work. Every run that it passes through ends as `blocked`."""

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        self.request_id = request_id
        super().__init__(message)


class PolicyViolationError(RefusedError):
    """A policy denied the input or the tool call, or asks for an approval that nobody gave."""

    def __init__(self, policy: str, reason: str | None, *, request_id: str | None = None) -> None:
        self.policy = policy
        self.reason = reason
        super().__init__(f"policy {policy!r} refused: {reason or 'no reason given'}", request_id=request_id)


class GuardrailBlockedError(RefusedError):
    """A guardrail blocked the input, or withheld the output."""

    def __init__(self, guardrail: str, stage: str, reason: str | None, *, request_id: str | None = None) -> None:
        self.guardrail = guardrail
        self.stage = stage
        self.reason = reason
        message = f"guardrail {guardrail!r} blocked the {stage}: {reason or 'no reason given'}"
        super().__init__(message, request_id=request_id)


class BudgetExceededError(RefusedError):
    """A budget in `enforce` mode has no room for the call. Amounts are in the budget's unit (USD or tokens)."""

    def __init__(
        self,
        budget: str,
        *,
        limit: Decimal,
        spent: Decimal,
        reserved: Decimal,
        resets_at: datetime | None,
        request_id: str | None = None,
    ) -> None:
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.resets_at = resets_at
        until = f", resets at {resets_at.isoformat()}" if resets_at else ""
        message = f"budget {budget!r} is used up: limit {limit}, spent {spent}, reserved {reserved}{until}"
        super().__init__(message, request_id=request_id)


class BudgetUnavailableError(RefusedError):
    """A budget in `enforce` mode cannot judge a call, and is closed then: its store is away, or no price known."""

    def __init__(self, budget: str, reason: str, *, request_id: str | None = None) -> None:
        self.budget = budget
        self.reason = reason
        super().__init__(f"budget {budget!r} cannot judge the call: {reason}", request_id=request_id)


class SourceError(TaskpilotError):
    """Golden signals could not be read from the source that was named."""


class RulesNotLoadedError(SourceError):
    """The Prometheus server answers, but the recording rules of this library are not loaded in it."""


class AuditLogError(TaskpilotError):
    """An audit log cannot be read, or does not verify."""


class StoreError(TaskpilotError):
    """The telemetry store cannot be used."""


class StoreUnavailableError(StoreError):
    """The telemetry store's database does not answer or cannot be written to now; later it may."""


class StoreVersionError(StoreError):
    """The telemetry store was written by a version that this code does not know."""
