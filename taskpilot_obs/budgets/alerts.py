"""What a budget says: alerts at its thresholds, and the decisions that the audit log keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs.budgets.ledger import Balance, Refusal, ReservationLine, Settled
from taskpilot_obs.records import AttributeValue, CheckResult, Decision, DecisionKind, Origin, Stage, Verdict
from taskpilot_obs.semconv import Label

if TYPE_CHECKING:
    from taskpilot_obs.records import Record

_THRESHOLD: Final = "threshold"
_LIMIT: Final = "limit"
_SPENT: Final = "spent"
_RESERVED: Final = "reserved"
_NEEDED: Final = "needed"
_UNIT: Final = "unit"
_SCOPE: Final = "scope_key"
_START: Final = "period_start"
_RESETS: Final = "resets_at"


class BudgetAlert(NamedTuple):
    """A budget has reached a threshold; said once in a period, over all processes that share a store."""

    budget: str
    threshold: float
    """Share of the limit."""
    limit: Decimal
    spent: Decimal
    unit: str
    """`usd` or `tokens`."""
    period: str
    period_start: datetime
    resets_at: datetime | None
    scope_key: str
    """Whose limit it is, where the budget is split by tenant, user, …: JSON; else empty."""


def alerts_of(settled: Settled, time_unix_ns: int) -> list[Decision]:
    """A decision for each threshold that a booking crossed."""
    line = settled.line
    return [
        Decision(
            DecisionKind.BUDGET,
            line.budget.name,
            Verdict.ALLOW,
            CheckResult.PASSED,
            Origin(),
            time_unix_ns,
            f"{permille / 10:g} % of the limit is spent",
            attributes={**_figures(line, settled.balance), _THRESHOLD: permille / 1_000},
        )
        for permille in settled.crossed
    ]


def refusal_of(refusal: Refusal, origin: Origin, time_unix_ns: int, *, refused: bool) -> Decision:
    """The decision about a call that has no room."""
    line = refusal.line
    return Decision(
        DecisionKind.BUDGET,
        line.budget.name,
        Verdict.DENY,
        CheckResult.BLOCKED if refused else CheckResult.WOULD_BLOCK,
        origin,
        time_unix_ns,
        "no room for the call",
        stage=Stage.INPUT,
        attributes={**_figures(line, refusal.balance), _NEEDED: str(line.budget.amount(line.amount))},
    )


def failure_of(line: ReservationLine, origin: Origin, time_unix_ns: int, reason: str, *, refused: bool) -> Decision:
    """The decision about a call that could not be judged."""
    return Decision(
        DecisionKind.BUDGET,
        line.budget.name,
        Verdict.DENY if refused else Verdict.ALLOW,
        CheckResult.BLOCKED if refused else CheckResult.BYPASSED,
        origin,
        time_unix_ns,
        reason,
        stage=Stage.INPUT,
        attributes={Label.PERIOD: line.budget.period},
    )


def _figures(line: ReservationLine, balance: Balance) -> dict[str, AttributeValue]:
    """Amounts as text, so that they stay exact."""
    budget, window = line.budget, line.window
    figures: dict[str, AttributeValue] = {
        Label.PERIOD: budget.period,
        _UNIT: budget.unit,
        _LIMIT: str(budget.amount(budget.limit)),
        _SPENT: str(budget.amount(balance.spent)),
        _RESERVED: str(budget.amount(balance.reserved)),
        _START: window.start.isoformat(),
    }
    if window.end is not None:
        figures[_RESETS] = window.end.isoformat()
    if line.account.scope_key:
        figures[_SCOPE] = line.account.scope_key
    return figures


def read_alert(record: Record) -> BudgetAlert | None:
    """The alert that a record is; None for any other."""
    if not isinstance(record, Decision) or record.kind is not DecisionKind.BUDGET:
        return None
    said = {key: str(value) for key, value in record.attributes.items()}
    if _THRESHOLD not in said:
        return None
    return BudgetAlert(
        record.name,
        float(said[_THRESHOLD]),
        Decimal(said[_LIMIT]),
        Decimal(said[_SPENT]),
        said[_UNIT],
        said[Label.PERIOD],
        datetime.fromisoformat(said[_START]),
        datetime.fromisoformat(said[_RESETS]) if _RESETS in said else None,
        said.get(_SCOPE, ""),
    )


class AlertExporter:
    """Calls a function with each alert; put it behind `Batched`, for the function may do I/O."""

    def __init__(self, function: Callable[[BudgetAlert], object]) -> None:
        self._function = function

    def export(self, batch: Sequence[Record], /) -> None:
        """Call the function with the alerts of a batch."""
        for record in batch:
            alert = read_alert(record)
            if alert is not None:
                self._function(alert)
