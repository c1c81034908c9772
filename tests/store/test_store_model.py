"""A store over years, against brute force: whatever is done to it, each answer is right or says what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import pytest
from _clickhouse import IN_FULL
from _postgres import Server
from _stored import NOON, clear, llm_call, new_database, sqlite_url, store_at
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.records import Source
from taskpilot_obs.stats import get_cost_breakdown, get_series, get_stats, get_tenants_report
from taskpilot_obs.store import (
    Store,
    aggregate_summaries,
    downgrade,
    erase,
    marks,
    prune,
    rebuild_summaries,
    rollups,
    upgrade,
)
from taskpilot_obs.store.marks import deleted_from, server_clock
from taskpilot_obs.store.partitioning import partition
from taskpilot_obs.store.rollups import FULL
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.segments import floor_hour
from taskpilot_obs.store.tables import SUMMARY_WORK
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FIRST = NOON - 12 * DAY
TENANTS = ("acme", "umbrella", None)
USERS = ("ann", "bob")
MODELS = ("m-1", "m-2")
SERVICES = ("billing", "search")


class Call(NamedTuple):
    """A call as the model knows it."""

    at: datetime
    tenant: str | None
    user: str
    model: str
    service: str
    cost: Decimal


class Model:
    """What a store should hold: every call that was taken, until it is erased."""

    def __init__(self, shift: timedelta = timedelta(0)) -> None:
        self.shift = shift
        """How much later everything happens than at `NOON`: a server of ClickHouse deletes by its own clock."""
        self.calls: list[Call] = []
        self.deleted_before: datetime | None = None
        """Rows before are deleted; sums may tell them."""
        self.merged_before: datetime | None = None
        """Calls before cannot be told apart by service, because of a downgrade."""
        self.nameless_before: datetime | None = None
        """Calls before cannot be told apart by tenant, because of a downgrade."""
        self.now = NOON + shift

    def has_rows(self, moment: datetime) -> bool:
        return self.deleted_before is None or moment >= self.deleted_before

    def told(self, start: datetime, end: datetime, **asked: str) -> tuple[int, Decimal]:
        """How many calls of a stretch of time have these values, and what they cost."""
        found = [
            call
            for call in self.calls
            if start <= call.at < end
            and all((getattr(call, name) or "__none__") == value for name, value in asked.items())
        ]
        return len(found), sum((call.cost for call in found), Decimal(0))


Act = Callable[[Store, Model], None]


def write(calls: list[Call]) -> Act:
    """Calls of any age, also of hours that are deleted: those are in no sum."""

    def act(store: Store, model: Model) -> None:
        writer = Writer(store)
        for planned in calls:
            call = planned._replace(at=planned.at + model.shift)
            made = llm_call(call.at, tenant=call.tenant, user=call.user, response_model=call.model, cost=call.cost)
            writer.write(rows_of([made], Source(call.service)))
            if model.has_rows(floor_hour(call.at)):
                model.calls.append(call)

    return act


def sum_up(period: Any) -> Act:
    def act(store: Store, _: Model) -> None:
        aggregate_summaries(period, None, store=store)

    return act


def forget(table: str, days: float) -> Act:
    def act(store: Store, model: Model) -> None:
        prune({table: days}, store=store, now=model.now)
        with store.reading() as connection:
            model.deleted_before = deleted_from(connection, "llm_call_telemetry").before

    return act


def step_clock(hours: int) -> Act:
    def act(_: Store, model: Model) -> None:
        model.now += hours * HOUR

    return act


def forget_by_a_wrong_clock(store: Store, model: Model) -> None:
    """A year ahead of everything that is known: refused, and nothing changes."""
    if model.calls:
        with pytest.raises(StoreError, match="nothing was deleted"):
            prune({"llm_call_telemetry": 1}, store=store, now=model.now + 4_000 * DAY)


def erase_user(user: str) -> Act:
    def act(store: Store, model: Model) -> None:
        erase(user=user, store=store)
        model.calls = [call for call in model.calls if call.user != user or not model.has_rows(call.at)]

    return act


def erase_tenant(tenant: str) -> Act:
    def act(store: Store, model: Model) -> None:
        erase(tenant=tenant, store=store)
        _forget_names(model, nameless_hours(store, model), tenant)
        model.calls = [call for call in model.calls if call.tenant != tenant]

    return act


def nameless_hours(store: Store, model: Model) -> set[datetime]:
    """Hours whose rows are deleted, and whose sums do not tell who called what: a tenant's name can go, and no more."""
    work = SUMMARY_WORK.c
    with store.reading() as connection:
        hours = select(work.period_start).where(work.period == "hourly", work.lacking.bitwise_and(FULL.bit) != 0)
        return {hour for hour in connection.execute(hours).scalars() if not model.has_rows(hour)}


def _forget_names(model: Model, hours: set[datetime], *tenants: str | None) -> None:
    model.calls = [
        call._replace(tenant=None) if call.tenant in tenants and floor_hour(call.at) in hours else call
        for call in model.calls
    ]


def go_back_and_forth(store: Store, model: Model) -> None:
    """Services cannot be told apart after, nor tenants in sums by series alone; sum up again what is there.

    A store in ClickHouse never goes back.
    """
    if store.is_clickhouse:
        return
    newest = max((call.at for call in model.calls), default=FIRST) + HOUR
    model.merged_before = max(newest, *(mark or FIRST for mark in (model.merged_before, model.deleted_before)))
    hours = nameless_hours(store, model)
    if hours:
        model.nameless_before = max(model.nameless_before or FIRST, max(hours) + HOUR)
        _forget_names(model, hours, *TENANTS)
    downgrade(store, "0003")
    upgrade(store)
    rebuild_summaries(store=store)


def put_partitions(store: Store, _: Model) -> None:
    """A month each, from here on, under a store of PostgreSQL."""
    if not (store.is_sqlite or store.is_clickhouse):
        partition(store=store)


made_calls = st.builds(
    Call,
    st.integers(0, 12 * 48).map(lambda half_hours: FIRST + half_hours * HOUR / 2),
    st.sampled_from(TENANTS),
    st.sampled_from(USERS),
    st.sampled_from(MODELS),
    st.sampled_from(SERVICES),
    st.decimals(0, 100, places=12),
)
acts = st.one_of(
    st.lists(made_calls, min_size=1, max_size=12).map(write),
    st.sampled_from(["hourly", "daily"]).map(sum_up),
    st.builds(
        forget, st.sampled_from(["llm_call_telemetry", "llm_usage_summaries"]), st.sampled_from([1.0, 3.5, 7.0, 10.0])
    ),
    st.sampled_from([-30, 5, 49]).map(step_clock),
    st.just(forget_by_a_wrong_clock),
    st.sampled_from(USERS).map(erase_user),
    st.sampled_from(["acme", "umbrella"]).map(erase_tenant),
)
edges = st.tuples(st.integers(0, 26 * 12), st.integers(1, 26 * 12)).map(
    lambda pair: (FIRST - DAY + pair[0] * HOUR, FIRST - DAY + (pair[0] + pair[1]) * HOUR + HOUR / 4)
)
always_made = st.sampled_from([0, 2_000])


def check(store: Store, model: Model, start: datetime, end: datetime) -> None:
    """Every statistic is the one of brute force, from when on it says that it is complete."""
    questions: list[dict[str, Any]] = [{}, *({"tenant": tenant or "__none__"} for tenant in TENANTS)]
    questions += [{"user": "ann"}, {"model": "m-1"}, {"service": "billing"}, {"tenant": "acme", "model": "m-2"}]
    for asked in questions:
        found = get_stats((start, end), store=store, **asked)
        since = found.incomplete_before
        if since is not None:
            reasons = [model.deleted_before]
            reasons += [model.merged_before] if "service" in asked else []
            reasons += [model.nameless_before] if "tenant" in asked else []
            assert start < since <= min(end, max(reason for reason in reasons if reason is not None))
            if since == end:
                continue
            found = get_stats((since, end), store=store, **asked)
            assert found.incomplete_before is None
        assert (found.requests, found.cost_usd) == model.told(since or start, end, **asked), asked
    _check_groups(store, model, start, end)


def _check_groups(store: Store, model: Model, start: datetime, end: datetime) -> None:
    report = get_tenants_report((start, end), store=store)
    since = report.incomplete_before or start
    if since < end:
        report = get_tenants_report((since, end), store=store)
        told = {line.tenant: (line.requests, line.cost_usd) for line in report.tenants}
        expected = {tenant or "__none__": model.told(since, end, tenant=tenant or "__none__") for tenant in TENANTS}
        assert told == {tenant: figures for tenant, figures in expected.items() if figures[0]}
    points = get_series((start, end), store=store)
    for point in points:
        if point.incomplete_before is None:
            assert (point.requests, point.cost_usd) == model.told(point.start, point.end)
    money = get_cost_breakdown((start, end), store=store)
    if money.incomplete_before is None:
        assert money.cost_usd == model.told(start, end)[1] == sum(part.cost_usd for part in money.by_tenant.values())


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@contextmanager
def _always_made(lines: int) -> Iterator[None]:
    """Let roll-ups of more lines than this be left out where rows are as few: with 0, small stores leave out many."""
    known, rollups._FIRST_LINES = rollups._FIRST_LINES, lines  # type: ignore[misc]  # a constant
    try:
        yield
    finally:
        rollups._FIRST_LINES = known  # type: ignore[misc]  # as above


def _play(store: Store, steps: list[Act], asked: tuple[datetime, datetime], lines: int) -> None:
    with _always_made(lines), _one_hour(store):
        _live(store, steps, asked)


def _live(store: Store, steps: list[Act], asked: tuple[datetime, datetime]) -> None:
    clear(store)
    model = Model(_present(store) - NOON if store.is_clickhouse else timedelta(0))
    start, end = (moment + model.shift for moment in asked)
    for act in steps:
        act(store, model)
    check(store, model, start, end)
    aggregate_summaries("daily", None, store=store)
    check(store, model, start, end)
    check(store, model, FIRST - 40 * DAY + model.shift, NOON + 40 * DAY + model.shift)


@contextmanager
def _one_hour(store: Store) -> Iterator[None]:
    """Let no hour begin by which a TTL is read, and read it for the half hour to come, while the server goes on."""
    with pytest.MonkeyPatch.context() as patch:
        if store.is_clickhouse:
            with store.reading() as connection:
                soon = server_clock(connection) + HOUR / 2
            patch.setattr(marks, "server_clock", lambda _: soon)
        yield


def _present(store: Store) -> datetime:
    """The hour that it is by the clock of the server."""
    with store.reading() as connection:
        return floor_hour(server_clock(connection))


_OLD: Final = [
    Call(FIRST + 3 * HOUR, "acme", "ann", "m-1", "billing", Decimal("0.000001366376")),
    *(Call(FIRST + 200 * HOUR, "umbrella", user, "m-1", "billing", Decimal(1)) for user in ("ann", "bob", "bob")),
    Call(FIRST + 200 * HOUR, "acme", "bob", "m-2", "search", Decimal(1)),
]
_PRUNED: Final = forget("llm_call_telemetry", 1.0)
FOUND: Final[dict[str, list[Act]]] = {
    "a downgrade after sums by series alone": [write(_OLD), _PRUNED, go_back_and_forth],
    "a tenant in sums by series alone": [write(_OLD), _PRUNED, erase_tenant("umbrella")],
    "a tenant that the days alone know": [write(_OLD), sum_up("daily"), _PRUNED, erase_tenant("acme")],
    "services merged within an hour that is deleted": [write(_OLD), sum_up("daily"), go_back_and_forth, _PRUNED],
}
"""Lives that once ended with a wrong answer."""


@pytest.mark.parametrize("life", FOUND)
def test_a_life_that_ended_badly_once(store: Store, life: str) -> None:
    """Sums that lost their names count in the whole, and questions by name say from when on they are complete."""
    _play(store, FOUND[life], (FIRST - DAY, NOON), lines=0)


lives = given(steps=st.lists(acts, min_size=2, max_size=9), asked=edges, lines=always_made)


@pytest.mark.promise("summaries-agree")
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@_settings(40)
@lives
def test_a_file_is_right_or_says_what_it_lacks(
    store: Store, steps: list[Act], asked: tuple[datetime, datetime], lines: int
) -> None:
    """Writes, late writes, sums, deletions, clocks and erasures in any order: SQLite answers as brute force does."""
    _play(store, steps, asked, lines)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@_settings(10)
@lives
def test_a_server_is_right_or_says_what_it_lacks(
    store: Store, steps: list[Act], asked: tuple[datetime, datetime], lines: int
) -> None:
    """Writes, late writes, sums, deletions, clocks and erasures: PostgreSQL answers as brute force does."""
    _play(store, steps, asked, lines)


@pytest.mark.parametrize("url", [IN_FULL], indirect=True)
@_settings(15)
@lives
def test_clickhouse_is_right_or_says_what_it_lacks(
    store: Store, steps: list[Act], asked: tuple[datetime, datetime], lines: int
) -> None:
    """ClickHouse answers as brute force does; there a TTL deletes rows by the clock of the server."""
    _play(store, steps, asked, lines)


@_settings(8)
@given(
    before=st.lists(acts, min_size=1, max_size=5),
    after=st.lists(acts, min_size=1, max_size=5),
    asked=edges,
    lines=always_made,
)
def test_a_server_with_partitions_is_right_or_says_what_it_lacks(
    server: Server, before: list[Act], after: list[Act], asked: tuple[datetime, datetime], lines: int
) -> None:
    """Partitions come in the middle of a life, and no answer tells."""
    with store_at(new_database(server)) as store:
        _play(store, [*before, put_partitions, *after], asked, lines)


@contextmanager
def _new_file() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        yield sqlite_url(Path(folder))


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[str]]:
    """Where each life gets a store of its own.

    PostgreSQL counts the columns that downgrades dropped, and a table may have 1,600 of them: one database would not
    last for all lives, and a life that failed on the tables of an earlier version would fail those after it.
    """
    if request.param == "sqlite":
        return _new_file
    server = request.getfixturevalue("server")
    return lambda: nullcontext(new_database(server))


@pytest.mark.full
@pytest.mark.timeout(7_200)
@_settings(150)
@given(
    steps=st.lists(st.one_of(acts, st.sampled_from([go_back_and_forth, put_partitions])), min_size=3, max_size=14),
    asked=edges,
    lines=always_made,
)
def test_a_store_of_years_is_right_or_says_what_it_lacks(
    new_url: Callable[[], AbstractContextManager[str]],
    steps: list[Act],
    asked: tuple[datetime, datetime],
    lines: int,
) -> None:
    """Longer lives, with downgrades, upgrades and partitions between."""
    with new_url() as url, store_at(url) as store:
        _play(store, steps, asked, lines)
