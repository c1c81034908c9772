"""Compares models, prompts and providers: which is better, at what cost, and with what certainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskpilot_obs.compare.experiment import Experiment

if TYPE_CHECKING:
    from taskpilot_obs.compare.production import ComparedGroup, Comparison, compare
    from taskpilot_obs.compare.report import Arm, Effect, VariantsReport
    from taskpilot_obs.compare.variants import compare_variants

__all__ = [
    "Arm",
    "ComparedGroup",
    "Comparison",
    "Effect",
    "Experiment",
    "VariantsReport",
    "compare",
    "compare_variants",
]


def __getattr__(name: str) -> Any:
    """Import what needs scipy and the store when it is first used: assigning variants needs neither."""
    if name in __all__:
        from taskpilot_obs.compare import production, variants

        return getattr(production if hasattr(production, name) else variants, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
