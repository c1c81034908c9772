"""The table of names whose values are secret, for mappings, arguments, options, headers and plain text.

Mappings and text hide the values of the same keys, because both use `is_secret_key`.
"""

from __future__ import annotations

import functools
import re
from typing import Final

ANYWHERE: Final = (
    *("password", "passwd", "passphrase", "passcode", "apikey", "credential", "authorization", "privatekey"),
    *("secretkey", "servicekey", "sharedkey", "subscriptionkey", "secretaccess"),
)
"""Parts of a name, without separators, that make it secret at any position."""
ENDING: Final = (
    *("secret", "secrets", "token", "accesskey", "accountkey", "signingkey", "encryptionkey", "masterkey", "authkey"),
    *("cookie", "cookies", "pwd"),
)
"""Ends of secret names."""
EXACTLY: Final = frozenset({"auth", "bearer", "cvv", "cvc", "jwt", "otp", "pass", "pin", "sig", "ssn", "totp"})
"""Names that are secret as a whole."""
HINTS: Final = (
    *(b"passw", b"passp", b"passc", b"pass", b"pwd", b"secret", b"token", b"key", b"credential", b"authoriz"),
    *(b"cookie", b"cvv", b"cvc", b"pin", b"sig", b"ssn", b"auth", b"bearer", b"jwt", b"otp"),
)
"""Every secret name contains one of these, for which texts are searched."""
NAME_LENGTH: Final = 80
"""Characters of a name that are examined."""

_LONGEST = 200
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_PASS_AT_THE_END = re.compile(r"[_-](?i:pass)|[a-z0-9]Pass")
_MAX_COUNT = 10_000_000
"""A longer number under `token` is a token, not a count of tokens."""


def is_secret_key(key: str) -> bool:
    """Whether the name of a key makes its value secret: `password`, `client_secret`, `X-API-Key`, …"""
    return _is_secret(key[-_LONGEST:])


@functools.lru_cache(maxsize=2_048)
def _is_secret(key: str) -> bool:
    plain = _SEPARATORS.sub("", key.lower())
    if plain in EXACTLY or plain.endswith(ENDING) or any(word in plain for word in ANYWHERE):
        return True
    return plain.endswith("pass") and _PASS_AT_THE_END.fullmatch(key[-5:]) is not None


def hides(key: str, value: object) -> bool:
    """Whether a value must be hidden under its key; empty values, and counts or prices of tokens, may be shown."""
    if value is None or isinstance(value, bool) or not is_secret_key(key):
        return False
    return not (isinstance(value, int | float) and key.lower().endswith("token") and abs(value) < _MAX_COUNT)
