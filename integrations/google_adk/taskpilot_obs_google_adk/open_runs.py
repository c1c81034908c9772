"""The runs that an invocation has open: the framework reports a start and an end by two callbacks."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from typing import Any, NamedTuple

from taskpilot_obs.integration import CURRENT, ActiveInvocation, RefusedError, Status, Step

Key = tuple[str, str]
"""What it is, and the name of its agent or the ID of its call."""


class Open(NamedTuple):
    """A run, and how to make it no longer current."""

    run: ActiveInvocation
    step: Step | None
    agent: str

    def close(self, error: BaseException | None = None, *, status: Status = Status.SUCCESS) -> None:
        """End it."""
        if self.step is not None:
            self.run.detach(self.step)
        if error is None:
            self.run.end_as(status)
        else:
            self.run.fail(error)


class OpenRuns:
    """The open runs by invocation."""

    def __init__(self) -> None:
        self._open: dict[str, dict[Key, Open]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, invocation: str, key: Key, entry: Open) -> None:
        """Keep a run until its end."""
        self._open.setdefault(invocation, {})[key] = entry

    def get(self, invocation: str, key: Key) -> Open | None:
        """A run that is open."""
        return self._open.get(invocation, {}).get(key)

    def pop(self, invocation: str, key: Key) -> Open | None:
        """Take a run that ends."""
        runs = self._open.get(invocation, {})
        entry = runs.pop(key, None)
        if not runs:
            self._open.pop(invocation, None)
        return entry

    def above(self, invocation: str, agent: Any) -> Any:
        """The run of an agent or of the nearest one above it, as a parent."""
        while agent is not None:
            known = self.get(invocation, ("agent", agent.name))
            if known is not None:
                return known.run
            agent = agent.parent_agent
        return CURRENT

    def close_beneath(self, invocation: str, agent: str, error: BaseException | None) -> None:
        """End the calls of an agent that ends: a cancelled one reports none of them."""
        for key, entry in [*self._open.get(invocation, {}).items()][::-1]:
            if entry.agent == agent:
                self.pop(invocation, key)
                entry.close(error, status=Status.ABANDONED)

    def close_all(self, invocation: str) -> None:
        """End what an invocation has left open: abandoned where its reader has gone."""
        left = isinstance(sys.exc_info()[1], GeneratorExit | CancelledError)
        for entry in [*self._open.pop(invocation, {}).values()][::-1]:
            entry.close(status=Status.ABANDONED if left else Status.SUCCESS)


def cause_of(error: BaseException) -> BaseException:
    """The refusal behind an error: the framework wraps what plugins raise into a `RuntimeError`."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, RefusedError):
            return at
        at = at.__cause__
    return error
