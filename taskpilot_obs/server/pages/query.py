"""What the pages are asked with: the filters in the URL, and the form that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import Field as Option
from pydantic import model_validator

from taskpilot_obs.server.blocks import Field
from taskpilot_obs.server.params import Filters, Name, PeriodText, Query
from taskpilot_obs.server.questions import Questions

PERIODS: Final = (
    ("15m", "15 minutes"),
    ("1h", "1 hour"),
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
)


class PageQuery(Query):
    """Parameters of a page. A form sends filters that are not filled in as empty texts: they are left out."""

    table: Name | None = Option(None, description="Which table, for CSV.")

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value != ""} if isinstance(given, Mapping) else given


class FilteredQuery(PageQuery, Filters):
    """A stretch of time, and which calls."""

    period: PeriodText = Option("24h")


def period_field(value: str) -> Field:
    """The choice of a period; one that was typed into the URL is offered too."""
    known = PERIODS if value in dict(PERIODS) else ((value, value), *PERIODS)
    return Field("period", "Period", value, known)


def filter_fields(ask: Questions, query: Query, *names: str) -> list[Field]:
    """Text filters, and the tenant where the reader may choose one."""
    asked = [*names, *(["tenant"] if ask.principal.tenant is None else [])]
    return [Field(name, name.replace("_", " ").capitalize(), str(getattr(query, name) or "")) for name in asked]


def link(path: str, **parameters: object) -> str:
    """A URL of this server; parameters without a value are left out."""
    stated = {name: str(value) for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(stated)}" if stated else path
