"""A recorder's components, and the names and checks that callsites declared, which survive `configure`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

from taskpilot_obs._enforcement.limits import declare_checks, limits_for
from taskpilot_obs._support.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs._recording.components import Components
    from taskpilot_obs._recording.runtime import RecorderRuntime
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.records import Operation, Record
    from taskpilot_obs.safety.checks import Checks

_MAX_DECLARED = 4_000
"""How many names are declared again to new components; metrics tell fewer apart, and names may be made at run time."""


class Wiring:
    """Installs components in a runtime, and declares the expected names and checks to them.

    Args:
        runtime: what the recorder's runs read.
        emit: called with the decisions of budgets.
    """

    def __init__(self, runtime: RecorderRuntime, emit: Callable[[Record], None]) -> None:
        self._runtime = runtime
        self._emit = emit
        self._lock = threading.Lock()
        self._declared: dict[tuple[Operation, str], None] = {}
        self._expected: dict[object, Checks] = {}
        self.limiting: WeakSet[Checks] = WeakSet()
        """Token limits of decorated functions, which count the LLM calls beneath."""
        self.components: Components | None = None
        self.own_budgets: tuple[Budget, ...] = ()
        """Budgets attached to decorated functions."""

    def install(self, components: Components) -> None:
        """Install new components; the exporters of the previous ones write what those have queued."""
        before = self.swap(components)
        if before is not None and before.pipeline is not components.pipeline:
            before.pipeline.hand_over(components.pipeline)

    def swap(self, components: Components) -> Components | None:
        """Install new components and return the previous ones, which stay alive."""
        runtime = self._runtime
        with self._lock:
            before, self.components = self.components, components
            runtime.clock, runtime.counters, runtime.prices = components.clock, components.counters, components.prices
            runtime.guard_span = guarded("span", components.counters)
            runtime.redactor = components.redactor
            runtime.trace_with(components.tracing)
            runtime.now, runtime.pipeline = components.clock.now, components.pipeline
            runtime.enabled = runtime.recording = components.settings.enabled
            runtime.enforcing = components.settings.enforcement
            runtime.checks = components.checks
            for operation, name in self._declared:
                self._tell(operation, name)
            self.expect()
        return before

    def declare(self, operation: Operation, name: str) -> None:
        """Create the series of this name at 0, so that its first run is visible as an increase."""
        if len(self._declared) < _MAX_DECLARED:
            self._declared[operation, name] = None
        self._tell(operation, name)

    def _tell(self, operation: Operation, name: str) -> None:
        components = self.components
        if components is not None and components.declares is not None and components.settings.enabled:
            with guarded("declare", components.counters):
                components.declares.declare(operation, name)

    def expect(self, *checks: Checks) -> None:
        """Create the series of these checks, in addition to the configured ones."""
        runtime, components = self._runtime, self.components
        self._expected.update((each.key, each) for each in checks)
        expected = [*self._expected.values(), *([] if runtime.checks is None else [runtime.checks])]
        if components is not None and components.declares is not None and components.settings.enabled:
            declare_checks(expected, components.declares, components.counters)
        budgets = None if components is None or components.budgets is None else components.budgets
        runtime.limits = limits_for(runtime, expected, budgets)
        runtime.asks_checks = runtime.checks is not None or runtime.limits is not None
        self.limiting.update(each for each in checks if each.count_tokens and each.refuse)
        runtime.enabled = runtime.recording or (runtime.enforcing and self._may_refuse())

    def _may_refuse(self) -> bool:
        """Whether a check of every run is in enforce mode; functions know their own checks.

        Turning recording off must not let refused work pass.
        """
        general, components = self._runtime.checks, self.components
        budgets = None if components is None else components.budgets
        refuses = general is not None and general.refuse
        return refuses or bool(self.limiting) or (budgets is not None and bool(budgets.enforced))

    def watch(self, budget: Budget) -> None:
        """Watch a budget in addition to the configured ones, now and after every `configure()`.

        Raises:
            ConfigurationError: another budget has its name.
        """
        from taskpilot_obs.budgets.assembly import attached

        with self._lock:
            if self.components is not None:
                self.components = attached(self.components, budget, self._emit)
            if budget not in self.own_budgets:
                self.own_budgets = (*self.own_budgets, budget)
            self.expect()
