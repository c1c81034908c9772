"""The formats ("shapes") in which providers state counts, one file each, and the tables built from their list.

| shape | input states | output states |
| --- | --- | --- |
| OpenAI chat and its imitators | all | all, except for xAI, Perplexity, Gemini: reasoning outside |
| OpenAI responses, LangChain, pydantic-ai, OpenTelemetry | all | all |
| Anthropic | uncached only; cache reads and writes outside | all |
| Bedrock | uncached only; cache reads and writes outside | all |
| Gemini | prompt with cache; tool use outside | candidates; thoughts outside |
| Cohere | billed units, not the tokens consumed | billed units |

To add a shape, write its file and put it in the list.
"""

from __future__ import annotations

from typing import Final

from taskpilot_obs.records import NO_USAGE, Usage
from taskpilot_obs.usage.fields import Fields, first, inner, text
from taskpilot_obs.usage.shapes import (
    anthropic,
    azure,
    bedrock,
    claude_agent,
    cohere,
    crewai,
    deepinfra,
    deepseek,
    gemini,
    groq,
    huggingface,
    inclusive,
    litellm,
    mistral,
    moonshot,
    ollama,
    openai_chat,
    openrouter,
    perplexity,
    vercel,
    xai,
)
from taskpilot_obs.usage.shapes.base import TIERS, Shape, StatedCost, is_stated
from taskpilot_obs.usage.values import from_counts, parse_token_count

SHAPES: Final[tuple[Shape, ...]] = (
    cohere.SHAPE,
    openai_chat.SHAPE,
    anthropic.SHAPE,
    inclusive.SHAPE,
    groq.SHAPE,
    bedrock.SHAPE,
    gemini.SHAPE,
    ollama.SHAPE,
    bedrock.TITAN,
    cohere.CONSUMED,
    huggingface.SHAPE,
    azure.SHAPE,
    deepseek.SHAPE,
    moonshot.SHAPE,
    litellm.SHAPE,
    crewai.SHAPE,
    xai.SHAPE,
    perplexity.SHAPE,
    mistral.SHAPE,
    openrouter.SHAPE,
    deepinfra.SHAPE,
    vercel.SHAPE,
    claude_agent.SHAPE,
)
"""All shapes. If a usage object has the marks of several, the first of them reads it."""


def _keys(*texts: str) -> tuple[str, ...]:
    """Return the distinct keys in these texts, in order."""
    return tuple(dict.fromkeys(" ".join(texts).split()))


USAGE_KEYS: Final = _keys("usage usage_metadata usageMetadata token_usage", *(shape.usage_keys for shape in SHAPES))
"""Keys under which a body keeps its usage object, the most specific first."""
WRAPPERS: Final = _keys(
    "response message delta body metadata x_groq messageStop", *(shape.wrappers for shape in SHAPES)
)
"""Keys under which a body or an event keeps another: `response.completed`, a line of a batch, LangChain."""
EVENT_KEYS: Final = _keys(*(shape.event_keys for shape in SHAPES))
EVENT_TYPES: Final = frozenset(_keys(*(shape.event_types for shape in SHAPES)))
PROOFS: Final = {key: provider for shape in SHAPES for key, provider in shape.proofs.items()}
MARKS: Final = {mark: rank for rank, shape in reversed([*enumerate(SHAPES)]) for mark in shape.marks.split()}
"""Each mark, with the rank of the first shape that has it."""
_ELSEWHERE: Final = tuple(shape.elsewhere for shape in SHAPES if shape.elsewhere is not None)
_GAPS: Final = tuple(shape.gap for shape in SHAPES if shape.gap is not None)
_MODEL_GAPS: Final = {word: gap for shape in SHAPES for word, gap in shape.model_gaps.items()}
_COSTS: Final = tuple(shape.cost for shape in SHAPES if shape.cost is not None)
_BODY_COSTS: Final = tuple(shape.body_cost for shape in SHAPES if shape.body_cost is not None)
_COUNT_APART: Final = tuple(shape.counts_apart for shape in SHAPES if shape.counts_apart is not None)
_UNKNOWN: Final = len(SHAPES)
_TOTALS: Final = ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens")
PROVISIONED: Final = "provisioned_throughput"


def _beside() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for shape in SHAPES:
        for name, spellings in shape.beside.items():
            found[name] = (*found.get(name, ()), *spellings)
    return found


_BESIDE: Final = _beside()


def read_counts(usage: Fields, provider: str | None = None) -> tuple[Usage | None, bool]:
    """Read a usage object; return the usage (None if no shape fits or nothing is stated), and if it is inconsistent."""
    shape = shape_of(usage)
    if shape is None or shape.read is None:
        return None, False
    counts = shape.read(usage, provider)
    if shape is openai_chat.SHAPE:
        for name, spellings in _BESIDE.items():
            if counts[name] is None:
                counts[name] = first(usage, *spellings)
    found, inconsistent = from_counts(**counts)
    return (None if found == NO_USAGE else found), inconsistent


def read_embedding_counts(usage: Fields) -> tuple[Usage | None, bool]:
    """Read the usage object of embeddings: all tokens are input."""
    found, inconsistent = read_counts(usage)
    if found is None:
        stated = usage.get("total_tokens")
        total = parse_token_count(stated)
        return (None if total is None else Usage(total, 0)), inconsistent or (stated is not None and total is None)
    return (found if found.output_tokens is not None else found._replace(output_tokens=0)), inconsistent


def counter_of(model: str | None) -> str | None:
    """The vendor whose way of counting a model's name implies, regardless of the stated provider, if not OpenAI's."""
    return next((vendor for word, vendor in _COUNT_APART if word in model), None) if model else None


def counter_at(provider: str | None, model: str | None) -> str | None:
    """The vendor by whose way of counting a gap is judged: Azure counts differently for Grok."""
    return "azure-grok" if provider is not None and provider.startswith("azure.") and "grok" in (model or "") else None


def contradicts(usage: Fields, found: Usage) -> bool:
    """Whether the stated total of a usage object differs from the sum of its parts."""
    stated, whole = parse_token_count(first(usage, *_TOTALS)), found.total_tokens
    if stated is None or whole is None or stated == whole:
        return False
    beside = (found.reasoning_tokens or 0, (found.cache_read_tokens or 0) + (found.cache_write_tokens or 0))
    # Perplexity's total omits separately counted reasoning, and that of older Bedrock omits cached tokens.
    return all(stated + part != whole for part in beside)


def shape_of(usage: Fields) -> Shape | None:
    """Return the shape of a usage object; None if it has no shape's marks."""
    marks = usage if isinstance(usage, dict) else MARKS
    best = _UNKNOWN
    for mark in marks:
        rank = MARKS.get(mark, _UNKNOWN)
        if rank < best and is_stated(usage.get(mark)):
            best = rank
    return None if best == _UNKNOWN else SHAPES[best]


def usage_elsewhere(layer: Fields) -> Fields | None:
    """Return counts outside of a usage object: Bedrock's headers, Vertex' embeddings, Moonshot's choice."""
    return next((found for find in _ELSEWHERE if (found := find(layer)) is not None), None)


def named_tier(usage: Fields) -> str | None:
    """Return the service tier that a usage object names, or that LangChain put into the names of details."""
    if text(usage.get("speed")) == "fast":
        return "fast"
    stated = text(first(usage, "service_tier", "serviceTier", "service_tier_used"))
    if stated is not None:
        return stated.lower()
    traffic = text(first(usage, "trafficType", "traffic_type"))
    if traffic is not None and traffic.lower() == PROVISIONED:
        return PROVISIONED
    details = inner(usage, "input_token_details")
    for tier in TIERS:
        if (traffic is not None and traffic.lower().endswith(tier)) or details.get(tier) is not None:
            return tier
    return None


def gap_of(usage: Fields, model: str | None, counter: str | None) -> str | None:
    """Return why the cost is more than the price of the tokens: one of `semconv.PRICE_GAPS`, or None."""
    found = next((found for gap in _GAPS if (found := gap(usage, counter)) is not None), None)
    if found is None and model is not None:
        name = model.lower()
        found = next((gap for word, gap in _MODEL_GAPS.items() if word in name), None)
    return found


def stated_cost(usage: Fields) -> StatedCost | None:
    """Return the cost that the provider states, or None."""
    return next((found for cost in _COSTS if (found := cost(usage)) is not None), None)


def cost_in(body: Fields, usage: Fields | None) -> StatedCost | None:
    """Return the cost that a body or an event states, in its usage object or outside of it, or None."""
    inside = None if usage is None else stated_cost(usage)
    return inside or next((found for cost in _BODY_COSTS if (found := cost(body)) is not None), None)
