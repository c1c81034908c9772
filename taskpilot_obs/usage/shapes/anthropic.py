"""Anthropic's messages: `input_tokens` is the uncached part; cache reads and writes are added.

`message_start` states a placeholder for the output, `message_delta` cumulative counts. A compaction is billed but is in
no total; other iterations may run on another model.
"""

from __future__ import annotations

from typing import Final

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.fields import NOTHING, Fields, inner, items, text
from taskpilot_obs.usage.shapes import inclusive
from taskpilot_obs.usage.shapes.base import Counts, Shape, plus, ttl_split
from taskpilot_obs.usage.values import parse_token_count

_BILLED_BY_USE: Final = ("web_search_requests", "code_execution_requests", "tool_search_requests")
_ANYWHERE: Final = frozenset({"", "global", "not_available", "none"})


def read(usage: Fields, provider: str | None) -> Counts:
    """Read the counts of a message, including those of compactions."""
    if inner(usage, "input_tokens_details", "input_token_details") is not NOTHING:
        return inclusive.read(usage, provider)
    counts = _call(usage)
    for step in items(usage.get("iterations")):
        if step.get("type") == "compaction":
            more = _call(step)
            counts = {
                name: plus(0 if value is None and more[name] is not None else value, more[name])
                for name, value in counts.items()
            }
    return counts


def _call(usage: Fields) -> Counts:
    cached, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    split = ttl_split(usage.get("cache_creation"))
    if not written and any(split.values()):
        written = plus(0, *split.values())
    return {
        "input_tokens": plus(usage.get("input_tokens"), cached, written),
        "output_tokens": usage.get("output_tokens"),
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        **split,
        "reasoning_tokens": inner(usage, "output_tokens_details").get("thinking_tokens"),
    }


def _gap(usage: Fields, _counter: str | None) -> str | None:
    steps = items(usage.get("iterations"))
    models = {text(step.get("model")) for step in steps} - {None}
    if len(models) > 1 or any(text(step.get("type")) not in (None, "message", "compaction") for step in steps):
        return PriceGap.OTHER_MODEL
    tools = inner(usage, "server_tool_use")
    if any(parse_token_count(tools.get(name)) for name in _BILLED_BY_USE):
        return PriceGap.SERVER_TOOLS
    # Inference restricted to one country costs more.
    geo = text(usage.get("inference_geo"))
    return None if geo is None or geo in _ANYWHERE else PriceGap.SURCHARGE


SHAPE = Shape(
    "anthropic",
    read,
    marks="cache_read_input_tokens cache_creation_input_tokens cache_creation server_tool_use iterations",
    event_keys="stop_reason",
    event_types="message_start message_delta message content_block_start",
    gap=_gap,
)
