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
WRITING: Final = ("write", "torn write", "short write")
CHANGING: Final = ("truncate", "ftruncate", "fsync", "rename", "unlink")
SQL: Final = ("execute", "commit", "commit answer")
WIRE: Final = ("connect", "send", "receive")
REASONS: Final = (
    Reason((*FILES, "scrape over HTTP"), SQL, "it keeps no tables"),
    Reason((*FILES, *SQLITE, "recorder"), WIRE, "its data is in files of this machine, so it opens no connection"),
    Reason((*FILES, "store"), ("thread",), "it works on the thread of its caller"),
    Reason(("audit log",), ("truncate",), "it cuts files by their descriptors: see `ftruncate`"),
    Reason(("audit log",), ("unlink",), "it keeps every file unless `keep_segments` is set"),
    Reason(("spool", "scrape"), ("ftruncate",), "it cuts files by file objects: see `truncate`"),
    Reason(("spool", "scrape"), ("fsync",), "it survives its process, and promises nothing for a power failure"),
    Reason(("spool",), ("rename",), "a file keeps the name of its process until it is empty"),
    Reason(("spool", "scrape", "store", "store on PostgreSQL"), ("clock",), "all its times come with the records"),
    Reason(("scrape",), WRITING, "prometheus_client writes values through mapped memory"),
    Reason(("scrape",), ("mkdir",), "the application makes the directory"),
    Reason(
        ("scrape over HTTP",),
        (*WRITING, *CHANGING, "read", "mkdir", "list", "flock"),
        "the values of one process are in its memory",
    ),
    Reason(
        SQLITE,
        (*WRITING, *CHANGING, "read", "mkdir", "list", "flock"),
        "SQLite's own code works on the file; what fails there comes back from a statement or a commit: "
        "see `execute` and `commit`",
    ),
    Reason(("store",), ("fork",), "forks happen before writes, syncs, locks and thread starts, of which it has none"),
    Reason(
        ("recorder",),
        ("truncate", "ftruncate", "rename", "unlink"),
        "its work is too short to rotate, repair or remove a file: see the columns of its parts",
    ),
    Reason(
        ("store on PostgreSQL",),
        (*WRITING, *CHANGING, "open", "read", "flock", "memory"),
        "files are touched while the server is away only: see the spool",
    ),
    Reason(
        ("ledger on PostgreSQL",), (*WRITING, *CHANGING, "read", "mkdir", "list", "flock"), "it keeps nothing in files"
    ),
)


def reason(scenario: str, boundary: str) -> str | None:
    """Why the work of a scenario has no operation of a kind; None where nothing is stated."""
    found = [each.because for each in REASONS if scenario in each.scenarios and boundary in each.boundaries]
    return found[0] if found else None
