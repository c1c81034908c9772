"""`taskpilot-obs demo`: a planner, a reviewer and an executor under load, and their golden signals live."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.live import Live

from taskpilot_obs._api.events import flush
from taskpilot_obs.cli._demo_view import Frame, closing_view, heading, live_view, new_progress, picture
from taskpilot_obs.cli._output import console
from taskpilot_obs.config import configure
from taskpilot_obs.demo.choose import choose
from taskpilot_obs.demo.load import PER_SECOND, Load
from taskpilot_obs.demo.script import requests
from taskpilot_obs.demo.spend import DemoSpend
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.exposition import start_metrics_server
from taskpilot_obs.golden_signals.facade import golden_signals

WINDOW: Final = "15m"
_FRAME_S: Final = 0.25
_LIVE_PER_SECOND: Final = 0.25
"""How often the real provider is asked, which costs money."""


def demo(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long requests arrive.")] = 18.0,
    serve: Annotated[bool, typer.Option("--serve", help="Go on until Ctrl-C, and serve the pages.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the real provider of OPENAI_API_KEY or ANTHROPIC_API_KEY: costs money.")
    ] = False,
    decorators: Annotated[bool, typer.Option("--decorators", help="The service without LangGraph.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 takes any free one.")] = 0,
    directory: Annotated[Path, typer.Option(help="Where the audit log goes.")] = Path(".demo"),
    svg: Annotated[Path | None, typer.Option(help="Also draw the last screen into this file.")] = None,
) -> None:
    """Run a pretend service of three agents under load and watch its golden signals; no key, no network."""
    audit_log = directory / "audit.jsonl"
    spend = DemoSpend()
    try:
        service = choose(decorators=decorators, live=live)
        directory.mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{directory / 'telemetry.db'}" if serve else None
        configure(service="taskpilot-demo", audit_log=audit_log, exporters=[spend], store=store)
        server = start_metrics_server(port)
    except (ConfigurationError, MissingExtraError) as problem:
        raise typer.BadParameter(str(problem)) from problem
    per_second = _LIVE_PER_SECOND if live else PER_SECOND
    total = None if serve else max(1, round(seconds * per_second))
    load = Load(service, islice(requests(), total), per_second=per_second)
    progress = new_progress()
    bar = progress.add_task("until Ctrl-C" if serve else "load", total=total)

    def frame() -> Frame:
        progress.update(bar, completed=load.finished)
        return Frame(golden_signals(WINDOW), spend, progress)

    terminal = console()
    opening = heading(service.description, server.url)
    terminal.print(opening)
    with (
        server,
        _pages(store) as pages,
        suppress(KeyboardInterrupt),
        Live(console=terminal, auto_refresh=False) as screen,
    ):
        if pages is not None:
            terminal.print(f"pages: {pages}/", highlight=False)
        asyncio.run(_watch(load, lambda: screen.update(live_view(frame()), refresh=True)))
    flush()
    closing = closing_view(audit_log, program(), failure=load.last_failure if live else None)
    terminal.print(closing, crop=False)
    if svg is not None:
        svg.write_text(picture(opening, live_view(frame()), closing, title="make demo"), encoding="utf-8")


@contextmanager
def _pages(store: str | None) -> Iterator[str | None]:
    """Serve the pages over the demo's store, to this machine alone; yields their address."""
    if store is None:
        yield None
        return
    from taskpilot_obs.server import create_app
    from taskpilot_obs.server.running import in_background

    with in_background(create_app(store=store)) as address:
        yield address


async def _watch(load: Load, draw: Callable[[], None]) -> None:
    """Draw until the load is over, and once more then."""
    work = asyncio.create_task(load.run())
    while not work.done():
        draw()
        await asyncio.wait([work], timeout=_FRAME_S)
    await work
    draw()


def program() -> str:
    """How to call this program from here: by its name, or by its path where that is not on PATH."""
    own = Path(sys.argv[0])
    if shutil.which(own.name) == str(own):
        return own.name
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)
