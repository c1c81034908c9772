"""Where lines of an audit log end, how its segments are named, and what its manifest proves."""

from __future__ import annotations

import errno
import io
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from _audit import event, read, whole

from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs.audit.chain import digest_with
from taskpilot_obs.audit.files import last_line, log_at, segment_stamp
from taskpilot_obs.audit.manifest import Anchor, is_genuine, read_notes
from taskpilot_obs.audit.prune import prune
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exporters.audit_log import AuditLogExporter

KEY = b"0123456789abcdef"
BLOCK = b"x" * 70_000
"""Longer than what is read at once from the end of a file."""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"half",
        b"one\n",
        b"one\nhalf",
        b"one\ntwo\n",
        b"one\n\n",
        b"\n",
        b"\n\nhalf",
        b"one\n" + BLOCK + b"\n",
        b"one\n" + BLOCK,
        BLOCK + b"\n" + BLOCK + b"\nhalf",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_the_last_whole_line_ends_at_the_last_line_feed(content: bytes) -> None:
    """What stands behind the last line feed is half a line; an empty line is a line."""
    whole_lines = [each for each in content.splitlines(keepends=True) if each.endswith(b"\n")]
    line, end = last_line(io.BytesIO(content), len(content))
    assert line == (whole_lines[-1] if whole_lines else b"")
    assert end == sum(map(len, whole_lines))


def test_a_segment_is_named_later_than_all_before_it(tmp_path: Path) -> None:
    """Segments sort by their names, although two are closed at one moment, or the clock has stepped back."""
    chain = log_at(tmp_path / "audit.jsonl").chain()
    now = datetime(2026, 11, 30, 12, 0, 0, 7, tzinfo=UTC)
    names = []
    for moment in (now, now, now - timedelta(hours=1), now.astimezone(timezone(timedelta(hours=5))), now):
        names.append(segment_stamp(moment, chain))
        chain.path.with_name(f"audit.jsonl.{names[-1]}").touch()
    assert names[0] == "20261130T120000.000007Z"
    assert names == sorted(set(names))
    assert all(chain.is_segment(chain.path.with_name(f"audit.jsonl.{each}")) for each in names)


def test_each_note_of_a_log_with_a_key_is_signed(tmp_path: Path) -> None:
    """Who has no key can write no note that counts: every line of the manifest is genuine under the key alone."""
    options = AuditOptions(max_bytes=4_096, keep_segments=1, key=KEY)
    exporter = AuditLogExporter(tmp_path / "audit.jsonl", options)
    for _ in range(60):
        exporter.export([event()])
    exporter.shutdown(1.0)
    notes = list(read_notes(log_at(tmp_path / "audit.jsonl").manifest))
    assert {each.event for each in notes} == {"start", "close", "prune"}
    assert all(is_genuine(each, digest_with(KEY)) for each in notes)
    assert not any(is_genuine(each, digest_with(KEY[::-1])) for each in notes)
    whole(tmp_path / "audit.jsonl", key=KEY)


def test_a_segment_whose_closing_was_not_noted_is_verified_by_its_records(tmp_path: Path) -> None:
    """A process may be killed between the renaming of a segment and its note: the records prove its place."""
    log = tmp_path / "audit.jsonl"
    for _ in range(2):
        exporter = AuditLogExporter(log)
        exporter.export([event(), event()])
        exporter.shutdown(1.0)
        log.rename(log.with_name(f"audit.jsonl.{segment_stamp(datetime.now(UTC), log_at(log).chain())}"))
    assert whole(log).records == 4


@pytest.mark.parametrize("beyond", [0, 20])
def test_of_a_write_that_is_cut_short_the_whole_lines_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    """Where a disk fills up within a batch, lines that are whole were written, and the chain goes on behind them."""
    log = tmp_path / "audit.jsonl"
    exporter = AuditLogExporter(log)
    real, wrote = os.write, list[int]()

    def cut(file: int, data: memoryview) -> int:
        if wrote:
            raise OSError(errno.ENOSPC, "on purpose")
        second = bytes(data).index(b"\n", bytes(data).index(b"\n") + 1)
        wrote.append(real(file, data[: second + 1 + beyond]))
        return wrote[0]

    monkeypatch.setattr(os, "write", cut)
    with pytest.raises(PartialExportError) as caught:
        exporter.export([event("a"), event("b"), event("c"), event("d")])
    monkeypatch.undo()
    assert caught.value.written == 2
    exporter.export([event("e")])
    exporter.shutdown(1.0)
    assert [record["event"] for record in read(log)] == ["a", "b", "e"]
    assert whole(log).records == 3


def test_anchors_kept_elsewhere_are_compared_with_stored_ones(tmp_path: Path) -> None:
    """Anchors of both kinds are compared in the order of their records, each with its own."""
    log, kept = tmp_path / "audit.jsonl", list[Anchor]()
    exporter = AuditLogExporter(log, AuditOptions(anchor_every=2), on_anchor=kept.append)
    for _ in range(6):
        exporter.export([event()])
    exporter.shutdown(1.0)
    assert [each.seq for each in kept] == [2, 4, 6]
    (report,) = verify(log, anchors=kept[:2])
    assert (report.problem, report.anchors) == (None, 5)
    for place, seq in enumerate((2, 4, 6)):
        wrong = [*kept[:place], kept[place]._replace(hash="0" * 64), *kept[place + 1 :]]
        (report,) = verify(log, anchors=wrong)
        assert report.problem is not None
        assert report.problem.seq == seq


def test_a_log_whose_records_are_all_pruned_is_whole(tmp_path: Path) -> None:
    """Anchors of pruned records do not prove a cut, although no file is left."""
    log = tmp_path / "audit.jsonl"
    exporter = AuditLogExporter(log)
    exporter.export([event(), event()])
    exporter.shutdown(1.0)
    log.rename(log.with_name(f"audit.jsonl.{segment_stamp(datetime.now(UTC), log_at(log).chain())}"))
    log.touch(0o600)
    assert len(prune(log, timedelta(0))) == 1
    (report,) = verify(log)
    assert (report.problem, report.records, report.last_seq) == (None, 0, 2)


def test_a_chain_that_lost_more_than_was_pruned_is_missing(tmp_path: Path) -> None:
    """Retention that removed a segment of a chain does not explain the loss of all its files."""
    log = tmp_path / "audit.jsonl"
    options = AuditOptions(max_bytes=4_096, keep_segments=1)
    owner, other = AuditLogExporter(log, options), AuditLogExporter(log, options)
    for _ in range(60):
        other.export([event()])
    for exporter in (owner, other):
        exporter.shutdown(1.0)
    assert [report.problem for report in verify(log)] == [None, None]
    for path in tmp_path.glob(f"audit.*.{os.getpid()}.*"):
        path.unlink()
    whole_one, lost = verify(log)
    assert whole_one.problem is None
    assert lost.problem is not None
    assert "its files are gone and not pruned" in lost.problem.reason
