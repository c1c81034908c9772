"""The simulated users of the demo: they arrive at random, may hang up, and some rate the answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

from taskpilot_obs._api.events import record_audit_event, record_feedback
from taskpilot_obs._recording.context import request_context
from taskpilot_obs.demo.script import Fate, Request, current_request

if TYPE_CHECKING:
    from taskpilot_obs.demo.service import Service

PER_SECOND: Final = 30.0
_PATIENCE_S: Final = 0.25
"""Seconds after which an impatient user hangs up."""
_ENOUGH_PIECES: Final = 3
"""How much of a stream is read by a user who stops early."""


class Load:
    """Requests that arrive at random times, each served in its own task.

    Attributes:
        arrived: how many have come.
        finished: how many are over, however they ended.
        last_failure: what the service raised last.
    """

    def __init__(self, service: Service, requests: Iterable[Request], *, per_second: float = PER_SECOND) -> None:
        self.arrived = 0
        self.finished = 0
        self.last_failure: Exception | None = None
        self._service = service
        self._requests = requests
        self._per_second = per_second
        self._dice = random.Random(11)  # noqa: S311  a story, not a secret

    async def run(self) -> None:
        """Run until every request has ended."""
        async with asyncio.TaskGroup() as visitors:
            for request in self._requests:
                visitors.create_task(self._visit(request))
                self.arrived += 1
                await asyncio.sleep(self._dice.expovariate(self._per_second))

    async def _visit(self, request: Request) -> None:
        current_request.set(request)
        with request_context(tenant_id=request.tenant, user_id=request.user):
            try:
                await self._be_served(request)
            except self._service.failures as failure:
                self.last_failure = failure
        self.finished += 1

    async def _be_served(self, request: Request) -> None:
        if request.fate is Fate.HANGS_UP:
            reading = asyncio.create_task(self._read(request))
            await asyncio.wait([reading], timeout=_PATIENCE_S)
            reading.cancel()
            await asyncio.wait([reading])
            return
        if await self._read(request):
            record_audit_event("answer.delivered", request_number=request.number)
            if request.rating is not None:
                record_feedback(correct=request.rating)

    async def _read(self, request: Request) -> bool:
        """Return whether the answer was read to its end."""
        answer = cast(AsyncGenerator[str, None], self._service.handle(request.wish))
        async with aclosing(answer):
            number = 0
            async for _ in answer:
                number += 1
                if request.fate is Fate.STOPS_READING and number == _ENOUGH_PIECES:
                    return False
        return True
