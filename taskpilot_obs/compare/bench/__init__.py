"""The benchmark runner: the same tasks for several models, agents or prompts, measured and compared."""

from __future__ import annotations

from taskpilot_obs._support.installed import is_installed
from taskpilot_obs.exceptions import MissingExtraError

if not is_installed("scipy"):
    raise MissingExtraError("the benchmark", "bench")

from taskpilot_obs.compare.bench.arms import provider_key
from taskpilot_obs.compare.bench.calls import BenchCall
from taskpilot_obs.compare.bench.figures import ArmReport, BenchmarkReport, BestArms
from taskpilot_obs.compare.bench.plan import Plan, made_plan
from taskpilot_obs.compare.bench.runner import Outcome, Reporter
from taskpilot_obs.compare.bench.session import Result, Session, benchmark
from taskpilot_obs.compare.bench.tasks import Item, Task, load_task

Call = BenchCall
"""The earlier name of `BenchCall`."""
Finding = BestArms
"""The earlier name of `BestArms`."""

__all__ = [
    "ArmReport",
    "BenchCall",
    "BenchmarkReport",
    "BestArms",
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
    "provider_key",
]
