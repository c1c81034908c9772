"""What LangChain says of a chat model or LLM when a call begins, and of its answer when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from langchain_core.globals import get_llm_cache

from taskpilot_obs.providers import canonical, infer_provider, known
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from taskpilot_obs.llm_invocation import LlmInvocation
    from taskpilot_obs.tracing import LiveSpan

_MODEL_KEYS: Final = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")
_OPTIONS: Final = (("ls_temperature", Attr.REQUEST_TEMPERATURE), ("ls_max_tokens", Attr.REQUEST_MAX_TOKENS))


def requested(metadata: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model that a call asks for, and the provider's name in LangChain's spelling."""
    model, provider = metadata.get("ls_model_name"), metadata.get("ls_provider")
    if type(model) is not str or not model:
        model = _first_text(params, _MODEL_KEYS)
    return model, provider if isinstance(provider, str) and provider else None


def provider_of(model: str | None, stated: str | None) -> str | None:
    """The provider's one name.

    A model class that does not name its provider is called by its class' name, in lower case: then the model's name
    says more, where it tells a provider at all.
    """
    if stated is None:
        return infer_provider(model)
    return known(stated) or infer_provider(model) or canonical(stated)


def _first_text(source: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((value for key in keys if isinstance(value := source.get(key), str) and value), None)


def note_request(span: LiveSpan, metadata: Mapping[str, Any] | None) -> None:
    """Put temperature and limit of tokens on the span."""
    stated = metadata or {}
    span.set_all({attribute: stated[key] for key, attribute in _OPTIONS if isinstance(stated.get(key), int | float)})


def length_of(messages: Sequence[BaseMessage]) -> int:
    """Characters of plain text in a prompt; parts of other kinds are not counted, nor made text."""
    total = 0
    for message in messages:
        content = message.content
        if type(content) is str:
            total += len(content)
    return total


def plain(messages: Sequence[BaseMessage]) -> list[dict[str, object]]:
    """Messages for the redactor: who says what."""
    return [{"role": message.type, "content": message.content} for message in messages]


def note_answer(call: LlmInvocation, response: LLMResult, *, cacheable: bool) -> None:
    """Note an answer: of several generations the first, for each repeats the usage of the whole call.

    Args:
        call: the LLM call.
        response: its answer.
        cacheable: whether LangChain looked into a cache of its own first.
    """
    generation = response.generations[0][0] if response.generations and response.generations[0] else None
    message = getattr(generation, "message", None)
    call.read_later(said_by(message) or response)
    if cacheable and not call.first_token_ns and not call.cached:
        call.set_cached(cached=False)
    if generation is None:
        return
    call.output_length = len(generation.text)
    if call.site.host.redactor is not None:
        call.set_output(generation.text if message is None else plain([message]))


def note_partial_answer(call: LlmInvocation, response: LLMResult | None) -> None:
    """Keep the usage that a stream had stated before it broke; what the error itself brought is not looked at."""
    if response is None or not response.generations or not response.generations[0]:
        return
    said = said_by(getattr(response.generations[0][0], "message", None))
    if said is not None:
        call.record_response(said)


def said_by(message: object) -> dict[str, object] | None:
    """What a message says of itself, for the reader of usage; None where it states none."""
    usage = getattr(message, "usage_metadata", None)
    if usage is None:
        return None
    return {
        "usage_metadata": usage,
        "response_metadata": getattr(message, "response_metadata", None),
        "id": getattr(message, "id", None),
    }


def looks_into_cache(serialized: Mapping[str, Any] | None) -> bool:
    """Whether LangChain looks a call up in a cache, as far as can be seen: a global one, or one of the model's own."""
    own = (serialized or {}).get("kwargs", {}).get("cache")
    return own is not False and (isinstance(own, Mapping) or get_llm_cache() is not None)
