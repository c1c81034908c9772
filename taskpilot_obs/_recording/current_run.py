"""The run that code is part of, also in frameworks that keep a context of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from taskpilot_obs._recording.invocation import ActiveInvocation, current, current_running

if TYPE_CHECKING:
    from collections.abc import Callable

_running: Final = current_running.get
CURRENT: Final = "current"
"""As `parent`: the run that is current when the new one starts."""
Parent = ActiveInvocation | Literal["current"] | None


def current_run() -> ActiveInvocation | None:
    """Return the run that this code is part of, or None outside of any.

    Inside a decorated function, a `track_*` block or a framework with an integration, this is the innermost run.
    """
    running = _running()
    return current.resolve(running) if current.resolvers else running


def is_within(run: ActiveInvocation | None, outer: ActiveInvocation) -> bool:
    """Whether a run is another one, or lies beneath it.

    Args:
        run: the run that is asked about; None lies within no run.
        outer: the run that it may be, or lie beneath.
    """
    while run is not None and run is not outer:
        run = run.parent
    return run is outer


def add_current_resolver(find: Callable[[ActiveInvocation | None], ActiveInvocation | None]) -> None:
    """Register a function that finds the current run of a framework that keeps its own context.

    Args:
        find: takes the run known to be current and returns the innermost: that one, or one that the framework knows.
            It is called at each start of a run, so it must be cheap and must not raise.
    """
    current.add_resolver(find)


def remove_current_resolver(find: Callable[[ActiveInvocation | None], ActiveInvocation | None]) -> None:
    """Remove a function that `add_current_resolver` registered."""
    current.remove_resolver(find)


def resolve_parent(parent: Parent) -> ActiveInvocation | None:
    """Return the run that a `parent` argument (`CURRENT`, a run or None) means."""
    return current_run() if isinstance(parent, str) else parent
