"""Bedrock: the Converse API, the counts in the headers of `invoke_model`, and Titan's own bodies.

`inputTokens` is the uncached part; cache reads and writes are added.
"""

from __future__ import annotations

from typing import Final

from taskpilot_obs.usage.fields import NOTHING, Fields, first, inner, items, text
from taskpilot_obs.usage.shapes.base import Counts, Shape, plus

_HEADER_COUNTS: Final = {
    "inputTokens": "x-amzn-bedrock-input-token-count",
    "outputTokens": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokens": "x-amzn-bedrock-cache-write-input-token-count",
}


def read(usage: Fields, _provider: str | None) -> Counts:
    """Read the counts of Converse, and of the metrics at the end of an invocation's stream."""
    cached = first(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = first(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    by_ttl = {text(part.get("ttl")): part.get("inputTokens") for part in items(usage.get("cacheDetails"))}
    return {
        "input_tokens": plus(first(usage, "inputTokens", "inputTokenCount"), cached, written),
        "output_tokens": first(usage, "outputTokens", "outputTokenCount"),
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        "cache_write_5m_tokens": by_ttl.get("5m"),
        "cache_write_1h_tokens": by_ttl.get("1h"),
    }


def _read_titan(usage: Fields, _provider: str | None) -> Counts:
    generated = [part.get("tokenCount") for part in items(usage.get("results"))]
    whole = plus(0, *generated) if generated else usage.get("totalOutputTextTokenCount")
    return {"input_tokens": usage.get("inputTextTokenCount"), "output_tokens": whole}


def _in_the_headers(layer: Fields) -> Fields | None:
    """Read the headers, the only place where `invoke_model` states the counts of every model."""
    headers = inner(inner(layer, "ResponseMetadata"), "HTTPHeaders")
    if headers is NOTHING:
        return None
    stated = {key: headers.get(header) for key, header in _HEADER_COUNTS.items()}
    counts = {key: int(value) for key, value in stated.items() if isinstance(value, str) and value.isdecimal()}
    return counts or None


SHAPE = Shape(
    "bedrock",
    read,
    marks="inputTokens outputTokens inputTokenCount outputTokenCount",
    usage_keys="metrics amazon-bedrock-invocationMetrics",
    wrappers="metadata messageStop modelOutput",
    event_keys="metadata amazon-bedrock-invocationMetrics stopReason messageStop",
    proofs={
        "inputTextTokenCount": "aws.bedrock",
        "amazon-bedrock-invocationMetrics": "aws.bedrock",
        "contentBlockDelta": "aws.bedrock",
        "stopReason": "aws.bedrock",
    },
    elsewhere=_in_the_headers,
)
TITAN = Shape("titan", _read_titan, marks="inputTextTokenCount totalOutputTextTokenCount")
