"""Why the work of a scenario has no operation of a kind: what docs/faults.md says of its empty cells."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Why cells are empty."""

    scenarios: Collection[str]
    boundaries: Collection[str]
    because: str


FILES: Final = ("audit log", "spool", "scrape")
SQLITE: Final = ("store", "ledger")
POSTGRESQL: Final = ("store on PostgreSQL", "ledger on PostgreSQL")
HTTP: Final = ("scrape over HTTP",)
WRITES: Final = ("write", "torn write", "short write", "truncate", "ftruncate", "fsync", "rename", "unlink")
ON_FILES: Final = (*WRITES, "open", "read", "mkdir", "stat", "list", "flock")
SQL: Final = ("execute", "commit", "commit answer")
WIRE: Final = ("connect", "send", "receive")
REASONS: Final = (
    Reason((*FILES, *HTTP), SQL, "it keeps no tables"),
    Reason((*FILES, *SQLITE, "recorder"), WIRE, "its data is in files of this machine, so it opens no connection"),
    Reason(
        SQLITE,
        (*WRITES, "read", "mkdir", "list", "flock"),
        "SQLite's own code reads, writes, syncs and locks the file; what fails there comes back from a statement or a "
        "commit, which fail below",
    ),
    Reason(FILES, ("thread",), "it works on the thread of its caller"),
)


def reason(scenario: str, boundary: str) -> str | None:
    """Why the work of a scenario has no operation of a kind; None where nothing is stated."""
    found = [each.because for each in REASONS if scenario in each.scenarios and boundary in each.boundaries]
    return found[0] if found else None
