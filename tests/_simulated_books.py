"""The books of a simulation: what must hold when everything has healed."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from _simulated_service import AUDIT, MODELS, STORE, Service
from _simulated_threads import Violation

from taskpilot_obs.audit.verify import verify
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, aggregate_summaries
from taskpilot_obs.store.budget_ledger import StoreLedger

if TYPE_CHECKING:
    from _simulator_of_faults import Simulation

REQUEST: Final = b'"request_id":"'


class Books:
    """What the processes of a simulation say of themselves, beside what is there."""

    def __init__(self, simulation: Simulation) -> None:
        self._run = simulation
        self._services = simulation.services
        self._url = f"sqlite:///{simulation.database.path}"
        self._start = simulation.start_of_time
        self._ask = simulation.database.ask

    def rows(self) -> dict[str, tuple[str, str, int]]:
        """Each call in the store: its model by its own column, by its series, and its tokens."""
        found = self._ask(
            "SELECT telemetry_id, c.model_name, s.model_name, c.total_tokens FROM llm_call_telemetry c "
            "LEFT JOIN llm_series s USING (series_id)"
        )
        return {row[0]: row[1:] for row in found}

    def spent(self) -> Counter[str]:
        """What the ledger says was spent, by budget."""
        return Counter(dict(self._ask("SELECT budget, sum(spent_units) FROM budget_ledger GROUP BY budget")))

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

    def check_stored(self) -> None:
        """Each stored call was made, and stands under its model.

        Raises:
            Violation: one does not.
        """
        made = {call.call_id: call for service in self._services for call in service.calls}
        for call_id, (model, series, tokens) in self.rows().items():
            call = made.get(call_id)
            if call is None or (model, tokens) != (call.model, call.actual):
                raise Violation(f"the store has a call that was not made: {call_id}")
            if series != model:
                raise Violation(f"call {call_id} of {model} stands under the series of {series}")

    def _check_rows(self) -> None:
        self.check_stored()
        rows = self.rows()
        ratings = Counter(row[0].split("-")[0] for row in self._ask("SELECT request_id FROM user_feedback"))
        for service in self._orderly():
            there = sum(call.call_id in rows for call in service.calls) + ratings[str(service.process.pid)]
            written = service.written(STORE)
            is_known = not (self._run.lost_power or self._run.database.lost_answers or self._run.faults["a failover"])
            if there < written and not (self._run.lost_power or self._run.faults["a failover"]):
                raise Violation(f"process {service.process.pid} counts {written} records as stored, {there} are there")
            if there > written and is_known:
                raise Violation(f"process {service.process.pid} counts {written} records as stored, {there} are there")

    @property
    def _is_durable(self) -> bool:
        """Whether all that was written to the audit log is still there."""
        is_synced = self._run.machine.audit.durability == "fsync" and "fsync" not in self._run.failures.happened
        return is_synced or not self._run.lost_power

    def check_audit_log(self) -> None:
        """Each chain verifies to its last whole line: where a writer was killed or the power went, half a line is left.

        Raises:
            Violation: one does not.
        """
        folder = self._run.home / "audit"
        if not (self._is_durable and any(folder.glob("*.jsonl"))):
            return
        for report in verify(folder):
            if report.problem is not None and "half a line" not in report.problem.reason:
                raise Violation(f"the audit log: {report.problem}")

    def _check_audit(self) -> None:
        self.check_audit_log()
        lines = self._audit_lines()
        for service in self._orderly() if self._is_durable else []:
            there, written = lines[str(service.process.pid)], service.written(AUDIT)
            if there != written:
                raise Violation(f"process {service.process.pid} counts {written} audit lines, {there} are there")

    def _audit_lines(self) -> Counter[str]:
        """How many lines of the audit log each process has."""
        found = Counter[str]()
        for path in (self._run.home / "audit").glob("*.jsonl*"):
            if not path.name.endswith((".anchors", ".torn")):
                lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
                found.update(line.split(REQUEST)[1].split(b"-")[0].decode() for line in lines if REQUEST in line)
        return found

    def _check_budgets(self) -> None:
        with closing(Store(self._url)) as store:
            StoreLedger(store).release_expired(self._start + timedelta(days=30))
        held = self._ask("SELECT budget, reserved_units FROM budget_ledger WHERE reserved_units <> 0")
        if held and not self._run.faults["a failover"]:
            raise Violation(f"amounts stay reserved for ever: {held}")
        spent = self.spent()
        least = sum(call.actual for service in self._orderly() for call in service.calls if service.charged_all)
        for budget in self._run.machine.budgets:
            sure = 0 if budget.is_rate else least - self._run.lost_tokens[budget.name]  # past hours are deleted
            if spent[budget.name] < sure:
                raise Violation(f"budget {budget.name}: {spent[budget.name]} spent, calls took at least {sure}")
        self.check_ledger()

    def check_ledger(self) -> None:
        """Budgets hold no more than calls took, and admit past the limit only what calls took beyond their estimates.

        Raises:
            Violation: one holds or admits more.
        """
        calls = [call for service in self._services for call in service.calls]
        most = sum(call.actual for call in calls)
        for budget, spent in self.spent().items():
            if spent > most:
                raise Violation(f"budget {budget}: {spent} spent, calls took {most}")
        beyond = sum(max(0, call.actual - call.estimate) if call.was_judged else call.actual for call in calls)
        limit = self._run.machine.budgets[0].limit
        admitted = self._ask("SELECT sum(spent_units + reserved_units) FROM budget_ledger WHERE budget = 'all'")[0][0]
        if self._run.is_exact and (admitted or 0) > limit + beyond:
            raise Violation(f"{admitted} tokens of {limit} were admitted, {beyond} of them beyond estimates")

    def _check_sums(self) -> None:
        span = self._start - timedelta(days=3), self._start + timedelta(days=30)
        rows = self.rows().values()
        there = {model: [tokens for each, _, tokens in rows if each == model] for model in MODELS}
        expected = {model: (len(tokens), sum(tokens)) for model, tokens in there.items() if tokens}
        with closing(Store(self._url)) as store:
            for source in ("rows and sums", "sums"):
                stats = get_stats(span, store=store)
                found = {model: (each.requests, each.tokens.total) for model, each in stats.by_model.items()}
                if found != expected or stats.requests != len(rows):
                    raise Violation(f"statistics from {source} are {found}, the rows give {expected}")
                if source != "sums":
                    aggregate_summaries("daily", None, store=store, now=self._start + timedelta(days=29))
