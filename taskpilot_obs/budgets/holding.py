"""A reservation for a call that somebody else records: a framework's handler, say, which cannot refuse by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final

from taskpilot_obs import context
from taskpilot_obs.budgets.booking import RESERVATION
from taskpilot_obs.budgets.control import Ask
from taskpilot_obs.budgets.estimates import planned
from taskpilot_obs.budgets.model import Call
from taskpilot_obs.context import current_scope, request_context
from taskpilot_obs.ids import new_request_id
from taskpilot_obs.outcomes import classify
from taskpilot_obs.providers import canonical, infer_provider
from taskpilot_obs.records import Status

if TYPE_CHECKING:
    from taskpilot_obs.budgets.booking import Book
    from taskpilot_obs.budgets.control import Control
    from taskpilot_obs.records import Record
    from taskpilot_obs.reporting import Reporter

_UNBILLED: Final = frozenset({Status.ERROR, Status.BLOCKED})


class _Ended:
    """The end of a reservation, behind the records of its call in the queue."""

    def __init__(self, book: Book, hold: str, *, billed: bool) -> None:
        self._book = book
        self._hold = hold
        self._billed = billed

    def droppable(self) -> bool:
        return True

    def freeze(self) -> Sequence[Record]:
        self._book.end_unrecorded(self._hold, billed=self._billed)
        return ()


class Held:
    """Reserve for one LLM call while a block runs, `with` or `async with`; the block makes the call.

    What the call took is booked when its record comes. Where none comes, what was set aside counts as spent.

    Args:
        recorder: whose budgets.
        model: the model asked for.
        provider: who serves it; inferred from the model when left out.
        args: what the call is made with: its text is measured.
        kwargs: likewise; `max_tokens` and its likes state the longest answer, `input_tokens` the input.
    """

    def __init__(
        self,
        recorder: Reporter,
        *,
        model: str | None,
        provider: str | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        self._recorder = recorder
        self._about = (model, canonical(provider) if provider else infer_provider(model))
        self._arguments = (args, kwargs or {})
        self._hold = new_request_id()
        self._context: request_context | None = None

    def _control(self) -> Control | None:
        limits = self._recorder.limits
        return limits.budgets if limits is not None and self._recorder.enabled else None

    def _question(self, control: Control) -> Ask:
        running, scope = context.present(), current_scope.get()
        if scope is None and running is not None:
            scope = running.scope
        workflow, agent = (None, None) if running is None else running.lineage()
        tenant, user = (None, None) if scope is None else (scope.tenant, scope.user)
        model, provider = self._about
        call = Call(tenant, agent, workflow, model, provider, user)
        return Ask(self._hold, call, planned(*self._arguments), self._recorder.origin(), control.now())

    def __enter__(self) -> None:
        control = self._control()
        if control is not None:
            control.ask(self._question(control))
            self._enter_context()

    async def __aenter__(self) -> None:
        control = self._control()
        if control is not None:
            await control.ask_async(self._question(control))
            self._enter_context()

    def _enter_context(self) -> None:
        self._context = request_context(**{RESERVATION: self._hold})
        self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        inner, self._context = self._context, None
        control = self._control()
        if inner is None or control is None:
            return
        inner.__exit__(kind, error, trace)
        billed = kind is None or classify(kind)[0] not in _UNBILLED
        if control.book is not None:
            self._recorder.pipeline.put(_Ended(control.book, self._hold, billed=billed))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)
