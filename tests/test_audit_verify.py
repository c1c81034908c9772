from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _audit import event, finished, llm_call, read, started, whole
from _figures import measured
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskpilot_obs.audit.chain import GENESIS, check_line, digest_with, head_of, seal
from taskpilot_obs.audit.manifest import Anchor, append_line, read_anchors, read_notes
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exceptions import AuditLogError, ConfigurationError
from taskpilot_obs.exporters.audit_log import AuditLogExporter

KEY = b"0123456789abcdef"
RECORDS = 1_000
Mutation = Callable[[list[bytes], random.Random], list[bytes]]


def write(log: Path, records: int = RECORDS, options: AuditOptions | None = None) -> Path:
    """A closed log in one or more files."""
    exporter = AuditLogExporter(log, options)
    three: list[Any] = [started(), llm_call(), finished(attributes={"task": "ünï"})]
    exporter.export([three[number % 3]._replace(request_id=f"req-{number}") for number in range(records)])
    exporter.shutdown(1.0)
    return log


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "audit.jsonl")


def flip_a_byte(lines: list[bytes], dice: random.Random) -> list[bytes]:
    data = bytearray(b"".join(lines))
    place = dice.randrange(len(data))
    data[place] ^= 1 << dice.randrange(8)
    return [bytes(data)]


def insert_a_byte(lines: list[bytes], dice: random.Random) -> list[bytes]:
    data = bytearray(b"".join(lines))
    data.insert(dice.randrange(len(data) + 1), dice.choice(b' \n{}0"'))
    return [bytes(data)]


def delete_a_byte(lines: list[bytes], dice: random.Random) -> list[bytes]:
    data = bytearray(b"".join(lines))
    del data[dice.randrange(len(data))]
    return [bytes(data)]


def delete_a_record(lines: list[bytes], dice: random.Random) -> list[bytes]:
    del lines[dice.randrange(len(lines))]
    return lines


def swap_two(lines: list[bytes], dice: random.Random) -> list[bytes]:
    one, two = dice.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    return lines


def duplicate(lines: list[bytes], dice: random.Random) -> list[bytes]:
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
    return lines


def cut_the_tail(lines: list[bytes], dice: random.Random) -> list[bytes]:
    data = b"".join(lines)
    return [data[: dice.randrange(len(data))]]


def cut_the_head(lines: list[bytes], dice: random.Random) -> list[bytes]:
    return lines[dice.randrange(1, len(lines)) :]


def forge(lines: list[bytes], dice: random.Random) -> list[bytes]:
    """Change a record and give it the hash that it would have: the next one gives it away, or an anchor."""
    place = dice.randrange(len(lines))
    text = lines[place].decode().partition(',"seq":')[0].replace("req-", "REQ-")
    head = head_of(lines[place - 1]) if place else GENESIS
    assert head is not None
    lines[place] = seal(text, head.seq + 1, head.hash, digest_with(None))[0].encode()
    return lines


def forge_the_rest(lines: list[bytes], dice: random.Random) -> list[bytes]:
    """Change a record and recompute the whole chain after it: only the anchors know better."""
    place = dice.randrange(len(lines))
    head = head_of(lines[place - 1]) if place else GENESIS
    assert head is not None
    seq, previous = head
    for index in range(place, len(lines)):
        text = lines[index].decode().partition(',"seq":')[0].replace("req-", "REQ-")
        seq += 1
        line, previous = seal(text, seq, previous, digest_with(None))
        lines[index] = line.encode()
    return lines


def spell_otherwise(lines: list[bytes], dice: random.Random) -> list[bytes]:
    """Write the same JSON in other bytes."""
    place = dice.randrange(len(lines))
    record = lines[place]
    lines[place] = dice.choice(
        [record.replace(b":", b": ", 1), record.replace(b"INFO", b"\\u0049NFO"), record.replace(b"}\n", b"}\r\n")]
    )
    return lines


MUTATIONS: list[Mutation] = [
    flip_a_byte,
    insert_a_byte,
    delete_a_byte,
    delete_a_record,
    swap_two,
    duplicate,
    cut_the_tail,
    cut_the_head,
    forge,
    forge_the_rest,
    spell_otherwise,
]


def assert_found(closed: Path, mutation: Mutation, seed: int) -> bool:
    """Verification finds a mutation; False where it happened to change nothing."""
    original = closed.read_bytes()
    changed = b"".join(mutation(original.splitlines(keepends=True), random.Random(seed)))
    if changed == original:
        return False
    try:
        closed.write_bytes(changed)
        problem = verify(closed)[0].problem
    finally:
        closed.write_bytes(original)
    assert problem is not None
    assert problem.file.endswith("audit.jsonl")
    return True


@pytest.mark.promise("chain")
@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(MUTATIONS), st.integers(min_value=0))
def test_every_mutation_is_found(closed: Path, mutation: Mutation, seed: int) -> None:
    """Whatever is changed, deleted, swapped, duplicated, forged or cut in a closed log, verification finds it."""
    assert_found(closed, mutation, seed)


@pytest.mark.promise("chain")
@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_every_mutation_is_found_ten_thousand_times(closed: Path) -> None:
    """Ten thousand random changes."""
    dice = random.Random(1)
    found = 0
    while found < 10_000:
        found += assert_found(closed, dice.choice(MUTATIONS), dice.randrange(2**32))
    measured("chain", changes=found)


def peak_of_verification(log: Path, records: int) -> int:
    """Bytes that verifying so many records takes at most."""
    exporter = AuditLogExporter(log, AuditOptions(max_bytes=4_000_000))
    for _ in range(records // 1_000):
        exporter.export([event()] * 1_000)
    exporter.shutdown(1.0)
    tracemalloc.start()
    try:
        assert whole(log).records == records
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_constant_memory(tmp_path: Path) -> None:
    """Ten times the records do not take more memory to verify."""
    small = peak_of_verification(tmp_path / "small" / "audit.jsonl", 5_000)
    assert peak_of_verification(tmp_path / "large" / "audit.jsonl", 50_000) < small + 100_000


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_a_million_records(tmp_path: Path) -> None:
    """A million records over many files verify within a megabyte."""
    assert peak_of_verification(tmp_path / "audit.jsonl", 1_000_000) < 1_000_000


def test_the_hash_by_its_definition(tmp_path: Path) -> None:
    """The hash is SHA-256 over the previous hash and the line's exact bytes before its last `,"hash":"`."""
    previous = GENESIS.hash
    for line in write(tmp_path / "audit.jsonl", 5).read_bytes().splitlines():
        body, _, sealed = line.rpartition(b',"hash":"')
        previous = hashlib.sha256(previous.encode() + body).hexdigest()
        assert sealed.decode() == previous + '"}'


@pytest.mark.promise("chain")
def test_each_reason(tmp_path: Path) -> None:
    """The report names the file, the line, the record that is expected there, and why."""
    log = write(tmp_path / "audit.jsonl", 10)
    lines = log.read_bytes().splitlines(keepends=True)

    def reason(*changed: bytes) -> str:
        log.write_bytes(b"".join(changed))
        return str(verify(log)[0].problem).removeprefix(f"{tmp_path}/")

    assert reason(*lines[:3], lines[3].replace(b"req-3", b"req-0"), *lines[4:]) == (
        "audit.jsonl:4: record 4: its content does not match its hash (changed, or written with another key)"
    )
    assert reason(*lines[:3], *lines[4:]) == ("audit.jsonl:4: record 4: record 4 is expected here, this is record 5")
    assert reason(*lines[:3], b"\n", *lines[3:]) == "audit.jsonl:4: record 4: not a sealed record"
    assert reason(*lines[:9]).startswith("audit.jsonl: record 10: the log ends here, but an anchor of")
    assert "half a line" in reason(*lines, b"x")
    other = seal('{"a":1', 4, "f" * 64, digest_with(None))[0].encode()
    assert reason(*lines[:3], other, *lines[4:]) == (
        "audit.jsonl:4: record 4: it follows another record 3 than the one before it"
    )


def test_a_missing_segment(tmp_path: Path) -> None:
    """A segment that is gone without having been pruned is found: the first, a middle one, the last, all of them."""
    log = write(tmp_path / "a" / "audit.jsonl", 100, AuditOptions(max_bytes=8_192))
    names = sorted(path.name for path in log.parent.glob("*.jsonl*"))
    assert whole(log).records == 100
    for gone in ([names[1]], [names[3]], [names[0]], names[1:], names):
        copy = tmp_path / "b"
        shutil.copytree(log.parent, copy)
        for name in gone:
            (copy / name).unlink()
        assert verify(copy)[0].problem is not None, gone
        shutil.rmtree(copy)


def test_a_chain_that_is_gone_with_its_anchors(tmp_path: Path) -> None:
    """The manifest knows every chain that was begun: one whose files are all gone is missed."""
    log = tmp_path / "audit.jsonl"
    owner, other = AuditLogExporter(log), AuditLogExporter(log)
    for exporter in (owner, other):
        exporter.export([event()])
        exporter.shutdown(1.0)
    for path in tmp_path.glob(f"audit.*.{os.getpid()}.*"):
        path.unlink()
    assert "its files are gone and not pruned" in str(verify(log)[1].problem)


def test_a_segment_that_was_copied_as_another_writers_chain(tmp_path: Path) -> None:
    """Records that are shown once more under the name of a further process are found: they lack its first record."""
    log = write(tmp_path / "audit.jsonl", 5, AuditOptions(key=KEY))
    shutil.copy(log, tmp_path / "audit.host.99.jsonl")
    reports = {report.chain: report for report in verify(log, key=KEY)}
    assert reports["audit.jsonl"].is_whole
    assert "begins with chain.start" in str(reports["audit.host.99.jsonl"].problem)


def test_a_tail_cut_with_its_anchors_is_seen_by_others(tmp_path: Path) -> None:
    """A tail that was cut together with the log's anchors is found by the head that another process knew."""
    log = tmp_path / "audit.jsonl"
    owner = AuditLogExporter(log)
    owner.export([event(str(number)) for number in range(5)])
    other = AuditLogExporter(log)
    other.shutdown(1.0)
    owner.shutdown(1.0)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    log.with_suffix(".anchors").unlink()
    assert "knows record 5" in str(verify(log)[0].problem)


def test_anchors_that_were_kept_elsewhere(tmp_path: Path) -> None:
    """When log and anchors were forged together, an anchor that was sent elsewhere finds it."""
    log = write(tmp_path / "audit.jsonl", 10)
    kept = list(read_anchors(log.with_suffix(".anchors")))
    for path in tmp_path.iterdir():
        path.unlink()
    write(log, 9)
    whole(log)
    assert "knows record 10" in str(verify(log, anchors=kept)[0].problem)
    elsewhere = [Anchor("other.jsonl", 5, "f" * 64, "")]
    whole(log, anchors=elsewhere)


def test_a_tail_cut_with_all_that_knew_of_it(tmp_path: Path) -> None:
    """A tail that is cut together with anchors and manifest leaves a whole log, as documented; an anchor finds it."""
    for key in (None, KEY):
        log = write(tmp_path / "audit.jsonl", 10, AuditOptions(key=key))
        kept = list(read_anchors(log.with_suffix(".anchors")))
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
        log.with_suffix(".anchors").unlink()
        log.with_suffix(".manifest").unlink()
        assert whole(log, key=key).records == 3
        assert "knows record 10" in str(verify(log, key=key, anchors=kept)[0].problem)
        log.unlink()


def test_a_whole_chain_removed_with_all_that_knew_of_it(tmp_path: Path) -> None:
    """A further process' chain that is gone from the manifest too is missed by who kept an anchor of it."""
    log = write(tmp_path / "audit.jsonl", 3)
    kept = [Anchor("audit.host.7.jsonl", 5, "f" * 64, "2026"), Anchor("other.host.7.jsonl", 5, "f" * 64, "2026")]
    whole(log)
    assert [report.chain for report in verify(log, anchors=kept) if not report.is_whole] == ["audit.host.7.jsonl"]


def test_an_open_log(tmp_path: Path) -> None:
    """A log that is being written is whole; half a line at its end is its writer at work, not damage."""
    log = tmp_path / "audit.jsonl"
    exporter = AuditLogExporter(log, AuditOptions(anchor_every=2))
    whole(log)
    exporter.export([event()] * 5)
    assert whole(log).records == 5
    with log.open("ab") as file:
        file.write(b'{"timestamp')
    assert whole(log).records == 5
    exporter.shutdown(1.0)
    assert verify(log)[0].problem is not None
    log.with_suffix(".anchors").unlink()
    assert verify(log)[0].problem is not None


def test_anchors_that_came_after_the_reading_began(tmp_path: Path) -> None:
    """Anchors of a log that is being written count as far as they went when the reading began."""
    log = write(tmp_path / "audit.jsonl", 5)
    size = log.with_suffix(".anchors").stat().st_size
    append_line(log.with_suffix(".anchors"), b'{"chain":"audit.jsonl","seq":9,"hash":"0","time":""}\n')
    assert [anchor.seq for anchor in read_anchors(log.with_suffix(".anchors"), limit=size)] == [5]
    assert [anchor.seq for anchor in read_anchors(log.with_suffix(".anchors"))] == [5, 9]


def test_rotation_during_verification(tmp_path: Path) -> None:
    """A file that is rotated away between the listing and the reading is read once, not twice or never."""
    log = write(tmp_path / "audit.jsonl", 10)
    os.link(log, log.with_name("audit.jsonl.20260101T000000.000000Z"))
    assert whole(log).records == 10


def test_a_forged_manifest_under_a_key(tmp_path: Path) -> None:
    """Under a key, a note that excuses a missing segment counts only if it was sealed with the key."""
    for key in (None, KEY):
        log = write(tmp_path / str(key) / "audit.jsonl", 100, AuditOptions(max_bytes=8_192, key=key))
        first = min(log.parent.glob("audit.jsonl.*"))
        close = next(note for note in read_notes(log.with_name("audit.manifest")) if note.segment == first.name)
        first.unlink()
        forged = json.dumps({**close._asdict(), "event": "prune"}).encode() + b"\n"
        append_line(log.with_name("audit.manifest"), forged)
        assert (verify(log, key=key)[0].problem is None) == (key is None)


def test_damaged_anchors_and_notes(tmp_path: Path) -> None:
    """Torn or foreign lines beside a log are passed over: they prove nothing, and excuse nothing."""
    log = write(tmp_path / "audit.jsonl", 5)
    for name in ("audit.anchors", "audit.manifest"):
        path = log.with_name(name)
        path.write_bytes(b'[1]\n{"seq":"x"}\n{"chain"\n' + path.read_bytes() + b'{"half')
        append_line(path, b"{}\n")
        assert path.read_bytes().endswith(b'{"half\n{}\n')
    assert whole(log).anchors == 1


def test_a_note_that_does_not_fit_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a part of a line was written, the error has the number and the file that the operator needs."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:3]))
    with pytest.raises(OSError, match="No space left on device") as caught:
        append_line(tmp_path / "audit.manifest", b"{}{}{}\n")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "audit.manifest"))


def test_an_overlong_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end is read in bounded pieces, and refused."""
    monkeypatch.setattr("taskpilot_obs.audit.files.MAX_LINE", 1_000)
    log = write(tmp_path / "audit.jsonl", 1)
    log.write_bytes(b"x" * 10_000)
    report = verify(log)[0]
    assert report.records == 0
    assert report.problem is not None


@pytest.mark.promise("chain")
def test_no_log(tmp_path: Path) -> None:
    """Where there is no log, that is an error and not a whole log."""
    for path in (tmp_path, tmp_path / "audit.jsonl", tmp_path / "x", tmp_path / "none" / "audit.jsonl"):
        with pytest.raises(AuditLogError, match="no audit log"):
            verify(path)


@pytest.mark.parametrize("name", ["a.jsonl.jsonl", "a.jsonl.x.jsonl", "new\nline.jsonl"])
def test_a_name_that_verification_could_not_find_again_is_refused(tmp_path: Path, name: str) -> None:
    """A log whose name reads as that of a segment would never verify, so it is refused when it is opened."""
    with pytest.raises(ConfigurationError, match="choose another"):
        AuditLogExporter(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_any_path_of_a_log_will_do(tmp_path: Path) -> None:
    """The file being written, a segment, the anchors and the folder all lead to the whole log."""
    log = write(tmp_path / "audit.jsonl", 100, AuditOptions(max_bytes=8_192))
    write(tmp_path / "other.jsonl", 1)
    for path in (log, min(tmp_path.glob("audit.jsonl.*")), log.with_suffix(".anchors")):
        assert [report.chain for report in verify(path)] == ["audit.jsonl"]
    assert [report.chain for report in verify(tmp_path)] == ["audit.jsonl", "other.jsonl"]


def test_a_broken_first_record_does_not_hide(tmp_path: Path) -> None:
    """A forged first record of a further process' chain is named by the walk over that chain."""
    log = tmp_path / "audit.jsonl"
    owner, other = AuditLogExporter(log), AuditLogExporter(log)
    owner.shutdown(1.0)
    other.shutdown(1.0)
    (path,) = tmp_path.glob("audit.*.*.jsonl")
    for forged in (b"{}\n", b"nonsense\n", b'{"event":"other"}\n'):
        path.write_bytes(forged)
        assert [report.problem is None for report in verify(log)] == [True, False]
    path.unlink()
    assert "knows record 1" in str(verify(log)[1].problem)


def test_a_hash_that_is_no_text_is_read_without_an_error() -> None:
    """A line whose hash has bytes beyond ASCII has a head, which equals no other."""
    line, sealed = seal('{"a":1', 1, GENESIS.hash, digest_with(None))
    broken = line.encode().replace(sealed[-4:].encode(), b"\xff\xfe\xfd\xfc")
    found = head_of(broken)
    assert found is not None
    assert (found.seq, found.hash[:-4]) == (1, sealed[:-4])
    assert found.hash != sealed


def test_fault_accepts_what_seal_writes() -> None:
    """What is sealed verifies, with and without a key, and leads to the same head."""
    for key in (None, KEY):
        digest = digest_with(key)
        line, sealed = seal('{"a":1', 1, GENESIS.hash, digest)
        assert check_line(line.encode(), GENESIS, digest) == (None, (1, sealed))
        assert head_of(line.encode()) == (1, sealed)
    assert head_of(b"{}\n") is None


def test_segments_that_begin_with_no_record(tmp_path: Path) -> None:
    """A segment whose first line is not a record is the first reported problem."""
    log = write(tmp_path / "audit.jsonl", 100, AuditOptions(max_bytes=8_192))
    third = sorted(tmp_path.glob("audit.jsonl.*"))[2]
    third.write_bytes(b"x" + third.read_bytes()[1:])
    assert read(log)
    third.write_bytes(b"x\n" + third.read_bytes())
    problem = verify(log)[0].problem
    assert problem is not None
    assert problem.file == str(third)
