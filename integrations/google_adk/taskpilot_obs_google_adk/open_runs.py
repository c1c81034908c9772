"""The runs that an invocation has open: the framework reports a start and an end by two callbacks."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from typing import Any, NamedTuple

from taskpilot_obs.integration import CURRENT, ActiveInvocation, Status, Step, end_early

Key = tuple[str, str]
"""What it is, and the name of its agent or the ID of its call."""


class CurrentRun(NamedTuple):
    """A run, and how to make it no longer current."""

    run: ActiveInvocation
    step: Step | None
    agent: str

    async def close(self, error: BaseException | None = None, *, status: Status = Status.SUCCESS) -> None:
        """End the run, after the checks are asked about trailing words."""
        if self.step is not None:
            self.run.detach(self.step)
        await end_early(self.run, error, status=status)


class InvocationRuns:
    """The open runs by invocation, in the order of their starts.

    An agent may be open twice, where it has handed over to one that hands back: the last one begun is meant.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[Key, CurrentRun]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, invocation: str, key: Key, entry: CurrentRun) -> None:
        """Keep a run until its end."""
        self._open.setdefault(invocation, []).append((key, entry))

    def get(self, invocation: str, key: Key) -> CurrentRun | None:
        """The last run of a key that is open."""
        return next((entry for known, entry in reversed(self._open.get(invocation, ())) if known == key), None)

    def pop(self, invocation: str, key: Key) -> CurrentRun | None:
        """Take a run that ends."""
        entry = self.get(invocation, key)
        if entry is not None:
            self.drop(invocation, entry)
        return entry

    def drop(self, invocation: str, entry: CurrentRun) -> None:
        """Keep a run no longer, which ends."""
        left = [each for each in self._open.pop(invocation, ()) if each[1] is not entry]
        if left:
            self._open[invocation] = left

    def above(self, invocation: str, agent: Any) -> Any:
        """The run above an agent's: that of the nearest agent above it, or of the agent that hands back to it."""
        if self.get(invocation, ("agent", agent.name)) is not None:
            return next(one.run for (kind, _), one in reversed(self._open[invocation]) if kind == "agent")
        agent = agent.parent_agent
        while agent is not None:
            known = self.get(invocation, ("agent", agent.name))
            if known is not None:
                return known.run
            agent = agent.parent_agent
        return CURRENT

    async def pop_agent(self, invocation: str, agent: str, error: BaseException | None) -> CurrentRun | None:
        """Take the run of an agent that ends, and end its calls: a cancelled one reports none of them."""
        entry = self.get(invocation, ("agent", agent))
        for _, each in self._open.get(invocation, [])[::-1]:
            if each is entry:
                self.drop(invocation, each)
                break
            if each.agent == agent:
                self.drop(invocation, each)
                await each.close(error, status=Status.ABANDONED)
        return entry

    async def close_all(self, invocation: str) -> None:
        """End what an invocation has left open: abandoned where its reader has gone."""
        left = isinstance(sys.exc_info()[1], GeneratorExit | CancelledError)
        for _, entry in self._open.pop(invocation, [])[::-1]:
            await entry.close(status=Status.ABANDONED if left else Status.SUCCESS)
