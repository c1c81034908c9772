"""Under which names the price table may know the model of a call."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.providers.names import GATEWAYS, infer_provider, split_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskpilot_obs.pricing.library import Library

_OPAQUE: Final = re.compile(
    r"^arn:|/(?:deployments|endpoints|application-inference-profile|provisioned-model)/|^\d+$"
    r"|^(?:[a-z]+[-_])?[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$",
    re.IGNORECASE,
)
"""IDs of deployments, which do not name a model."""
_ROUTERS: Final = GATEWAYS | {None, "openrouter", "openai_compatible", "huggingface"}
_DATE: Final = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
_WORDS: Final = re.compile(r"[-_]")


def names_in_order(provider: str | None, response: str | None, request: str | None) -> Iterator[str]:
    """The names to price a call by, best first.

    Args:
        provider: who served it.
        response: the model that answered, if known.
        request: the model asked for, if known.
    """
    if response is None:
        yield from (request,) if request is not None else ()
        return
    if request is not None and provider == "aws.bedrock" and response in request:
        yield request  # Bedrock's ID includes the region, and prices differ by region
    yield response
    if request is not None and (same_model(request, response) or _names_nothing(provider, response)):
        yield request


def _names_nothing(provider: str | None, response: str) -> bool:
    """Whether a response states a deployment's ID instead of a model.

    Never for a router, because its answer may come from another vendor's model.
    """
    return provider not in _ROUTERS and _OPAQUE.search(response) is not None


def same_model(request: str, response: str) -> bool:
    """Whether the response's model is a dated snapshot of the requested one; OpenRouter also reorders the words."""
    asked, answered = (without_date(split_model(name)[1].lower()) for name in (request, response))
    return sorted(_WORDS.split(asked)) == sorted(_WORDS.split(answered))


def readings(table: Library, provider: str | None, name: str, *, aliased: bool) -> Iterator[tuple[str, str]]:
    """The (provider, model) pairs that a name may mean, best first.

    Args:
        table: the price table.
        provider: who served the call.
        name: the name of a model.
        aliased: whether the name is the target of an alias, and so meant as written.
    """
    vendor, rest = split_model(name)
    if aliased and vendor is not None and vendor not in GATEWAYS:
        yield vendor, rest
        return
    last = name.rsplit("/", 1)[-1]
    unlisted = provider is None or provider in GATEWAYS or (aliased and table.table_id(provider) is None)
    if provider is not None and not unlisted:
        yield provider, name
        if vendor == provider:
            yield provider, rest
        if name.startswith(("models/", "publishers/", "projects/", "arn:")):
            yield provider, last
    if unlisted or provider == "openai":  # any vendor's model may be served behind OpenAI's interface
        while vendor in GATEWAYS:
            vendor, rest = split_model(rest)
        inferred = vendor or infer_provider(rest)
        if inferred is not None and inferred != provider:
            yield inferred, rest
            yield inferred, last


def without_date(name: str) -> str:
    """The model of a dated snapshot: `gpt-4o` for `gpt-4o-2024-08-06`."""
    return _DATE.sub("", name)
