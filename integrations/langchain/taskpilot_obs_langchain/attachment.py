"""Attaching the handler to a block of code, and asking a model to state its usage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeVar

from langchain_core.tracers.context import register_configure_hook

from taskpilot_obs_langchain.handler import ObservabilityHandler

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from taskpilot_obs.integration import Recorder

M = TypeVar("M", bound="BaseChatModel")

_attached: ContextVar[ObservabilityHandler | None] = ContextVar("taskpilot_obs_langchain", default=None)
register_configure_hook(_attached, inheritable=True)


@contextmanager
def observe_langchain(
    *, root: Literal["workflow", "agent"] | None = None, name: str | None = None, recorder: Recorder | None = None
) -> Iterator[ObservabilityHandler]:
    """Record every LangChain and LangGraph run that begins in a block, without touching the call sites.

    Works in tasks and threads that inherit the block's context. A run that has a handler already is recorded once.

    Args:
        root: as for `ObservabilityHandler`.
        name: as for `ObservabilityHandler`.
        recorder: as for `ObservabilityHandler`.

    Yields:
        The handler that records.
    """
    handler = ObservabilityHandler(root=root, name=name, recorder=recorder)
    token = _attached.set(handler)
    try:
        yield handler
    finally:
        with suppress(ValueError):  # another context than it was entered in
            _attached.reset(token)


def with_stream_usage(model: M) -> M:
    """Ask an OpenAI-style model for the usage of streamed calls, which it leaves out where `base_url` is set.

    Without it such a stream states no usage at all: its tokens and cost are unknown. Not every gateway and server
    accepts the request for it (`stream_options`), so this is for you to decide.

    Returns:
        A copy of the model that asks; the model itself where it has no such setting, or where it is set already.
    """
    if getattr(model, "stream_usage", True) is not None and getattr(model, "stream_usage", True) is not False:
        return model
    return model.model_copy(update={"stream_usage": True})
