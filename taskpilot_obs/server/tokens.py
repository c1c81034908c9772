"""Bearer tokens in a TOML file that stores only their digests.

session_key = "…"          # signs the cookies of browsers

[[token]]
name = "grafana"
sha256 = "…"
role = "viewer"            # viewer | writer | admin
tenant = "acme"            # "*" for every tenant
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from taskpilot_obs._support.config_files import load_config_file
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.semconv import NONE
from taskpilot_obs.server.principal import EVERY_TENANT, ROLES, Principal, Role

PREFIX: Final = "tpo_"
"""The prefix by which secret scanners recognise a token."""
_BYTES: Final = 32
_NAME: Final = re.compile(r"[\w.@+-]{1,100}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_OTHERS_MAY: Final = 0o077
RELOAD_S: Final = 1.0
"""Maximum time until a change of the file takes effect."""


class Token(NamedTuple):
    """One line of the file."""

    principal: Principal
    digest: str


class TokenFile:
    """The tokens of a file, read again when the file changes. Threads may share one.

    Args:
        path: the file; its owner alone should have access to it.

    Raises:
        ConfigurationError: the file cannot be read, or is wrong; the message names the place.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._random_key = secrets.token_bytes(_BYTES)
        self._stamp = self._stamped()
        self._tokens, self._key = _read(self.path)
        self._looked_at = time.monotonic()

    def find(self, token: str) -> Principal | None:
        """Return the owner of a token. Wrong tokens take as long as valid ones."""
        self._refresh()
        digest = digest_of(token)
        found = None
        for held in self._tokens:
            if hmac.compare_digest(held.digest, digest):
                found = held.principal
        return found

    def named(self, name: str, digest: str) -> Principal | None:
        """The principal of a session that was opened with this token, if the file still has it."""
        self._refresh()
        for held in self._tokens:
            if held.principal.name == name and hmac.compare_digest(held.digest, digest):
                return held.principal
        return None

    @property
    def session_key(self) -> bytes:
        """The key that signs sessions: that of the file, which all replicas share, or one of this process."""
        return self._key or self._random_key

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < RELOAD_S:
            return
        with self._lock:
            self._looked_at = now
            stamp = self._stamped()
            if stamp != self._stamp:
                self._tokens, self._key = _read(self.path)
                self._stamp = stamp

    def _stamped(self) -> tuple[int, int, int]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise ConfigurationError(f"token file {str(self.path)!r} cannot be read: {error.strerror}") from error
        return found.st_mtime_ns, found.st_size, found.st_ino


def digest_of(token: str) -> str:
    """Return the digest of a token. Tokens are random, so a slow hash would add nothing."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def create_token(path: str | os.PathLike[str], name: str, role: Role, tenant: str) -> str:
    """Add a token to a file, which is made where it is missing, and return it: it cannot be seen again.

    Args:
        path: the token file.
        name: the owner: letters, digits and `_.@+-`.
        role: viewer, writer or admin.
        tenant: the tenant that it sees and writes for; `*` for every tenant.

    Raises:
        ConfigurationError: an argument is wrong, the name is taken, or the file is wrong.
        OSError: the file cannot be written.
    """
    _check_entry(name, role, tenant)
    file = Path(path)
    held, key = _read(file) if file.exists() else ((), None)
    if any(one.principal.name == name for one in held):
        raise ConfigurationError(f"token: the name {name!r} is taken; revoke that token first or give another name")
    token = PREFIX + secrets.token_urlsafe(_BYTES)
    made = Token(Principal(name, role, None if tenant == EVERY_TENANT else tenant), digest_of(token))
    _write(file, (*held, made), key or secrets.token_bytes(_BYTES))
    return token


def revoke_token(path: str | os.PathLike[str], name: str) -> None:
    """Remove a token from a file; a running server refuses it within a second.

    Raises:
        ConfigurationError: the file has no token of this name, or is wrong.
        OSError: the file cannot be written.
    """
    file = Path(path)
    held, key = _read(file)
    kept = tuple(one for one in held if one.principal.name != name)
    if len(kept) == len(held):
        raise ConfigurationError(f"token: {str(file)!r} has no token {name!r}")
    _write(file, kept, key or secrets.token_bytes(_BYTES))


def list_tokens(path: str | os.PathLike[str]) -> list[Principal]:
    """List the tokens of a file.

    Raises:
        ConfigurationError: the file cannot be read, or is wrong.
    """
    return [token.principal for token in _read(Path(path))[0]]


def _check_entry(name: object, role: object, tenant: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"token: name: given {name!r}; allowed are 1 to 100 letters, digits and _.@+-")
    if role not in ROLES:
        raise ConfigurationError(f"token {name!r}: role: given {role!r}; allowed are {', '.join(ROLES)}")
    if not isinstance(tenant, str) or not tenant or tenant == NONE or not tenant.isprintable():
        raise ConfigurationError(f"token {name!r}: tenant: given {tenant!r}; give its name, or * for every tenant")


def _read(path: Path) -> tuple[tuple[Token, ...], bytes | None]:
    stated = load_config_file(path, "token file")
    unknown = sorted(set(stated) - {"token", "session_key"})
    entries, key = stated.get("token", []), stated.get("session_key")
    if unknown or not isinstance(entries, list) or not (key is None or isinstance(key, str)):
        raise ConfigurationError(f"token file {str(path)!r}: it must hold tables `[[token]]`, and `session_key`")
    try:
        return tuple(_token(entry) for entry in entries), None if key is None else key.encode()
    except ConfigurationError as error:
        raise ConfigurationError(f"token file {str(path)!r}: {error}") from error


def _token(entry: object) -> Token:
    if not isinstance(entry, dict) or set(entry) != {"name", "sha256", "role", "tenant"}:
        raise ConfigurationError("a token has exactly name, sha256, role and tenant")
    _check_entry(entry["name"], entry["role"], entry["tenant"])
    if not isinstance(entry["sha256"], str) or not _DIGEST.fullmatch(entry["sha256"]):
        raise ConfigurationError(f"token {entry['name']!r}: sha256: it must be 64 hexadecimal digits")
    tenant = None if entry["tenant"] == EVERY_TENANT else entry["tenant"]
    return Token(Principal(entry["name"], entry["role"], tenant), entry["sha256"])


def _write(path: Path, tokens: tuple[Token, ...], key: bytes) -> None:
    """Replace the file in one step, so that a server never reads half of it."""
    session_key = key.decode() if key.isascii() and key.decode().isprintable() else key.hex()
    lines = ["# Digests of tokens; `session_key` signs browsers' cookies. Keep this file to its owner.", ""]
    lines += [f"session_key = {_quoted(session_key)}", ""]
    for principal, digest in tokens:
        tenant = EVERY_TENANT if principal.tenant is None else principal.tenant
        lines += ["[[token]]", f"name = {_quoted(principal.name)}", f"sha256 = {_quoted(digest)}"]
        lines += [f"role = {_quoted(principal.role)}", f"tenant = {_quoted(tenant)}", ""]
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    draft.replace(path)


def _quoted(text: str) -> str:
    """A basic string of TOML, which escapes as JSON does; every text here is printable."""
    return json.dumps(text, ensure_ascii=False)


def is_open_to_others(path: str | os.PathLike[str]) -> bool:
    """Whether users other than the owner may read or write the file."""
    return bool(Path(path).stat().st_mode & _OTHERS_MAY)
