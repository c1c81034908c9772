"""`taskpilot-obs price`: what a call costs, with the rates and where they come from."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Never

import typer
from typer.models import OptionInfo

from taskpilot_obs.cli._output import complain, print_json, say
from taskpilot_obs.exceptions import TaskpilotError
from taskpilot_obs.pricing import Explanation, PriceTable, Rate
from taskpilot_obs.records import Usage
from taskpilot_obs.settings import price_files
from taskpilot_obs.usage import from_counts
from taskpilot_obs.usage.values import MAX_TOKENS


def _tokens(option: str, told: str) -> OptionInfo:
    """An option that takes a number of tokens."""
    found: OptionInfo = typer.Option(option, min=0, max=MAX_TOKENS, help=told)
    return found


@dataclass(frozen=True)
class TokenCounts:
    """The tokens of a call, under the names of `from_counts`."""

    input_tokens: Annotated[int, _tokens("--input", "Input tokens, cached ones included.")] = 0
    output_tokens: Annotated[int, _tokens("--output", "Output tokens, reasoning included.")] = 0
    cache_read_tokens: Annotated[int | None, _tokens("--cache-read", "Of the input: read from the cache.")] = None
    cache_write_tokens: Annotated[int | None, _tokens("--cache-write", "Of the input: written to the cache.")] = None
    cache_write_1h_tokens: Annotated[int | None, _tokens("--cache-write-1h", "Of these: kept for an hour.")] = None
    input_audio_tokens: Annotated[int | None, _tokens("--input-audio", "Of the input: audio.")] = None
    output_audio_tokens: Annotated[int | None, _tokens("--output-audio", "Of the output: audio.")] = None

    def usage(self) -> Usage:
        """The usage that the options mean.

        Raises:
            BadParameter: a detail exceeds its total.
        """
        usage, inconsistent = from_counts(**asdict(self))
        if inconsistent:
            raise typer.BadParameter("the details exceed their total: --input and --output include them")
        return usage


NO_TOKENS: Final = TokenCounts()


def price(
    model: Annotated[
        str | None, typer.Argument(help="The model, with or without its provider: gpt-4o, anthropic/claude-…")
    ] = None,
    *,
    tokens: TokenCounts = NO_TOKENS,
    provider: Annotated[str | None, typer.Option(help="Who serves it; without it the model's name tells.")] = None,
    tier: Annotated[str | None, typer.Option(help="Service tier: flex, priority, batch.")] = None,
    at: Annotated[
        datetime | None,
        typer.Option(help="Prices of that day (UTC) instead of today's.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    ] = None,
    prices: Annotated[
        list[Path] | None,
        typer.Option(
            help="Own prices and aliases, TOML or YAML; repeatable. By default those of TASKPILOT_OBS_PRICES.",
            show_default=False,
        ),
    ] = None,
    list_of: Annotated[
        str | None, typer.Option("--list", help="List the models of this provider with their rates.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a call costs in USD, with the rates and their source. Exits 1 for a model without a price."""
    if (model is None) == (list_of is None):
        raise typer.BadParameter("give a model, or --list PROVIDER; not both")
    at_unix_ns = int(at.replace(tzinfo=UTC).timestamp()) * 1_000_000_000 if at is not None else time.time_ns()
    try:
        table = PriceTable.load(prices or price_files())
    except TaskpilotError as error:
        raise typer.BadParameter(str(error), param_hint="--prices") from error
    if list_of is not None:
        _list(table, list_of, at_unix_ns, as_json=as_json)
        return
    explained = table.explain(str(model), tokens.usage(), provider=provider, at_unix_ns=at_unix_ns, service_tier=tier)
    if explained is None:
        _refuse(f"no price for model {model!r}" + (f" of provider {provider!r}" if provider else ""))
    if as_json:
        print_json(json.dumps(_as_json(explained)))
    else:
        _print(explained)


def _print(explained: Explanation) -> None:
    cost = (
        "unknown: this model has no price for such tokens"
        if explained.cost is None
        else f"{_plain(explained.cost)} USD"
    )
    say(cost)
    say(f"{explained.provider} {explained.model}, {explained.source}".strip())
    for rate in explained.rates:
        say(f"  {_name(rate):<18} {_rate_text(rate)} USD per 1,000,000 tokens")


def _list(table: PriceTable, provider: str, at_unix_ns: int, *, as_json: bool) -> None:
    listed = table.list_models(provider, at_unix_ns=at_unix_ns)
    if not listed:
        _refuse(f"no price list of provider {provider!r}; there are {', '.join(table.list_providers())}")
    if as_json:
        print_json(json.dumps([{"model": one.model, "rates": _rates_json(one.rates)} for one in listed]))
        return
    width = max(len(one.model) for one in listed)
    say(f"{provider}: USD per 1,000,000 tokens")
    for one in listed:
        rates = ", ".join(f"{_name(rate)} {_rate_text(rate)}" for rate in one.rates)
        say(f"  {one.model:<{width}}  {rates or 'free, or not billed by tokens'}")


def _refuse(reason: str) -> Never:
    """Print what is missing and what helps; exits 1."""
    complain(
        f"{reason}.\nName the provider (--provider), look at --list PROVIDER, or give an alias or a price of your own"
        " in a file (--prices FILE)."
    )
    raise typer.Exit(1)


def _as_json(explained: Explanation) -> dict[str, Any]:
    return {
        "cost_usd": None if explained.cost is None else _plain(explained.cost),
        "provider": explained.provider,
        "model": explained.model,
        "source": explained.source,
        "usd_per_million_tokens": _rates_json(explained.rates),
    }


def _rates_json(rates: tuple[Rate, ...]) -> dict[str, Any]:
    return {
        _short(rate.kind): {
            "rate": _plain(rate.base),
            "above": [{"input_tokens": tier.above, "rate": _plain(tier.rate)} for tier in rate.tiers],
        }
        for rate in rates
    }


def _rate_text(rate: Rate) -> str:
    return _plain(rate.base) + "".join(f" (above {tier.above:,} input: {_plain(tier.rate)})" for tier in rate.tiers)


def _name(rate: Rate) -> str:
    return _short(rate.kind).replace("_", " ")


def _short(kind: str) -> str:
    return kind.removesuffix("_tokens")


def _plain(amount: Decimal) -> str:
    """Without exponent and trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
