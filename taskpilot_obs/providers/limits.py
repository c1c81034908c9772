"""How the clients of providers name the limit of an answer's length."""

from __future__ import annotations

from typing import Final

MAX_OUTPUT: Final = (
    *("max_output_tokens", "max_completion_tokens", "max_tokens"),
    *("maxOutputTokens", "max_tokens_to_sample"),
)
