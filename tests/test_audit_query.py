from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from _audit import START_NS, event, finished, llm_call, started, whole
from typer.testing import CliRunner, Result

from taskpilot_obs.audit.prune import prune
from taskpilot_obs.audit.query import Damage, Filter, parse_duration, query, tail
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.cli.audit import register
from taskpilot_obs.exceptions import AuditLogError
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.records import Status

KEY = b"0123456789abcdef"
SECOND = 1_000_000_000
SMALL = AuditOptions(max_bytes=4_096, max_age_s=1e10)


def write(log: Path, options: AuditOptions = SMALL) -> Path:
    """Forty runs, one a second, over many files, and a second writer with runs in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: START_NS)
        owner, other = AuditLogExporter(log, options), AuditLogExporter(log, options)
    for number in range(20):
        start = START_NS + 2 * number * SECOND
        owner.export([finished(request_id=f"req-{2 * number}", start_unix_ns=start, duration_s=0.0)])
        failed = finished(
            agent="Other",
            request_id=f"req-{2 * number + 1}",
            start_unix_ns=start + SECOND,
            duration_s=0.0,
            status=Status.ERROR,
        )
        other.export([failed])
    owner.shutdown(1.0)
    other.shutdown(1.0)
    return log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "audit.jsonl")


def ids(records: object) -> list[str]:
    return [record["request_id"] for record in records if "request_id" in record]  # type: ignore[attr-defined]


def test_records_of_all_writers_by_time(log: Path) -> None:
    """A query merges all segments of all writers by the records' times."""
    assert len(list(log.parent.glob("audit.jsonl.*"))) >= 2
    assert ids(query(log)) == [f"req-{number}" for number in range(40)]


def test_filters(log: Path) -> None:
    """Each filter keeps what is equal to it, a time range is half open."""
    assert ids(query(log, Filter({"request_id": "req-7"}))) == ["req-7"]
    assert len(ids(query(log, Filter({"agent": "Other"})))) == 20
    assert ids(query(log, Filter({"agent": "Other", "status": "success"}))) == []
    assert len(ids(query(log, Filter({"log_type": "error", "event": "agent.output", "tenant_id": "acme"})))) == 20
    assert ids(query(log, Filter({"event": "s1"}))) == [], "the value of another field does not match"
    start = datetime.fromtimestamp(START_NS / 1e9, UTC)
    hour = timedelta(hours=1)
    chosen = Filter(since=start + timedelta(seconds=3), until=start + timedelta(seconds=5))
    assert ids(query(log, chosen)) == ["req-3", "req-4"]
    assert ids(query(log, Filter(since=start + hour))) == []


def test_money_keeps_its_digits(tmp_path: Path) -> None:
    """A parsed cost is a decimal with exactly the digits of the line."""
    exporter = AuditLogExporter(tmp_path / "audit.jsonl")
    exporter.export([llm_call(cost=Decimal("0.12345678901234567890123"))])
    exporter.shutdown(1.0)
    assert str(next(query(tmp_path))["cost_usd"]) == "0.12345678901234567890123"


def test_lines_that_are_no_records(log: Path) -> None:
    """A damaged line is passed over: reading must be possible in a damaged log."""
    log.write_bytes(b"nonsense\n[]\n{}\n" + log.read_bytes())
    damage = Damage()
    assert len(ids(query(log, damage=damage))) == 40
    assert damage.lines == 3


def test_tail(log: Path) -> None:
    """The last records, over segments and writers, oldest first."""
    assert ids(tail(log, 5)) == [f"req-{number}" for number in range(35, 40)]
    assert len(ids(tail(log, 1_000))) == 40


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h", 3_600), ("180d", 15_552_000), (" 2w ", 1_209_600), ("1h30m", 5_400)],
)
def test_durations(text: str, seconds: int) -> None:
    """A duration is a number and a unit, or several."""
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1h", "1y", "1h 1m"])
def test_durations_that_are_none(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(AuditLogError, match="such as '15m'"):
        parse_duration(text)


def test_prune(log: Path) -> None:
    """Old closed files go, oldest first, the dead writer's chain as a whole; what stays verifies."""
    removed = prune(log, timedelta(0))
    assert [report.problem for report in verify(log)] == [None]
    assert sorted(path.name for path in log.parent.iterdir()) == ["audit.anchors", "audit.jsonl", "audit.manifest"]
    assert len(removed) >= 4
    exporter = AuditLogExporter(log, SMALL)
    exporter.export([event()])
    exporter.shutdown(1.0)
    assert whole(log).last_seq == 21


def test_prune_keeps_what_is_young(log: Path) -> None:
    """What is not older than the limit stays, file by file."""
    age = datetime.now(UTC) - datetime.fromtimestamp(START_NS / 1e9, UTC)
    assert prune(log, age + timedelta(hours=1)) == []
    removed = prune(log, age - timedelta(seconds=20))
    assert removed
    assert [report.problem for report in verify(log)] == [None, None]
    left = ids(query(log))
    assert left[-1] == "req-39"
    assert "req-21" in left
    assert "req-0" not in left


def test_prune_stops_at_an_empty_file(tmp_path: Path) -> None:
    """A file without records has no age, and stays."""
    AuditLogExporter(tmp_path / "audit.jsonl").shutdown(1.0)
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
    assert prune(tmp_path, timedelta(0)) == []


def test_prune_leaves_a_writer_at_work_alone(log: Path) -> None:
    """The file that a process writes stays, however old its records are."""
    owner = AuditLogExporter(log, SMALL)
    other = AuditLogExporter(log, SMALL)
    other.export([event()])
    prune(log, timedelta(0))
    (path,) = log.parent.glob(f"audit.*.{os.getpid()}.jsonl")
    assert path.stat().st_size
    other.export([event()])
    for exporter in (owner, other):
        exporter.shutdown(1.0)
    assert [report.problem for report in verify(log)] == [None, None]


def test_prune_of_a_log_with_a_key(tmp_path: Path) -> None:
    """A log with a key is pruned with the key or not at all."""
    log = write(tmp_path / "audit.jsonl", SMALL._replace(key=KEY))
    with pytest.raises(AuditLogError, match="has a key"):
        prune(log, timedelta(0))
    assert prune(log, timedelta(0), key=KEY)
    whole(log, key=KEY)


def test_prune_refuses_what_it_cannot_note(log: Path) -> None:
    """A file that ends with no record is not removed: it may be evidence."""
    with pytest.raises(AuditLogError, match="must not be negative"):
        prune(log, timedelta(days=-1))
    first = min(log.parent.glob("audit.jsonl.*"))
    for end in (b"nonsense\n", b'{"timestamp":"2025"}\n'):
        with first.open("ab") as file:
            file.write(end)
        with pytest.raises(AuditLogError, match="verify the log before it is pruned"):
            prune(log, timedelta(0))
    assert first.exists()


def run(*arguments: object, **variables: str) -> Result:
    """The command line."""
    app = typer.Typer()
    register(app)
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TASKPILOT_OBS_AUDIT_KEY": "", **variables}
    return CliRunner().invoke(app, ["audit", *map(str, arguments)], env=environment)


def test_verify_command(log: Path) -> None:
    """`verify` exits 0 for a whole log, 1 for a broken one that it names, 2 where there is none."""
    good = run("verify", log)
    assert good.exit_code == 0, good.stderr
    assert good.stdout.startswith("whole  audit.jsonl: 20 records")
    log.write_bytes(log.read_bytes().replace(b"req-38", b"req-39"))
    bad = run("verify", log, "--json")
    assert bad.exit_code == 1
    report = json.loads(bad.stdout.splitlines()[0])
    assert report["is_whole"] is False
    assert "record 20: its content does not match" in report["problem"]
    assert "BROKEN audit.jsonl: 19 records are whole, then" in run("verify", log).stdout
    missing = run("verify", log.parent / "none.jsonl")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "no audit log at" in missing.stderr


def test_verify_command_with_key_and_anchors(tmp_path: Path) -> None:
    """The key comes from a file or the environment, anchors that were kept elsewhere from a file."""
    log = write(tmp_path / "audit.jsonl", SMALL._replace(key=KEY))
    (tmp_path / "key").write_bytes(KEY + b"\n")
    assert run("verify", log).exit_code == 1
    assert run("verify", log, "--key-file", tmp_path / "key").exit_code == 0
    assert run("verify", log, TASKPILOT_OBS_AUDIT_KEY=KEY.decode()).exit_code == 0
    assert run("verify", log, "--key-file", tmp_path / "none").exit_code == 2
    kept = tmp_path / "kept"
    kept.write_text('{"chain":"audit.jsonl","seq":99,"hash":"0","time":"2026","closed":true}\n')
    found = run("verify", log, "--key-file", tmp_path / "key", "--anchors", kept)
    assert found.exit_code == 1
    assert "knows record 99" in found.stdout
    assert run("verify", log, "--anchors", tmp_path / "none").exit_code == 2


def test_verify_command_with_a_head(log: Path) -> None:
    """The head that `verify` printed yesterday, written down elsewhere, finds that the log is another one today."""
    said = run("verify", log).stdout.splitlines()
    heads = {line.split()[1].rstrip(":"): line.rpartition(" ")[2] for line in said}
    main = heads.pop("audit.jsonl")
    assert run("verify", log, "--head", main).exit_code == 0
    further = [option for name, head in heads.items() for option in ("--head", f"{name}:{head}")]
    assert heads
    assert run("verify", log, "--head", main, *further).exit_code == 0
    seq, _, sealed = main.partition(":")
    for wrong in (f"{int(seq) + 1}:{sealed}", f"{seq}:{'0' * 64}", f"audit.host.1.jsonl:{main}"):
        found = run("verify", log, "--head", wrong)
        assert found.exit_code == 1, wrong
        assert "BROKEN" in found.stdout
    for nonsense in ("5", f"x:{sealed}", f"{seq}:abc"):
        assert run("verify", log, "--head", nonsense).exit_code == 2
    write(log.with_name("other.jsonl"))
    assert "several logs" in run("verify", log.parent, "--head", main).stderr
    assert run("verify", log.parent, "--head", f"audit.jsonl:{main}").exit_code == 0


def test_tail_and_query_commands(log: Path) -> None:
    """Records are printed as a table or as JSON, one a line."""
    table = run("tail", log, "-n", 2)
    assert table.exit_code == 0, table.stderr
    assert "[ERROR] Planner Output" in table.stdout
    found = run("query", log, "--request-id", "req-7", "--agent", "Other", "--format", "json")
    assert [json.loads(line)["request_id"] for line in found.stdout.splitlines()] == ["req-7"]
    assert run("query", log, "--since", "1h", "--format", "json").stdout == ""
    assert run("query", log, "--since", "soon").exit_code == 2
    assert run("tail", log, "-n", 0).exit_code == 2


def test_damaged_lines_are_reported(log: Path) -> None:
    """`query` and `tail` print what can be read, count the damaged lines on standard error, and exit with 1."""
    whole = run("query", log, "--request-id", "req-7", "--format", "json")
    assert (whole.exit_code, whole.stderr) == (0, "")
    first = min(log.parent.glob("audit.jsonl.*"))
    first.write_bytes(b"\0\0\0\n" + first.read_bytes())
    log.write_bytes(log.read_bytes() + b'{"timestamp":"2026-11')
    for options in ((), ("--request-id", "req-7"), ("--agent", "Other")):
        found = run("query", log, *options, "--format", "json")
        assert found.exit_code == 1
        assert found.stdout == "" or all(map(json.loads, found.stdout.splitlines()))
        assert "2 damaged lines were passed over" in found.stderr
    assert run("query", log, "--request-id", "req-7", "--format", "json").stdout == whole.stdout
    last = run("tail", log, "-n", 5, "--format", "json")
    assert (last.exit_code, "1 damaged line was passed over" in last.stderr) == (1, True)
    assert run("verify", log).exit_code == 1


def test_a_terminal_is_not_obeyed(tmp_path: Path) -> None:
    """What an agent wrote reaches the terminal without control characters and without markup."""
    log = tmp_path / "audit.jsonl"
    exporter = AuditLogExporter(log)
    exporter.export([event("\x1b[31mred\u202e[bold]x[/bold]"), started(name="y" * 10_000)])
    exporter.shutdown(1.0)
    said = run("tail", log).stdout
    assert "\x1b" not in said
    assert "[bold]x" in said


def test_prune_command(log: Path) -> None:
    """`prune` names what it removed."""
    said = run("prune", log, "--keep", "1d")
    assert said.exit_code == 0, said.stderr
    assert said.stdout.count("removed") >= 4
    assert run("prune", log, "--keep", "0").exit_code == 2
    whole(log)
