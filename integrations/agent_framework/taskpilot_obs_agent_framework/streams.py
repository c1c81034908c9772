"""Follows a `ResponseStream`: its run is current in each pull, and ends as the stream does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, Status, end_early, guarded, note_released
from taskpilot_obs_agent_framework.reading import COMPONENT, cause_of, text_of

Finish = Callable[[ActiveInvocation, Any], Awaitable[None]]


class Followed:
    """The run of a stream, which refers to it; a stream that is dropped lets go of its run, which ends as abandoned.

    Args:
        run: ends with the stream.
        stream: the framework's `ResponseStream`, of which nothing has been pulled.
        finish: ends the run with the final response.
    """

    def __init__(self, run: ActiveInvocation, stream: Any, finish: Finish) -> None:
        self._run = run
        self._finish = finish
        self._stream = ref(stream)
        self._begun = self._exhausted = False
        # The framework calls the source of a stream in the context of its consumer: only here do runs beneath it
        # find their parent. A consumption context manager is not entered where updates are not buffered.
        stream.with_pull_context_manager(self._pull)
        stream.with_cleanup_hook(self._leave)
        stream.with_result_transform(self._note_result)
        stream.with_update_transform(self._note_update)
        if isinstance(run, LlmInvocation):
            run.set_streaming()

    def __del__(self) -> None:
        self._run.end_as(Status.ABANDONED)

    @contextmanager
    def _pull(self) -> Iterator[None]:
        step = self._run.attach()
        try:
            yield
        except StopAsyncIteration:
            self._exhausted = True
            raise
        except BaseException as error:
            if not self._begun:  # else the stream's cleanup, where checks can be awaited, ends the run
                self._run.fail(cause_of(error))
            raise
        finally:
            self._run.detach(step)

    async def _leave(self) -> None:
        if not self._exhausted:
            error = getattr(self._stream(), "_stream_error", None)  # stated while cleanup hooks run
            await end_early(self._run, None if error is None else cause_of(error))

    async def _note_result(self, response: Any) -> None:
        if self._exhausted and not self._run.ended:
            await self._finish(self._run, response)
        await self._leave()  # a stream that was left: the framework makes a response of what has come so far

    def _note_update(self, update: Any) -> None:
        self._begun, run = True, self._run
        with guarded(COMPONENT, run.callsite.runtime.counters):  # an update may be an object of the application
            note_released(run, text_of(update))
            if isinstance(run, LlmInvocation) and any(each.type != "usage" for each in update.contents):
                run.first_token()
