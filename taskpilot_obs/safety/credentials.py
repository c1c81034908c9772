"""Finds secrets by their format: keys of providers, tokens, private keys, links that contain a secret.

Each finder takes time linear in any text: `bytes.find` finds literals, and patterns are applied only there, with
possessive or bounded repeats. In doubt too much is hidden instead of too little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.assignments import SECRET
from taskpilot_obs.safety.source import DIGITS, LETTERS, SearchedText, Span, end_of, table

if TYPE_CHECKING:
    from collections.abc import Iterator

API_KEY: Final = "api_key"
JWT: Final = "jwt"
BEARER_TOKEN: Final = "bearer_token"  # noqa: S105  names a kind
PRIVATE_KEY: Final = "private_key"
CONNECTION_STRING: Final = "connection_string"

_UNMISTAKABLE = {
    "sk-proj- sk-ant- sk-or- sk-svcacct- sk-admin- sk-lf- sk-None-": r"[\w-]{10,}+",  # OpenAI, Anthropic, Langfuse, …
    "AKIA ASIA ABIA ACCA": r"[A-Z0-9]{16}",  # AWS
    "ghp_ gho_ ghu_ ghs_ ghr_": r"[A-Za-z0-9]{20,}+",  # GitHub
    "github_pat_": r"\w{20,}+",
    "glpat- glptt- gldt- glrt- glsoat-": r"[\w-]{16,}+",  # GitLab
    "AIza": r"[\w-]{30,}+",  # Google
    "GOCSPX-": r"[\w-]{20,}+",
    "xox": r"[a-z]-[\w-]{10,}+",  # Slack
    "sk_live_ sk_test_ rk_live_ rk_test_": r"\w{10,}+",  # Stripe
    "lsv2_": r"[a-z]{2}_\w{16,}+",  # LangSmith
    "dapi": r"[a-f0-9]{32}",  # Databricks
}
_AT_A_WORD_START = {
    "sk-": r"[\w-]{16,}+",  # OpenAI's old keys, DeepSeek and many compatible servers
    "xapp- xai- pplx- tvly- nvapi- pypi-": r"[\w-]{20,}+",  # Slack, xAI, Perplexity, Tavily, NVIDIA, PyPI
    "whsec_ hf_ gsk_ npm_ ntn_ r8_ sbp_ pcsk_ dop_v1_ lin_api_": r"[A-Za-z0-9]{20,}+",  # Stripe, Hugging Face, Groq, …
    "dckr_pat_ glsa_ glc_ sntrys_ e2b_ jina_": r"[A-Za-z0-9]{20,}+",  # Docker, Grafana, Sentry, …
    "shpat_ shpca_ shppa_ shpss_": r"[A-Za-z0-9]{20,}+",  # Shopify
    "SK": r"[a-f0-9]{32}",  # Twilio
    "NRAK PMAK ATATT3 ATCTT3": r"[\w-]{16,}+",  # New Relic, Postman, Atlassian
}
_DOTTED = {"SG. ya29. hvs. hvb. hvr.": r"[\w-]{16,}+"}  # SendGrid, Google, Vault
"""How keys begin and continue. The dot of a dotted prefix is not a token character."""
_OF_A_WORD = "[A-Za-z0-9]"
_BY_RARITY = "QZJXVKYWqjzxvkywBGFPMHgpUhmTIuLSCnN_lODRrA28193475E-toidsceabf60."
"""The characters of prefixes, ordered by rarity in prose, hexadecimal numbers and identifiers, the rarest first."""


def _keys(kinds: dict[str, str]) -> str:
    """A pattern of whole keys."""
    return "|".join(f"(?:{'|'.join(map(re.escape, prefixes.split()))}){rest}" for prefixes, rest in kinds.items())


def _beginnings() -> re.Pattern[str]:
    """A pattern that finds each prefix by its rarest character, at which a scan rarely stops."""
    behind: dict[str, list[str]] = {}
    for kinds in (_UNMISTAKABLE, _AT_A_WORD_START, _DOTTED):
        for prefix in " ".join(kinds).split():
            rarest, whole = min(prefix, key=_BY_RARITY.index), re.escape(prefix)
            rest = re.escape(prefix.partition(rarest)[2])
            within = f"(?<!{_OF_A_WORD}{whole})" if kinds is _AT_A_WORD_START else ""
            behind.setdefault(rarest, []).append(f"{rest}(?<={whole}){within}")
    return re.compile("|".join(f"{re.escape(rarest)}(?:{'|'.join(rests)})" for rarest, rests in behind.items()))


_KEY = re.compile(f"{_keys(_UNMISTAKABLE)}|(?<!{_OF_A_WORD})(?:{_keys(_AT_A_WORD_START)})", re.ASCII)
_DOTTED_KEY = re.compile(_keys(_DOTTED), re.ASCII)
_DOTTED_PREFIX = 5
_BEGINNING = _beginnings()
_TOKENS = table(b" ", t=LETTERS + DIGITS + b"_-")
_LONG_TOKEN = b"t" * 16
"""The length of the shortest provider's key."""
_HEX_DIGITS = re.compile(r"[0-9A-Fa-f-]*+")
"""Every key has other characters too, unlike trace IDs, UUIDs and long numbers."""
_CLOSE = 32
"""Characters. If long tokens are this close, one search of the rest of the text is faster than one per token."""
_TOKEN_TAIL = re.compile(r"[\w.~+/=-]*+", re.ASCII)
_JWT = re.compile(r"eyJ[\w-]*+((?<=[\w-]{11})(?:\.[\w-]*+){1,4}+)?+", re.ASCII)
_BEARER = re.compile(r"bearer\s{1,8}+([\w.~+/=-]{8,}+)", re.ASCII | re.IGNORECASE)
_NO_DIGIT = re.compile(r"[^0-9]*+")
_SURELY_A_TOKEN = 20
"""Characters. A shorter word after `bearer` is a token only with a digit in it ("bearer instruments" is prose)."""
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,60}+-----")
_PUTTY_BEGIN = "PuTTY-User-Key-File-"
_PUTTY_END = "Private-MAC: "
_HEX = re.compile(r"[0-9A-Fa-f]*+")
_HOOK = re.compile(
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]++"
    r"|hooks/[0-9]{15,22}/[\w-]{20,}+"  # discord.com/api/webhooks/…
    r"|hook(?:b2)?/[0-9a-f]{8}-[\w@/-]++",  # acme.webhook.office.com/webhookb2/…
    re.ASCII | re.IGNORECASE,
)
_HOST_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./-"
_LONGEST_HOST = 80
_SIGNATURE = re.compile(r"[\w%+/=~-]{16,}+", re.ASCII)
_CURL_USER = re.compile(
    r"""-(?:u|user)(?:["'\\]{0,8}+[\s,=]{0,8}+["'\\]{0,8}+)[^\s:"'\\]{0,80}+:([^\s"'\\]{1,200}+)""", re.IGNORECASE
)
_URL_REST = re.compile(r"""[^\s"<>`]*+""")
_AUTHORITY = re.compile(r"""[^\s"<>`/?#]*+""")
_LONGEST_SCHEME = 40
_SCHEME_CHARS = b"abcdefghijklmnopqrstuvwxyz0123456789+.-"
_LONG_USER = 16
"""Characters. A user name this long in an URL is a token (`https://<token>@git.example.com`)."""


def provider_keys(source: SearchedText) -> Iterator[Span]:
    """Find keys that providers mark by a prefix."""
    text = source.text
    tokens = source.ascii.translate(_TOKENS)
    for begin, limit in _stretches(tokens):
        found = _BEGINNING.search(text, begin, limit)
        while found is not None:
            start = tokens.rfind(b" ", 0, found.end()) + 1
            end = tokens.find(b" ", start)
            end = len(tokens) if end < 0 else end
            if end - start >= len(_LONG_TOKEN) and not _HEX_DIGITS.fullmatch(text, start, end):
                yield from _keys_in(text, start, end)
            found = _BEGINNING.search(text, max(found.end(), end - _DOTTED_PREFIX), limit)


def _stretches(tokens: bytes) -> Iterator[tuple[int, int]]:
    """Where keys may begin: at or just before each long token; once two are close together, anywhere."""
    start = tokens.find(_LONG_TOKEN)
    while start >= 0:
        end = tokens.find(b" ", start)
        following = tokens.find(_LONG_TOKEN, end) if end >= 0 else -1
        is_close = 0 <= following < end + _CLOSE
        yield max(0, start - _DOTTED_PREFIX), len(tokens) if is_close or end < 0 else end
        start = -1 if is_close else following


def _keys_in(text: str, start: int, end: int) -> Iterator[Span]:
    key = _KEY.search(text, start, end)
    if key is None and text[start - 1 : start] == ".":
        key = _DOTTED_KEY.search(text, max(0, start - _DOTTED_PREFIX), end)
    if key is not None:
        yield key.start(), end_of(_TOKEN_TAIL, text, key.end()), API_KEY


def web_tokens(source: SearchedText) -> Iterator[Span]:
    """Find JSON web tokens, signed or encrypted, and tokens after `Bearer`."""
    text = source.text
    at = text.find("eyJ") if text.rfind("eyJ") >= 0 else -1
    while at >= 0:
        token = _JWT.match(text, at)
        end = token.end() if token is not None else at + 3
        if token is not None and token[1]:
            yield at, end, JWT
        at = text.find("eyJ", end)
    for at in source.occurrences(b"bearer"):
        bearer = _BEARER.match(text, at)
        if bearer is None:
            continue
        if len(bearer[1]) >= _SURELY_A_TOKEN or not _NO_DIGIT.fullmatch(bearer[1]):
            yield bearer.start(1), bearer.end(1), BEARER_TOKEN


def private_keys(source: SearchedText) -> Iterator[Span]:
    """Private keys in PEM or PGP armour, or in PuTTY's; one without an end extends to the end of the text."""
    text = source.text
    at = text.find("-----BEGIN ") if text.rfind("-----BEGIN ") >= 0 else -1
    while at >= 0:
        begin = _KEY_BEGIN.match(text, at)
        end = at + 5
        if begin is not None and "PRIVATE KEY" in begin[0]:
            footer = text.find("-----END ", begin.end())
            line_end = text.find("-----", footer + 9) if footer >= 0 else -1
            end = len(text) if line_end < 0 else line_end + 5
            yield at, end, PRIVATE_KEY
        at = text.find("-----BEGIN ", end)
    at = text.find(_PUTTY_BEGIN) if text.rfind(_PUTTY_BEGIN) >= 0 else -1
    while at >= 0:
        footer = text.find(_PUTTY_END, at)
        end = len(text) if footer < 0 else end_of(_HEX, text, footer + len(_PUTTY_END))
        yield at, end, PRIVATE_KEY
        at = text.find(_PUTTY_BEGIN, end)


def links(source: SearchedText) -> Iterator[Span]:
    """Find web hooks whose URL is enough to post to them, and the signatures of signed links."""
    text = source.text
    for at in source.occurrences(b"hook"):
        hook = _HOOK.match(text, at)
        if hook is not None:
            before = text[max(0, at - _LONGEST_HOST) : at].rpartition("//")[2]
            start = at - len(before) + len(before.rstrip(_HOST_CHARS))
            yield start, hook.end(), API_KEY
    if "=" not in text:
        return
    for name in (b"sig=", b"signature="):
        yield from _signatures(source, name)


def _signatures(source: SearchedText, name: bytes) -> Iterator[Span]:
    text, lower = source.text, source.lower
    at = lower.find(name)
    while at >= 0:
        start = end = at + len(name)
        before = text[max(0, at - 6) : at]
        if not before[-1:].isalnum() or before.endswith("\\u0026"):  # an escaped `&` in JSON
            end = end_of(_SIGNATURE, text, start)
            if end > start:
                yield start, end, SECRET
        at = lower.find(name, end)  # after the signature, so that no character is read twice


def curl_users(source: SearchedText) -> Iterator[Span]:
    """Find passwords passed to `curl` with `-u user:password`, in a command or a list of arguments."""
    if b"curl" not in source.lower:
        return
    for option in (b"-u", b"-user"):
        at = source.lower.find(option)
        while at >= 0:
            found = _CURL_USER.match(source.text, at)
            if found is not None:
                yield found.start(1), found.end(1), SECRET
            at = source.lower.find(option, at + len(option))


def connection_strings(source: SearchedText) -> Iterator[Span]:
    """Find URLs with a password or a token before the host."""
    text = source.text
    if "@" not in text or text.rfind("://") < 0:
        return
    done = end = 0
    at_sign = -1
    mark = text.find("://")
    while mark >= 0:
        if mark >= end:
            end = end_of(_URL_REST, text, mark + 3)
            at_sign = text.rfind("@", mark, end)
        scheme = source.lower[max(done, mark - _LONGEST_SCHEME) : mark]
        done = mark + 3
        if _has_password(text, done, at_sign, web=scheme.endswith((b"http", b"https"))):
            yield mark - len(scheme) + len(scheme.rstrip(_SCHEME_CHARS)), end, CONNECTION_STRING
            done = end
        mark = text.find("://", done)


def _has_password(text: str, start: int, at_sign: int, *, web: bool) -> bool:
    """Whether a password or a token stands between `://` and the last `@`."""
    if web:  # a path may hold `:` and `@`; elsewhere an unescaped `/` of the password is likelier
        at_sign = text.rfind("@", start, end_of(_AUTHORITY, text, start))
    return at_sign > start and (at_sign - start >= _LONG_USER or text.find(":", start, at_sign) >= 0)
