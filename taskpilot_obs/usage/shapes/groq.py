"""Groq's streams keep the usage under a key of their own; its compound systems run other models and tools."""

from __future__ import annotations

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape(
    "groq",
    wrappers="x_groq",
    event_keys="x_groq",
    proofs={"x_groq": "groq"},
    model_gaps={"compound": PriceGap.SERVER_TOOLS},
)
