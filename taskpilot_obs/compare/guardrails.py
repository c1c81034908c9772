"""What a guardrail of an experiment allows, and whether a report breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final, get_args

from taskpilot_obs._support.figures import share, usd
from taskpilot_obs.compare.experiment import Measure
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.stats.model import Frozen

if TYPE_CHECKING:
    from taskpilot_obs.compare.report import Effect, VariantsReport

MORE_IS_BETTER: Final = frozenset({"success", "correctness"})
SHARES: Final = frozenset({"success", "correctness", "violations"})
"""Measures between 0 and 1: their limit is a difference. That of the others is a part of the control's value."""


class GuardrailAlert(Frozen):
    """A variant is worse than its guardrail allows, with certainty."""

    experiment: str
    variant: str
    measure: str
    limit: float
    at_least: float | None
    """How much worse it is at least: a difference of shares, or a part of the control's value; None if that is 0."""
    difference: float
    """As it was measured."""

    @property
    def sentence(self) -> str:
        """The alert in words."""
        least = "any part of its 0" if self.at_least is None else share(self.at_least)
        worse = f"{self.measure} of {self.variant} is worse than the control's by at least {least}"
        told = usd(self.difference) if self.measure == "cost" else f"{self.difference:.4g}"
        return f"{self.experiment}: {worse}, more than the {share(self.limit)} that its guardrail allows ({told})"


def checked_guardrails(given: Mapping[Any, float]) -> dict[str, float]:
    """The guardrails, checked.

    Args:
        given: a limit for each measure.

    Raises:
        ConfigurationError: a measure is unknown, there is none, or a limit is not a number of 0 or more.
    """
    if not given:
        raise ConfigurationError("guardrails: given none; give a limit for a measure, such as cost=0.2")
    for measure, limit in given.items():
        if measure not in get_args(Measure):
            raise ConfigurationError(f"given the measure {measure!r}; allowed are {', '.join(get_args(Measure))}")
        if not isfinite(limit) or limit < 0:
            raise ConfigurationError(f"guardrail {measure}: given {limit!r}; give a number of 0 or more")
    return dict(given)


def broken(report: VariantsReport, guardrails: Mapping[str, float]) -> tuple[GuardrailAlert, ...]:
    """The guardrails that the variants of a report break with certainty.

    Args:
        report: which has the measures.
        guardrails: how much worse a variant may be, by measure.
    """
    control = next((arm for arm in report.arms if arm.variant == report.control), None)
    found = []
    for effect in report.effects:
        if control is None or effect.measure not in guardrails or effect.difference is None:
            continue
        least = _at_least(effect, getattr(control, effect.measure))
        if least is not None and least > guardrails[effect.measure]:
            found.append(
                GuardrailAlert(
                    experiment=report.experiment,
                    variant=effect.variant,
                    measure=effect.measure,
                    limit=guardrails[effect.measure],
                    at_least=least if isfinite(least) else None,
                    difference=effect.difference,
                )
            )
    return tuple(found)


def _at_least(effect: Effect, base: float | None) -> float | None:
    """How much worse the variant is at least; None where that is not known."""
    if effect.low is None or effect.high is None:
        return None
    least = -effect.high if effect.measure in MORE_IS_BETTER else effect.low
    if effect.measure in SHARES:
        return least
    if not base:
        return inf if least > 0 else None
    return least / base
