"""`taskpilot-obs audit`: verify, read and prune an audit log."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from taskpilot_obs._support.reasons import reason_with_path
from taskpilot_obs.audit.encoding import to_json
from taskpilot_obs.audit.files import find_logs
from taskpilot_obs.audit.manifest import Anchor, read_anchors
from taskpilot_obs.audit.prune import prune as prune_log
from taskpilot_obs.audit.query import Damage, Entry, Filter, parse_duration
from taskpilot_obs.audit.query import query as query_log
from taskpilot_obs.audit.query import tail as tail_log
from taskpilot_obs.audit.verify import ChainReport
from taskpilot_obs.audit.verify import verify as verify_log
from taskpilot_obs.cli._output import complain, print_json, say, show, working
from taskpilot_obs.cli._program import CommandGroup
from taskpilot_obs.cli._tables import Column, FittedTable, name_column, whole_column
from taskpilot_obs.exceptions import AuditLogError
from taskpilot_obs.semconv import Field

NOT_WHOLE: Final = 1
CANNOT_READ: Final = 2
KEY_VARIABLE: Final = "TASKPILOT_OBS_AUDIT_KEY"
COLUMNS: Final = {
    Field.TIMESTAMP: whole_column(Field.TIMESTAMP),
    Field.LOG_TYPE: whole_column(Field.LOG_TYPE, rank=2),
    Field.MESSAGE: name_column(Field.MESSAGE),
    Field.STATUS: whole_column(Field.STATUS, rank=1),
    Field.DURATION_MS: Column(Field.DURATION_MS, rank=3),
    Field.REQUEST_ID: whole_column(Field.REQUEST_ID),
}
_HEAD = re.compile(r"(?:(?P<chain>.+):)?(?P<seq>[0-9]{1,18}):(?P<hash>[0-9a-f]{64})")


class AuditFormat(StrEnum):
    """How records are printed."""

    TABLE = "table"
    JSON = "json"


LogPath = Annotated[Path, typer.Argument(help="The log's .jsonl file, or a folder of logs.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help=f"File that holds the key; without it, ${KEY_VARIABLE} if it is set.")
]
As = Annotated[AuditFormat, typer.Option("--format", help="How to print.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(help="Verify, read and prune an audit log.", no_args_is_help=True, cls=CommandGroup)
    commands.command(name="verify")(verify)
    commands.command(name="tail")(tail)
    commands.command(name="query")(query)
    commands.command(name="prune")(prune)
    app.add_typer(commands, name="audit")


def verify(
    *,
    paths: Annotated[list[Path], typer.Argument(help="A log's .jsonl file, or a folder of logs.")],
    key_file: KeyFile = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Anchors that were kept elsewhere, one JSON object a line.")
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(help="A head that was kept elsewhere, SEQ:HASH; of a further process' chain CHAIN:SEQ:HASH."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON, one a line.")] = False,
) -> None:
    """Check the hash chains; name the first bad record of each, and why.

    Exit code: 0 every chain is whole, 1 one is not, 2 there is no log, or it cannot be read.
    """
    kept = [] if anchors is None else list(read_anchors(_existing(anchors)))
    with _refusals():
        key = _key(key_file)
        kept += [_head(stated, paths) for stated in head or ()]
        with working("verifying") as progress:
            reports = list(_verified(paths, key, kept, progress))
    for report in reports:
        if as_json:
            print_json(to_json(_as_fields(report)))
        else:
            say(_sentence(report))
    raise typer.Exit(0 if all(report.is_whole for report in reports) else NOT_WHOLE)


def _verified(
    paths: list[Path], key: bytes | None, kept: list[Anchor], progress: Callable[[str], None]
) -> Iterator[ChainReport]:
    for number, path in enumerate(paths, start=1):
        progress(f"{path} ({number} of {len(paths)})")
        yield from verify_log(path, key=key, anchors=kept)


def tail(
    *,
    path: LogPath,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many records.")] = 20,
    form: As = AuditFormat.TABLE,
) -> None:
    """Print the last records of all segments and writers.

    Exit code: 0 they were read, 1 damaged lines were passed over, 2 there is no log, or it cannot be read.
    """
    with _refusals(), _damage_reported() as damage:
        _show(tail_log(path, lines, damage), form)


def query(  # noqa: PLR0913  a command line has as many options as it has
    *,
    path: LogPath,
    request_id: Annotated[str | None, typer.Option(help="Only records of this request.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only records of this agent.")] = None,
    status: Annotated[str | None, typer.Option(help="Only records with this status.")] = None,
    log_type: Annotated[str | None, typer.Option(help="Only records of this type: audit, decision or error.")] = None,
    event: Annotated[str | None, typer.Option(help="Only records of this event.")] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "--tenant-id", help="Only records of this tenant.", show_default=False)
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only records of the last 30s, 15m, 1h, 7d, 2w.")] = None,
    form: As = AuditFormat.TABLE,
) -> None:
    """Print the records that match, in the order of time, of all segments and writers.

    Exit code: 0 the log was read, 1 damaged lines were passed over, 2 there is no log, or it cannot be read.
    """
    with _refusals(), _damage_reported() as damage:
        start = None if since is None else datetime.now(UTC) - _span("--since", since)
        given = {"agent": agent, "status": status, "log_type": log_type, "event": event, "tenant_id": tenant}
        values = {name: value for name, value in (given | {"request_id": request_id}).items() if value is not None}
        _show(query_log(path, Filter(values, start), damage), form)


def prune(
    *,
    path: LogPath,
    keep: Annotated[str, typer.Option(help="How long records stay: 180d, 26w.")],
    key_file: KeyFile = None,
) -> None:
    """Remove whole old segments, and record it in the manifest, so that the rest still verifies."""
    span = _span("--keep", keep)
    with _refusals():
        with working("pruning"):
            pruned = list(prune_log(path, span, key=_key(key_file)))
        for removed in pruned:
            say(f"removed {removed}")
        if not pruned:
            say(f"nothing removed: no segment is older than {keep}")


def _span(option: str, text: str) -> timedelta:
    try:
        return parse_duration(text)
    except AuditLogError as error:
        raise typer.BadParameter(f"{option}: {str(error).removeprefix('duration: ')}") from None


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (AuditLogError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # what is printed cannot be written
        complain(reason_with_path(error) if isinstance(error, OSError) else error)
        raise typer.Exit(CANNOT_READ) from error


@contextmanager
def _damage_reported() -> Iterator[Damage]:
    """Report on standard error how many damaged lines were passed over, behind what was printed."""
    damage = Damage()
    yield damage
    if damage.lines:
        lines = "1 damaged line was" if damage.lines == 1 else f"{damage.lines} damaged lines were"
        complain(f"{lines} passed over; `taskpilot-obs audit verify` names the first one of each chain")
        raise typer.Exit(NOT_WHOLE)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise typer.BadParameter(f"--anchors {str(path)!r}: a file is expected")
    return path


def _head(stated: str, paths: list[Path]) -> Anchor:
    """The anchor that a head on the command line stands for; without a chain's name that of the log's own chain."""
    found = _HEAD.fullmatch(stated)
    if found is None:
        raise typer.BadParameter(f"--head {stated!r}: expected SEQ:HASH or CHAIN:SEQ:HASH, as `verify` prints them")
    names = {log.chain().name for path in paths for log in find_logs(path)}
    if found["chain"] is None and len(names) > 1:
        raise typer.BadParameter(f"--head {stated!r}: there are several logs; expected CHAIN:SEQ:HASH")
    return Anchor(found["chain"] or names.pop(), int(found["seq"]), found["hash"], "the command line")


def _key(path: Path | None) -> bytes | None:
    if path is not None:
        return path.read_bytes().strip()
    value = os.environ.get(KEY_VARIABLE)
    return value.encode() if value else None


def _as_fields(report: ChainReport) -> dict[str, str | int | None]:
    fields = {**report._asdict(), "is_whole": report.is_whole}
    fields["problem"] = None if report.problem is None else str(report.problem)
    return fields


def _sentence(report: ChainReport) -> str:
    if report.problem is not None:
        return f"BROKEN {report.chain}: {report.records} records are whole, then {report.problem}"
    head = f"head {report.last_seq}:{report.last_hash}"
    return f"whole  {report.chain}: {report.records} records, {report.anchors} anchors agree, {head}"


def _show(records: Iterable[Entry], form: AuditFormat) -> None:
    if form is AuditFormat.JSON:
        for record in records:
            print_json(to_json(record, sys.maxsize))
        return
    rows = ([record.get(field, "") for field in COLUMNS] for record in records)
    show(FittedTable("", list(COLUMNS.values()), rows, more="--format json"))
