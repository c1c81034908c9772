"""All queries of the server, made for one principal: the only path from a route to the store.

A principal of one tenant gets answers from rows of this tenant only, which is enforced here for all routes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final, cast

from taskpilot_obs._support.calendar import CalendarPeriod
from taskpilot_obs.budgets import budget_status
from taskpilot_obs.budgets.model import EACH, Budget
from taskpilot_obs.budgets.status import BudgetStatus
from taskpilot_obs.compare.experiment import Measure
from taskpilot_obs.exceptions import MissingExtraError
from taskpilot_obs.golden_signals.from_store import signals_from_store
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.server.params import CALENDAR, CostsQuery, ExperimentOptions, SummariesQuery, TracesQuery
from taskpilot_obs.server.principal import Principal
from taskpilot_obs.server.problems import Problem
from taskpilot_obs.server.services import Services
from taskpilot_obs.server.shapes import ExperimentReport
from taskpilot_obs.stats import (
    BenchmarkRun,
    BenchmarkSummary,
    CallPage,
    CallPosition,
    CostBreakdown,
    CostSummary,
    ExperimentSeen,
    ProviderSeen,
    RunTree,
    Stats,
    TenantsReport,
    get_benchmark_runs,
    get_benchmark_summaries,
    get_calls,
    get_cost_breakdown,
    get_cost_summary,
    get_experiments,
    get_providers,
    get_run_tree,
    get_series,
    get_stats,
    get_tenants_report,
)
from taskpilot_obs.stats.asking import Asked
from taskpilot_obs.stats.benchmarks import GroupBy
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.series import Spend, get_spend

SUMMARIES_PERIOD: Final = "30d"
MEASURES: Final[tuple[Measure, ...]] = ("success", "cost", "p95", "correctness")
"""By what variants are compared; one of them decides, unless another measure is asked for."""


class Questions:
    """The queries of one principal.

    Args:
        services: what the answers are made from.
        principal: the caller.
    """

    def __init__(self, services: Services, principal: Principal) -> None:
        self.services = services
        self.principal = principal
        self.now: datetime = services.now()

    def tenant(self, asked: str | None = None) -> str | None:
        """Return the tenant that an answer may cover; None for all.

        Raises:
            Problem: 403, if the token belongs to one tenant and the request names any.
        """
        if self.principal.tenant is None:
            return asked
        if asked is not None:
            raise Problem(HTTPStatus.FORBIDDEN, "the token decides the tenant; leave out `tenant`")
        return self.principal.tenant

    def _narrowed(self, asked: Asked) -> Asked:
        return {**asked, "tenant": self.tenant(asked.get("tenant"))}

    def summaries(self, query: SummariesQuery) -> tuple[BenchmarkSummary, ...]:
        """Providers, models, prompts or days side by side."""
        return self.summaries_over(query.span(self.now) or SUMMARIES_PERIOD, query.group_by, query.asked())

    def summaries_over(self, period: Period, group_by: GroupBy, asked: Asked) -> tuple[BenchmarkSummary, ...]:
        """Providers, models, prompts or days of any stretch of time side by side."""
        narrowed = self._narrowed(asked)
        return get_benchmark_summaries(period, group_by=group_by, store=self.services.store, now=self.now, **narrowed)

    def calls(self, query: TracesQuery, after: CallPosition | None) -> CallPage:
        """Single calls, newest first."""
        return self.calls_over(
            query.span(self.now),
            query.asked(),
            after=after,
            limit=query.limit,
            min_cost=query.min_cost,
            exact=query.exact(),
        )

    def calls_over(
        self,
        period: Period | None,
        asked: Asked,
        *,
        after: CallPosition | None,
        limit: int,
        min_cost: str | None = None,
        exact: Mapping[str, str] | None = None,
    ) -> CallPage:
        """Single calls of any stretch of time, newest first."""
        return get_calls(
            period,
            store=self.services.store,
            limit=limit,
            after=after,
            min_cost=min_cost,
            exact=exact,
            now=self.now,
            **self._narrowed(asked),
        )

    def providers(self) -> tuple[ProviderSeen, ...]:
        """Which providers there are."""
        return get_providers(store=self.services.store, tenant_id=self.tenant())

    def stats(self, period: Period, asked: Asked) -> Stats:
        """How the calls of a stretch of time went."""
        return get_stats(period, store=self.services.store, now=self.now, **self._narrowed(asked))

    def series(self, period: Period, asked: Asked) -> tuple[Stats, ...]:
        """The statistics over time."""
        return get_series(period, store=self.services.store, now=self.now, **self._narrowed(asked))

    def spend(self, period: Period, dimension: str, asked: Asked) -> tuple[Spend, ...]:
        """The money over time, by one dimension."""
        return get_spend(period, dimension, store=self.services.store, now=self.now, **self._narrowed(asked))

    def costs(self, query: CostsQuery, default: str) -> CostBreakdown | CostSummary:
        """Where the money went: in a stretch of time, or in the present day, week or month."""
        asked = self._narrowed(query.asked())
        store, now = self.services.store, self.now
        if query.period in CALENDAR:
            return get_cost_summary(cast(CalendarPeriod, query.period), query.timezone, store=store, now=now, **asked)
        return get_cost_breakdown(query.span(now, default), store=store, now=now, **asked)

    def breakdown(self, period: Period, asked: Asked) -> CostBreakdown:
        """Where the money went in a stretch of time."""
        return get_cost_breakdown(period, store=self.services.store, now=self.now, **self._narrowed(asked))

    def month(self, asked: Asked) -> CostSummary:
        """The money of this month, with its projection."""
        return get_cost_summary("month", store=self.services.store, now=self.now, **self._narrowed(asked))

    def tenants(self, period: Period) -> TenantsReport:
        """What each tenant used; a principal of one tenant sees itself."""
        return get_tenants_report(period, store=self.services.store, now=self.now, tenant_id=self.tenant())

    def budgets(self) -> list[BudgetStatus]:
        """Where budgets stand; a principal of one tenant sees the lines that are about it alone."""
        services = self.services
        if not services.budgets:
            return []
        found = budget_status(services.budgets, store=services.budget_store or services.store, at=self.now)
        own = self.principal.tenant
        if own is None:
            return found
        named = {budget.name: budget for budget in services.budgets}
        return [status for status in found if _is_about(named[status.budget], status.scope_key, own)]

    def signals(self, period: Period, workflow: str | None, asked_tenant: str | None = None) -> GoldenSignals:
        """The five golden signals, from the store."""
        start, end = bounds(period, self.now)
        return self._signals(end - start, end, workflow, asked_tenant)

    def signals_before(self, period: Period, workflow: str | None, asked_tenant: str | None = None) -> GoldenSignals:
        """The golden signals of an equal stretch of time that ended where this one begins."""
        start, end = bounds(period, self.now)
        return self._signals(end - start, start, workflow, asked_tenant)

    def _signals(
        self, window: timedelta, end: datetime, workflow: str | None, asked_tenant: str | None
    ) -> GoldenSignals:
        return signals_from_store(
            window,
            store=self.services.store,
            workflow=workflow,
            tenant=self.tenant(asked_tenant),
            thresholds=self.services.thresholds,
            now=end,
        )

    def signals_of_the_fleet(self, window: str, workflow: str | None) -> GoldenSignals:
        """The golden signals from the Prometheus server, which cannot distinguish tenants.

        Raises:
            Problem: 403 for a principal of one tenant; 404 where no server is configured.
        """
        if self.principal.tenant is not None:
            raise Problem(HTTPStatus.FORBIDDEN, "Prometheus cannot tell tenants apart; ask the store")
        if self.services.prometheus is None:
            raise Problem(HTTPStatus.NOT_FOUND, "no Prometheus server is configured: start with --prometheus URL")
        from taskpilot_obs.golden_signals.from_prometheus import signals_from_prometheus

        thresholds = self.services.thresholds
        return signals_from_prometheus(self.services.prometheus, window, workflow=workflow, thresholds=thresholds)

    def benchmark_runs(self, period: Period | None, limit: int) -> tuple[BenchmarkRun, ...]:
        """Runs of the benchmark, which belong to no tenant.

        Raises:
            Problem: 403 for a principal of one tenant.
        """
        if self.principal.tenant is not None:
            raise Problem(HTTPStatus.FORBIDDEN, "benchmark runs belong to no tenant; use a token of every tenant")
        return get_benchmark_runs(period, limit=limit, store=self.services.store, now=self.now)

    def experiments(self, period: Period, asked_tenant: str | None) -> tuple[ExperimentSeen, ...]:
        """Which experiments there are."""
        return get_experiments(period, tenant_id=self.tenant(asked_tenant), store=self.services.store, now=self.now)

    def experiment(
        self, name: str, period: Period, options: ExperimentOptions, asked_tenant: str | None
    ) -> ExperimentReport:
        """How the variants of an experiment compare; kept for some seconds, because it is a lot of work.

        Raises:
            Problem: 404 if there is no task of it; 501 where scipy is not installed.
        """
        tenant = self.tenant(asked_tenant)
        key = (tenant, name, str(period), options.primary, options.shares)

        def ask() -> ExperimentReport:
            return self._compared(name, period, options, tenant)

        return self.services.experiments.get(key, ask)

    def _compared(self, name: str, period: Period, options: ExperimentOptions, tenant: str | None) -> ExperimentReport:
        try:
            from taskpilot_obs.compare.variants import compare_variants  # needs scipy, which takes long to import
        except ImportError as error:
            missing = MissingExtraError("comparing variants", "compare")
            raise Problem(HTTPStatus.NOT_IMPLEMENTED, str(missing)) from error
        report = compare_variants(
            name,
            period,
            shares=options.planned(),
            primary=options.primary,
            secondary=[measure for measure in MEASURES if measure != options.primary],
            tenant_id=tenant,
            store=self.services.store,
            now=self.now,
        )
        if not any(arm.tasks for arm in report.arms) and report.blocked is None:
            raise Problem(HTTPStatus.NOT_FOUND, "the store has no task of this experiment in this time")
        return ExperimentReport.of(report, shares_stated=options.shares is not None)

    def run_tree(self, request_id: str) -> RunTree:
        """Return all records of one request.

        Raises:
            Problem: 404 if there is none, or if it belongs to another tenant.
        """
        found = get_run_tree(request_id, store=self.services.store, tenant_id=self.tenant())
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, "the store has no request of this ID")
        return found


def _is_about(budget: Budget, scope_key: str, tenant: str) -> bool:
    """Whether a line of the ledger counts calls of this tenant alone."""
    wanted = budget.scope.get("tenant")
    if wanted == EACH:
        return bool(json.loads(scope_key or "{}").get("tenant") == tenant)
    return wanted == tenant and not set("*?[") & set(tenant)  # a pattern may count others as well
