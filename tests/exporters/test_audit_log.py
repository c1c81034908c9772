from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from _audit import event, finished, llm_call, read, samples, started, whole

from taskpilot_obs._pipeline.exporter import Exporter, PartialExportError
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs._support.fork import _renew as _after_fork
from taskpilot_obs.audit.chain import GENESIS
from taskpilot_obs.audit.files import log_at
from taskpilot_obs.audit.lock import is_locked
from taskpilot_obs.audit.manifest import Anchor, read_anchors, read_notes
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.records import Operation

KEY = b"0123456789abcdef"
AGELESS = AuditOptions(max_age_s=1e10)
"""The records of these tests are from 2025; a restart would close their file for its age."""
NOBODY = 65_534


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "audit.jsonl"


def segments(log: Path) -> list[Path]:
    return sorted(log.parent.glob("audit.jsonl.*"))


def written(log: Path) -> list[dict[str, Any]]:
    return [record for path in [*segments(log), log] for record in read(path)]


def fork(child: Any) -> None:
    """Run `child` in a forked process, which must end well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_every_record_is_a_sealed_line(log: Path) -> None:
    """Each record is one line with its number, the hash before it and, last, its own hash; the log verifies."""
    exporter = AuditLogExporter(log, service="svc")
    assert isinstance(exporter, Exporter)
    exporter.export([*samples(), started(Operation.TOOL, "t")])
    exporter.shutdown(1.0)
    records = read(log)
    assert [record["seq"] for record in records] == list(range(1, len(samples()) + 1))
    assert [record["prev_hash"] for record in records] == [GENESIS.hash, *(each["hash"] for each in records[:-1])]
    assert {list(record)[-1] for record in records} == {"hash"}
    assert {record["service"] for record in records} == {"svc"}
    assert whole(log).records == len(samples())


def test_a_key_makes_another_chain(log: Path) -> None:
    """With a key the log verifies under that key alone."""
    exporter = AuditLogExporter(log, AuditOptions(key=KEY))
    exporter.export([event()])
    exporter.shutdown(1.0)
    whole(log, key=KEY)
    assert verify(log)[0].problem is not None
    assert verify(log, key=KEY[::-1])[0].problem is not None


@pytest.mark.promise("owner-only")
def test_modes(log: Path) -> None:
    """Files are made 0600 and a missing folder 0700; what exists keeps its mode."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096))
    exporter.export([event()] * 20)
    exporter.shutdown(1.0)
    assert log.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in log.parent.iterdir()} == {0o600}
    log.parent.chmod(0o755)
    log.chmod(0o640)
    AuditLogExporter(log).shutdown(1.0)
    assert (log.parent.stat().st_mode & 0o777, log.stat().st_mode & 0o777) == (0o755, 0o640)


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """A path below a file is refused at construction, with what to do about it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot be written \(.*\): choose a path"):
        AuditLogExporter(tmp_path / "file" / "audit.jsonl")
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        AuditLogExporter(tmp_path / "audit.jsonl")
    assert not is_locked(tmp_path / "audit.anchors")


def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    """A folder without the right to write is refused at construction."""
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro").chmod(0o555)

    def child() -> None:
        if os.getuid() == 0:  # may write anywhere
            os.setuid(NOBODY)
        with pytest.raises(ConfigurationError, match=r"cannot be written \(Permission denied\)"):
            AuditLogExporter(tmp_path / "ro" / "audit.jsonl")

    fork(child)


@pytest.mark.parametrize("name", ["audit.log", "audit", ".jsonl", "audit.host.12.jsonl", "audit.jsonl.x.jsonl"])
def test_names_that_cannot_be_told_from_others(tmp_path: Path, name: str) -> None:
    """A name that is not `….jsonl`, or looks like that of a further process' file, is refused."""
    with pytest.raises(ConfigurationError, match=r"audit\.jsonl") as caught:
        AuditLogExporter(tmp_path / name)
    assert repr(str(tmp_path / name)) in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("key", b"short"),
        ("max_bytes", 10),
        ("max_age_s", 0.0),
        ("keep_segments", -1),
        ("durability", "maybe"),
        ("anchor_every", 0),
        ("max_string", 3),
    ],
)
def test_wrong_options(log: Path, option: str, value: Any) -> None:
    """A wrong option is refused by name, with what is allowed; a key is never echoed."""
    with pytest.raises(ConfigurationError, match=rf"{option}: .* allowed is") as refusal:
        AuditLogExporter(log, AuditOptions(**{option: value}))
    assert "short'" not in str(refusal.value)


def test_no_posix_locks(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no POSIX locks the refusal says what else is possible."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(ConfigurationError, match="stdout or a logger"):
        AuditLogExporter(log)


def test_an_unfit_record_costs_itself_only(log: Path) -> None:
    """A record that cannot be encoded is counted as lost; the others of its batch are written."""
    exporter = AuditLogExporter(log)
    with pytest.raises(PartialExportError) as lost:
        exporter.export([event("a"), finished(user=b"no text"), finished(duration_s=None), event("b")])
    assert lost.value.written == 2
    assert isinstance(lost.value.__cause__, TypeError)
    exporter.shutdown(1.0)
    assert [record["event"] for record in read(log)] == ["a", "b"]
    whole(log)


def test_rotation_by_size(log: Path) -> None:
    """No file passes the size, the names sort by time, and one chain runs through all of them."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096))
    for _ in range(5):
        exporter.export([started(), finished(), llm_call()] * 5)
    exporter.shutdown(1.0)
    assert all(path.stat().st_size <= 4_096 for path in [*segments(log), log])
    assert len(segments(log)) > 5
    assert [record["seq"] for record in written(log)] == list(range(1, 76))
    assert whole(log).records == 75
    closed = [note for note in read_notes(log.with_name("audit.manifest")) if note.event == "close"]
    assert [note.segment for note in closed] == [path.name for path in segments(log)]


def test_rotation_by_age(log: Path) -> None:
    """A file whose first record is old is closed when the next record comes, also across a restart."""
    exporter = AuditLogExporter(log, AuditOptions(max_age_s=0.05))
    exporter.export([event("a")])
    time.sleep(0.06)
    exporter.export([event("b")])
    exporter.shutdown(1.0)
    assert [len(read(path)) for path in [*segments(log), log]] == [1, 1]
    exporter = AuditLogExporter(log, AuditOptions(max_age_s=3_600.0))
    exporter.export([event("c")])
    exporter.shutdown(1.0)
    assert len(segments(log)) == 2, "the records are from 2025"
    whole(log)


def test_a_clock_that_steps_back(log: Path) -> None:
    """A new segment's name is later than every one before it, even when the clock is not."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096))
    exporter.export([event()] * 20)
    segments(log)[-1].rename(log.with_name("audit.jsonl.29991231T000000.000000Z"))
    exporter.export([event()] * 40)
    exporter.shutdown(1.0)
    numbers = [read(path)[0]["seq"] for path in segments(log)]
    assert numbers == sorted(numbers)
    whole(log)


def test_retention_keeps_the_chain(log: Path) -> None:
    """Only so many closed files stay, and what is left still verifies, also when all closed ones are gone."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096, keep_segments=2, key=KEY))
    exporter.export([event()] * 100)
    assert len(segments(log)) == 2
    exporter.shutdown(1.0)
    report = whole(log, key=KEY)
    assert report.last_seq == 100
    assert report.first_seq is not None
    assert report.first_seq > 50
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096, keep_segments=0, key=KEY))
    exporter.export([event()] * 20)
    exporter.shutdown(1.0)
    assert segments(log) == []
    assert whole(log, key=KEY).last_seq == 120


def test_restart_continues_the_chain(log: Path) -> None:
    """A new process goes on from the last record, from the last segment if its file is empty."""
    for number in range(3):
        exporter = AuditLogExporter(log)
        exporter.export([event(str(number))])
        exporter.shutdown(1.0)
    log.rename(log.with_name("audit.jsonl.1"))
    exporter = AuditLogExporter(log)
    exporter.export([event("after")])
    exporter.shutdown(1.0)
    assert [record["seq"] for record in read(log)] == [4]
    assert whole(log).records == 4


def test_after_shutdown_a_batch_opens_the_file_again(log: Path) -> None:
    """A record that comes after `shutdown` is not lost, and the lock is free in between."""
    exporter = AuditLogExporter(log)
    exporter.shutdown(1.0)
    assert not is_locked(log.with_suffix(".anchors"))
    assert exporter.path == str(log)
    exporter.export([event()])
    assert is_locked(log.with_suffix(".anchors"))
    assert exporter.path == str(log)
    exporter.shutdown(1.0)
    whole(log)


@pytest.mark.parametrize("torn", [b'{"timestamp":"2025', b"\x00" * 5_000, b"x" * 100_000])
def test_torn_last_line(log: Path, torn: bytes) -> None:
    """Half a line that a killed writer left moves to `audit.torn`, and the chain goes on."""
    exporter = AuditLogExporter(log, AGELESS)
    exporter.export([event("a")])
    exporter.shutdown(1.0)
    with log.open("ab") as file:
        file.write(torn)
    assert "half a line" in str(verify(log)[0].problem)
    exporter = AuditLogExporter(log, AGELESS)
    exporter.export([event("b")])
    exporter.shutdown(1.0)
    assert log.with_name("audit.torn").read_bytes() == torn + b"\n"
    assert [record["event"] for record in read(log)] == ["a", "b"]
    whole(log)


def test_rotation_by_someone_else(log: Path) -> None:
    """A file that logrotate moves away is noticed; the chain goes on in a new one."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    log.rename(log.with_name("audit.jsonl.1"))
    exporter.export([event("b")])
    log.rename(log.with_name("audit.jsonl.0"))
    exporter.export([event("c")])
    exporter.shutdown(1.0)
    assert [record["seq"] for record in read(log)] == [3]
    assert whole(log).records == 3


def test_removed_file_and_folder(log: Path) -> None:
    """A removed file is created again and its loss is found; a removed folder begins a new log."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    log.unlink()
    exporter.export([event("b")])
    assert "record 1 is expected here, this is record 2" in str(verify(log)[0].problem)
    shutil.rmtree(log.parent)
    exporter.export([event("c")])
    exporter.shutdown(1.0)
    assert [record["event"] for record in read(log)] == ["c"]
    whole(log)


def test_removed_lock(log: Path) -> None:
    """When the anchor file, which bears the lock, is removed, the writer takes the lock again and continues."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    log.with_suffix(".anchors").unlink()
    exporter.export([event("b")])
    assert is_locked(log.with_suffix(".anchors"))
    exporter.shutdown(1.0)
    assert whole(log).records == 2


def test_foreign_bytes_behind_our_back(log: Path) -> None:
    """What someone else appends does not become part of our next line, and is found."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    with log.open("ab") as file:
        file.write(b"forged\nhalf")
    exporter.export([event("b")])
    exporter.shutdown(1.0)
    assert "not a sealed record" in str(verify(log)[0].problem)
    assert log.read_bytes().count(b"\n") == 3


def test_a_file_replaced_at_runtime(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the folder comes back with something else in the file's place, records go to a new chain; none is lost."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    shutil.rmtree(log.parent)
    log.parent.mkdir()
    log.write_text("hello\n")
    log.chmod(0o644)
    exporter.export([event("b"), started(Operation.TOOL, "t")])
    exporter.shutdown(1.0)
    assert log.read_text() == "hello\n"
    first, second = read(log.with_name("audit.recovered.1.jsonl"))
    assert (first["event"], second["event"]) == ("chain.start", "b")
    assert "mode 0644" in first["attributes"]["reason"]
    assert re.search("audit.jsonl: .*mode 0644.* a new chain begins", caplog.text)


def test_a_file_that_may_not_grow(log: Path) -> None:
    """When a write stops halfway, no half line stays, the lost are counted to the unit, and the chain goes on."""

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        exporter = AuditLogExporter(log)
        with pytest.raises(PartialExportError) as lost:
            exporter.export([event(str(number)) for number in range(10)])
        assert lost.value.written == len(read(log))
        assert 0 < lost.value.written < 10
        log.rename(log.with_name("audit.jsonl.1"))
        exporter.export([event("later")])
        exporter.shutdown(1.0)
        assert [record["seq"] for record in read(log)] == [lost.value.written + 1]
        assert whole(log).records == lost.value.written + 1

    fork(child)  # the limit holds for a whole process: pytest's own output may stand in a longer file


def test_disk_full(tmp_path: Path) -> None:
    """On a full disk lost equals counted; when there is room again the next record continues a whole chain."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here; test_a_file_that_may_not_grow covers the same code")
    try:
        exporter = AuditLogExporter(disk / "audit.jsonl", AuditOptions(anchor_every=10))
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 20_000)
        lost = 0
        for _ in range(20):
            try:
                exporter.export([event()] * 10)
            except PartialExportError as error:
                lost += 10 - error.written
        assert 0 < lost < 200
        ballast.unlink()
        exporter.export([event("later")])
        exporter.shutdown(1.0)
        assert whole(disk / "audit.jsonl").records == 201 - lost
        assert verify(disk / "audit.jsonl")[0].problem is None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path) -> None:
    """A disk without room for the first note is refused at construction."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        (disk / "ballast").write_bytes(b"x" * 8_192)
        with pytest.raises(ConfigurationError, match="No space left on device"):
            AuditLogExporter(disk / "audit.jsonl")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_half_line_that_cannot_be_cut(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When even the cutting fails, the file is opened again and the half line moved away."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    real_write, real_cut = os.write, os.ftruncate

    def failing_write(file: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", refusing)
        return real_write(file, data[:100])

    def refusing(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", failing_write)
    monkeypatch.setattr(os, "ftruncate", refusing)
    with pytest.raises(PartialExportError):
        exporter.export([event("b")])
    monkeypatch.setattr(os, "write", real_write)
    monkeypatch.setattr(os, "ftruncate", real_cut)
    exporter.export([event("c")])
    exporter.shutdown(1.0)
    assert [record["event"] for record in read(log)] == ["a", "c"]
    assert len(log.with_name("audit.torn").read_bytes()) == 101
    whole(log)


def test_two_writers_at_once(log: Path) -> None:
    """A second writer gets a file of its own, whose first record names the head that it knew; both verify."""
    first = AuditLogExporter(log)
    first.export([event("a"), event("b")])
    second = AuditLogExporter(log, service="svc")
    third = AuditLogExporter(log, service="svc")
    for exporter in (first, second, third):
        exporter.export([event("c")])
    for exporter in (first, second, third):
        exporter.shutdown(1.0)
    others = sorted(log.parent.glob(f"audit.*.{os.getpid()}*.jsonl"))
    assert [path.name.rpartition(f".{os.getpid()}")[2] for path in others] == ["-2.jsonl", ".jsonl"]
    beginning = read(others[0])[0]
    assert (beginning["event"], beginning["seq"], beginning["service"]) == ("chain.start", 1, "svc")
    assert beginning["attributes"] == {"chain": "audit.jsonl", "head_seq": 2, "head_hash": read(log)[1]["hash"]}
    reports = verify(log)
    assert [(report.records, report.problem) for report in reports] == [(3, None), (2, None), (2, None)]


@pytest.mark.parametrize(("host", "name"), [("My_Host.7", "My-Host-7"), ("-ünder-", "nder"), ("日本", "host")])
def test_a_further_writers_file_is_named_by_host_and_process(
    log: Path, monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    """Writers on hosts that share a folder have files of their own, whatever characters their hosts' names have."""
    monkeypatch.setattr("taskpilot_obs.audit.files.node", lambda: host)
    exporters = [AuditLogExporter(log), AuditLogExporter(log)]
    assert log.with_name(f"audit.{name}.{os.getpid()}.jsonl").exists()
    for exporter in exporters:
        exporter.shutdown(1.0)


def test_processes_at_once(log: Path) -> None:
    """Processes that write at the same time lose nothing, and every chain verifies."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from _audit import event
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs._support.fork import _renew as _after_fork
from taskpilot_obs.exporters.audit_log import AuditLogExporter
exporter = AuditLogExporter({str(log)!r}, AuditOptions(max_bytes=20_000))
print("open", flush=True)
sys.stdin.readline()
for _ in range(20):
    exporter.export([event()] * 25)
exporter.shutdown(1.0)
"""
    command = [sys.executable, "-c", code]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
        for process in (one, two):
            process.communicate(b"go\n", timeout=60)
    reports = verify(log)
    assert [report.problem for report in reports] == [None, None]
    assert [report.records for report in reports] == [500, 501]


def test_fork(log: Path) -> None:
    """A forked child writes a file of its own and does not touch its parent's; the parent goes on."""
    exporter = AuditLogExporter(log)
    exporter.export([event("parent")])

    def child() -> None:
        exporter.export([event("child")])
        exporter.shutdown(1.0)

    fork(child)
    exporter.export([event("parent")])
    exporter.shutdown(1.0)
    assert [record["event"] for record in read(log)] == ["parent", "parent"]
    (other,) = log.parent.glob("audit.*.*.jsonl")
    assert [record["event"] for record in read(other)] == ["chain.start", "child"]
    assert [report.problem for report in verify(log)] == [None, None]


def test_what_a_child_lets_go_of(log: Path) -> None:
    """In a child the parent's files are closed and its lock is not taken over; the next record opens a new file."""
    exporter = AuditLogExporter(log)
    exporter.export([event("a")])
    for hook in (exporter.after_fork, exporter.after_fork, _after_fork):
        hook()
        assert not is_locked(log.with_suffix(".anchors"))
    exporter.export([event("b")])
    exporter.shutdown(1.0)
    assert whole(log).records == 2


def test_fork_without_hooks(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that was forked past Python's hooks still notices that it is another process."""
    exporter = AuditLogExporter(log)
    monkeypatch.setattr(exporter, "_pid", 1)
    exporter.export([event("a")])
    exporter.shutdown(1.0)
    assert [record["event"] for record in read(log)] == ["a"]


def test_a_silent_child_keeps_no_lock(log: Path) -> None:
    """A child that outlives its parent without writing does not hold the parent's lock."""
    exporter = AuditLogExporter(log)

    def child() -> None:
        assert is_locked(log.with_suffix(".anchors"))
        os.kill(os.getppid(), 0)

    fork(child)
    assert is_locked(log.with_suffix(".anchors"))
    exporter.shutdown(1.0)
    assert not is_locked(log.with_suffix(".anchors"))


def test_a_lock_that_is_removed_while_it_is_taken(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that was removed meanwhile is worth nothing, and is taken again."""
    real = fcntl.flock
    removed: list[Path] = []

    def racing(file: int, how: int) -> None:
        real(file, how)
        if not removed:
            removed.append(log.with_suffix(".anchors"))
            removed[0].unlink()

    monkeypatch.setattr(fcntl, "flock", racing)
    exporter = AuditLogExporter(log)
    assert removed
    assert is_locked(removed[0])
    exporter.shutdown(1.0)


def test_a_second_writer_beside_a_removed_file(log: Path) -> None:
    """A further process that finds no file of the log's owner ties its chain to the newest segment, or to nothing."""
    owner = AuditLogExporter(log)
    owner.export([event()])
    log.rename(log.with_name("audit.jsonl.1"))
    other = AuditLogExporter(log)
    (path,) = log.parent.glob("audit.*.*.jsonl")
    assert read(path)[0]["attributes"]["head_seq"] == 1
    for exporter in (owner, other):
        exporter.shutdown(1.0)
    assert [report.problem for report in verify(log)] == [None, None]


def test_an_anchor_that_does_not_fit(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An anchor that is written by half is counted, costs no record, and does not spoil the next one."""
    counters = InternalCounters()
    exporter = AuditLogExporter(log, AuditOptions(anchor_every=1), counters=counters)
    real = os.write
    monkeypatch.setattr(
        os, "write", lambda file, data: real(file, data[:20] if bytes(data).startswith(b'{"chain"') else data)
    )
    exporter.export([event()])
    monkeypatch.undo()
    exporter.export([event()])
    exporter.shutdown(1.0)
    counters.take()
    assert {labels: amount for (_, labels), amount in counters.totals.items()} == {("audit_log.anchor",): 1}
    assert whole(log).anchors == 1


def test_anchors(log: Path) -> None:
    """The head is noted every so many records and at the end, and each anchor is handed to the callable."""
    kept: list[Anchor] = []
    exporter = AuditLogExporter(log, AuditOptions(anchor_every=10), on_anchor=kept.append)
    for _ in range(25):
        exporter.export([event()])
    exporter.shutdown(1.0)
    exporter.shutdown(1.0)
    assert [(anchor.seq, anchor.closed) for anchor in kept] == [(10, False), (20, False), (25, True)]
    assert list(read_anchors(log.with_suffix(".anchors"))) == kept
    assert [anchor.hash for anchor in kept] == [read(log)[anchor.seq - 1]["hash"] for anchor in kept]
    assert whole(log, anchors=kept).anchors == 6


def test_a_failing_callable(log: Path) -> None:
    """A callable that raises is counted and costs no record."""

    def failing(_: Anchor) -> None:
        raise RuntimeError("unreachable")

    counters = InternalCounters()
    exporter = AuditLogExporter(log, AuditOptions(anchor_every=1), counters=counters, on_anchor=failing)
    exporter.export([event()])
    exporter.shutdown(1.0)
    counters.take()
    assert {labels: amount for (_, labels), amount in counters.totals.items()} == {("audit_log.on_anchor",): 1}
    whole(log)


def test_a_log_that_is_shorter_than_its_anchors(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Opening a log that was cut logs a warning, and verification reports it each time."""
    exporter = AuditLogExporter(log)
    exporter.export([event()] * 3)
    exporter.shutdown(1.0)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    with caplog.at_level(logging.WARNING):
        exporter = AuditLogExporter(log)
    assert "ends with record 2, but record 3 was written" in caplog.text
    exporter.export([event("other")] * 5)
    exporter.shutdown(1.0)
    assert "knows another record 3" in str(verify(log)[0].problem)


def test_a_rotation_that_fails(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file cannot be closed, writing goes on in it and the failure is counted."""
    counters = InternalCounters()
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096), counters=counters)

    def refusing(*_: object) -> Path:
        raise PermissionError

    monkeypatch.setattr(Path, "rename", refusing)
    exporter.export([event()] * 20)
    exporter.shutdown(1.0)
    counters.take()
    assert {labels for _, labels in counters.totals} == {("audit_log.rotate",)}
    assert whole(log).records == 20


def test_fsync(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fsync` each batch is brought to the disk before `export` returns; with `flush` none is."""
    synced: list[int] = []
    real = os.fsync
    exporter = AuditLogExporter(log, AuditOptions(durability="fsync"))
    quick = AuditLogExporter(log.with_name("quick.jsonl"))

    def noting(file: int) -> None:
        synced.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", noting)
    quick.export([event()])
    assert quick.flush(1.0)
    assert synced == []
    exporter.export([event()])
    assert len(synced) == 1
    assert exporter.flush(1.0)
    assert len(synced) == 2
    exporter.shutdown(1.0)
    quick.shutdown(1.0)
    assert exporter.flush(1.0)


def test_flush_from_another_thread(log: Path) -> None:
    """`flush` and `shutdown` may come from another thread in mid-batch, and nothing is lost."""
    exporter = AuditLogExporter(log, AuditOptions(durability="fsync", max_bytes=50_000))
    stop = threading.Event()

    def nag() -> None:
        while not stop.is_set():
            exporter.flush(1.0)
            exporter.shutdown(1.0)

    other = threading.Thread(target=nag)
    other.start()
    for _ in range(40):
        exporter.export([event()] * 10)
    stop.set()
    other.join()
    exporter.shutdown(1.0)
    assert whole(log).records == 400


def test_too_many_writers(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that opens the same log without end is told so."""
    monkeypatch.setattr("taskpilot_obs.audit.writer._MAX_WRITERS", 2)
    exporters = [AuditLogExporter(log) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="no file is left for this process: 2 have a writer already, 0 cannot"):
        AuditLogExporter(log)
    for exporter in exporters:
        exporter.shutdown(1.0)


def test_lines_are_written_in_the_order_of_the_batch(log: Path) -> None:
    """Lines lie in the order of the records, also over several writes and files."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=200_000))
    exporter.export([event(str(number)) for number in range(2_000)])
    exporter.shutdown(1.0)
    assert [int(record["event"]) for record in written(log)] == list(range(2_000))
    assert len(segments(log)) >= 3


def test_file_names(log: Path) -> None:
    """Anchors, manifest and torn lines lie outside of the glob `*.jsonl*`, and hold no folder's name."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_096))
    exporter.export([event()] * 20)
    exporter.shutdown(1.0)
    beside = {path.name for path in log.parent.iterdir()} - {path.name for path in log.parent.glob("*.jsonl*")}
    assert beside == {"audit.anchors", "audit.manifest"}
    for name in beside:
        for line in (log.parent / name).read_text().splitlines():
            assert not re.search("/", line)
            assert json.loads(line)
    assert log_at(log).torn.name == "audit.torn"
