"""The benchmark runner: the same tasks for several models, agents or prompts, measured and compared."""

from __future__ import annotations

from taskpilot_obs.compare.bench.calls import Call
from taskpilot_obs.compare.bench.figures import ArmReport, BenchmarkReport, Finding
from taskpilot_obs.compare.bench.plan import Plan, made_plan
from taskpilot_obs.compare.bench.runner import Outcome, Reporter
from taskpilot_obs.compare.bench.session import Result, Session, benchmark
from taskpilot_obs.compare.bench.tasks import Item, Task, load_task

__all__ = [
    "ArmReport",
    "BenchmarkReport",
    "Call",
    "Finding",
    "Item",
    "Outcome",
    "Plan",
    "Reporter",
    "Result",
    "Session",
    "Task",
    "benchmark",
    "load_task",
    "made_plan",
]
