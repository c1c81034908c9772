"""Alerts of budgets at their thresholds, and the decisions that the audit log keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs._support.hooks import settled
from taskpilot_obs.budgets.ledger import Balance, Refusal, ReservationLine, Settled
from taskpilot_obs.budgets.model import ALL
from taskpilot_obs.records import AttributeValue, CheckResult, Decision, DecisionKind, Origin, Stage, Verdict
from taskpilot_obs.semconv import Label

if TYPE_CHECKING:
    from taskpilot_obs.records import Record

_SCOPED: Final = "scope."
_NO_SCOPE: Final[Mapping[str, str]] = MappingProxyType({})


class BudgetAlert(NamedTuple):
    """A budget has reached a threshold; sent once per period, by one of the processes that share a store."""

    budget: str
    threshold: float
    """Share of the limit."""
    limit: Decimal
    spent: Decimal
    unit: str
    """`usd` or `tokens`."""
    period: str
    period_start: datetime
    resets_at: datetime | None = None
    scope_key: str = ""
    """Whose limit it is, where the budget is split by tenant, user, …: JSON; else empty."""
    scope: Mapping[str, str] = _NO_SCOPE
    """What the budget is scoped to: the fixed names of its scope, and those that it is split by."""
    tenant: str | None = None
    """The tenant whose limit it is, where the budget is scoped to one or split by tenant."""
    refused: bool = False
    """Whether the limit counts as reached because a call was refused for lack of room."""


_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "threshold": float,
    "limit": Decimal,
    "spent": Decimal,
    "unit": str,
    Label.PERIOD: str,
    "period_start": datetime.fromisoformat,
    "resets_at": datetime.fromisoformat,
    "scope_key": str,
}
"""How the attributes of a decision become fields of its alert, by their common name."""


def alerts_of(settled: Settled, time_unix_ns: int) -> list[Decision]:
    """A decision for each threshold that a charge crossed."""
    return [
        _alert(settled.line, settled.balance, permille, f"{permille / 10:g} % of the limit is spent", time_unix_ns)
        for permille in settled.crossed
    ]


def exhausted_by(refusal: Refusal, time_unix_ns: int) -> Decision:
    """The decision about a budget that refuses calls for lack of room: it counts as exhausted, though some is left."""
    decision = _alert(refusal.line, refusal.balance, ALL, "calls are refused for lack of room", time_unix_ns)
    return decision._replace(attributes={**decision.attributes, "refused": True})


def _alert(line: ReservationLine, balance: Balance, permille: int, reason: str, time_unix_ns: int) -> Decision:
    return Decision(
        DecisionKind.BUDGET,
        line.budget.name,
        Verdict.ALLOW,
        CheckResult.PASSED,
        Origin(tenant=_tenant_of(line)),
        time_unix_ns,
        reason,
        attributes={**_figures(line, balance), "threshold": permille / ALL},
    )


def _tenant_of(line: ReservationLine) -> str | None:
    return line.budget.scope_of(line.account.scope_key).get("tenant")


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
        attributes={**_figures(line, refusal.balance), "needed": str(line.budget.amount(line.amount))},
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
        attributes={Label.PERIOD: line.budget.period, **_scoped(line)},
    )


def _figures(line: ReservationLine, balance: Balance) -> dict[str, AttributeValue]:
    """Amounts as text, to keep them exact."""
    budget, window = line.budget, line.window
    figures: dict[str, AttributeValue] = {
        Label.PERIOD: budget.period,
        "unit": budget.unit,
        "limit": str(budget.amount(budget.limit)),
        "spent": str(budget.amount(balance.spent)),
        "reserved": str(budget.amount(balance.reserved)),
        "period_start": window.start.isoformat(),
    }
    if window.end is not None:
        figures["resets_at"] = window.end.isoformat()
    if line.account.scope_key:
        figures["scope_key"] = line.account.scope_key
    return figures | _scoped(line)


def _scoped(line: ReservationLine) -> dict[str, AttributeValue]:
    """The scope of the budget, with a field for each part: `scope.tenant`, `scope.model`, …"""
    return {_SCOPED + key: name for key, name in line.budget.scope_of(line.account.scope_key).items()}


def read_alert(record: Record) -> BudgetAlert | None:
    """Convert a record to an alert; None for other records."""
    if not isinstance(record, Decision) or record.kind is not DecisionKind.BUDGET:
        return None
    said = {key: str(value) for key, value in record.attributes.items()}
    if "threshold" not in said:
        return None
    stated: dict[str, Any] = {name: read(said[name]) for name, read in _READERS.items() if name in said}
    scope = {key.removeprefix(_SCOPED): value for key, value in said.items() if key.startswith(_SCOPED)}
    return BudgetAlert(budget=record.name, **stated, scope=scope, tenant=scope.get("tenant"), refused="refused" in said)


class AlertExporter:
    """Calls a function with each alert; put it behind `Batched`, because the function may do I/O."""

    def __init__(self, function: Callable[[BudgetAlert], object]) -> None:
        self._function = function

    def export(self, batch: Sequence[Record], /) -> None:
        """Call the function with the alerts of a batch."""
        for record in batch:
            alert = read_alert(record)
            if alert is not None:
                settled(self._function(alert))
