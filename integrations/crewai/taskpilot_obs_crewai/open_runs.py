"""The runs that are open, by the ID of the event that began them, or by the `call_id` of a model call."""

from __future__ import annotations

from typing import Final, NamedTuple

from crewai.events.event_context import _event_id_stack  # where code belongs; it has no public reader

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, Operation, Status, is_within

MOST_OPEN: Final = 4_096


class OpenRun(NamedTuple):
    """A run, and the object of the framework that reports it."""

    run: ActiveInvocation
    source: object


class OpenRuns(dict[str, OpenRun]):
    """The open runs, in the order of their starts."""

    def key_of(self, stated: str | None, source: object, operation: Operation) -> str:
        """The key of the run that ends: as stated, unless a failure that is reported twice has shifted the stack."""
        known = self.get(stated or "")
        if known is None or known.run.operation is not operation:
            for key, each in reversed(self.copy().items()):
                if each.source is source and each.run.operation is operation:
                    return key
        return stated or ""

    def crew_of(self, call: ActiveInvocation) -> ActiveInvocation:
        """The innermost crew or flow around a call, whose output its words become; the call where there is none."""
        around = (each.run for each in reversed([*self.values()]) if is_within(call, each.run))
        return next((run for run in around if run.operation is Operation.WORKFLOW), call)

    def beneath(self, outer: ActiveInvocation) -> list[str]:
        """The keys of what is open beneath a run, the last begun first."""
        return [key for key, each in reversed(self.copy().items()) if is_within(each.run, outer)]

    def innermost(self, known: ActiveInvocation | None) -> ActiveInvocation | None:
        """The run of the framework that this code is part of, where it lies beneath the run known to be current."""
        for key, _ in reversed(_event_id_stack.get()):
            entry = self.get(key)
            if entry is not None and entry.run.is_open:
                return known if is_within(known, entry.run) else entry.run
        return known


class Execution(list[str]):
    """The keys of what began in one context, which holds this: a task that is cancelled reports no end of it."""

    def __init__(self, runs: OpenRuns) -> None:
        super().__init__()
        self._runs = runs

    def __del__(self) -> None:
        left = [found.run for key in reversed(self) if (found := self._runs.pop(key, None)) is not None]
        streamed = any(isinstance(run, LlmInvocation) and run.streaming for run in left)
        for run in left:
            run.end_as(Status.ABANDONED if streamed else Status.CANCELLED)


def scope_of(kind: str) -> str | None:
    """The ID of the event that opened the innermost scope, where it is of this kind."""
    stack = _event_id_stack.get()
    return stack[-1][0] if stack and stack[-1][1] == kind else None
