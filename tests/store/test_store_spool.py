"""Rows that wait on disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _stored import llm_call, task

from taskpilot_obs.exceptions import StoreError, StoreUnavailableError
from taskpilot_obs.store.rows import LLM_COLUMNS, Rows, rows_of
from taskpilot_obs.store.spool import Spool, _Delivery, default_directory


class Written:
    """A database that takes what it is given, or is away."""

    def __init__(self, *, away_after: int = 1_000_000, refuse: str = "") -> None:
        self.names: list[object] = []
        self.lost = 0
        self._away_after = away_after
        self._refuse = refuse

    def write(self, rows: Rows) -> None:
        """Take one batch."""
        names = [row[LLM_COLUMNS.index("telemetry_id")] for row in rows.llm_calls]
        if len(self.names) >= self._away_after:
            raise StoreUnavailableError
        if self._refuse in names:
            raise StoreError
        self.names += names

    def lose(self, _: StoreError) -> None:
        """Count one batch that was refused."""
        self.lost += 1


def batch(*names: str) -> Rows:
    """The rows of calls with these identifiers."""
    return rows_of([llm_call(invocation_id=name) for name in names])


def test_batches_come_back_in_order(tmp_path: Path) -> None:
    """What waited is written in the order in which it came, and then nothing waits."""
    spool, written = Spool(tmp_path), Written()
    for number in range(20):
        spool.append(batch(f"{number}-a", f"{number}-b"))
    assert spool.pending
    spool.replay(written.write, lost=written.lose)
    assert written.names == [f"{number}-{part}" for number in range(20) for part in "ab"]
    assert not spool.pending
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_written_goes_on_waiting(tmp_path: Path) -> None:
    """A server that goes away in the middle gets the rest later, and what comes meanwhile after it."""
    spool, first, second = Spool(tmp_path), Written(away_after=2), Written()
    for name in "abcd":
        spool.append(batch(name))
    with pytest.raises(StoreUnavailableError):
        spool.replay(first.write, lost=first.lose)
    spool.append(batch("e"))
    spool.replay(second.write, lost=second.lose)
    assert (first.names, second.names) == (["a", "b"], ["c", "d", "e"])
    spool.close()


SHORT_WRITES = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from test_store_spool import Written, batch
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.spool import Spool, _encode
spool, written, kept = Spool(Path("spool")), Written(), []
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
size = 5 * len(_encode(batch("call-00"))) - 10
for number in range(12):
    if number == 8:
        size = 1_000_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    name = f"call-{number:02d}"
    try:
        spool.append(batch(name))
        kept.append(name)
    except StoreError:
        pass
spool.replay(written.write, lost=written.lose)
assert written.names == kept, (len(written.names), len(kept))
assert 4 < len(kept) < 12, len(kept)
assert (written.lost, spool.torn) == (0, 0)
"""


def test_a_write_that_the_disk_takes_by_half(tmp_path: Path) -> None:
    """Where the disk takes a part of a batch, the batch is refused, and what was accepted comes back."""
    folder = Path(__file__).parent
    command = [sys.executable, "-c", SHORT_WRITES, str(folder), str(folder.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_batch_that_is_refused_for_good_does_not_block_the_rest(tmp_path: Path) -> None:
    """A batch that the database can never store is reported and skipped."""
    spool, written = Spool(tmp_path), Written(refuse="b")
    for name in "abc":
        spool.append(batch(name))
    spool.replay(written.write, lost=written.lose)
    assert (written.names, written.lost) == (["a", "c"], 1)
    spool.close()


def test_a_dead_process_s_rows_are_taken_over(tmp_path: Path) -> None:
    """What a process left behind is written by another one, first; what a living one holds is not."""
    dead, living, spool, written = Spool(tmp_path), Spool(tmp_path), Spool(tmp_path), Written()
    dead.append(batch("dead"))
    dead.close()
    living.append(batch("living"))
    spool.append(batch("mine"))
    spool.replay(written.write, lost=written.lose)
    assert written.names == ["dead", "mine"]
    living.replay(written.write, lost=written.lose)
    assert written.names == ["dead", "mine", "living"]
    living.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_a_crash_cut_off_is_skipped_and_counted(tmp_path: Path) -> None:
    """Half a line at the end of a file, and a damaged one within it, lose no other."""
    dead, spool, written = Spool(tmp_path), Spool(tmp_path), Written()
    for name in "ab":
        dead.append(batch(name))
    dead.close()
    (path,) = tmp_path.glob("*.jsonl")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"llm_calls": 5}\n' + second[:-20])
    spool.replay(written.write, lost=written.lose)
    assert (written.names, written.lost, spool.torn) == (["a"], 1, 1)


def test_a_line_of_another_version_is_fitted(tmp_path: Path) -> None:
    """Columns go by name: one that is new is NULL, one that is gone is left out."""
    dead, spool = Spool(tmp_path), Spool(tmp_path)
    found: list[Rows] = []
    dead.append(rows_of([llm_call(invocation_id="old"), task()]))
    dead.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text().replace('"variant"', '"forgotten"', 1))
    spool.replay(found.append, lost=lambda error: pytest.fail(str(error)))
    (row,) = found[0].llm_calls
    assert dict(zip(LLM_COLUMNS, row, strict=True))["telemetry_id"] == "old"
    assert dict(zip(LLM_COLUMNS, row, strict=True))["variant"] is None


def test_the_size_is_bounded_over_all_files(tmp_path: Path) -> None:
    """A batch that would pass the bound is refused whole, whichever process filled the folder."""
    other, spool = Spool(tmp_path, 3_000), Spool(tmp_path, 3_000)
    other.append(batch("a"))
    with pytest.raises(StoreError, match="full"):
        spool.append(batch("b", "c", "d"))
    assert not spool.pending
    other.close()


@pytest.mark.promise("owner-only")
def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Folder and files carry no rights for others."""
    spool = Spool(tmp_path / "spool")
    spool.append(batch("a"))
    (path,) = (tmp_path / "spool").iterdir()
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    spool.close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where the disk refuses, the batch is not kept and the caller hears it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Spool(tmp_path / "file" / "spool").append(batch("a"))


def test_a_write_that_fails_leaves_no_half_line(tmp_path: Path) -> None:
    """A disk that fills up in the middle of a batch keeps what was there before, whole."""

    class Failing:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, line: bytes) -> int:
            self.file.write(line[:30])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    spool, written = Spool(tmp_path), Written()
    spool.append(batch("a"))
    file = spool._file
    spool._file = Failing(file)  # type: ignore[assignment]  # a disk that fills up, around the real file
    with pytest.raises(StoreError, match="No space left"):
        spool.append(batch("b"))
    spool._file = file
    spool.append(batch("c"))
    spool.replay(written.write, lost=written.lose)
    assert written.names == ["a", "c"]
    spool.close()


def test_each_store_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder lies under the user's state, and differs by store."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_directory("a").parent == tmp_path / "taskpilot-obs" / "spool"
    assert default_directory("a") != default_directory("b")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_directory("a").is_relative_to(Path.home())


def test_closing_in_a_forked_child_leaves_the_parent_s_file(tmp_path: Path) -> None:
    """The child lets go of the file without removing or unlocking it."""
    spool, written = Spool(tmp_path), Written()
    spool.append(batch("a"))
    child = os.fork()
    if child == 0:
        spool.close(forked=True)
        Spool(tmp_path).replay(written.write, lost=written.lose)
        os._exit(len(written.names))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    spool.replay(written.write, lost=written.lose)
    assert written.names == ["a"]
    spool.close()


def test_a_file_that_another_process_took_is_no_concern(tmp_path: Path) -> None:
    """Where two processes take over the same file, one of them finds it gone."""
    written = Written()
    Spool(tmp_path)._adopt(
        tmp_path / "gone.jsonl", _Delivery(written.write, written.lose, lambda *_: None, is_own=False)
    )
    assert written.names == []
