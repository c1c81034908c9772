"""Budgets in LangChain: calls that are refused before the provider is asked.

    model = budgeted(ChatOpenAI(model="gpt-4o"))
    agent = create_agent(model, tools, middleware=[BudgetMiddleware()])

Callbacks alone cannot do that. What a call took is booked from the record that the `ObservabilityHandler` makes of it;
where none listens, what was reserved counts as spent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel

from taskpilot_obs import get_recorder
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs_langchain.models import asked_for

if TYPE_CHECKING:
    from taskpilot_obs.integration import Recorder

M = TypeVar("M", bound=BaseChatModel)


def budgeted(model: M, *, recorder: Recorder | None = None) -> M:
    """A copy of a chat model whose every call asks the budgets first.

    It has the same settings and counts as one of its class; `bind_tools`, `with_structured_output` and chains work as
    with the model itself.

    Args:
        model: the chat model.
        recorder: whose budgets; the default recorder when left out.

    Raises:
        BudgetExceededError: from the copy's calls, where a budget in `enforce` mode has no room.
    """
    copy = model.model_copy()
    object.__setattr__(copy, "__class__", _class_for(type(model), recorder))
    return copy


@lru_cache(maxsize=200)
def _class_for(kind: type[Any], recorder: Recorder | None) -> type[Any]:
    """The given class, asking before a call begins: its callbacks already see the reservation."""
    if hasattr(kind, "__taskpilot_budgeted__"):
        return kind

    class Asking(kind):  # type: ignore[misc]  # a base that is known at run time
        """See `budgeted`."""

        __taskpilot_budgeted__ = True

        def generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            with _held(self, messages, kwargs, recorder):
                return super().generate(messages, *args, **kwargs)

        async def agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            async with _held(self, messages, kwargs, recorder):
                return await super().agenerate(messages, *args, **kwargs)

        def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            return _stepped(super().stream(*args, **kwargs), _held(self, args, kwargs, recorder))

        async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            held = _held(self, args, kwargs, recorder)
            await held.reserve_async()
            inner = super().astream(*args, **kwargs)
            failure: BaseException | None = None
            try:
                while True:
                    with held.step():
                        chunk = await anext(inner)
                    held.note_item(chunk)
                    yield chunk
            except StopAsyncIteration:
                pass
            except BaseException as error:
                failure = error
                raise
            finally:
                try:
                    await inner.aclose()  # first, because it records a call whose reader leaves
                finally:
                    held.end(failure)

    Asking.__name__, Asking.__qualname__, Asking.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Asking


def _stepped(inner: Iterator[Any], held: Reservation) -> Iterator[Any]:
    """A stream that reserves when it is first read: it begins then.

    The reservation is known while the stream works, and not while its consumer does.
    """
    held.reserve()
    failure: BaseException | None = None
    try:
        while True:
            with held.step():
                chunk = next(inner)
            held.note_item(chunk)
            yield chunk
    except StopIteration:
        pass
    except BaseException as error:
        failure = error
        raise
    finally:
        try:
            inner.close()  # type: ignore[attr-defined]  # a generator; first, because it records a call whose reader leaves
        finally:
            held.end(failure)


def _held(model: Any, said: object, kwargs: dict[str, Any], recorder: Recorder | None) -> Reservation:
    """A reservation for a call with these messages, at the model and length that its class states."""
    options = {key: kwargs[key] for key in ("model", "max_tokens") if key in kwargs}
    stated = model._get_ls_params(**options)  # noqa: SLF001  what LangChain itself tells its callbacks
    asked = asked_for(stated, {}, {"openai_api_base": getattr(model, "openai_api_base", None)})
    return Reservation(
        recorder or get_recorder(),
        model=asked.model,
        provider=asked.provider_name,
        args=(said,),
        kwargs={"max_tokens": stated.get("ls_max_tokens")},
    )
