"""Records of one subject in files: those that wait in the spool are taken out, those of an audit log are counted."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.rows import Rows
from taskpilot_obs.store.spool import parsed_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike


class Leftover(NamedTuple):
    """Records that are still there."""

    where: str
    """A file, or a table."""
    records: int | None
    """None: it is not known how many."""
    why: str
    """Why they are left, or what to do."""


class ErasureSubject(Protocol):
    """The user or the tenant whose records are erased."""

    @property
    def column(self) -> str:
        """The column of tables that names it."""

    @property
    def value(self) -> str:
        """The name, as it is stored."""

    @property
    def given(self) -> str:
        """The name, as the application spells it."""


def in_spool(
    folder: str | PathLike[str], subject: ErasureSubject, *, dry_run: bool
) -> tuple[int, tuple[Leftover, ...]]:
    """Take a subject's rows out of the files that no living process writes; the others are listed.

    Returns:
        How many rows were taken out, and the files that still hold some.

    Raises:
        StoreError: a file cannot be read or written.
    """
    erased, left = 0, []
    for path in sorted(Path(folder).glob("*.jsonl")):
        try:
            with path.open("r+b") as file:
                found, is_held = _rewritten(file, subject, dry_run=dry_run)
        except FileNotFoundError:
            continue  # replayed meanwhile
        except OSError as error:
            raise StoreError(f"the spool {path} cannot be changed: {error.strerror}") from error
        if found and is_held:
            why = "a running process waits for the database with them: erase again when they are written"
            left.append(Leftover(str(path), found, why))
        elif found:
            erased += found
    return erased, tuple(left)


def _rewritten(file: BinaryIO, subject: ErasureSubject, *, dry_run: bool) -> tuple[int, bool]:
    """How many rows of the subject the file holds, and whether a process writes it; others are rewritten without."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return sum(found for found, _ in _without(file, subject)), True
    kept = list(_without(file, subject))
    found = sum(number for number, _ in kept)
    if found and not dry_run:
        file.seek(0)
        file.write(b"".join(line for _, line in kept))
        file.truncate()
    return found, False


def _without(file: BinaryIO, subject: ErasureSubject) -> Iterator[tuple[int, bytes]]:
    """Each line without the subject's rows, and how many it had.

    A damaged line is never written to the store: it goes whole where it names the subject.
    """
    name = json.dumps(subject.value).encode()
    for line in file:
        try:
            parts = parsed_line(line)
            found = sum(_take_out(parts[table], subject) for table in Rows._fields)
        except StoreError:
            yield (1, b"") if name in line else (0, line)
            continue
        yield found, json.dumps(parts, separators=(",", ":")).encode() + b"\n" if found else line


def _take_out(part: dict[str, Any], subject: ErasureSubject) -> int:
    if subject.column not in part["columns"]:
        return 0
    at = part["columns"].index(subject.column)
    kept = [row for row in part["rows"] if row[at] != subject.value]
    found = len(part["rows"]) - len(kept)
    part["rows"] = kept
    return found


def in_audit_log(path: str | PathLike[str], subject: ErasureSubject) -> tuple[Leftover, ...]:
    """The files of an audit log that name the subject, and how many records of each do.

    Raises:
        AuditLogError: there is no log.
        OSError: a file cannot be read.
    """
    from taskpilot_obs.audit.access import open_to_read
    from taskpilot_obs.audit.files import find_logs, lines

    field = "tenant_id" if subject.column == "organization_id" else "user_id"
    found: Counter[str] = Counter()
    for log in find_logs(Path(path)):
        for chain in log.chains():
            for file_path in chain.files():
                with open_to_read(file_path) as file:
                    found[str(file_path)] += sum(_names(line, field, subject.given) for line in lines(file))
    why = "the audit log is a hash chain: see docs/privacy.md for what can be done"
    return tuple(Leftover(where, records, why) for where, records in sorted(found.items()) if records)


def _names(line: bytes, field: str, name: str) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get(field) == name
