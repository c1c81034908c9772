"""The callback: LiteLLM calls it by keyword, so the names of its arguments are LiteLLM's."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final

import litellm
from litellm.integrations.custom_logger import CustomLogger

from taskpilot_obs.exceptions import BudgetExceededError, BudgetUnavailableError
from taskpilot_obs.integration import (
    LlmInvocation,
    Operation,
    Recorder,
    RefusedError,
    answer_limits,
    block_above,
    check_input_async,
    check_output,
    check_output_async,
    get_recorder,
    guarded,
    is_content_read,
    open_llm_call,
    request_context,
)
from taskpilot_obs_litellm import calls

_COMPONENT: Final = "litellm"
_KEY: Final = "taskpilot_obs"
"""In LiteLLM's details of a call: its last attempt; None where another layer records the call."""
_NOT_SENT: Final = "litellm_no_upstream_llm_call"
"""In LiteLLM's details of what its proxy has refused by itself."""

Details = MutableMapping[str, Any]
"""LiteLLM's own description of a call, one for all its callbacks."""


class ObservabilityCallback(CustomLogger):  # type: ignore[misc]  # LiteLLM may be missing where types are checked
    """Records every call of a model by LiteLLM: `litellm.callbacks = [ObservabilityCallback()]`.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        super().__init__()
        self._given = recorder

    @property
    def _recorder(self) -> Recorder:
        return get_recorder() if self._given is None else self._given

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Ask about a request to LiteLLM's proxy, for the team and the user of its key."""
        details, operation = _details_in(data), calls.operation_of(call_type)
        if details is None or operation is None:
            return
        tenant, user = _identity(user_api_key_dict)
        with request_context(data.get("litellm_call_id"), tenant_id=tenant, user_id=user):
            run = self._begin(details, data, operation)
        try:
            await _ask(run, data)
        except RefusedError as refused:
            raise _as_response(refused) from refused

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Ask about an asynchronous call, in the context of its caller."""
        details, operation = _details_in(kwargs), calls.operation_of(call_type)
        if details is not None and operation is not None and _may_begin(details):
            with _identity_of_last(details):
                run = self._begin(details, kwargs, operation)
            await _ask(run, kwargs)

    def log_pre_api_call(self, model: str, messages: Any, kwargs: Details) -> None:
        """Begin a synchronous call; of one that has begun, note what became known."""
        operation = calls.operation_of(kwargs.get("call_type"))
        with guarded(_COMPONENT, self._recorder.counters):
            run = _run_in(kwargs)
            if run is not None:
                run.record_request(model=model, provider=kwargs.get("custom_llm_provider"))
            elif operation is not None and _may_begin(kwargs) and not kwargs.get(_NOT_SENT):
                self._begin(kwargs, {**kwargs, "model": model, "messages": messages}, operation)

    def _begin(self, details: Details, arguments: Mapping[str, Any], operation: Operation) -> LlmInvocation | None:
        model = provider = None
        with guarded(_COMPONENT, self._recorder.counters):
            model, provider = _served_by(arguments)
        if (known := open_llm_call()) is not None:  # the call is recorded already
            details[_KEY] = None
            known.record_request(model=model, provider=provider)
            return None
        run = self._recorder.start_llm(model=model, provider=provider, operation=operation)
        details[_KEY] = calls.HeldAttempt(run)
        with guarded(_COMPONENT, self._recorder.counters):
            run.set_input(calls.content_of(arguments))
            if calls.is_streamed(arguments):
                run.set_streaming()
        return run

    def log_post_api_call(self, kwargs: Details, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End a synchronous call before its caller goes on, so that its agent's sums have it."""
        with guarded(_COMPONENT, self._recorder.counters):
            run = _run_in(kwargs)
            if run is None or calls.is_async(kwargs) or calls.is_streamed(kwargs):
                return
            answer = calls.note_document(run, kwargs)
            if answer is not None:
                check_output(run, answer, released=True)
                run.stop()

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """End an asynchronous call before its caller goes on."""
        details = _details_in(request_data)
        with guarded(_COMPONENT, self._recorder.counters):
            run = _run_in(details)
            if run is not None and details is not None and not calls.is_streamed(request_data):
                if calls.note_document(run, details) is None:
                    calls.note_answer(run, response, details)
                await check_output_async(run, response, released=True)
                run.stop()

    def log_success_event(self, kwargs: Details, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End what is open still: streams, hits of LiteLLM's cache, answers that could not be read before."""
        with guarded(_COMPONENT, self._recorder.counters):
            run = self._open_run(kwargs, start_time)
            if run is not None:
                calls.note_answer(run, response_obj, kwargs)
                check_output(run, response_obj, released=True)
                run.stop(at_unix_ns=calls.unix_ns(end_time))

    async def async_log_success_event(self, kwargs: Details, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End what is open still."""
        with guarded(_COMPONENT, self._recorder.counters):
            run = self._open_run(kwargs, start_time)
            if run is not None:
                calls.note_answer(run, response_obj, kwargs)
                await check_output_async(run, response_obj, released=True)
                run.stop(at_unix_ns=calls.unix_ns(end_time))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, *_: Any, **__: Any
    ) -> None:
        """End an attempt with its exception: of several that fail, LiteLLM reports only the first as an event."""
        with guarded(_COMPONENT, self._recorder.counters):
            run = _run_in(_details_in(request_data))
            if run is not None:
                run.fail(exception)

    def log_failure_event(self, kwargs: Details, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End a call with its exception, unless the attempt's own hook has."""
        with guarded(_COMPONENT, self._recorder.counters):
            run = self._open_run(kwargs, start_time)
            if run is not None:
                run.fail(kwargs["exception"], at_unix_ns=calls.unix_ns(end_time))

    async def async_log_failure_event(self, kwargs: Details, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """End a call with its exception."""
        self.log_failure_event(kwargs, response_obj, start_time, end_time)

    def _open_run(self, details: Details, start_time: Any) -> LlmInvocation | None:
        """The call's run; one that began in the past for a call that sent no request."""
        operation = calls.operation_of(details.get("call_type"))
        if operation is None or _KEY in details:
            return _run_in(details)
        model, provider = details.get("model"), details.get("custom_llm_provider")
        run = self._recorder.adopt_llm(
            model=model, provider=provider, operation=operation, start_unix_ns=calls.unix_ns(start_time)
        )
        details[_KEY] = calls.HeldAttempt(run)
        return run


handler: Final = ObservabilityCallback()
"""For LiteLLM's proxy: `litellm_settings: {callbacks: taskpilot_obs_litellm.handler}`."""


def observe(recorder: Recorder | None = None) -> ObservabilityCallback:
    """Record every call of LiteLLM in this process; a second call of it changes nothing.

    Args:
        recorder: where to; the default one when left out.

    Returns:
        The callback, which is in `litellm.callbacks`.
    """
    for known in litellm.callbacks:
        if isinstance(known, ObservabilityCallback):
            return known
    made = ObservabilityCallback(recorder)
    litellm.callbacks.append(made)
    return made


def _details_in(arguments: Mapping[str, Any]) -> Details | None:
    found = getattr(arguments.get("litellm_logging_obj"), "model_call_details", None)
    return found if isinstance(found, dict) else None


def _run_in(details: Details | None) -> LlmInvocation | None:
    held = None if details is None else details.get(_KEY)
    return held.run if isinstance(held, calls.HeldAttempt) and held.run.is_open else None


def _may_begin(details: Details) -> bool:
    """Whether a run may begin: none has, or it was an attempt that failed, which a retry or a fallback follows."""
    held = details.get(_KEY)
    return _KEY not in details or (isinstance(held, calls.HeldAttempt) and held.has_failed())


def _identity_of_last(details: Details) -> AbstractContextManager[object]:
    """Bind the identity of the attempt that failed, because the proxy states it only once."""
    held = details.get(_KEY)
    if not isinstance(held, calls.HeldAttempt) or (known := held.run.scope) is None:
        return nullcontext()
    return request_context(known.request_id, tenant_id=known.tenant, user_id=known.user, session_id=known.session)


async def _ask(begun: LlmInvocation | None, arguments: Mapping[str, Any]) -> None:
    run = begun or block_above()
    if run is not None and is_content_read(run):
        try:
            await check_input_async(run, calls.content_of(arguments), arguments=answer_limits(arguments))
        except BaseException as error:
            run.fail(error)
            raise


def _served_by(arguments: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model without LiteLLM's prefix, and who serves it; the name as given where only a router knows."""
    model, provider = arguments.get("model"), arguments.get("custom_llm_provider")
    if model is not None and provider is None:
        with suppress(litellm.exceptions.BadRequestError):
            model, provider, *_ = litellm.get_llm_provider(model=model, api_base=arguments.get("api_base"))
    return model, provider


def _identity(key: Any) -> tuple[str | None, str | None]:
    """Team or organisation, and the end user or the key's user."""
    tenant = getattr(key, "team_id", None) or getattr(key, "org_id", None)
    return tenant, getattr(key, "end_user_id", None) or getattr(key, "user_id", None)


def _as_response(refused: RefusedError) -> Exception:
    """What the proxy answers: which check refused, and not why, because a reason may quote content."""
    from fastapi import HTTPException

    is_budget = isinstance(refused, BudgetExceededError | BudgetUnavailableError)
    said = {"error": "refused by a budget" if is_budget else "refused by a policy", "request_id": refused.request_id}
    return HTTPException(429 if is_budget else 403, said)
