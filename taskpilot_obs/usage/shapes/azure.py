"""Azure responds like OpenAI; the results of its prompt filters identify it."""

from __future__ import annotations

from taskpilot_obs.usage.shapes.base import Shape

SHAPE = Shape("azure", proofs={"prompt_filter_results": "azure.ai.openai"})
