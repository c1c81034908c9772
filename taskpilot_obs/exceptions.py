"""The errors of the library.

TaskpilotError
├── ConfigurationError (ValueError)      an option is wrong: raised when the object is made, never later
├── MissingExtraError (ImportError)      an optional package is needed; the message names the extra
├── RefusedError                         a check in `enforce` mode refused the work
│   ├── PolicyViolationError
│   ├── GuardrailBlockedError
│   ├── BudgetExceededError
│   └── BudgetUnavailableError            whether the budget has room is unknown, and it fails closed
├── SourceError                          golden signals could not be read from where they were asked
│   └── RulesNotLoadedError              the Prometheus server answers, but the recording rules are not there
├── AuditLogError                        an audit log is unreadable or fails verification
└── StoreError                           the telemetry store cannot be used
    ├── StoreUnavailableError            … now: the database does not answer, or is locked
    └── StoreVersionError                … because it was written by another version
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)


class TaskpilotError(Exception):
    """Base of every error that this library raises on purpose.

    Its fields survive pickling. `args` are the constructor's arguments as plain values, so that task queues which
    rebuild exceptions from class and `args` (Celery, with JSON results) keep the fields too.
    """

    stable_code: ClassVar[str] = "taskpilot-error"
    """A stable name of the kind of error: an anchor of `docs/troubleshooting.md`."""
    message: str | None = None
    """What `str()` returns; None where `args` hold the message."""

    def __str__(self) -> str:
        return super().__str__() if self.message is None else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), self.args, self.__dict__)


def restored(kind: type[E], args: tuple[object, ...], fields: Mapping[str, object]) -> E:
    """Rebuild a pickled exception without its constructor, which takes other arguments than the message.

    Args:
        kind: its class.
        args: what `Exception` itself holds.
        fields: its attributes.

    Returns:
        The exception with its message and fields.
    """
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class ConfigurationError(TaskpilotError, ValueError):
    """An option is wrong. The message says which, what was given and what is allowed."""

    stable_code = "configuration-error"


class MissingExtraError(TaskpilotError, ImportError):
    """A feature needs an optional package.

    Args:
        feature: what the caller wanted.
        extra: the extra of `taskpilot-obs` that brings the package.
    """

    stable_code = "missing-extra"

    def __init__(self, feature: str, extra: str) -> None:
        self.feature = feature
        self.extra = extra
        self.message = f"{feature} needs the extra {extra!r}: pip install 'taskpilot-obs[{extra}]'"
        super().__init__(self.message)
        self.args = (feature, extra)


class RefusedError(TaskpilotError):
    """A check in `enforce` mode refused the work. Every run that it passes through ends as `blocked`.

    Args:
        message: what refused, and why.
        request_id: the request that was refused.
    """

    stable_code = "refused"

    def __init__(self, message: str, request_id: str | None = None) -> None:
        self.request_id = request_id
        self.message = message
        super().__init__(message, request_id)


class PolicyViolationError(RefusedError):
    """A policy denied the input or the tool call, or requires an approval that was not given.

    Args:
        policy: its name.
        reason: why it refused; None if it gave no reason.
        request_id: the request that was refused.
    """

    stable_code = "policy-violation"

    def __init__(self, policy: str, reason: str | None, request_id: str | None = None) -> None:
        self.policy = policy
        self.reason = reason
        super().__init__(f"policy {policy!r} refused: {reason or 'no reason given'}", request_id)
        self.args = (policy, reason, request_id)


class GuardrailBlockedError(RefusedError):
    """A guardrail blocked the input, or withheld the output.

    Args:
        guardrail: its name.
        stage: `input` or `output`.
        reason: why it blocked; None if it gave no reason.
        request_id: the request that was refused.
    """

    stable_code = "guardrail-blocked"

    def __init__(self, guardrail: str, stage: str, reason: str | None, request_id: str | None = None) -> None:
        self.guardrail = guardrail
        self.stage = stage
        self.reason = reason
        super().__init__(f"guardrail {guardrail!r} blocked the {stage}: {reason or 'no reason given'}", request_id)
        self.args = (guardrail, stage, reason, request_id)


class BudgetExceededError(RefusedError):
    """A budget in `enforce` mode has no room for the call. Amounts are in `unit`.

    Amounts and times are also taken as the strings that `args` hold.

    Args:
        budget: its name.
        limit: what the budget allows in a period.
        spent: what is booked in the present one.
        reserved: what calls in progress may still take.
        resets_at: when the next period begins; None for `total`.
        needed: what the call may take at most.
        unit: `usd`, `tokens` or `requests`.
        tenant: on whose behalf the call was to be made.
        scope: whose limit it is, where the budget is split: `{"tenant": "acme"}`.
        retry_after_s: seconds until the next period, for budgets by the minute and by the hour.
        request_id: the request that was refused.
    """

    stable_code = "budget-exceeded"

    def __init__(  # noqa: PLR0913, PLR0917  one argument for each field that a caller may read
        self,
        budget: str,
        limit: Decimal | str,
        spent: Decimal | str,
        reserved: Decimal | str,
        resets_at: datetime | str | None,
        needed: Decimal | str | None = None,
        unit: str = "usd",
        tenant: str | None = None,
        scope: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        self.budget = budget
        self.limit = Decimal(limit)
        self.spent = Decimal(spent)
        self.reserved = Decimal(reserved)
        self.resets_at = datetime.fromisoformat(resets_at) if isinstance(resets_at, str) else resets_at
        self.needed = None if needed is None else Decimal(needed)
        self.unit = unit
        self.tenant = tenant
        self.scope = dict(scope or {})
        self.retry_after_s = retry_after_s
        super().__init__(self._message(), request_id)
        self.args = self._plain()

    def _plain(self) -> tuple[object, ...]:
        """The constructor's arguments, as values that JSON knows."""
        resets_at = None if self.resets_at is None else self.resets_at.isoformat()
        needed = None if self.needed is None else str(self.needed)
        amounts = (str(self.limit), str(self.spent), str(self.reserved), resets_at, needed)
        return (self.budget, *amounts, self.unit, self.tenant, self.scope, self.retry_after_s, self.request_id)

    def _message(self) -> str:
        whose = f" of {', '.join(f'{key} {value!r}' for key, value in self.scope.items())}" if self.scope else ""
        figures = f"limit {self.limit} {self.unit}, spent {self.spent}, reserved {self.reserved}"
        if self.needed is not None:
            figures = f"needed {self.needed} {self.unit}, {figures}"
        until = f", resets at {self.resets_at.isoformat()}" if self.resets_at else ""
        after = f", retry after {self.retry_after_s:.0f} s" if self.retry_after_s is not None else ""
        state = "is used up" if self.spent >= self.limit else "has no room for this call"
        return f"budget {self.budget!r}{whose} {state}: {figures}{until}{after}"


class BudgetUnavailableError(RefusedError):
    """A budget in `enforce` mode fails closed because its store is unreachable or the call has no known price.

    Args:
        budget: its name.
        reason: what it lacks.
        request_id: the request that was refused.
    """

    stable_code = "budget-unavailable"

    def __init__(self, budget: str, reason: str, request_id: str | None = None) -> None:
        self.budget = budget
        self.reason = reason
        super().__init__(f"budget {budget!r} cannot judge the call: {reason}", request_id)
        self.args = (budget, reason, request_id)


class SourceError(TaskpilotError):
    """Golden signals could not be read from the source that was named."""

    stable_code = "source-unreadable"


class RulesNotLoadedError(SourceError):
    """The Prometheus server answers, but the recording rules of this library are not loaded in it."""

    stable_code = "rules-not-loaded"


class AuditLogError(TaskpilotError):
    """An audit log cannot be read, or does not verify."""

    stable_code = "audit-log-unreadable"


class StoreError(TaskpilotError):
    """The telemetry store cannot be used."""

    stable_code = "store-unusable"


class StoreUnavailableError(StoreError):
    """The telemetry store's database does not answer or cannot be written to now; later it may."""

    stable_code = "store-unavailable"


class StoreVersionError(StoreError):
    """The telemetry store was written by a version that this code does not know."""

    stable_code = "store-version"
