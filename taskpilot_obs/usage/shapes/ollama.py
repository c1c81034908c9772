"""Ollama: counts beside the answer, in the last event of a stream."""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Counts, Shape


def read(usage: Fields, _provider: str | None) -> Counts:
    """Read the counts of a chat, a generation or embeddings."""
    return {"input_tokens": usage.get("prompt_eval_count"), "output_tokens": usage.get("eval_count")}


SHAPE = Shape(
    "ollama",
    read,
    marks="prompt_eval_count eval_count",
    event_keys="done",
    proofs={"eval_count": "ollama", "prompt_eval_count": "ollama"},
)
