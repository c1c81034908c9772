"""Browsers' sessions: a signed cookie that names a token. Any replica accepts it, because no server stores it."""

from __future__ import annotations

import binascii
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskpilot_obs.server.principal import Principal
    from taskpilot_obs.server.tokens import TokenFile

COOKIE: Final = "taskpilot_obs_session"
LASTS_S: Final = 12 * 3_600
_LONGEST: Final = 2_000


class Sessions:
    """Opens and checks sessions. A session ends by time, with its token, or with the key of the token file.

    Args:
        tokens: the token file of the sessions.
    """

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    def open(self, principal: Principal, digest: str) -> str:
        """The cookie of a new session.

        Args:
            principal: who logged in.
            digest: the digest of the token.
        """
        stated = json.dumps([principal.name, digest, int(time.time()) + LASTS_S])
        payload = urlsafe_b64encode(stated.encode()).decode()
        return f"{payload}.{self._sign('session', payload)}"

    def principal(self, cookie: str) -> Principal | None:
        """Return the owner of a session; None if it has ended or is invalid."""
        payload, _, signature = cookie[:_LONGEST].partition(".")
        if not hmac.compare_digest(self._sign("session", payload).encode(), signature.encode("utf-8", "replace")):
            return None
        try:
            name, digest, ends = json.loads(urlsafe_b64decode(payload))
        except (ValueError, binascii.Error):
            return None
        return self._tokens.named(name, digest) if time.time() < ends else None

    def csrf(self, cookie: str) -> str:
        """Return the CSRF token for forms of this session, so that other sites' forms are refused."""
        return self._sign("csrf", cookie)

    def _sign(self, purpose: str, text: str) -> str:
        message = f"{purpose}:{text}".encode("utf-8", "replace")
        return hmac.new(self._tokens.session_key, message, "sha256").hexdigest()
