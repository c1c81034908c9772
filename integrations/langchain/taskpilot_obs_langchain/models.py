"""What LangChain says of a chat model or LLM when a call begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from langchain_core.documents import Document

from taskpilot_obs.providers.names import canonical, infer_provider, known, provider_at
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_MODEL_KEYS: Final = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")
_OPENAI: Final = "openai"
_SOUND: Final = frozenset({"audio", "video", "input_audio"})
_FILES: Final = frozenset({"media", "file"})
_VIDEO_HOSTS: Final = ("youtube.com/", "youtu.be/")
_MAKES_MEDIA: Final = ("image", "native-audio", "live")
"""In the names of Google's models that answer with more than text."""
DROPS_MODALITIES: Final = frozenset({"gcp.gemini", "gcp.vertex_ai"})
"""Providers whose LangChain package does not hand on how many tokens were audio or image, which cost more."""
NOTHING: Final[dict[str, Any]] = {}
_OPTIONS: Final = (("ls_temperature", Attr.REQUEST_TEMPERATURE), ("ls_max_tokens", Attr.REQUEST_MAX_TOKENS))


class RequestParameters(NamedTuple):
    """What a call asks for, in LangChain's words; identical for every call of a model."""

    model: str | None
    provider: str | None
    """In LangChain's spelling, or the name of the model's class in lower case."""
    base_url: str | None
    """The address of a client with OpenAI's interface, where it is another than OpenAI's."""

    @property
    def provider_name(self) -> str | None:
        """The canonical name of the provider; None where it is unknown.

        LangChain names a model class that states no provider after itself; then the model's name tells more.
        """
        if self.provider is None:
            return infer_provider(self.model)
        if self.base_url is not None and self.provider == _OPENAI:
            return provider_at(self.base_url, self.model)
        return known(self.provider) or infer_provider(self.model) or canonical(self.provider)


def asked_for(metadata: Mapping[str, Any], params: Mapping[str, Any], settings: Mapping[str, Any]) -> RequestParameters:
    """What a call asks for.

    Args:
        metadata: LangChain's, of the run.
        params: the model's `invocation_params`.
        settings: the model's fields, as LangChain serialises them.
    """
    model, provider = metadata.get("ls_model_name"), metadata.get("ls_provider")
    if type(model) is not str or not model:
        model = _first_text(params, _MODEL_KEYS)
    base_url = settings.get("openai_api_base")
    return RequestParameters(
        model,
        provider if isinstance(provider, str) and provider else None,
        base_url if isinstance(base_url, str) and base_url else None,
    )


def _first_text(source: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((value for key in keys if isinstance(value := source.get(key), str) and value), None)


def options_in(metadata: Mapping[str, Any]) -> dict[str, int | float]:
    """Temperature and limit of tokens, as span attributes."""
    stated = ((attribute, metadata.get(key)) for key, attribute in _OPTIONS)
    return {attribute: value for attribute, value in stated if isinstance(value, int | float)}


def key_of(asked: RequestParameters, options: Mapping[str, int | float]) -> tuple[object, ...]:
    """What tells calls of one model from those of others: what they ask for, and with which options."""
    return (*asked, *(options.get(attribute) for _, attribute in _OPTIONS))


def length_of(messages: Sequence[BaseMessage]) -> int:
    """Characters of plain text in a prompt; parts of other kinds are not counted, nor made text."""
    total = 0
    for message in messages:
        content = message.content
        if type(content) is str:
            total += len(content)
    return total


def has_media(model: str | None, messages: Sequence[BaseMessage]) -> bool:
    """Whether tokens of a call may cost something else than those of text."""
    return any(word in (model or "") for word in _MAKES_MEDIA) or has_sound(messages)


def has_sound(messages: Sequence[BaseMessage]) -> bool:
    """Whether a prompt holds audio or video."""
    for message in messages:
        if type(message.content) is list and any(_is_sound(part) for part in message.content):
            return True
    return False


def _is_sound(part: object) -> bool:
    if not isinstance(part, Mapping):
        return False
    if part.get("type") in _SOUND:
        return True
    media_type = part.get("mime_type")
    if isinstance(media_type, str):
        return media_type.partition("/")[0] in _SOUND
    address = _address_of(part)
    if address is None:
        return False
    if address.startswith("data:"):
        return address[len("data:") :].partition("/")[0] in _SOUND
    # A file of Google's without a type may be anything; a page of YouTube's is a video.
    return part.get("type") in _FILES or any(host in address for host in _VIDEO_HOSTS)


def _address_of(part: Mapping[str, Any]) -> str | None:
    """Where a part's content is, in the spellings of LangChain, OpenAI and Google."""
    for key in ("file_uri", "fileUri", "url", "image_url", "file_data", "data"):
        found = part.get(key)
        if isinstance(found, Mapping):
            found = found.get("url") or found.get("file_uri") or found.get("fileUri")
        if isinstance(found, str):
            return found
    return None


def plain(messages: Sequence[BaseMessage]) -> list[dict[str, object]]:
    """Messages for the redactor: who says what."""
    return [{"role": message.type, "content": message.content} for message in messages]


def texts_of(documents: object) -> list[str] | None:
    """What a retriever found; None where it returned something else than documents."""
    if not isinstance(documents, Sequence):
        return None
    return [document.page_content for document in documents if isinstance(document, Document)]


def is_cache(own: object) -> bool:
    """Whether a model's setting `cache` is a cache of its own, as far as LangChain serialises it."""
    return own is not None and isinstance(own, Mapping)
