"""The options of the commands that read `/metrics` or a Prometheus server: how they identify themselves to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.golden_signals.http import TIMEOUT_S, Access

PASSWORD_VARIABLE: Final = "TASKPILOT_OBS_PASSWORD"  # noqa: S105  the name of the variable, not a password


@dataclass(frozen=True)
class Credentials:
    """How a server is asked. Secrets never stand on the command line."""

    bearer_token_file: Annotated[Path | None, typer.Option(help="File that holds a bearer token.")] = None
    user: Annotated[
        str | None,
        typer.Option(help=f"User for basic authentication; the password is in ${PASSWORD_VARIABLE}."),
    ] = None
    ca_file: Annotated[Path | None, typer.Option(help="Certificates to trust instead of the system's.")] = None
    timeout: Annotated[float, typer.Option(help="Seconds that one request may take.")] = TIMEOUT_S

    def access(self) -> Access:
        """The credentials that the options mean.

        Raises:
            BadParameter: the token's file cannot be read, or the user's password is missing.
            ConfigurationError: they cannot be used together.
        """
        password = None if self.user is None else os.environ.get(PASSWORD_VARIABLE)
        if self.user is not None and password is None:
            raise typer.BadParameter(f"--user needs its password in the environment variable {PASSWORD_VARIABLE}")
        return Access(
            bearer_token=_token(self.bearer_token_file),
            username=self.user,
            password=password,
            ca_file=self.ca_file,
            timeout_s=self.timeout,
        )


ANONYMOUS: Final = Credentials()


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--bearer-token-file cannot be read: {reason_of(error)}") from error
