"""What a recorder is made of now, and what callsites have told it to expect, which outlives every `configure`."""

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


class Wiring:
    """Puts components into a runtime, and tells them what to expect.

    Args:
        runtime: what the recorder's runs read.
        emit: takes the decisions of budgets.
    """

    def __init__(self, runtime: RecorderRuntime, emit: Callable[[Record], None]) -> None:
        self._runtime = runtime
        self._emit = emit
        self._lock = threading.Lock()
        self._declared: dict[tuple[Operation, str], None] = {}
        self._expected: dict[object, Checks] = {}
        self.limiting: WeakSet[Checks] = WeakSet()
        """The limits of tokens of decorated functions: they need the LLM calls beneath."""
        self.components: Components | None = None
        self.own_budgets: tuple[Budget, ...] = ()
        """Those that were attached to decorated functions."""

    def install(self, components: Components) -> None:
        """Use these from now on; what those before them have queued is written by their exporters."""
        before = self.swap(components)
        if before is not None and before.pipeline is not components.pipeline:
            before.pipeline.hand_over(components.pipeline)

    def swap(self, components: Components) -> Components | None:
        """Use these from now on; returns those before them, which stay alive."""
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
        """Expect runs of this name: its series exist at 0 before the first, which makes the first one visible."""
        self._declared[operation, name] = None
        self._tell(operation, name)

    def _tell(self, operation: Operation, name: str) -> None:
        components = self.components
        if components is not None and components.declares is not None and components.settings.enabled:
            with guarded("declare", components.counters):
                components.declares.declare(operation, name)

    def expect(self, *checks: Checks) -> None:
        """Expect decisions of these checks, besides those of the configuration."""
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
        """Whether anything that concerns every run is in enforce mode; functions know of their own checks.

        Turning the recording off must not let pass what was refused.
        """
        general, components = self._runtime.checks, self.components
        budgets = None if components is None else components.budgets
        refuses = general is not None and general.refuse
        return refuses or bool(self.limiting) or (budgets is not None and bool(budgets.enforced))

    def watch(self, budget: Budget) -> None:
        """Watch a budget besides those of the configuration, now and after every `configure()`.

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
