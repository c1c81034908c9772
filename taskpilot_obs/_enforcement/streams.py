"""Streams whose items are checked as one text at their end, or where they are left: by then they are out.

A stream that is left (a `break`, a closed tab, a cancellation) or cut by an error has handed something out as well.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

from taskpilot_obs._enforcement.enforcer import Streamed, note_bypass, note_withheld
from taskpilot_obs._recording.generators import close_async
from taskpilot_obs._recording.invocation import current_running
from taskpilot_obs.records import Stage

if TYPE_CHECKING:
    from taskpilot_obs._enforcement.enforcer import Enforcer
    from taskpilot_obs._recording.invocation import ActiveInvocation

LONGEST_AT_LEAVING_S: Final = 2.0
"""How long an asynchronous check of a stream that is left may take: a cancellation waits for it."""
_collecting: set[int] = set()
"""Threads in which Python's garbage collector runs."""


class ReleasedOutput:
    """What a stream has handed out: pieces of one text, each of which the checks are asked about once.

    It knows no run, so that it may be kept by one: a run that refers to itself would end at the next collection.

    Args:
        enforcer: its checks; pieces are kept where one of them is asked about outputs.
    """

    def __init__(self, enforcer: Enforcer) -> None:
        self._enforcer = enforcer
        self._pieces = Streamed()
        self._wanted = bool(enforcer.at(Stage.OUTPUT))
        if _note_collection not in gc.callbacks:
            gc.callbacks.append(_note_collection)

    def note(self, piece: Any) -> None:
        """Keep a piece that is handed out."""
        if self._wanted and not (type(piece) is str and not piece):
            self._pieces.append(piece)

    def settle(self) -> Streamed:
        """Return the pieces, because the caller asks about them; those that follow are asked about by themselves."""
        pieces, self._pieces = self._pieces, Streamed()
        return pieces

    def leave(self, run: ActiveInvocation) -> None:
        """Ask about what was handed out of a stream that ends before its time."""
        if threading.get_ident() in _collecting:
            self.bypass()
        elif pieces := self.settle():
            self._enforcer.ask_too_late(run, pieces)

    async def leave_async(self, run: ActiveInvocation) -> None:
        """Like `leave`, awaiting asynchronous checks for a while."""
        if pieces := self.settle():
            await self._enforcer.ask_too_late_async(run, pieces, LONGEST_AT_LEAVING_S)

    def bypass(self) -> None:
        """Count the checks that are not asked: code that the collector interrupts may hold a lock that they need."""
        for check in self._enforcer.at(Stage.OUTPUT) if self.settle() else ():
            if Stage.OUTPUT in check.refuses_at:
                why = "a stream was dropped without being closed"
                note_bypass(self._enforcer.runtime, check.kind.value, check.name, why)


class WatchedStream(Generator[Any, Any, Any]):
    """Wrap a generator; its last items are checked when it ends.

    Args:
        inner: yields the items.
        enforcer: its checks.
        run: the run that the items are of.
    """

    def __init__(self, inner: Generator[Any, Any, Any], enforcer: Enforcer, run: ActiveInvocation) -> None:
        self._inner = inner
        self._enforcer = enforcer
        self._run = run
        self._released = ReleasedOutput(enforcer)

    def send(self, value: Any, /) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._inner.throw, *error)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self.leave()

    def leave(self) -> None:
        """Ask about what was handed out of a stream that ends before its time."""
        self._released.leave(self._run)

    def _step(self, advance: Callable[..., Any], *args: Any) -> Any:
        try:
            item = advance(*args)
        except StopIteration as end:
            self._end(end.value)
            raise
        except BaseException:
            self.leave()
            raise
        self._released.note(item)
        return item

    def _end(self, result: object) -> None:
        try:
            self._enforcer.ask_too_late(self._run, self._released.settle())
        except BaseException:
            self._run.finish_stream(result)  # it was read whole, whatever ends its checks
            raise


class WatchedAsyncStream(AsyncGenerator[Any, Any]):
    """An asynchronous generator whose items are checked once nothing follows them.

    Args:
        start: makes the generator.
        enforcer: its checks.
        run: the run that the items are of; None where the first step tells.
    """

    def __init__(
        self, start: Callable[[], AsyncGenerator[Any, Any]], enforcer: Enforcer, run: ActiveInvocation | None
    ) -> None:
        self._start = start
        self._enforcer = enforcer
        self._run = run
        self._inner: AsyncGenerator[Any, Any] | None = None
        self._released = ReleasedOutput(enforcer)
        self._held_back: Iterator[Any] | None = None
        self._is_whole = False

    async def _begin(self) -> AsyncGenerator[Any, Any]:
        self._inner = self._start()
        return self._inner

    async def _step(self, advance: str, *args: Any) -> Any:
        inner = self._inner or await self._begin()
        if self._held_back is not None and advance == "asend":
            for item in self._held_back:
                return item
            raise StopAsyncIteration
        try:
            item = await getattr(inner, advance)(*args)
        except StopAsyncIteration:
            await self._end()
            raise
        except BaseException:
            await self.leave()
            raise
        self._released.note(item)
        return item

    async def asend(self, value: Any, /) -> Any:
        return await self._step("asend", value)

    async def athrow(self, *error: Any) -> Any:
        return await self._step("athrow", *error)

    async def aclose(self) -> None:
        if self._inner is None:
            return
        try:
            await close_async(self._inner)
        finally:
            await self.leave()

    async def leave(self) -> None:
        """Ask about what was handed out of a stream that ends before its time."""
        if self._run is not None:
            await self._released.leave_async(self._run)

    async def _end(self) -> None:
        if self._run is None or self._is_whole:
            return
        self._is_whole = True
        try:
            await self._enforcer.ask_too_late_async(self._run, self._released.settle())
        except BaseException:
            self._run.finish_stream(None)  # it was read whole, whatever ends its checks
            raise


class CheckedAsyncCall(WatchedAsyncStream):
    """The asynchronous generator of an observed function: its input is checked at the first step.

    Args:
        function: makes the generator.
        call: the arguments, which are asked about first.
        enforcer: the checks.
        buffer: whether the stream is held back until its end.
    """

    def __init__(
        self,
        function: Callable[..., AsyncGenerator[Any, Any]],
        call: tuple[tuple[Any, ...], dict[str, Any]],
        enforcer: Enforcer,
        *,
        buffer: bool,
    ) -> None:
        super().__init__(lambda: function(*call[0], **call[1]), enforcer, None)
        self._call = call
        self._buffer = buffer

    async def _begin(self) -> AsyncGenerator[Any, Any]:
        run: Any = current_running.get()  # the decorator has set it
        self._run = run
        await self._enforcer.ask_in_async(run, *self._call)
        inner = await super()._begin()
        if self._buffer and self._enforcer.at(Stage.OUTPUT):
            await self._hold_back(inner, run)
        return inner

    async def _hold_back(self, inner: AsyncGenerator[Any, Any], run: ActiveInvocation) -> None:
        items = Streamed()
        try:
            async for item in inner:
                items.append(item)
        except BaseException:
            note_withheld(run, items)
            raise
        await self._enforcer.ask_out_async(run, items)
        self._held_back = iter(items)


def _note_collection(phase: str, _found: dict[str, int]) -> None:
    (_collecting.add if phase == "start" else _collecting.discard)(threading.get_ident())
