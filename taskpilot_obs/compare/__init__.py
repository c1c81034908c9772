"""Compares models, prompts and providers: which is better, at what cost, and with what certainty."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from taskpilot_obs._support.installed import is_installed
from taskpilot_obs.compare.experiment import Experiment
from taskpilot_obs.exceptions import MissingExtraError

if TYPE_CHECKING:
    from taskpilot_obs.compare.guarding import ExperimentGuard
    from taskpilot_obs.compare.guardrails import GuardrailAlert
    from taskpilot_obs.compare.optimising import Saving, Savings, optimise
    from taskpilot_obs.compare.production import ComparedGroup, Comparison, compare
    from taskpilot_obs.compare.report import Arm, Effect, VariantsReport
    from taskpilot_obs.compare.repricing import Repriced, RepricedGroup, reprice
    from taskpilot_obs.compare.variants import compare_variants

__all__ = [
    "Arm",
    "ComparedGroup",
    "Comparison",
    "Effect",
    "Experiment",
    "ExperimentGuard",
    "GuardrailAlert",
    "Repriced",
    "RepricedGroup",
    "Saving",
    "Savings",
    "VariantsReport",
    "compare",
    "compare_variants",
    "optimise",
    "reprice",
]

_HOMES = {
    "ComparedGroup": "production",
    "Comparison": "production",
    "compare": "production",
    "Arm": "report",
    "Effect": "report",
    "VariantsReport": "report",
    "compare_variants": "variants",
    "ExperimentGuard": "guarding",
    "GuardrailAlert": "guardrails",
    "Saving": "optimising",
    "Savings": "optimising",
    "optimise": "optimising",
    "Repriced": "repricing",
    "RepricedGroup": "repricing",
    "reprice": "repricing",
}
"""The module of each name that needs scipy or the store, and so is imported when it is first used."""
_NEEDS_SCIPY = frozenset({"production", "variants", "guarding", "optimising"})


def __getattr__(name: str) -> Any:
    """Import what needs scipy and the store when it is first used: assigning variants needs neither.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    if name in _HOMES:
        if _HOMES[name] in _NEEDS_SCIPY and not is_installed("scipy"):
            raise MissingExtraError(f"taskpilot_obs.compare.{name}", "compare")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
