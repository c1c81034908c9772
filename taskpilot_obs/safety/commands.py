"""Finds passwords behind short options of commands: `mysql -phunter2`, `sshpass -p hunter2`, `redis-cli -a hunter2`.

The same letters mean a port, a path or a project elsewhere (`ssh -p 22`, `mkdir -p build`). Where the program takes a
password, its value is hidden; where the program is unknown, a value behind `-p` is hidden if it is shaped like one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.assignments import SECRET
from taskpilot_obs.safety.source import SearchedText, Span
from taskpilot_obs.safety.spoken import looks_secret

if TYPE_CHECKING:
    from collections.abc import Iterator


def _programs(names: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w-])(?:%b)(?![\w-])" % names.encode())


_TAKES: Final = {
    "p": _programs(
        r"sshpass|mongo\w*|cqlsh|twine|(?:docker|podman|nerdctl|buildah|skopeo|helm|oc|az|crane|oras|cf)[^\n]{0,100}login"
    ),
    "P": _programs(r"sqlcmd|bcp|isql|tsql|unzip|zip|ipmitool"),
    "a": _programs(r"redis-cli|valkey-cli"),
    "w": _programs(r"ldap\w+"),
}
"""Programs whose option is a password, by its letter."""
_ATTACHES: Final = _programs(r"mysql[\w-]*|mariadb[\w-]*|mycli|sshpass|7z[ar]?")
"""Programs that take the password attached to `-p`."""
_OTHERWISE: Final = _programs(
    r"mkdir|cp|install|git|grep|rg|cargo|ssh|ps|pytest|python\w*|npm|npx|tar|read|patch|claude|make|kill|top|nmap|nc|psql|lsof"
    r"|strace|perf|gdb|tmux|screen|jq|flask|uvicorn|rails|virtualenv|venv|uv|pipx|tox|conda|nohup|rsync|nix\w*|(?:docker|podman)"
    r"[^\n]{0,100}(?:run|compose|create|up|ps|build)"
)
"""Programs whose `-p` is something else."""
_STARTS: Final = frozenset(b" \t\n\r\"'`([,")
_ENDS_COMMAND = re.compile(rb"[\n;|&]|\\n")
_COMMAND: Final = 300
"""Characters before an option that are searched for its program."""
_APART = re.compile(
    r"""(?:\\{0,8}+["'])?+(?:[ \t=]|,[ \t\r\n]{0,8}){1,8}+(?:\\{0,8}+["'])?+([^\s"'`\\,;|&)\]}-][^\s"'`\\]{0,200}+)"""
)
_ATTACHED = re.compile(r"""(?:\\{0,8}+["'])?+([^\s"'`\\,]{3,200}+)""")


def short_options(source: SearchedText) -> Iterator[Span]:
    """Find the passwords behind short options, in a command or a list of arguments."""
    lower = source.lower
    for option in (b"-p", b"-a", b"-w"):
        at = lower.find(option) if lower.rfind(option) >= 0 else -1
        while at >= 0:
            found = _password(source, at) if at == 0 or lower[at - 1] in _STARTS else None
            if found is not None:
                yield (*found.span(1), SECRET)
            at = lower.find(option, at + len(option))


def _password(source: SearchedText, at: int) -> re.Match[str] | None:
    text, letter = source.text, source.text[at + 1]
    command = _ENDS_COMMAND.split(source.lower[max(0, at - _COMMAND) : at])[-1]
    found = _APART.match(text, at + 2)
    if found is None:
        return _ATTACHED.match(text, at + 2) if letter == "p" and _ATTACHES.search(command) else None
    takes = _TAKES.get(letter)
    if takes is not None and takes.search(command):
        return found
    may_be = letter == "p" and _OTHERWISE.search(command) is None and looks_secret(found[1])
    return found if may_be else None
