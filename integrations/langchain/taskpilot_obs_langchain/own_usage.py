"""The provider's own usage, which LangChain's packages for OpenAI's protocol keep beside what they make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from taskpilot_obs.usage import Usage

_COUNTS: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_INPUTS: Final = frozenset({"cached_tokens", "cache_write_tokens", "audio_tokens", "text_tokens"})
_OUTPUTS: Final = frozenset(
    {"reasoning_tokens", "audio_tokens", "text_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"}
)


def adds_nothing(usage: Mapping[str, Any], about: Mapping[str, Any], tokens: Usage) -> bool:
    """Whether `tokens` are all that an answer says of its usage.

    They are not where the total is another than theirs, or the provider's own usage has a count that they have not.
    """
    if usage.get("total_tokens") not in (None, tokens.total_tokens):
        return False
    if tokens.reasoning_tokens and "sonar" in str(about.get("model_name") or about.get("model")):
        return False  # Perplexity's stands outside of the total, too
    own = about.get("token_usage")
    own = about.get("usage") if own is None else own
    if own is None:
        return True
    if type(own) is not dict or not own.keys() <= _COUNTS:
        return False
    ins, outs = own.get("prompt_tokens_details") or {}, own.get("completion_tokens_details") or {}
    if not ins.keys() <= _INPUTS or not outs.keys() <= _OUTPUTS:
        return False
    stated = (own.get("prompt_tokens"), own.get("completion_tokens"), own.get("total_tokens"))
    return stated == (tokens.input_tokens, tokens.output_tokens, tokens.total_tokens) and (
        ins.get("cached_tokens"),
        ins.get("cache_write_tokens"),
        ins.get("audio_tokens"),
        outs.get("reasoning_tokens"),
        outs.get("audio_tokens"),
    ) == (
        tokens.cache_read_tokens,
        tokens.cache_write_tokens,
        tokens.input_audio_tokens,
        tokens.reasoning_tokens,
        tokens.output_audio_tokens,
    )
