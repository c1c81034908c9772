"""Mistral imitates OpenAI; seconds of audio and text read by connectors are billed separately.

Tokens in its `num_cached_tokens` are billed at the full price.
"""

from __future__ import annotations

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Shape
from taskpilot_obs.usage.values import parse_token_count


def _gap(usage: Fields, _counter: str | None) -> str | None:
    if parse_token_count(usage.get("prompt_audio_seconds")):
        return PriceGap.MEDIA
    return PriceGap.SERVER_TOOLS if parse_token_count(usage.get("connector_tokens")) else None


SHAPE = Shape("mistral", gap=_gap, model_gaps={"voxtral": PriceGap.MEDIA})
