"""What the pages are asked with: the filters in the URL, and the form that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import Field as Option
from pydantic import model_validator

from taskpilot_obs.server.blocks import FormField
from taskpilot_obs.server.params import FilterParams, Moment, Name, PeriodText, Query, is_date, moment
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats.periods import Period

PERIODS: Final = (
    ("15m", "15 minutes"),
    ("1h", "1 hour"),
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
)
_FROM_TO: Final = ("", "from … to")


class PageQuery(Query):
    """Parameters of a page. A form sends filters that are not filled in as empty texts: they are left out."""

    table: Name | None = Option(None, description="Which table, for CSV.")

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value != ""} if isinstance(given, Mapping) else given


class TimedQuery(PageQuery):
    """A stretch of time: `period` until now, or from `start` to `end`, which win where both are in the URL."""

    period: PeriodText = Option("24h")
    start: Moment | None = None
    end: Moment | None = None

    @model_validator(mode="after")
    def _begins(self) -> TimedQuery:
        if self.end is not None and self.start is None:
            raise ValueError("end needs a start")
        return self

    def over(self, now: datetime) -> Period:
        """The stretch of time in the words of the statistics."""
        if self.start is None:
            return self.period
        return moment(self.start), now if self.end is None else moment(self.end, end=True)

    @property
    def spoken(self) -> str:
        """The stretch of time in a caption."""
        return f"in {self.period}" if self.start is None else f"from {self.start} to {self.end or 'now'}"

    @property
    def times(self) -> dict[str, str | None]:
        """The parameters that lead to the same stretch of time on another page."""
        return {"period": self.period} if self.start is None else {"start": self.start, "end": self.end}

    def dates(self) -> dict[str, str | None]:
        """The parameters of the benchmark routes that mean this stretch of time; none for a period."""
        return {} if self.start is None else {"start_date": self.start, "end_date": self.end}


class FilteredQuery(TimedQuery, FilterParams):
    """A stretch of time, and which calls."""


def time_fields(query: TimedQuery) -> list[FormField]:
    """The choice of a period, and of its two ends; a period that was typed into the URL is offered too."""
    known = PERIODS if query.period in dict(PERIODS) else ((query.period, query.period), *PERIODS)
    chosen, offered = (query.period, known) if query.start is None else ("", (_FROM_TO, *known))
    ends = [_end("start", "From (UTC)", query.start), _end("end", "To (UTC)", query.end)]
    return [FormField("period", "Period", chosen, offered), *ends]


def _end(name: str, label: str, value: str | None) -> FormField:
    return FormField(name, label, value or "", kind="date" if value is None or is_date(value) else "text")


def filter_fields(ask: Questions, query: Query, *names: str) -> list[FormField]:
    """Text filters, and the tenant where the reader may choose one."""
    asked = [*names, *(["tenant"] if ask.principal.tenant is None else [])]
    return [FormField(name, _label(name), str(getattr(query, name) or "")) for name in asked]


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize().replace(" id", " ID")


def link(path: str, **parameters: object) -> str:
    """A URL of this server; parameters without a value are left out."""
    stated = {name: str(value) for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(stated)}" if stated else path
