"""A reservation for a block of code whose call is recorded elsewhere, such as by a framework's callback handler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Final

from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.point_events import origin_of
from taskpilot_obs._recording.scope import current_admitted, current_scope, restore
from taskpilot_obs._recording.statuses import outcome_of
from taskpilot_obs._support.ids import new_request_id
from taskpilot_obs.budgets.admitted import AdmissionRequest, Admitted
from taskpilot_obs.budgets.estimates import estimate_call
from taskpilot_obs.budgets.model import CallScope
from taskpilot_obs.exceptions import RefusedError
from taskpilot_obs.providers.names import canonical, infer_provider
from taskpilot_obs.records import Status

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.budgets.admission import AdmissionController

_UNBILLED: Final = frozenset({Status.ERROR, Status.BLOCKED})


class Reservation:
    """Reserve for one LLM call while a block runs, `with` or `async with`; the block makes the call.

    The record of the call carries the reservation's ID, and its cost is charged when it is known. If no call is
    recorded, the reserved amount counts as spent. A refused call is recorded as `blocked`.

    Args:
        recorder: the recorder whose budgets apply.
        model: the model asked for.
        provider: who serves it; inferred from the model when left out.
        args: positional arguments of the call, whose text is measured.
        kwargs: keyword arguments; `max_tokens` and similar ones state the longest answer, `input_tokens` the input.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        model: str | None,
        provider: str | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        self._recorder = recorder
        self._model = model
        self._provider = canonical(provider) if provider else infer_provider(model)
        self._arguments = (args, kwargs or {})
        self._admitted: Admitted | None = None
        self._step: AbstractContextManager[None] = nullcontext()

    def _admission(self) -> AdmissionController | None:
        if not self._recorder.enabled or current_admitted.get() is not None:
            return None
        return self._budgets()

    def _budgets(self) -> AdmissionController | None:
        """The recorder's budgets, where one of them may refuse."""
        parts = self._recorder.parts
        return parts.budgets if parts is not None and parts.budgets is not None and parts.budgets.asks else None

    def _request(self, admission: AdmissionController) -> AdmissionRequest:
        running, scope = current_run(), current_scope.get()
        if scope is None and running is not None:
            scope = running.scope
        call = CallScope(origin_of(running, scope), self._model, self._provider, None, admission.source)
        return AdmissionRequest(new_request_id(), call, estimate_call(*self._arguments), admission.now())

    def reserve(self) -> None:
        """Reserve; within another reservation nothing, because that one is made for the call.

        Raises:
            BudgetExceededError: a budget in `enforce` mode has no room.
            BudgetUnavailableError: a budget that is closed in this case cannot judge.
        """
        admission = self._admission()
        if admission is None:
            return
        admitted = Admitted(self._request(admission), is_block=True)
        try:
            admission.admit(admitted)
        except RefusedError as error:
            self._record(error)
            raise
        self._admitted = admitted

    async def reserve_async(self) -> None:
        """Reserve without blocking the event loop. See `reserve`."""
        admission = self._admission()
        if admission is None:
            return
        admitted = Admitted(self._request(admission), is_block=True)
        try:
            await admission.admit_async(admitted)
        except RefusedError as error:
            self._record(error)
            raise
        self._admitted = admitted

    def _record(self, refusal: RefusedError) -> None:
        """Record the refused call, because its own recording has not begun."""
        parent = current_run()
        call = self._recorder.new_llm(model=self._model, provider=self._provider, parent=parent)
        if parent is not None and parent.scope is not None:
            call.scope = parent.scope
        call.start()
        call.fail(refusal)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let the call that begins here carry the reservation; a stream is stepped through in several of these."""
        if self._admitted is None:
            yield
            return
        token = current_admitted.set(self._admitted)
        try:
            yield
        finally:
            restore(current_admitted, token)

    def note_item(self, item: object) -> None:
        """Count the text of one item of a stream: what a reader costs who leaves it."""
        if self._admitted is not None:
            self._admitted.streamed.note(item)

    def end(self, error: BaseException | None = None) -> None:
        """End the reservation; later calls change nothing.

        Args:
            error: the exception that ended the block; if the provider refused the call, nothing counts as spent.
        """
        admitted, self._admitted = self._admitted, None
        admission = self._budgets()
        if admitted is not None and admission:
            billed = error is None or outcome_of(error)[0] not in _UNBILLED
            admission.end_later(admitted.reservation_id, billed)

    def __del__(self) -> None:
        if getattr(self, "_admitted", None) is not None:
            self.end()

    def __enter__(self) -> None:
        self.reserve()
        self._step = self.step()
        self._step.__enter__()

    async def __aenter__(self) -> None:
        await self.reserve_async()
        self._step = self.step()
        self._step.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._step.__exit__(None, None, None)
        self.end(error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.__exit__(kind, error, trace)
