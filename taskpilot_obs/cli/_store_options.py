"""The options that the commands on a telemetry store share, and how their errors end them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from taskpilot_obs._telemetry.stores import STORE_VARIABLE
from taskpilot_obs.cli._output import complain, print_csv, print_json, say
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError, StoreError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from taskpilot_obs.stats.asking import Asked

CANNOT_READ: Final = 4

StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        help="URL of the store: sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE.",
    ),
]
TokensFile = Annotated[
    Path | None,
    typer.Option("--tokens", envvar="TASKPILOT_OBS_TOKENS", help="File made by `taskpilot-obs token create`."),
]
Period = Annotated[str, typer.Option("--period", help="How far back to look: 1h, 24h, 30d; or today, 2026-11.")]
From = Annotated[str | None, typer.Option("--from", help="Begin there, instead of --period: 2026-11-01.")]
To = Annotated[str | None, typer.Option("--to", help="End before this: 2026-12-01.  [default: now]")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only calls of this tenant.")]
User = Annotated[str | None, typer.Option("--user", help="Only calls of this user.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Only calls of this agent.")]
Workflow = Annotated[str | None, typer.Option("--workflow", help="Only calls of this workflow.")]
Model = Annotated[str | None, typer.Option("--model", help="Only calls to this model.")]
Provider = Annotated[str | None, typer.Option("--provider", help="Only calls to this provider.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="Only calls with this prompt_name.")]
Service = Annotated[str | None, typer.Option("--service", help="Only calls of this service.")]
Environment = Annotated[str | None, typer.Option("--environment", help="Only calls of this environment.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="Only with this value: --where step_id=7. May be repeated; the names are get_stats'."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="List only the largest.  [default: all]")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON. Amounts of money are strings, so that they stay exact.")
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")]


@dataclass(frozen=True)
class Span:
    """The store that is asked, and about which time."""

    store: StoreUrl = None
    period: Period = "24h"
    start: From = None
    end: To = None

    @property
    def asked(self) -> str | tuple[str | None, str | None]:
        """The period that the options mean: from and to where one of them is given."""
        return self.period if self.start is None and self.end is None else (self.start, self.end)


@dataclass(frozen=True)
class Narrowed:
    """What is asked about: one tenant, or what has other values too."""

    tenant: Tenant = None
    where: Where = None

    def filters(self, **others: str | None) -> Asked:
        """The filters that the options mean, with those of a command's own options.

        Raises:
            ConfigurationError: a text after `--where` names no filter and value, or one that is given already.
        """
        return asked_by(self.where, tenant_id=self.tenant, **others)


@dataclass(frozen=True)
class Dimensions:
    """Whose calls are asked about, under the names of the filters."""

    tenant_id: Tenant = None
    user_id: User = None
    agent: Agent = None
    workflow: Workflow = None
    model: Model = None
    provider: Provider = None

    def filters(self) -> dict[str, str | None]:
        """The filters that the options mean."""
        return asdict(self)


@dataclass(frozen=True)
class OutputFormat:
    """Whether an answer is printed as JSON or CSV, instead of a table."""

    as_json: AsJson = False
    as_csv: AsCsv = False

    def __post_init__(self) -> None:
        if self.as_json and self.as_csv:
            raise typer.BadParameter("--json and --csv exclude each other; give one")

    def printed(self, found: BaseModel, head: Sequence[str], rows: Iterable[Sequence[object]]) -> bool:
        """Print an answer as JSON or as comma-separated values, where one of them is asked for.

        Args:
            found: the answer, for JSON.
            head: the names of the columns of CSV.
            rows: the lines of CSV.

        Returns:
            Whether it was printed; if not, the command prints a table.
        """
        if self.as_json:
            print_json(found.model_dump_json(indent=2))
        elif self.as_csv:
            print_csv(head, rows)
        return self.as_json or self.as_csv


TABLE: Final = OutputFormat()
OF_A_DAY: Final = Span()
OF_A_MONTH: Final = Span(period="30d")
EVERYTHING: Final = Narrowed()
ANYONE: Final = Dimensions()


def asked_by(where: list[str] | None, **asked: str | None) -> Asked:
    """The filters that the options mean.

    Raises:
        ConfigurationError: a text after `--where` names no filter and value, or one that is given already.
    """
    found = {name: value for name, value in asked.items() if value is not None}
    for text in where or ():
        name, separator, value = text.partition("=")
        if not separator or not name or not value or name in found:
            raise ConfigurationError(f"--where: given {text!r}; write a filter once, as in --where session_id=s-1")
        found[name] = value
    return cast("Asked", found)


def required(store: str | None) -> str:
    """The store of a command, which holds no calls itself.

    Raises:
        ConfigurationError: none is named.
    """
    if not store:
        raise ConfigurationError(f"store: none given and {STORE_VARIABLE} is not set; name one: sqlite:///telemetry.db")
    return store


@contextmanager
def explained() -> Iterator[None]:
    """Exit with 2 for wrong usage or a missing extra, and with 4 when the store cannot be used."""
    try:
        yield
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    except MissingExtraError as error:
        complain(error)
        raise typer.Exit(2) from error
    except StoreError as error:
        complain(error)
        raise typer.Exit(CANNOT_READ) from error


def say_incomplete(moment: datetime | None) -> None:
    """Print from when on the figures above are complete, unless all of them are."""
    if moment is not None:
        say(f"calls before {moment:%Y-%m-%d %H:%M} UTC were deleted and are not counted")
