"""`taskpilot-obs erase`: take every record of one user or tenant out of a telemetry store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs.cli._output import print_json, say, working
from taskpilot_obs.cli._store_options import AsJson, StoreUrl, explained

LEFT = 1


def erase(
    *,
    user: Annotated[str | None, typer.Option(help="Erase what carries this user_id.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Erase what carries this tenant_id.")] = None,
    store: StoreUrl = None,
    audit_log: Annotated[Path | None, typer.Option(help="Also list the records of this audit log.")] = None,
    spool_dir: Annotated[Path | None, typer.Option(help="Where records wait, if not in the default folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be erased, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase rows, summaries, feedback, budgets and waiting records of one user or tenant, and list what is left.

    Exit code: 0 all is erased, 1 records are left where they cannot be taken out, 2 wrong usage, 4 the store cannot be
    used.
    """
    with explained():
        from taskpilot_obs.store import erase as erase_from

        with working("erasing"):
            found = erase_from(
                user=user, tenant=tenant, store=store, spool_dir=spool_dir, audit_log=audit_log, dry_run=dry_run
            )
    if as_json:
        left = [each._asdict() for each in found.out_of_reach]
        print_json(json.dumps({"dry_run": dry_run, "erased": found.erased, "out_of_reach": left}))
    else:
        for name, rows in found.erased.items():
            say(f"{rows} rows of {name} {'would be erased' if dry_run else 'erased'}")
        for each in found.out_of_reach:
            amount = "records" if each.records is None else f"{each.records} records"
            say(f"out of reach: {amount} in {each.where}: {each.why}")
    if found.out_of_reach and not dry_run:
        raise typer.Exit(LEFT)
