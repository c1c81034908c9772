"""Guardrails of experiments: what a variant must not make worse, whatever it improves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, cast

from taskpilot_obs.compare.experiment import Experiment, Measure
from taskpilot_obs.compare.guardrails import GuardrailAlert, broken, checked_guardrails
from taskpilot_obs.compare.variants import compare_variants
from taskpilot_obs.config import get_recorder
from taskpilot_obs.semconv import EXPERIMENT_STOPPED, WarningCode
from taskpilot_obs.stats.periods import Period

if TYPE_CHECKING:
    from taskpilot_obs.store import Store

logger = logging.getLogger("taskpilot_obs")

OnAlert = Callable[[GuardrailAlert], None]


class ExperimentGuard:
    """Watches the guardrails of an experiment, and stops it in this process when one is broken.

    Call `check` now and then, from a timer or a job. Its intervals hold at every look, so looking often does no harm.
    Each broken guardrail is an audit event (`experiment_stopped`) and counts in `experiment_guardrails_broken_total`,
    which the alert `TaskpilotExperimentStopped` watches.
    Where processes share an experiment, each needs a guard of its own, or your `on_alert` has to switch it off for all.

    Args:
        experiment: what to watch.
        guardrails: how much worse a variant may be than the control, by measure: `{"cost": 0.2, "violations": 0.01}`
            allows a fifth more cost, and one more task in a hundred with a policy violation.
        store: the URL of a store, as for `compare_variants`.
        on_alert: is called once for each alert, after the experiment is stopped: sends a page, or sets a flag. What it
            raises, `check` raises, and the next `check` calls it again.

    Raises:
        ConfigurationError: a measure is unknown, or a limit is not a number of 0 or more.
    """

    def __init__(
        self,
        experiment: Experiment,
        guardrails: Mapping[Measure, float],
        *,
        store: str | Store | None = None,
        on_alert: OnAlert | None = None,
    ) -> None:
        self.experiment = experiment
        self.guardrails = checked_guardrails(guardrails)
        self._store = store
        self._on_alert = on_alert
        self._recorded: set[tuple[str, str]] = set()
        self._told: set[tuple[str, str]] = set()

    def check(self, period: Period = "30d", *, now: datetime | None = None) -> tuple[GuardrailAlert, ...]:
        """Look at the guardrails; an experiment with a broken one is stopped, logged as a warning, and alerted once.

        Args:
            period: which tasks, as in `get_stats`.
            now: the present; for tests.

        Returns:
            The guardrails that are broken, those that were found before included.

        Raises:
            StoreError: the store is missing or cannot be used.
        """
        measures = cast("list[Measure]", [*self.guardrails])
        shares = self.experiment.variants
        report = compare_variants(
            self.experiment.name, period, shares=shares, primary=measures[0], secondary=measures[1:],
            store=self._store, now=now,
        )  # fmt: skip
        found = broken(report, self.guardrails)
        if found:
            self.experiment.stop("; ".join(alert.sentence for alert in found))
        for alert in found:
            self._record(alert)
        for alert in found:
            self._tell(alert)
        return found

    def _record(self, alert: GuardrailAlert) -> None:
        key = (alert.variant, alert.measure)
        if key not in self._recorded:
            self._recorded.add(key)
            logger.warning("taskpilot_obs: experiment stopped: %s [%s]", alert.sentence, WarningCode.EXPERIMENT_STOPPED)
            get_recorder().record_audit_event(EXPERIMENT_STOPPED, **alert.model_dump(), reason=alert.sentence)

    def _tell(self, alert: GuardrailAlert) -> None:
        key = (alert.variant, alert.measure)
        if self._on_alert is not None and key not in self._told:
            self._on_alert(alert)
            self._told.add(key)  # last, so that an alert that did not get through is given again
