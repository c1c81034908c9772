"""Gemini and Vertex: the prompt includes cached tokens; tool use and thoughts are counted outside and added.

Counts are cumulative over a stream's chunks. Llama on Bedrock uses some of these keys.
"""

from __future__ import annotations

from typing import Final

from taskpilot_obs.usage.fields import Fields, first, inner, items
from taskpilot_obs.usage.shapes.base import Counts, Shape, modality, plus, rest
from taskpilot_obs.usage.values import parse_token_count

_AUDIO: Final = frozenset({"AUDIO", "audio", "4"})
_IMAGE: Final = frozenset({"IMAGE", "image", "2"})
_ANSWERS: Final = (
    "candidatesTokenCount",
    "candidates_token_count",
    "responseTokenCount",  # the live API
    "response_token_count",
    "generation_token_count",  # Llama on Bedrock
    "total_output_tokens",  # the interactions API
)
_INPUTS: Final = (
    "promptTokensDetails",
    "prompt_tokens_details",
    "toolUsePromptTokensDetails",
    "tool_use_prompt_tokens_details",
    "input_tokens_by_modality",
    "tool_use_tokens_by_modality",
)
_OUTPUTS: Final = (
    "candidatesTokensDetails",
    "candidates_tokens_details",
    "responseTokensDetails",
    "response_tokens_details",
    "output_tokens_by_modality",
)
_CACHED: Final = ("cacheTokensDetails", "cache_tokens_details", "cached_tokens_by_modality")


def read(usage: Fields, _provider: str | None) -> Counts:
    """Read the counts of `generateContent`, of the live API and of interactions."""
    prompt = first(usage, "promptTokenCount", "prompt_token_count", "total_input_tokens")
    tools = first(usage, "toolUsePromptTokenCount", "tool_use_prompt_token_count", "total_tool_use_tokens")
    thoughts = first(usage, "thoughtsTokenCount", "thoughts_token_count", "total_thought_tokens")
    total = first(usage, "totalTokenCount", "total_token_count", "total_tokens")
    answer = first(usage, *_ANSWERS)
    left = rest(total, prompt, tools or 0)
    return {
        "input_tokens": plus(prompt, tools),
        "output_tokens": plus(answer, thoughts) if answer is not None else thoughts if left is None else left,
        "cache_read_tokens": first(
            usage, "cachedContentTokenCount", "cached_content_token_count", "total_cached_tokens"
        ),
        "input_audio_tokens": modality(usage, _INPUTS, _AUDIO),
        "input_image_tokens": modality(usage, _INPUTS, _IMAGE),
        "reasoning_tokens": thoughts,
        "output_audio_tokens": modality(usage, _OUTPUTS, _AUDIO),
        "output_image_tokens": modality(usage, _OUTPUTS, _IMAGE),
        "cache_read_audio_tokens": modality(usage, _CACHED, _AUDIO),
    }


def _in_the_statistics(layer: Fields) -> Fields | None:
    """Read the counts of Vertex embeddings, which are stated for each embedding."""
    predictions = layer.get("predictions")
    if predictions is not None:
        return _sum_of([inner(one, "embeddings") for one in items(predictions)])
    embeddings = layer.get("embeddings")
    return None if embeddings is None else _sum_of(items(embeddings))


def _sum_of(embeddings: list[Fields]) -> Fields | None:
    stated = [inner(one, "statistics").get("token_count") for one in embeddings]
    given = [value for value in stated if value is not None]
    known = [known for value in given if (known := parse_token_count(value)) is not None]
    if not given:
        return None
    return {"prompt_tokens": sum(known) if len(known) == len(given) else "not a count", "completion_tokens": 0}


SHAPE = Shape(
    "gemini",
    read,
    marks=(
        "promptTokenCount prompt_token_count candidatesTokenCount candidates_token_count generation_token_count"
        " total_input_tokens totalTokenCount total_token_count"
    ),
    usage_keys="usageMetadata",
    wrappers="interaction",
    event_keys="usageMetadata generation_token_count interaction",
    proofs={"usageMetadata": "gcp.gemini", "modelVersion": "gcp.gemini"},
    counts_apart=("gemini", "gcp.gemini"),
    elsewhere=_in_the_statistics,
)
