"""A store as a guest: behind a pooler, under odd settings, with few rights, and with other services."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from _pgbouncer import transaction_pool
from _postgres import Server
from _stored import NOON, llm_call, new_database, sqlite_url, store_at, task, verdict
from sqlalchemy import create_engine, event, make_url, text

from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, ReservationLine
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.records import Source
from taskpilot_obs.stats import get_series, get_stats, get_tenants_report, write_report
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, prune, upgrade
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
AROUND = (NOON - HOUR, NOON + HOUR)


def run(url: str, *statements: str) -> None:
    """Run statements as the owner of the database."""
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="module")
def pool(server: Server) -> Iterator[int]:
    with transaction_pool(server) as port:
        yield port


def test_everything_works_behind_a_pooler_by_transaction(server: Server, pool: int, tmp_path: Path) -> None:
    """Writers, questions, summing up and pruning share a few connections, and find out by themselves."""
    direct = new_database(server)
    url = direct.replace(f":{server.port}/", f":{pool}/")
    with store_at(url):
        pass
    exporters = [StoreExporter(url, spool_dir=tmp_path / str(number)) for number in range(4)]

    def write(exporter: StoreExporter) -> None:
        for number in range(20):
            exporter.export([llm_call(), task(), verdict()])
            if number % 5 == 0:
                assert get_stats(AROUND, store=exporter.store).requests > 0
                aggregate_summaries("daily", None, store=exporter.store)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, exporters))
    for exporter in exporters:
        assert exporter.lost == 0
        exporter.shutdown(10.0)
    assert get_stats(AROUND, store=direct).requests == 80
    assert prune(1, store=url, now=NOON + timedelta(days=5))["llm_call_telemetry"] == 80


def test_budgets_stay_exact_behind_a_pooler(server: Server, pool: int) -> None:
    """Many threads reserve and settle: what was let through never passes the limit, to the last digit."""
    url = new_database(server).replace(f":{server.port}/", f":{pool}/")
    team = Budget("team", limit_usd=1, action="enforce")
    window = team.window(NOON)
    line = ReservationLine(team, BudgetAccount("team", "", window.start), window, 7_000_000_000)
    with store_at(url) as store:
        ledger = StoreLedger(store)

        def call(number: int) -> int:
            if ledger.reserve(str(number), [line], NOON, NOON + HOUR) is not None:
                return 0
            ledger.settle([Charge(line, str(number))], NOON)
            return line.amount

        with ThreadPoolExecutor(8) as threads:
            spent = sum(threads.map(call, range(200)))
        (balance,) = ledger.read([team], [window.start]).values()
    assert balance.spent == spent == 142 * line.amount
    assert (balance.reserved, spent <= 10**12) == (0, True)


def test_odd_settings_of_a_role_change_nothing(server: Server) -> None:
    """Time zone, date style, timeouts and a default of reading only are set for each connection."""
    url = new_database(server)
    database = make_url(url).database
    settings: tuple[str, ...] = ("TimeZone = 'Asia/Kolkata'", "DateStyle = 'SQL, DMY'", "statement_timeout = '1ms'")
    settings += ("default_transaction_read_only = on", "default_transaction_isolation = 'serializable'")
    settings += ("client_encoding = 'LATIN1'", "bytea_output = 'escape'")
    run(url, *(f"ALTER DATABASE {database} SET {setting}" for setting in settings))
    with store_at(url) as store:
        Writer(store).write(rows_of([llm_call(tenant="Zoë 東京"), task()]))
        before = get_stats(AROUND, store=store)
        assert (before.requests, get_stats(AROUND, store=store, tenant="Zoë 東京").requests) == (1, 1)
        assert get_series(AROUND, store=store)[-1].start.utcoffset() == timedelta(0)
        aggregate_summaries("daily", None, store=store)
        day = (NOON.replace(hour=0), NOON.replace(hour=0) + timedelta(days=1))
        assert get_stats(day, store=store).latency.p95_ms == before.latency.p95_ms


def test_a_name_that_an_encoding_lacks_costs_that_name_only(server: Server) -> None:
    """In a database that was made in LATIN1 before this was refused, the rest of the batch is kept."""
    url = new_database(server)
    with store_at(url):
        pass
    latin = new_database(server, "LATIN1")
    with store_at(url) as template, template.reading() as connection:
        assert connection.execute(text("SHOW server_encoding")).scalar_one() == "UTF8"
    store = Store(latin)
    with pytest.MonkeyPatch.context() as patch:  # as a version that did not look at the encoding
        patch.setattr("taskpilot_obs.store.on_postgresql.check_encoding", lambda *_: None)
        upgrade(store)
    Writer(store).write(rows_of([llm_call(tenant="Zoë"), llm_call(tenant="東京"), llm_call(tenant="大阪")]))
    tenants = [line.tenant for line in get_tenants_report(AROUND, store=store).tenants]
    assert "Zoë" in tenants
    assert sum(tenant.startswith("??~") for tenant in tenants) == len(tenants) - 1 == 2
    store.close()


def test_readers_and_writers_need_few_rights(server: Server, tmp_path: Path) -> None:
    """A reader without DDL and TEMP asks everything; a writer without TEMP writes; a missing right is named."""
    url = new_database(server)
    database = make_url(url).database
    with store_at(url) as store:
        Writer(store).write(rows_of([llm_call(), task()]))
    roles = (f"reader_{database}", f"writer_{database}", f"nobody_{database}")
    run(
        url,
        f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        *(f"CREATE ROLE {role} LOGIN" for role in roles),
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {roles[0]}, {roles[1]}",
        f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {roles[1]}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {roles[1]}",
    )
    reader, writer, nobody = (url.replace("tester@", f"{role}@") for role in roles)
    assert get_stats(AROUND, store=reader).requests == 1
    assert write_report(tmp_path / "report.md", AROUND, store=reader).exists()
    with pytest.raises(StoreUnavailableError, match=r"permission denied for table .*docs/store\.md"):
        prune(1, store=reader)
    exporter = StoreExporter(writer, spool_dir=tmp_path / "spool")
    exporter.export([llm_call(), verdict()])
    exporter.shutdown(5.0)
    aggregate_summaries("daily", None, store=writer)
    assert get_stats(AROUND, store=reader).requests == 2
    with pytest.raises(StoreUnavailableError, match="permission denied for table"):
        get_stats(AROUND, store=nobody)


def test_an_error_names_what_is_missing(server: Server) -> None:
    """No server, no database, no user: each has its own words, and none has the URL's secrets."""
    url = server.url("nowhere").replace("tester@", "tester:S3CRET@")
    cases = {
        url: "no such database",
        url.replace(f":{server.port}", ":1"): "no server listens there",
        url.replace("127.0.0.1", "no-such-host.invalid"): "the host is unknown",
        server.url().replace("tester@", "stranger:S3CRET@"): "no such user",
    }
    for given, words in cases.items():
        store = Store(given)
        with pytest.raises(StoreUnavailableError, match=words) as raised:
            store.version()
        assert "S3CRET" not in str(raised.value)
        store.close()


SECRET = "S3CR3T"  # noqa: S105  a pretended one
SPELT = (
    f"postgresql+psycopg://u@127.0.0.1:1/db?password={SECRET}",
    f"postgresql+psycopg://u:p@{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:a/{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:a#{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:a?{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:a%{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:{SECRET}@127.0.0.1:5x5/db",
    f"postgresql+psycopg://u:p@127.0.0.1:1/db?sslpassword={SECRET}",
    f"postgresql+psycopg://127.0.0.1:1/db?user=u&password={SECRET}",
    f"postgres://u:{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}@127.0.0.1:1,127.0.0.1:2/db",
    f"mysql://u:{SECRET}@h/db",
    f"u:{SECRET}@h/db",
    f"postgresql+asyncpg://u:{SECRET}@h/db",
)


@pytest.mark.parametrize("url", SPELT)
def test_no_secret_of_a_url_is_printed(url: str) -> None:
    """Whatever way a password is written into a URL, neither text nor message nor cause holds it."""
    said: list[str] = []
    try:
        store = Store(url)
        said += [str(store), repr(store.url), str(store.url)]
        store.version()
    except (ConfigurationError, StoreError) as error:
        cause: BaseException | None = error
        while cause is not None:
            said.append(f"{cause} {cause!r}")
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert said
    assert not [each for each in said if SECRET in each]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("?no_such_option=1", "no_such_option"),
        ("?client_encoding=latin1", "client_encoding"),
        ("?options=-c%20TimeZone=UTC", "options"),
        ("?prepared_statements=maybe", "on or off"),
    ],
)
def test_an_option_without_effect_is_refused(options: str, said: str) -> None:
    """An option of the URL reaches the driver, or is an error when the store is named."""
    with pytest.raises(ConfigurationError, match=said):
        Store(f"postgresql+psycopg://u@127.0.0.1/db{options}")
    with pytest.raises(ConfigurationError, match="mode="):
        Store("sqlite:///x.db?cache=shared")


def test_a_file_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    """`?mode=ro` answers questions, and refuses writers, upgrades and pruning."""
    url = sqlite_url(tmp_path)
    with store_at(url) as store:
        Writer(store).write(rows_of([llm_call()]))
    only = f"{url}?mode=ro"
    assert get_stats(AROUND, store=only).requests == 1
    for act in (lambda: prune(1, store=only), lambda: Writer(Store(only)).write(rows_of([llm_call()]))):
        with pytest.raises(StoreError, match="mode=ro"):
            act()


def test_a_file_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    """A writer goes on in the new file, a moved or deleted one gets nothing more, and nothing is lost."""
    url = sqlite_url(tmp_path)
    path = tmp_path / "telemetry.db"
    exporter = StoreExporter(url)
    exporter.export([llm_call(), llm_call()])
    for name in ("telemetry.db", "telemetry.db-wal", "telemetry.db-shm"):
        (tmp_path / name).replace(tmp_path / f"old-{name}")
    exporter.export([llm_call(agent="another")])
    assert get_stats(AROUND, store=url).requests == 1
    assert get_stats(AROUND, store=exporter.store).requests == 1
    exporter.shutdown(1.0)
    assert path.exists()
    with closing(sqlite3.connect(tmp_path / "old-telemetry.db")) as old:
        assert old.execute("SELECT count(*) FROM llm_call_telemetry").fetchone() in {(2,), (0,)}


def test_services_are_told_apart(store: Store) -> None:
    """Calls of a service and an environment are asked for by name, from rows and from summaries."""
    writer = Writer(store)
    for service, environment, calls in (("billing", "prod", 3), ("billing", "dev", 2), ("search", "prod", 1)):
        writer.write(rows_of([llm_call(cost=Decimal(1)) for _ in range(calls)], Source(service, environment)))
    writer.write(rows_of([llm_call()]))
    day = (NOON.replace(hour=0), NOON.replace(hour=0) + timedelta(days=1))
    for _ in range(2):
        assert get_stats(day, store=store, service="billing").requests == 5
        assert get_stats(day, store=store, service="billing", environment="prod").cost_usd == 3
        assert get_stats(day, store=store, environment="prod", model="gpt-4o").requests == 4
        assert get_stats(day, store=store, service="__none__").requests == 1
        assert get_stats(day, store=store).requests == 7
        aggregate_summaries("daily", None, store=store)


@contextmanager
def _counted(store: Store) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(*given: object) -> None:
        statements.append(str(given[2]))

    event.listen(store.engine, "before_cursor_execute", note)
    yield statements
    event.remove(store.engine, "before_cursor_execute", note)


def test_a_question_takes_few_statements(store: Store, tmp_path: Path) -> None:
    """Neither a series nor a report asks more often where there are more models, agents and tenants."""
    calls = [
        llm_call(NOON - n % 400 * HOUR, response_model=f"m{n % 50}", agent=f"a{n % 7}", tenant=f"t{n % 90}")
        for n in range(700)
    ]
    Writer(store).write(rows_of(calls))
    period = (NOON - 20 * 24 * HOUR, NOON + HOUR)
    for _ in range(2):
        with _counted(store) as of_series:
            points = get_series(period, store=store)
        with _counted(store) as of_report:
            report = write_report(tmp_path / "r.md", period, store=store).read_text()
        assert sum(point.requests for point in points) == 700
        assert (len(of_series) < 40, len(of_report) < 150) == (True, True)
        assert "Models: the 15 largest of 50" in report
        assert "Tenants: the 15 largest of 90" in report
        aggregate_summaries("daily", None, store=store)
