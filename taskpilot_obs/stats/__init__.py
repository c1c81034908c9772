"""Questions about the past, answered from the telemetry store, or from the calls that this process holds.

Each has an asynchronous twin (`aget_stats`, …) that works on another thread. Answers are the same whether they come
from rows or from summaries: counts and costs exactly, quantiles within 1 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._support.late_names import late_names
from taskpilot_obs.stats.asynchronous import (
    aget_cost_breakdown,
    aget_cost_summary,
    aget_stats,
    aget_tenant_stats,
    aget_tenants_report,
)
from taskpilot_obs.stats.benchmarks import BenchmarkSummary, ProviderSeen, get_benchmark_summaries, get_providers
from taskpilot_obs.stats.calls import Call, CallPage, CallPosition, get_calls
from taskpilot_obs.stats.costs import get_cost_breakdown, get_cost_summary
from taskpilot_obs.stats.export import export_calls
from taskpilot_obs.stats.model import (
    CallStats,
    CostBreakdown,
    CostShare,
    CostSummary,
    Durations,
    FirstToken,
    ProcessWindow,
    Stats,
    TenantsReport,
    TenantStats,
    TenantUsage,
    Tokens,
    UsersReport,
    UserUsage,
)
from taskpilot_obs.stats.report import write_report
from taskpilot_obs.stats.run_stats import AgentStats, RunStats, ToolStats, get_agent_stats, get_tool_stats
from taskpilot_obs.stats.runs import RunTree, Step, get_run_tree
from taskpilot_obs.stats.series import CostRate, get_cost_rate, get_series
from taskpilot_obs.stats.usage import get_stats, get_tenant_stats, get_tenants_report, get_users_report

if TYPE_CHECKING:
    from taskpilot_obs.stats.benchmark_runs import BenchmarkArm, BenchmarkRun, get_benchmark_runs
    from taskpilot_obs.stats.experiments import ExperimentSeen, get_experiments

__all__ = [
    "AgentStats",
    "BenchmarkArm",
    "BenchmarkRun",
    "BenchmarkSummary",
    "Call",
    "CallPage",
    "CallPosition",
    "CallStats",
    "CostBreakdown",
    "CostRate",
    "CostShare",
    "CostSummary",
    "Durations",
    "ExperimentSeen",
    "FirstToken",
    "ProcessWindow",
    "ProviderSeen",
    "RunStats",
    "RunTree",
    "Stats",
    "Step",
    "TenantStats",
    "TenantUsage",
    "TenantsReport",
    "Tokens",
    "ToolStats",
    "UserUsage",
    "UsersReport",
    "aget_cost_breakdown",
    "aget_cost_summary",
    "aget_stats",
    "aget_tenant_stats",
    "aget_tenants_report",
    "export_calls",
    "get_agent_stats",
    "get_benchmark_runs",
    "get_benchmark_summaries",
    "get_calls",
    "get_cost_breakdown",
    "get_cost_rate",
    "get_cost_summary",
    "get_experiments",
    "get_providers",
    "get_run_tree",
    "get_series",
    "get_stats",
    "get_tenant_stats",
    "get_tenants_report",
    "get_tool_stats",
    "get_users_report",
    "write_report",
]

_OF_A_STORE = {
    "BenchmarkArm": "benchmark_runs",
    "BenchmarkRun": "benchmark_runs",
    "ExperimentSeen": "experiments",
    "get_benchmark_runs": "benchmark_runs",
    "get_experiments": "experiments",
}
"""Names whose modules need the extra `store`, while the others also answer without a store: at first use."""

__getattr__ = late_names(__name__, _OF_A_STORE)
