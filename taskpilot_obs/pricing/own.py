"""Own prices and model aliases, from code or from TOML and YAML files; they take precedence over the price table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskpilot_obs._support.config_files import load_config_file
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing.cards import Card, Rate

Usd = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
_MAX_SHOWN: Final = 60
_RATES: Final = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "input_audio", "output_audio")
_KINDS: Final = {**{rate: f"{rate}_tokens" for rate in _RATES}, "reasoning": "output_reasoning_tokens"}
"""The kind of tokens, in the words of the price table, that a rate is for."""


class OwnPrice(BaseModel):
    """The price that you pay for a model, in USD per 1,000,000 tokens. Kinds without a rate cost as input or output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Name
    """The provider's name of the model, or the name that you request; it also covers dated snapshots."""
    input: Usd
    output: Usd
    provider: Name | None = None
    """The provider to which the price applies; None for any."""
    effective_from: date | None = None
    """First day (UTC) of the price; None for always. Of several prices, the latest that has begun applies."""
    cache_read: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None
    input_audio: Usd | None = None
    reasoning: Usd | None = None
    output_audio: Usd | None = None
    per_request: Usd = Decimal(0)
    """USD for each request, independent of its tokens."""

    def card(self) -> Card:
        """Return the rates as a card."""
        stated = {kind: getattr(self, field) for field, kind in _KINDS.items()}
        rates = {kind: rate for kind, rate in stated.items() if rate is not None}
        if "cache_write_1h_tokens" in rates:
            rates.setdefault("cache_write_tokens", self.input)
        if {"cache_read_tokens", "input_audio_tokens"} <= rates.keys():
            rates["cache_audio_read_tokens"] = rates["cache_read_tokens"]
        return Card([Rate(kind, rate) for kind, rate in rates.items()], self.per_request)


class PriceFile(BaseModel):
    """The content of a price file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aliases: dict[Name, Name] = {}
    """Your names of models (Azure deployments, gateways) -> names in the price table, `gpt-4o` or `azure/gpt-4o`."""
    prices: tuple[OwnPrice, ...] = ()


def load_prices(path: str | os.PathLike[str]) -> PriceFile:
    """Load own prices and aliases from a TOML or YAML file.

    Returns:
        The prices and aliases of the file.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML or YAML, or a field is wrong; the message names it.
        MissingExtraError: the file is YAML, and the extra `prices` is not installed.
    """
    file = Path(path)
    stated = load_config_file(file, "price file", extra="prices", parse_float=Decimal)
    if stated is None:  # an empty YAML file
        stated = {}
    if not isinstance(stated, Mapping):
        raise ConfigurationError(f"price file {str(file)!r} holds {type(stated).__name__}, not `aliases` and `prices`")
    try:
        return PriceFile.model_validate(dict(stated))
    except ValidationError as error:
        raise ConfigurationError(f"price file {str(file)!r}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """Describe each wrong field: what was given and what is allowed."""
    wrong = []
    for one in error.errors():
        field = ".".join(str(part) for part in one["loc"])
        given = "" if one["type"] == "missing" else f", given {_shown(one['input'])}"
        fields = PriceFile.model_fields if len(one["loc"]) == 1 else OwnPrice.model_fields
        allowed = f"; allowed are {', '.join(fields)}" if one["type"] == "extra_forbidden" else ""
        wrong.append(f"{field}{given}: {one['msg']}{allowed}")
    return "; ".join(wrong)


def _shown(value: object) -> str:
    """Shorten a value for a message, because it may be the whole content of another kind of file."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
