"""Follows a `ResponseStream`: its run is current in each pull, and ends as the stream does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, Status, guarded
from taskpilot_obs_agent_framework.reading import WHERE, cause_of

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
        self._exhausted = False
        # The framework calls the source of a stream in the context of its consumer: only here do runs beneath it
        # find their parent. A consumption context manager is not entered where updates are not buffered.
        stream.with_pull_context_manager(self._pull)
        stream.with_cleanup_hook(self._note_end)
        stream.with_result_transform(self._note_result)
        if isinstance(run, LlmInvocation):
            run.set_streaming()
            stream.with_update_transform(partial(_note_update, run))

    @contextmanager
    def _pull(self) -> Iterator[None]:
        step = self._run.attach()
        try:
            yield
        except StopAsyncIteration:
            self._exhausted = True
            raise
        except BaseException as error:
            self._run.fail(cause_of(error))
            raise
        finally:
            self._run.detach(step)

    def _note_end(self) -> None:
        if self._exhausted or self._run.ended:
            return
        # Stated by the stream while cleanup hooks run: a gate or transform has raised, outside of any pull.
        error = getattr(self._stream(), "_stream_error", None)
        if error is None:
            self._run.end_as(Status.ABANDONED)
        else:
            self._run.fail(cause_of(error))

    async def _note_result(self, response: Any) -> None:
        if self._exhausted and not self._run.ended:
            await self._finish(self._run, response)
        else:  # a stream that was left: the framework makes a response of what has come so far
            self._run.end_as(Status.ABANDONED)


def _note_update(call: LlmInvocation, update: Any) -> None:
    with guarded(WHERE, call.callsite.runtime.counters):  # an update may be an object of the application
        if any(each.type != "usage" for each in update.contents):
            call.first_token()
