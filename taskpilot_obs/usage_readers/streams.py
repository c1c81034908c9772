"""Putting a response together from its events; a whole response is a stream of one."""

from __future__ import annotations

from typing import Final

from taskpilot_obs import providers
from taskpilot_obs.usage_readers import envelopes
from taskpilot_obs.usage_readers.content import has_content
from taskpilot_obs.usage_readers.fields import NOTHING, Fields, fields, inner
from taskpilot_obs.usage_readers.shapes import billed_elsewhere, named_tier, read_counts, read_embedding_counts
from taskpilot_obs.usage_types import Reading, Usage, from_counts

_TELLING_KEYS: Final = (
    "usage",
    "usage_metadata",
    "usageMetadata",
    "x_groq",
    "metadata",
    "amazon-bedrock-invocationMetrics",
    "totalOutputTextTokenCount",
    "generation_token_count",
    "done",
    "stop_reason",
    "stopReason",
    "error",
    "meta",
    "generations",
)
_TELLING_TYPES: Final = frozenset({"message_start", "message_delta", "message-end", "stream-end", "message"})


class Stream:
    """What the events so far have said. Raises whatever a hostile object raises: the callers are guarded."""

    __slots__ = (
        "_added",
        "_cached",
        "_described",
        "_embedding",
        "_given",
        "_id",
        "_inconsistent",
        "_model",
        "_proven",
        "_reasons",
        "_stated",
        "_tier",
    )

    def __init__(self, provider: str | None) -> None:
        self._given = providers.canonical(provider) if isinstance(provider, str) and provider.strip() else None
        self._described = False
        self._proven: str | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._tier: str | None = None
        self._reasons: tuple[str, ...] = ()
        self._stated: Fields = NOTHING
        self._added: Usage | None = None
        self._inconsistent = False
        self._embedding = False
        self._cached = False

    def feed_all(self, response: object) -> None:
        """Take a whole response, or the list of a stream's events."""
        for event in envelopes.events_of(response):
            self.feed(event)

    def feed(self, event: object) -> bool:
        """Take one event; whether it carries generated content."""
        if isinstance(event, Usage):
            self._added, self._inconsistent = from_counts(**event._asdict())
            return False
        if type(event) is tuple and event:
            event = event[0]  # LangGraph's (message, metadata)
        found = envelopes.opened(event)
        if found is None:
            return isinstance(event, str) and bool(event) and not event.isspace() and not envelopes.is_framing(event)
        message = found.get("message")
        if message is not None and envelopes.is_chunk(message):
            event, found = message, fields(message) or NOTHING
        if not self._described or _tells(found):
            self._note(found, chunk=envelopes.is_chunk(event))
        return has_content(found)

    def reading(self) -> Reading:
        """The sum of it."""
        provider = self._provider()
        usage, inconsistent = self._added, self._inconsistent
        if usage is None and self._stated is not NOTHING:
            read = read_embedding_counts(self._stated) if self._embedding else read_counts(self._stated, provider)
            usage, inconsistent = read[0], inconsistent or read[1] or billed_elsewhere(self._stated)
        tier = named_tier(self._stated)
        return Reading(
            usage=None if self._cached else usage,
            model=self._model,
            provider=provider,
            service_tier=tier if tier == "fast" else self._tier or tier,
            response_id=self._id,
            finish_reasons=self._reasons,
            inconsistent=inconsistent and not self._cached,
            cached=self._cached,
        )

    def _provider(self) -> str | None:
        return self._given or self._proven or providers.infer_provider(self._model)

    def _note(self, event: Fields, *, chunk: bool) -> None:
        for layer in envelopes.layers(event):
            self._describe(layer)
        self._embedding = self._embedding or envelopes.is_embedding(event)
        usage = self._usage_of(event)
        if usage is None:
            return
        if chunk:
            self._add(usage)
        else:
            self._stated = _merged(self._stated, usage)

    def _describe(self, layer: Fields) -> None:
        self._model = self._model or envelopes.model_of(layer)
        self._id = self._id or envelopes.id_of(layer)
        self._tier = envelopes.tier_of(layer) or self._tier
        self._reasons = envelopes.reasons_of(layer) or self._reasons
        named = None if self._proven else envelopes.provider_of(layer)
        self._proven = self._proven or (providers.canonical(named) if named else None)
        self._described = self._model is not None and self._id is not None

    def _usage_of(self, event: Fields) -> Fields | None:
        """The usage object of an event, wherever it keeps it."""
        for layer in envelopes.layers(event):
            for usage in envelopes.usages_of(layer):
                if usage.get("total_cost") == 0:
                    self._cached = True  # LangChain's own mark for an answer out of its cache
                read, inconsistent = read_counts(usage)
                if read is not None or inconsistent or (self._embedding and usage.get("total_tokens") is not None):
                    return usage
        return None

    def _add(self, usage: Fields) -> None:
        """Add a LangChain chunk, unless it repeats the input: then it holds the counts so far, and replaces them."""
        new, inconsistent = read_counts(usage)
        self._inconsistent = self._inconsistent or inconsistent
        self._tier = self._tier or named_tier(usage)
        old = self._added
        if new is None:
            return
        if old is None or (new.input_tokens and new.input_tokens == old.input_tokens):
            self._added = new
            return
        summed = (mine if other is None else (mine or 0) + other for mine, other in zip(old, new, strict=True))
        self._added = Usage(*summed)


def _tells(event: Fields) -> bool:
    """Whether an event may say more than another piece of the answer; asked once per token, so it looks, and reads not."""
    get = event.get
    for key in _TELLING_KEYS:
        if get(key):
            return True
    if get("type") in _TELLING_TYPES or get("event_type") in _TELLING_TYPES:
        return True
    response = get("response")
    if response and not isinstance(response, str):
        return True
    about = get("response_metadata")
    if about and len(about) > 1:
        return True
    choices = get("choices")
    return isinstance(choices, (list, tuple)) and any(inner({"choice": one}, "choice").get("finish_reason") for one in choices)  # fmt: skip


def _merged(old: Fields, new: Fields) -> Fields:
    """`new` over `old`: providers repeat and correct their counts, and may leave one out of the last event."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: value for key, value in new.items() if value is not None}}
