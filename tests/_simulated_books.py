"""The books of a simulation: what must hold when everything has healed."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from _simulated_service import AUDIT, MODELS, STORE, Service
from _simulated_threads import Violation

from taskpilot_obs.audit.verify import verify
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, aggregate_summaries
from taskpilot_obs.store.budget_ledger import StoreLedger

if TYPE_CHECKING:
    from _simulator_of_faults import Simulation

START: Final = datetime(2026, 3, 10, 12, tzinfo=UTC)
REQUEST: Final = b'"request_id":"'


class Books:
    """What the processes of a simulation say of themselves, beside what is there."""

    def __init__(self, simulation: Simulation) -> None:
        self._run = simulation
        self._services = simulation.services
        self._url = f"sqlite:///{simulation.database.path}"

    def _query(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self._run.database.path)) as connection:
            return connection.execute(statement).fetchall()

    def rows(self) -> dict[str, tuple[str, str, int]]:
        """Each call in the store: its model by its own column, by its series, and its tokens."""
        found = self._query(
            "SELECT telemetry_id, c.model_name, s.model_name, c.total_tokens FROM llm_call_telemetry c "
            "LEFT JOIN llm_series s USING (series_id)"
        )
        return {row[0]: row[1:] for row in found}

    def spent(self) -> Counter[str]:
        """What the ledger says was spent, by budget."""
        return Counter(dict(self._query("SELECT budget, sum(spent_units) FROM budget_ledger GROUP BY budget")))

    def check(self) -> None:
        """Balance the books.

        Raises:
            Violation: they do not.
        """
        self._check_counts()
        self._check_rows()
        self._check_audit()
        self._check_budgets()
        self._check_sums()

    def _orderly(self) -> list[Service]:
        return [each for each in self._services if each.stopped_well]

    def _check_counts(self) -> None:
        for service in self._orderly():
            for exporter in (AUDIT, STORE):
                counted = service.written(exporter) + service.dropped(exporter)
                if counted != service.handed_over:
                    raise Violation(
                        f"process {service.process.pid}: {service.handed_over} records were accepted, and {exporter} "
                        f"counts {service.written(exporter)} as written and {service.dropped(exporter)} as dropped"
                    )

    def _check_rows(self) -> None:
        rows = self.rows()
        made = {call.call_id: call for service in self._services for call in service.calls}
        ratings = Counter(row[0].split("-")[0] for row in self._query("SELECT request_id FROM user_feedback"))
        for call_id, (model, series, tokens) in rows.items():
            call = made.get(call_id)
            if call is None or (model, tokens) != (call.model, call.actual):
                raise Violation(f"the store has a call that was not made: {call_id}")
            if series != model:
                raise Violation(f"call {call_id} of {model} stands under the series of {series}")
        for service in self._orderly():
            there = sum(call.call_id in rows for call in service.calls) + ratings[str(service.process.pid)]
            written = service.written(STORE)
            is_known = not (self._run.lost_power or self._run.database.lost_answers or self._run.faults["a failover"])
            if there < written and not (self._run.lost_power or self._run.faults["a failover"]):
                raise Violation(f"process {service.process.pid} counts {written} records as stored, {there} are there")
            if there > written and is_known:
                raise Violation(f"process {service.process.pid} counts {written} records as stored, {there} are there")

    def _check_audit(self) -> None:
        is_durable = self._run.machine.audit.durability == "fsync" or not self._run.lost_power
        for report in verify(self._run.home / "audit"):
            # Where a writer was killed or the power went, half a line may be left: it verifies to the last whole one.
            is_torn = report.problem is not None and "half a line" in report.problem.reason
            if report.problem is not None and is_durable and not is_torn:
                raise Violation(f"the audit log: {report.problem}")
        lines = self._audit_lines()
        for service in self._orderly() if is_durable else []:
            there, written = lines[str(service.process.pid)], service.written(AUDIT)
            if there != written:
                raise Violation(f"process {service.process.pid} counts {written} audit lines, {there} are there")

    def _audit_lines(self) -> Counter[str]:
        """How many lines of the audit log each process has."""
        found = Counter[str]()
        for path in (self._run.home / "audit").glob("*.jsonl*"):
            if not path.name.endswith((".anchors", ".torn")):
                lines = path.read_bytes().splitlines()
                found.update(line.split(REQUEST)[1].split(b"-")[0].decode() for line in lines if REQUEST in line)
        return found

    def _check_budgets(self) -> None:
        with closing(Store(self._url)) as store:
            StoreLedger(store).release_expired(START + timedelta(days=30))
        held = self._query("SELECT budget, reserved_units FROM budget_ledger WHERE reserved_units <> 0")
        if held and not self._run.faults["a failover"]:
            raise Violation(f"amounts stay reserved for ever: {held}")
        spent = self.spent()
        most = sum(call.actual for service in self._services for call in service.calls)
        least = sum(call.actual for service in self._orderly() for call in service.calls if service.charged_all)
        for budget in self._run.machine.budgets:
            sure = 0 if budget.is_rate else least - self._run.lost_tokens[budget.name]  # past hours are deleted
            if not sure <= spent[budget.name] <= most:
                raise Violation(f"budget {budget.name}: {spent[budget.name]} spent, calls took {sure} to {most}")
        self._check_limit(spent["all"])

    def _check_limit(self, spent: int) -> None:
        """What was admitted passes the limit only by what calls took beyond their estimates, or unasked."""
        calls = [call for service in self._services for call in service.calls]
        beyond = sum(max(0, call.actual - call.estimate) if call.was_judged else call.actual for call in calls)
        limit = self._run.machine.budgets[0].limit
        if self._run.is_exact and spent > limit + beyond:
            raise Violation(f"{spent} tokens of {limit} were spent, {beyond} of them beyond estimates")

    def _check_sums(self) -> None:
        span = START - timedelta(days=3), START + timedelta(days=30)
        rows = self.rows().values()
        there = {model: [tokens for each, _, tokens in rows if each == model] for model in MODELS}
        expected = {model: (len(tokens), sum(tokens)) for model, tokens in there.items() if tokens}
        with closing(Store(self._url)) as store:
            for source in ("rows and sums", "sums"):
                stats = get_stats(span, store=store)
                found = {model: (each.requests, each.tokens.total) for model, each in stats.by_model.items()}
                if found != expected or stats.requests != len(rows):
                    raise Violation(f"statistics from {source} are {found}, the rows give {expected}")
                aggregate_summaries("daily", None, store=store, now=START + timedelta(days=29))
