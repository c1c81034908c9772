"""Azure answers as OpenAI does; what its filters made of the prompt tells it apart."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape("azure", proofs={"prompt_filter_results": "azure.ai.openai"})
