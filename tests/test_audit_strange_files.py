from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _audit import event, read, whole

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.audit.files import log_at
from taskpilot_obs.audit.prune import prune
from taskpilot_obs.audit.query import parse_duration, query, tail
from taskpilot_obs.audit.rows import audit_text
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions, AuditWriter
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.semconv import RECORDS_DROPPED, WarningCode

KEY = b"0123456789abcdef"
OTHER_KEY = KEY[::-1]
NOBODY = 65_534
DEEP = b'{"timestamp":"2024-01-01T00:00:00.000000Z","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
FOREIGN = {
    "text": b"hello",
    "empty": b"",
    "cut": b'{"timestamp":"2024"',
    "unsealed": b'{"timestamp":"2024-01-01T00:00:00.000000Z","message":"x"}',
    "list": b"[1,2]",
    "null": b"null",
    "deep": DEEP,
    "nul": b"\0" * 70_000,
    "surrogates": b'{"timestamp":"2024-01-01T00:00:00.000000Z","message":"\\ud800","status":"\\udfff"}',
    "not utf-8": b'{"timestamp":"2024-01-01T00:00:00.000000Z","message":"\xff\xfe"}',
    "big integer": b'{"timestamp":"2024-01-01T00:00:00.000000Z","a":' + b"9" * 100_000 + b"}",
    "no number": b'{"timestamp":"2024-01-01T00:00:00.000000Z","a":NaN,"duration_ms":1e999999999}',
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "audit.jsonl"


def write(log: Path, *names: str, key: bytes | None = None, **options: Any) -> None:
    """Open the log, write events of these names, and close it; the records are from 2025, and are not too old here."""
    exporter = AuditLogExporter(log, AuditOptions(key=key, max_age_s=1e10, **options))
    exporter.export([event(name) for name in names])
    exporter.shutdown(1.0)


def write_segments(log: Path) -> list[Path]:
    """A log of several closed segments and a file that is written."""
    write(log, *map(str, range(60)), max_bytes=4_096)
    segments = sorted(log.parent.glob("audit.jsonl.*"))
    assert len(segments) > 3
    return segments


def events(log: Path) -> list[str]:
    return [record.get("event", "") for record in query(log)]


# --- foreign last lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_last_line(log: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """After a foreign last line the service starts: a new chain says why, and verification names the line."""
    write(log, "a")
    with log.open("ab") as file:
        file.write(FOREIGN[kind] + b"\n")
    before = log.read_bytes()
    write(log, "b")
    write(log, "c")
    assert log.read_bytes() == before
    recovered = log.with_name("audit.recovered.1.jsonl")
    first, *others = read(recovered)
    assert (first["event"], [record["event"] for record in others]) == ("chain.start", ["b", "c"])
    assert "not a record under the key" in first["attributes"]["reason"]
    assert first["attributes"]["chain"] == "audit.jsonl"
    assert "It is left as it is (`taskpilot-obs audit verify` names the line), and a new chain begins" in caplog.text
    assert f"[{WarningCode.AUDIT_LOG_BROKEN}]" in caplog.text
    own, other = verify(log)
    assert str(own.problem) == f"{log}:2: record 2: not a sealed record"
    assert (other.chain, other.records, other.problem) == (recovered.name, 3, None)
    assert [name for name in events(log) if name in ("a", "b", "c")] == ["a", "b", "c"]
    assert [record["event"] for record in tail(log, 2)] == ["b", "c"]


def test_a_file_that_was_never_an_audit_log(log: Path) -> None:
    """A private file with other content is not written to: a new chain begins beside it."""
    log.parent.mkdir()
    log.touch(mode=0o600)
    log.write_bytes(b"hello\n")
    write(log, "a")
    assert log.read_bytes() == b"hello\n"
    assert events(log)[-1] == "a"


def test_a_log_under_another_key(log: Path) -> None:
    """After a change of the key a new chain begins; each of the two verifies under its own key."""
    write(log, "a", key=KEY)
    write(log, "b", key=OTHER_KEY)
    assert [report.is_whole for report in verify(log, key=KEY)] == [True, False]
    assert [report.is_whole for report in verify(log, key=OTHER_KEY)] == [False, True]


def test_a_recovered_chain_that_is_damaged_too(log: Path) -> None:
    """A chain that follows a damaged one can be damaged itself; then a third one begins, of this process."""
    write(log, "a")
    for name in ("audit.jsonl", "audit.recovered.1.jsonl"):
        with log.with_name(name).open("ab") as file:
            file.write(b"hello\n")
        write(log, "b")
    assert [report.problem is None for report in verify(log)].count(True) == 1
    (third,) = log.parent.glob(f"audit.*.{os.getpid()}-2.jsonl")
    assert [record["event"] for record in read(third)] == ["chain.start", "b"]


def test_many_processes_beside_a_damaged_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many processes write a damaged log is not limited; each file is found by readers, and goes with retention."""
    monkeypatch.setattr("taskpilot_obs.audit.writer._MAX_WRITERS", 3)
    write(log, "a")
    with log.open("ab") as file:
        file.write(b"hello\n")
    writers = []
    for process in range(1, 7):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        writers.append(
            AuditWriter(log_at(log), AuditOptions(max_age_s=1e10), service="", counters=None, on_anchor=None)
        )
    text = audit_text(event("b"), "")
    assert text is not None
    for writer in writers:
        writer.append([text])
        writer.close()
    assert len({writer.path for writer in writers}) == 6
    assert sorted(name for name in events(log) if name != "chain.start") == ["a", *["b"] * 6]
    damaged, *others = verify(log)
    assert damaged.problem is not None
    assert [report.is_whole for report in others] == [True] * 6
    log.unlink()
    assert {str(path) for path in prune(log, timedelta())} == {writer.path for writer in writers}


def test_an_unfit_manifest_at_runtime(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no chain can be noted, one error names the manifest and batches are counted; writing resumes later."""
    counters = InternalCounters()
    worker = Batched(AuditLogExporter(log), name="audit_log", counters=counters)
    worker.export([event("a")])
    assert worker.flush(5.0)
    log.unlink()
    link(log)
    manifest = log.with_name("audit.manifest")
    manifest.chmod(0o660)
    for _ in range(3):
        worker.export([event("b")])
        assert worker.flush(5.0)
    (logged,) = caplog.records
    assert f"{manifest} has mode 0660" in logged.getMessage()
    assert len(list(log.parent.iterdir())) <= 6
    manifest.chmod(0o600)
    worker.export([event("c")])
    assert worker.flush(5.0)
    worker.shutdown(5.0)
    counters.take()
    assert counters.totals[RECORDS_DROPPED, ("audit_log", "export_failed")] == 3
    assert read(log.with_name("audit.recovered.1.jsonl"))[-1]["event"] == "c"


def test_a_second_process_beside_a_damaged_log(log: Path) -> None:
    """Two writers that find the log damaged do not write to one file."""
    write(log, "a")
    with log.open("ab") as file:
        file.write(b"hello\n")
    options = AuditOptions(max_age_s=1e10)
    writers = [AuditLogExporter(log, options) for _ in range(2)]
    for writer in writers:
        writer.export([event("b")])
        writer.shutdown(1.0)
    assert [report.problem is None for report in verify(log)] == [False, True, True]


def test_nul_bytes_after_a_power_cut(log: Path) -> None:
    """Megabytes of NULs without an end of line move to `audit.torn`; opening the log takes time linear in them."""
    took: list[float] = []
    for megabytes in (4, 16):
        write(log, "a")
        with log.open("ab") as file:
            file.write(b"\0" * (megabytes << 20))
        began = time.process_time()
        write(log, "b")
        took.append(time.process_time() - began)
    assert whole(log).records == 4
    assert log.with_name("audit.torn").stat().st_size == (20 << 20) + 2
    assert took[1] < 10 * max(took[0], 0.01)


# --- files that others made ------------------------------------------------------------------------------------------


def test_a_backup_of_the_file(log: Path) -> None:
    """A copy beside the log neither breaks verification, nor shows its records twice, nor is removed by retention."""
    write(log, "a", "b")
    backup = log.with_name("audit.jsonl.bak")
    shutil.copy(log, backup)
    with backup.open("ab") as file:
        file.write(b'{"half')
    assert whole(log).records == 2
    assert events(log) == ["a", "b"]
    write(log, *map(str, range(60)), max_bytes=4_096, keep_segments=1)
    assert whole(log).problem is None
    assert backup.exists()
    prune(log, parse_duration("0s"))
    assert backup.exists()
    assert whole(log).problem is None
    assert events(log)[:2] == ["a", "b"]  # of the backup: no other file has them any more


@pytest.mark.parametrize("place", [0, 2])
def test_a_compressed_segment(log: Path, place: int) -> None:
    """A segment that was compressed is verified and read like the others, and retention leaves it alone."""
    segment = write_segments(log)[place]
    packed = segment.with_name(f"{segment.name}.gz")
    packed.write_bytes(gzip.compress(segment.read_bytes()))
    segment.unlink()
    assert whole(log).records == 60
    assert events(log) == list(map(str, range(60)))
    removed = prune(log, parse_duration("0s"))
    assert packed.exists()
    assert packed not in removed
    assert whole(log).problem is None
    write(log, *map(str, range(60)), max_bytes=4_096, keep_segments=1)
    assert len([path for path in log.parent.glob("audit.jsonl.*Z*") if path != packed]) == 1
    assert whole(log).problem is None


def test_a_compressed_segment_that_is_damaged(log: Path) -> None:
    """A compressed segment that cannot be read to its end is named."""
    segment = write_segments(log)[0]
    data = gzip.compress(segment.read_bytes())
    segment.with_name(f"{segment.name}.gz").write_bytes(data[: len(data) // 2])
    segment.unlink()
    problem = str(verify(log)[0].problem)
    assert ".gz: record" in problem
    assert "damaged" in problem
    with pytest.raises(OSError, match="damaged"):
        events(log)


def test_segments_with_swapped_names(log: Path) -> None:
    """Two segments that swapped their names are found, though their records follow each other."""
    first, second, *_ = write_segments(log)
    other = first.with_name("other")
    first.rename(other)
    second.rename(first)
    other.rename(second)
    problem = str(verify(log)[0].problem)
    assert "its name belongs to the segment that ends with another record: files were renamed or swapped" in problem
    assert str(second) in problem


def test_segments_with_swapped_names_and_no_manifest(log: Path) -> None:
    """Swapped names are found without the manifest too: names sort as the records do."""
    first, second, *_ = write_segments(log)
    log.with_name("audit.manifest").unlink()
    other = first.with_name("other")
    first.rename(other)
    second.rename(first)
    other.rename(second)
    assert "swapped" in str(verify(log)[0].problem)


# --- files that are not ours to write to -----------------------------------------------------------------------------


def link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.touch(mode=0o600)
    path.symlink_to(victim)


def file_of_another_user(path: Path) -> None:
    path.touch(mode=0o600)
    os.chown(path, NOBODY, NOBODY)


def file_that_others_may_write(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


def file_that_others_may_read(path: Path) -> None:
    path.touch()
    path.chmod(0o604)


Prepare = Callable[[Path], None]
UNFIT: dict[str, tuple[Prepare, str]] = {
    "link": (link, "is a symbolic link"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
    "device": (lambda path: path.symlink_to("/dev/full"), "is a symbolic link"),
    "pipe": (os.mkfifo, "is not a regular file"),
    "other user's": (file_of_another_user, "belongs to another user"),
    "writable": (file_that_others_may_write, "mode 0666"),
    "readable": (file_that_others_may_read, "mode 0604"),
}


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.anchors", "audit.manifest"])
@pytest.mark.parametrize("kind", UNFIT)
def test_a_file_that_is_not_ours(log: Path, kind: str, name: str) -> None:
    """A link, a pipe, another user's file and one that others can use are refused at `configure()`, by name."""
    prepare, reason = UNFIT[kind]
    if kind == "other user's" and os.geteuid():
        pytest.skip("only root can give a file to another user")
    log.parent.mkdir(mode=0o700)
    prepare(log.with_name(name))
    with pytest.raises(ConfigurationError, match=reason) as refused:
        AuditLogExporter(log)
    assert str(log.with_name(name)) in str(refused.value)
    victim = log.with_name("victim")
    assert not victim.exists() or victim.read_bytes() == b""


def test_a_link_that_appears_while_the_log_is_written(log: Path) -> None:
    """When a link takes the file's place at run time, records go to a new chain and not through the link."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    log.unlink()
    link(log)
    exporter.export([event("b")])
    exporter.shutdown(1.0)
    assert log.with_name("victim").read_bytes() == b""
    assert read(log.with_name("audit.recovered.1.jsonl"))[-1]["event"] == "b"


def test_reading_follows_no_link(log: Path) -> None:
    """A link in the place of a segment, or of the log, is not read; verification finds that its records are missing."""
    segment = write_segments(log)[1]
    moved = segment.rename(log.parent.with_name("elsewhere"))
    segment.symlink_to(moved)
    assert len(events(log)) < 60
    assert "is expected here" in str(verify(log)[0].problem)
