"""Combines a response from its events; a whole response is a stream of one event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from taskpilot_obs.providers import names as providers
from taskpilot_obs.records import Usage
from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage import envelopes
from taskpilot_obs.usage.agent_results import AgentResult, counted_calls
from taskpilot_obs.usage.content import has_answer, has_content
from taskpilot_obs.usage.fields import NOTHING, Fields, answers_anything, fields, first, inner, items, text, wrapped
from taskpilot_obs.usage.langchain import behind
from taskpilot_obs.usage.shapes import (
    EVENT_KEYS,
    EVENT_TYPES,
    USAGE_KEYS,
    WRAPPERS,
    contradicts,
    cost_in,
    counter_at,
    counter_of,
    gap_of,
    named_tier,
    read_counts,
    read_embedding_counts,
    shape_of,
    usage_elsewhere,
)
from taskpilot_obs.usage.shapes.base import StatedCost, merged
from taskpilot_obs.usage.values import Reading, StatedError, from_counts, sum_of, without_placeholders

_STATED_OUTPUTS: Final = ("output_tokens", "completion_tokens", "outputTokens", "candidatesTokenCount", "eval_count")
_BLOCKED: Final = "guardrail_intervened"
_DEPTH: Final = 3
_NAMED_WITHIN: Final = 3
"""Events in which a stream names its model; Azure's first event does not."""


class Stream:
    """What the events so far have stated. Errors of hostile objects pass, because the callers are guarded."""

    __slots__ = (
        "_added",
        "_batch",
        "_billed_by",
        "_cached",
        "_content",
        "_cost",
        "_embedding",
        "_error",
        "_failed",
        "_gap",
        "_given",
        "_id",
        "_inconsistent",
        "_last",
        "_model",
        "_placeholder",
        "_proven",
        "_reasons",
        "_seen",
        "_stated",
        "_sums",
        "_tier",
    )

    def __init__(self, provider: str | None) -> None:
        self._given = providers.canonical(provider) if isinstance(provider, str) and provider.strip() else None
        self._proven: str | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._tier: str | None = None
        self._reasons: tuple[str, ...] = ()
        self._stated: Fields = NOTHING
        self._added: Usage | None = None
        self._inconsistent = False
        self._embedding = False
        self._failed = False
        """Whether the current layer may hold an error."""
        self._error: StatedError | None = None
        self._batch = False
        self._cached = False
        self._placeholder = False
        """Whether the output stated so far is the placeholder of Anthropic's `message_start`."""
        self._seen = 0
        self._billed_by: str | None = None
        self._cost: StatedCost | None = None
        self._gap: str | None = None
        self._content = False
        """Whether an event carried generated content."""
        self._last: Fields = NOTHING
        self._sums = 0

    def feed_all(self, response: object) -> None:
        """Read a whole response, or the list of a stream's events."""
        for event in envelopes.events_of(response):
            self._take(event)

    def feed_result(self, result: AgentResult) -> None:
        """Read an agent's result: the sum of its calls, and the last of them."""
        self._take(result.last)
        self._sums = result.calls
        for usage in result.usages:
            self._plus(fields(usage) or NOTHING)

    def feed(self, event: object) -> bool:
        """Read one event; return whether it carries generated content."""
        found = self._take(event)
        if found is not None:
            carries = has_content(found)
        else:
            carries = isinstance(event, str) and bool(event) and not event.isspace() and not envelopes.is_framing(event)
        self._content = self._content or carries
        return carries

    def reading(self) -> Reading:
        """Return the combined reading."""
        provider = self._given or self._billed_by or self._proven or providers.infer_provider(self._model)
        usage, inconsistent, tier, gap = self._added, self._inconsistent, None, self._gap
        if self._stated is not NOTHING:
            tier = named_tier(self._stated)
            counter = counter_of(self._model) or provider
            if usage is None:
                read = read_embedding_counts(self._stated) if self._embedding else read_counts(self._stated, counter)
                usage, inconsistent = read[0], inconsistent or read[1]
                if usage is not None and not self._embedding and contradicts(self._stated, usage):
                    gap = gap or PriceGap.CONTRADICTION
            gap = gap_of(self._stated, self._model, counter_at(provider, self._model)) or gap
        if usage is not None and self._placeholder:
            usage = usage._replace(output_tokens=None, reasoning_tokens=None)
        if usage is not None:
            usage = self._without_placeholders(usage)
        return Reading(
            None if self._cached else usage,
            self._model,
            provider,
            "batch" if self._batch else tier if tier == "fast" else self._tier or tier,
            self._id,
            self._reasons,
            inconsistent and not self._cached,
            self._cached,
            self._error,
            None if self._cost is None or self._cached else self._cost.usd,
            (gap if self._cost is None else self._cost.gap) if usage is not None or self._cost is not None else None,
            self._billed_by,
            self._sums or counted_calls(self._stated),
        )

    def _without_placeholders(self, usage: Usage) -> Usage | None:
        """The usage, without zeros that cannot be true.

        A guardrail of Bedrock answers without the model, for nothing. Where Gemini states a total and no output, the
        rest of the total is the output, and may be 0.
        """
        if (usage.input_tokens and usage.output_tokens) or _BLOCKED in self._reasons:
            return usage
        if self._embedding:
            return usage if usage.input_tokens else None
        if usage.input_tokens and first(self._stated, *_STATED_OUTPUTS) != 0:
            return usage
        return without_placeholders(usage) if self._has_answer() else usage

    def _has_answer(self) -> bool:
        return self._content or has_answer(self._last)

    def _take(self, event: object) -> Fields | None:
        """Read an event; return its fields, or None if it has none."""
        if isinstance(event, Usage):
            self._added, self._inconsistent = from_counts(**event._asdict())
            return NOTHING
        if type(event) is tuple:
            event = event[0] if event else None  # LangGraph's (message, metadata)
        found = envelopes.opened(event)
        if found is None:
            return None
        self._last = found
        message = found.get("message")
        if message is not None and envelopes.is_chunk(message):
            event, found = message, fields(message) or NOTHING
        if self._seen < _NAMED_WITHIN and self._model is None:
            self._seen += 1
            self._note(event, found)
        elif _tells(found):
            self._note(event, found)
        return found

    def _note(self, event: object, found: Fields) -> None:
        if envelopes.is_batch_status(found):
            return
        self._batch = self._batch or envelopes.is_batch_line(found)
        if type(event).__name__ == "AgentResponseUpdate":  # agent-framework's
            self._sums = max(self._sums, 1)
        usage = self._enter(found, _DEPTH)
        self._cost = cost_in(found, usage) or self._cost
        if usage is None:
            return
        self._placeholder = found.get("type") == "message_start"
        if envelopes.is_chunk(event):
            self._add(usage)
        else:
            self._stated = merged(self._stated, usage)

    def _enter(self, layer: Fields, depth: int) -> Fields | None:
        """Read a layer of an event, then the layers in it; return the outermost usage object."""
        for key, value in envelopes.entries(layer):
            note = _NOTES.get(key) if value is not None else None
            if note is not None:
                note(self, value)
        if self._failed:
            self._failed = False
            self._error = envelopes.error_of(layer) or self._error
        if self._given is None and self._proven is None:
            self._proven = envelopes.proven_by(layer)
        usage = self._usage_in(layer)
        for key in WRAPPERS if depth and not answers_anything(layer) else ():
            value = layer.get(key)
            content = wrapped(value) if value and type(value) is not str else None
            if content is not None:
                inside = self._enter(content, depth - 1)
                usage = usage if usage is not None else inside
        return usage

    def _usage_in(self, layer: Fields) -> Fields | None:
        """The usage object that a layer contains, or the layer itself if it is one."""
        for key in USAGE_KEYS:
            value = layer.get(key)
            usage = fields(value) if value is not None else None
            if usage is not None and self._is_usage(usage):
                own = behind(usage, layer, self._given) if key == "usage_metadata" else None
                return usage if own is None else own
        if shape_of(layer) is not None:
            return layer
        return usage_elsewhere(layer)

    def _is_usage(self, usage: Fields) -> bool:
        if usage.get("total_cost") == 0:
            self._cached = True  # LangChain's mark of an answer from its cache
        return shape_of(usage) is not None or (self._embedding and usage.get("total_tokens") is not None)

    def _add(self, usage: Fields) -> None:
        """Add a LangChain chunk, unless it repeats the input: its counts are then cumulative."""
        new, inconsistent = read_counts(usage)
        self._inconsistent = self._inconsistent or inconsistent
        self._tier = self._tier or named_tier(usage)
        old = self._added
        if new is not None and old is not None and new.input_tokens and new.input_tokens == old.input_tokens:
            self._added = new
        elif new is not None:
            self._added = sum_of(old, new)

    def _plus(self, usage: Fields) -> None:
        """Add the usage of one call of several."""
        new, inconsistent = read_counts(usage, self._given)
        self._inconsistent = self._inconsistent or inconsistent
        if new is not None:
            self._added = sum_of(self._added, new)

    # --- one method for each key that a layer can have ----------------------------------------------------------------

    def note_model(self, value: object) -> None:
        """Keep the first model named."""
        if self._model is None:
            self._model = text(value)

    def note_id(self, value: object) -> None:
        """Keep the first ID of the provider."""
        if self._id is None:
            self._id = envelopes.id_of(value)
            self._billed_by = self._billed_by or envelopes.billed_by(self._id)

    def note_tier(self, value: object) -> None:
        """Keep the last tier named."""
        self._tier = envelopes.tier_of(value) or self._tier

    def note_reason(self, value: object) -> None:
        """Keep the finish reason."""
        reason = text(value)
        if reason is not None:
            self._reasons = (reason,)

    def note_choices(self, value: object) -> None:
        """Read the finish reason of each choice."""
        self._reasons = envelopes.reasons_of(value) or self._reasons
        if envelopes.searched(value) or envelopes.used_tools(value):
            self._gap = PriceGap.SERVER_TOOLS
        if "error" in self._reasons:  # OpenRouter: a vendor failed in the middle of its answer
            self._error = envelopes.error_of(wrapped(value) or NOTHING) or self._error

    def note_output(self, value: object) -> None:
        """Read the items of a response of OpenAI or xAI: some are uses of separately billed tools."""
        if envelopes.used_tools(value):
            self._gap = PriceGap.SERVER_TOOLS

    def note_block(self, value: object) -> None:
        """Read a content block of Anthropic: one type marks the switch to a fallback model."""
        block = fields(value) or NOTHING
        if block.get("type") == "fallback":
            self._gap = PriceGap.OTHER_MODEL
            self._model = text(inner(block, "to").get("model")) or self._model

    def note_incomplete(self, value: object) -> None:
        """Read why a response of OpenAI is incomplete."""
        self.note_reason((fields(value) or NOTHING).get("reason"))

    def note_error(self, value: object) -> None:
        """Read an error in a body with status 200."""
        if value:
            self._reasons = ("error",)
            self._failed = True

    def note_type(self, value: object) -> None:
        """Read an event's type, by which OpenAI marks errors."""
        if value == "error":
            self._reasons = ("error",)
            self._failed = True

    def note_feedback(self, value: object) -> None:
        """Read why Gemini generated nothing."""
        reason = first(fields(value) or NOTHING, "blockReason", "block_reason")
        if reason is not None:
            self.note_reason(reason)

    def note_batch(self, value: object) -> None:
        """Read a line of batch results of OpenAI or Anthropic, which is billed at the batch price."""
        if value:
            self._batch = True

    def note_provider(self, value: object) -> None:
        """Read the provider."""
        name = text(value)
        if name is not None:
            self._proven = providers.canonical(name)

    def note_contents(self, value: object) -> None:
        """Read an update of agent-framework: usage to add or to put in place of what was stated, results of tools."""
        parts = items(value)
        for part in parts:
            usage = fields(part.get("usage_details"))
            if usage is not None:
                self._added = None if part.get("merge_mode") == "replace" else self._added
                self._plus(usage)
        if any(part.get("type") == "function_result" for part in parts):
            self._sums = max(self._sums, 1) + 1

    def note_embeddings(self, _value: object) -> None:
        """Mark the response as embeddings: nothing is generated."""
        self._embedding = True

    def note_data(self, value: object) -> None:
        """Read a list, which may contain embeddings."""
        self._embedding = self._embedding or envelopes.are_embeddings(value)


_NOTES: Final[dict[str, Callable[[Stream, object], None]]] = {
    **dict.fromkeys(envelopes.MODEL_KEYS, Stream.note_model),
    **dict.fromkeys(envelopes.ID_KEYS, Stream.note_id),
    **dict.fromkeys(envelopes.TIER_KEYS, Stream.note_tier),
    **dict.fromkeys(envelopes.REASON_KEYS, Stream.note_reason),
    **dict.fromkeys(envelopes.CHOICE_KEYS, Stream.note_choices),
    **dict.fromkeys(envelopes.PROVIDER_KEYS, Stream.note_provider),
    **dict.fromkeys(envelopes.EMBEDDING_KEYS, Stream.note_embeddings),
    "contents": Stream.note_contents,
    "data": Stream.note_data,
    **dict.fromkeys(envelopes.FEEDBACK_KEYS, Stream.note_feedback),
    **dict.fromkeys(envelopes.BATCH_KEYS, Stream.note_batch),
    "content_block": Stream.note_block,
    "output": Stream.note_output,
    "steps": Stream.note_output,
    "type": Stream.note_type,
    "incomplete_details": Stream.note_incomplete,
    "error": Stream.note_error,
}


def _tells(event: Fields) -> bool:
    """Whether an event may state more than generated text; called for each token, so it only tests for keys."""
    get = event.get
    for key in EVENT_KEYS:
        if get(key):
            return True
    if get("type") in EVENT_TYPES or get("event_type") in EVENT_TYPES:
        return True
    response = get("response")
    if response and type(response) is not str:
        return True
    about = get("response_metadata")
    if about and len(about) > 1:
        return True
    return envelopes.ends_choice(get("choices"))
