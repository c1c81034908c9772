"""Mistral states usage as OpenAI does; seconds of audio and what connectors read are billed on their own.

Its `num_cached_tokens` was never billed for less.
"""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Shape
from taskpilot_obs.usage.values import count


def _bills_apart(usage: Fields) -> bool:
    return bool(count(usage.get("prompt_audio_seconds")) or count(usage.get("connector_tokens")))


SHAPE = Shape("mistral", gap=_bills_apart)
