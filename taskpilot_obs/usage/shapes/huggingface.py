"""Hugging Face's text generation inference: the prompt is stated as a length, or as the list of its tokens."""

from __future__ import annotations

from taskpilot_obs.usage.fields import Fields
from taskpilot_obs.usage.shapes.base import Counts, Shape


def read(usage: Fields, _provider: str | None) -> Counts:
    """Read the counts of a text generation."""
    prefill = usage.get("prefill")
    given = usage.get("input_length")
    return {
        "input_tokens": given if given is not None or not isinstance(prefill, list) else len(prefill) or None,
        "output_tokens": usage.get("generated_tokens"),
    }


SHAPE = Shape("huggingface", read, marks="generated_tokens")
