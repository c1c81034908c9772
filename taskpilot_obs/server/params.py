"""Parameters of requests. Unknown ones are refused, so that a typing error does not widen a query."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from taskpilot_obs._support.calendar import zone_of
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.records import Status
from taskpilot_obs.server.cursors import LONGEST
from taskpilot_obs.stats.asking import Asked
from taskpilot_obs.stats.benchmarks import GroupBy
from taskpilot_obs.stats.calls import MOST_CALLS
from taskpilot_obs.stats.periods import Period

_FIRST_YEAR, _LAST_YEAR = 1971, 2199
_LONGEST_PERIOD: Final = timedelta(days=3_660)
_LONGEST_NAME: Final = 512
DAY: Final = timedelta(days=1)


def _period(text: str) -> str:
    if parse_window(text) > _LONGEST_PERIOD:
        raise ValueError(f"given {text!r}; at most {_LONGEST_PERIOD.days}d")
    return text


def _zone(name: str) -> str:
    zone_of(name)
    return name


def _moment_text(text: str) -> str:
    moment(text)
    return text


def moment(text: str, *, end: bool = False) -> datetime:
    """A date or a time of ISO 8601. A date is midnight in UTC; as an end it is included, to its last moment.

    Raises:
        ValueError: the text is not a time, has no time zone, or is in a year that no store can hold.
    """
    try:
        is_date = len(text) == len("2026-01-31")
        found = (
            datetime.combine(date.fromisoformat(text), time(), UTC)
            if is_date
            else datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped plus in the URL
        )
    except ValueError:
        raise ValueError(
            f"given {text!r}; allowed are a date (2026-01-31) and a time with its zone (2026-01-31T08:00:00Z)"
        ) from None
    if found.tzinfo is None:
        raise ValueError(f"given {text!r}; a time needs its zone, as in {text}Z")
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise ValueError(f"given {text!r}; allowed are years from {_FIRST_YEAR} to {_LAST_YEAR}")
    return (found + DAY if end and is_date else found).astimezone(UTC)


Name = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
PeriodText = Annotated[str, AfterValidator(_period), Field(max_length=40, examples=["24h"])]
Moment = Annotated[str, AfterValidator(_moment_text), Field(max_length=40, examples=["2026-01-31T08:00:00Z"])]


class Query(BaseModel):
    """Parameters of a route; this one has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(Query):
    """Which calls are meant."""

    tenant: Name | None = Field(None, description="For tokens of every tenant only.", examples=["acme"])
    provider: Name | None = Field(None, examples=["openai"])
    model: Name | None = Field(None, examples=["gpt-4o"])
    prompt_name: Name | None = Field(None, examples=["plan"])
    agent: Name | None = Field(None, examples=["planner"])
    workflow: Name | None = Field(None, examples=["triage"])
    user: Name | None = Field(None, examples=["ann"])

    def asked(self) -> Asked:
        """In the words of the statistics."""
        return _asked(self)


class Times(Query):
    """Which stretch of time is meant: `period` until now, or from `start` to `end`."""

    period: PeriodText | None = Field(None, description="A length of time until now: 15m, 24h, 7d.")
    start: Moment | None = Field(None, description="A date or a time with its zone.")
    end: Moment | None = Field(
        None, description="A date, which is included, or a time with its zone, which is not. Default: now."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Times:
        if self.period is not None and (self.start is not None or self.end is not None):
            raise ValueError("period excludes start and end; give one of them")
        if self.end is not None and self.start is None:
            raise ValueError("end needs a start")
        return self

    def span(self, now: datetime, default: str) -> Period:
        """The stretch of time in the words of the statistics."""
        if self.start is None:
            return self.period or default
        return moment(self.start), now if self.end is None else moment(self.end, end=True)


def _asked(query: Query) -> Asked:
    return cast(Asked, {name: getattr(query, name, None) for name in Asked.__annotations__})


class StatsQuery(Times, Filters):
    """For statistics and costs of a stretch of time."""


class CostsQuery(StatsQuery):
    """As for statistics, or a day, week or month of the calendar."""

    period: Annotated[str, AfterValidator(lambda text: text if text in CALENDAR else _period(text))] | None = Field(
        None, description="A length of time, or day, week or month of the calendar so far.", examples=["month"]
    )
    timezone: Annotated[str, AfterValidator(_zone), Field(max_length=100)] = Field(
        "UTC", description="IANA name; whose calendar is meant.", examples=["Europe/Berlin"]
    )


CALENDAR: Final = ("day", "week", "month")


class TimesOnly(Times):
    """For questions about every tenant."""


class SignalsQuery(Query):
    """For the golden signals."""

    window: PeriodText = Field("15m", description="How far back to look: 15m, 24h, 30d.")
    workflow: Name | None = Field(None, description="This workflow alone.", examples=["triage"])
    tenant: Name | None = Field(None, description="For tokens of every tenant only.", examples=["acme"])
    source: Literal["store", "prometheus"] = Field(
        "store", description="`prometheus` answers for every replica, and to tokens of every tenant only."
    )


class HealthQuery(Query):
    """For a load balancer's probe."""

    window: PeriodText = Field("15m", description="How far back to look.")
    workflow: Name | None = Field(None, examples=["triage"])
    strict: Literal["0", "1"] = Field("0", description="1: a warning is answered with 503 too.")


class BenchmarkFilters(Query):
    """Filters of the benchmark routes, by their own names."""

    tenant: Name | None = Field(None, description="For tokens of every tenant only.", examples=["acme"])
    provider: Name | None = Field(None, examples=["openai"])
    model: Name | None = Field(None, examples=["gpt-4o"])
    prompt_name: Name | None = Field(None, examples=["plan"])
    start_date: Moment | None = Field(None, description="A date or a time with its zone.")
    end_date: Moment | None = Field(
        None, description="A date, which is included, or a time with its zone. Default: now."
    )

    @model_validator(mode="after")
    def _ordered(self) -> BenchmarkFilters:
        if self.end_date is not None and self.start_date is None:
            raise ValueError("end_date needs a start_date")
        return self

    def span(self, now: datetime) -> tuple[datetime, datetime] | None:
        """From `start_date` to `end_date`; None where neither is given."""
        if self.start_date is None:
            return None
        return moment(self.start_date), now if self.end_date is None else moment(self.end_date, end=True)

    def asked(self) -> Asked:
        """In the words of the statistics."""
        return _asked(self)


class SummariesQuery(BenchmarkFilters):
    """For benchmark summaries; without dates the last 30 days."""

    group_by: GroupBy = Field("model", description="One line for each of these.")


class TracesQuery(BenchmarkFilters):
    """For single calls, newest first."""

    agent: Name | None = Field(None, examples=["planner"])
    workflow: Name | None = Field(None, examples=["triage"])
    user: Name | None = Field(None, examples=["ann"])
    status: Status | None = Field(None, examples=["error"])
    request_id: Name | None = Field(None, examples=["req-1"])
    session_id: Name | None = Field(None, examples=["s-1"])
    min_cost: Annotated[str, Field(max_length=40)] | None = Field(
        None, description="In USD; calls without a known cost are left out.", examples=["0.01"]
    )
    limit: int = Field(100, ge=1, le=MOST_CALLS)
    cursor: Annotated[str, Field(max_length=LONGEST)] | None = Field(
        None, description="`next_cursor` of the page before."
    )

    def exact(self) -> dict[str, str]:
        """Values of single columns."""
        named = {"status": self.status, "request_id": self.request_id, "session_id": self.session_id}
        return {name: str(value) for name, value in named.items() if value is not None}

    def narrowing(self) -> dict[str, object]:
        """The filters to which a cursor is bound: everything but the page itself."""
        return self.model_dump(exclude={"limit", "cursor"}, exclude_none=True)


class TenantsQuery(TimesOnly):
    """For the tenants; a token of one tenant gets that one."""
