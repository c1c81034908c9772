"""Parameters of requests. Unknown ones are refused, so that a typing error does not widen a query."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from math import isclose
from typing import Annotated, Final, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from taskpilot_obs._support.calendar import zone_of
from taskpilot_obs.compare.experiment import Measure
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.records import Status
from taskpilot_obs.server.cursors import LONGEST
from taskpilot_obs.stats.asking import Asked
from taskpilot_obs.stats.benchmark_runs import MOST_RUNS
from taskpilot_obs.stats.benchmarks import GroupBy
from taskpilot_obs.stats.calls import MOST_CALLS
from taskpilot_obs.stats.periods import Period

_FIRST_YEAR, _LAST_YEAR = 1971, 2199
_LONGEST_PERIOD: Final = timedelta(days=3_660)
_LONGEST_NAME: Final = 512
_MOST_VARIANTS: Final = 50
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


def is_date(text: str) -> bool:
    """Whether a text is a date, as in 2026-01-31, in contrast to a time."""
    return len(text) == len("2026-01-31")


def moment(text: str, *, end: bool = False, zone: tzinfo = UTC) -> datetime:
    """A date or a time of ISO 8601. A date is midnight of a zone; as an end it is included, to its last moment.

    Args:
        text: the date, or the time with its own zone.
        end: whether it ends a stretch of time.
        zone: whose midnight a date is.

    Raises:
        ValueError: the text is not a time, has no time zone, or is in a year that no store can hold.
    """
    try:
        found = (
            datetime.combine(date.fromisoformat(text) + (DAY if end else timedelta()), time(), zone)
            if is_date(text)
            else datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped plus in the URL
        )
    except (ValueError, OverflowError):
        raise ValueError(
            f"given {text!r}; allowed are a date (2026-01-31) and a time with its zone (2026-01-31T08:00:00Z)"
        ) from None
    if found.tzinfo is None:
        raise ValueError(f"given {text!r}; a time needs its zone, as in {text}Z")
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise ValueError(f"given {text!r}; allowed are years from {_FIRST_YEAR} to {_LAST_YEAR}")
    return found.astimezone(UTC)


Name = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
PeriodText = Annotated[str, AfterValidator(_period), Field(max_length=40, examples=["24h"])]
Moment = Annotated[str, AfterValidator(_moment_text), Field(max_length=40, examples=["2026-01-31T08:00:00Z"])]


class Query(BaseModel):
    """Parameters of a route; this one has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CallFilters(Query):
    """Whose calls are meant, and to which model."""

    tenant: Name | None = Field(None, description="For tokens of every tenant only.", examples=["acme"])
    provider: Name | None = Field(None, examples=["openai"])
    model: Name | None = Field(None, examples=["gpt-4o"])
    prompt_name: Name | None = Field(None, examples=["plan"])

    def asked(self) -> Asked:
        """The filters, as the statistics name them."""
        return _asked(self)


class CallerFilters(Query):
    """Where calls were made."""

    agent: Name | None = Field(None, examples=["planner"])
    workflow: Name | None = Field(None, examples=["triage"])
    user: Name | None = Field(None, examples=["ann"])


class FilterParams(CallerFilters, CallFilters):
    """Which calls are meant."""


class Times(Query):
    """Which stretch of time is meant: `period` until now, or from `start` to `end`."""

    period: PeriodText | None = Field(None, description="A length of time until now: 15m, 24h, 7d.")
    start: Moment | None = Field(None, description="A date or a time with its zone.")
    end: Moment | None = Field(
        None, description="A date, which is included, or a time with its zone, which is not. Default: now."
    )
    timezone: Annotated[str, AfterValidator(_zone), Field(max_length=100)] = Field(
        "UTC", description="IANA name; whose midnight a date is.", examples=["Europe/Berlin"]
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
        return self.given_span(now) or default

    def given_span(self, now: datetime) -> Period | None:
        """The stretch of time that was asked for; None where none was."""
        if self.start is None:
            return self.period
        zone = zone_of(self.timezone)
        return moment(self.start, zone=zone), now if self.end is None else moment(self.end, end=True, zone=zone)


def _asked(query: Query) -> Asked:
    return cast(Asked, {name: getattr(query, name, None) for name in Asked.__annotations__})


class StatsQuery(Times, FilterParams):
    """Parameters of statistics and costs over a stretch of time."""


class CostsQuery(StatsQuery):
    """As for statistics, or a day, week or month of the calendar."""

    period: Annotated[str, AfterValidator(lambda text: text if text in CALENDAR else _period(text))] | None = Field(
        None, description="A length of time, or day, week or month of the calendar so far.", examples=["month"]
    )


CALENDAR: Final = ("day", "week", "month")


class TimesOnly(Times):
    """Parameters of questions about every tenant."""


SIGNALS_WINDOW: Final = "15m"


class SignalsQuery(Times):
    """Parameters of the golden signals."""

    window: PeriodText | None = Field(None, description="Another name of `period`; by default 15m.")
    workflow: Name | None = Field(None, description="This workflow alone.", examples=["triage"])
    tenant: Name | None = Field(None, description="For tokens of every tenant only.", examples=["acme"])
    source: Literal["store", "prometheus"] = Field(
        "store", description="`prometheus` answers for every replica, and to tokens of every tenant only."
    )

    @model_validator(mode="after")
    def _one_window(self) -> SignalsQuery:
        if self.window is not None and (self.period is not None or self.start is not None):
            raise ValueError("window excludes period, start and end; give one of them")
        if self.source == "prometheus" and self.start is not None:
            raise ValueError("source=prometheus answers about a window until now; leave out start and end")
        return self

    @property
    def until_now(self) -> str:
        """The window, where it ends now."""
        return self.window or self.period or SIGNALS_WINDOW

    def stretch(self, now: datetime) -> Period:
        """The stretch of time that the signals cover."""
        return self.span(now, self.until_now)


class HealthQuery(Query):
    """Parameters of the probe of a load balancer."""

    window: PeriodText = Field("15m", description="How far back to look.")
    workflow: Name | None = Field(None, examples=["triage"])
    strict: Literal["0", "1"] = Field("0", description="1: a warning is answered with 503 too.")


class BenchmarkFilters(CallFilters):
    """Filters of the benchmark routes, by their own names."""

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


class SummariesQuery(BenchmarkFilters):
    """For benchmark summaries; without dates the last 30 days."""

    group_by: GroupBy = Field("model", description="One line for each of these.")


class TracesQuery(CallerFilters, BenchmarkFilters):
    """Parameters of lists of single calls, newest first."""

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


class RunsQuery(Times):
    """Parameters of lists of benchmark runs, newest first."""

    limit: int = Field(20, ge=1, le=MOST_RUNS)


class ExperimentsQuery(Times):
    """Parameters of the list of experiments."""

    tenant: Name | None = Field(None, description="For tokens of every tenant only.", examples=["acme"])


def shares_of(text: str) -> dict[str, float]:
    """The planned shares of the variants, from `v1=0.9,v2=0.1`; the control stands first.

    Raises:
        ValueError: the text cannot be read.
    """
    found = {}
    for part in text.split(","):
        name, _, share = part.strip().rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            found[name] = 0.0
        if not name or not 0 < found[name] <= 1:
            raise ValueError(f"given {text!r}; write VARIANT=SHARE,VARIANT=SHARE, as in v1=0.9,v2=0.1")
    if len(found) > _MOST_VARIANTS or not isclose(sum(found.values()), 1.0, abs_tol=1e-9):
        raise ValueError(f"given {text!r}; the shares of at most {_MOST_VARIANTS} variants add up to 1")
    return found


def _shares_text(text: str) -> str:
    shares_of(text)
    return text


SharesText = Annotated[str, AfterValidator(_shares_text), Field(max_length=2_000)]


class ExperimentOptions(Query):
    """How an experiment is judged."""

    primary: Measure = Field("success", description="The measure that decides.")
    shares: SharesText | None = Field(
        None,
        description="The planned share of each variant, the control first; equal by default.",
        examples=["v1=0.9,v2=0.1"],
    )

    def planned(self) -> dict[str, float] | None:
        """The planned shares; None where none are stated."""
        return None if self.shares is None else shares_of(self.shares)


class ExperimentQuery(ExperimentsQuery, ExperimentOptions):
    """Parameters of one experiment."""
