"""Token usage as providers state it, normalised: inclusive totals with subset details."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """Tokens of one LLM call. Totals are inclusive; details are subsets of them and never added on top.

    `None` means that the provider said nothing, 0 that it said zero. The model is that of OpenTelemetry's
    `gen_ai.usage.*`, of genai-prices and of LangChain's `usage_metadata`.
    """

    input_tokens: int | None = None
    """Every prompt token: uncached, cache reads, cache writes, tool use."""
    output_tokens: int | None = None
    """Every generated token, reasoning included."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    input_audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None
