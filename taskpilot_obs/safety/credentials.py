"""Where secrets lie in a text by their own shape: keys of providers, tokens, private keys, links that carry a secret.

Each finder takes time linear in the text whatever the text is: literals are found by `bytes.find`, and patterns are
applied only there, with possessive or bounded repeats. In doubt too much is hidden, not too little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.assignments import SECRET
from taskpilot_obs.safety.source import DIGITS, LETTERS, Source, Span, end_of, table

if TYPE_CHECKING:
    from collections.abc import Iterator

API_KEY: Final = "api_key"
JWT: Final = "jwt"
BEARER_TOKEN: Final = "bearer_token"  # noqa: S105  names a kind
PRIVATE_KEY: Final = "private_key"
CONNECTION_STRING: Final = "connection_string"

_UNMISTAKABLE = (
    r"sk-(?:proj|ant|or|svcacct|admin|lf|None)-[\w-]{10,}+",  # OpenAI, Anthropic, OpenRouter, Langfuse
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",  # AWS
    r"gh[opusr]_[A-Za-z0-9]{20,}+",  # GitHub
    r"github_pat_\w{20,}+",
    r"gl(?:pat|ptt|dt|rt|soat)-[\w-]{16,}+",  # GitLab
    r"AIza[\w-]{30,}+",  # Google
    r"GOCSPX-[\w-]{20,}+",
    r"xox[a-z]-[\w-]{10,}+",  # Slack
    r"[rs]k_(?:live|test)_\w{10,}+",  # Stripe
    r"lsv2_[a-z]{2}_\w{16,}+",  # LangSmith
    r"dapi[a-f0-9]{32}",  # Databricks
)
_AT_A_WORD_START = (
    r"sk-[\w-]{16,}+",  # OpenAI's old keys, DeepSeek and many compatible servers
    r"(?:xapp|xai|pplx|tvly|nvapi|pypi)-[\w-]{20,}+",  # Slack, xAI, Perplexity, Tavily, NVIDIA, PyPI
    r"(?:whsec|hf|gsk|npm|ntn|r8|sbp|pcsk|dop_v1|lin_api)_[A-Za-z0-9]{20,}+",  # Stripe, Hugging Face, Groq, npm, …
    r"(?:dckr_pat|glsa|glc|sntrys|e2b|jina|shp(?:at|ca|pa|ss))_[A-Za-z0-9]{20,}+",  # Docker, Grafana, Sentry, …
    r"SK[a-f0-9]{32}",  # Twilio
    r"(?:NRAK|PMAK|ATATT3|ATCTT3)[\w-]{16,}+",  # New Relic, Postman, Atlassian
)
_KEY = re.compile(f"{'|'.join(_UNMISTAKABLE)}|(?<![A-Za-z0-9])(?:{'|'.join(_AT_A_WORD_START)})", re.ASCII)
_DOTTED_KEY = re.compile(r"(?:SG|ya29|hv[sbr])\.[\w-]{16,}+", re.ASCII)  # SendGrid, Google, Vault
_DOTTED_PREFIX = 5
_TOKENS = table(b" ", t=LETTERS + DIGITS + b"_-")
_LONG_TOKEN = b"t" * 16
"""No provider's key is shorter."""
_BEYOND_HEX = table(b" ", k=LETTERS.translate(None, b"abcdefABCDEF") + b"_")
"""No key is without one of these; trace IDs, UUIDs and long numbers are."""
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
_URL_REST = re.compile(r"""[^\s"<>`]*+""")
_AUTHORITY = re.compile(r"""[^\s"<>`/?#]*+""")
_LONGEST_SCHEME = 40
_SCHEME_CHARS = b"abcdefghijklmnopqrstuvwxyz0123456789+.-"
_LONG_USER = 16
"""Characters. A user name this long in an URL is a token (`https://<token>@git.example.com`)."""


def provider_keys(source: Source) -> Iterator[Span]:
    """Keys that their providers mark by a prefix."""
    text = source.text
    tokens = source.ascii.translate(_TOKENS)
    start = tokens.find(_LONG_TOKEN)
    if start < 0:
        return
    letters = source.ascii.translate(_BEYOND_HEX)
    while start >= 0:
        end = tokens.find(b" ", start)
        end = len(tokens) if end < 0 else end
        if letters.find(b"k", start, end) >= 0:
            yield from _keys_in(text, start, end)
        start = tokens.find(_LONG_TOKEN, end)


def _keys_in(text: str, start: int, end: int) -> Iterator[Span]:
    key = _KEY.search(text, start, end)
    if key is None and text[start - 1 : start] == ".":
        key = _DOTTED_KEY.search(text, max(0, start - _DOTTED_PREFIX), end)
    if key is not None:
        yield key.start(), end_of(_TOKEN_TAIL, text, key.end()), API_KEY


def web_tokens(source: Source) -> Iterator[Span]:
    """JSON web tokens, signed or encrypted, and what follows `Bearer`."""
    text = source.text
    at = text.find("eyJ")
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


def private_keys(source: Source) -> Iterator[Span]:
    """Private keys in PEM or PGP armour, or in PuTTY's; one whose end is missing reaches to the end of the text."""
    text = source.text
    at = text.find("-----BEGIN ")
    while at >= 0:
        begin = _KEY_BEGIN.match(text, at)
        end = at + 5
        if begin is not None and "PRIVATE KEY" in begin[0]:
            footer = text.find("-----END ", begin.end())
            line_end = text.find("-----", footer + 9) if footer >= 0 else -1
            end = len(text) if line_end < 0 else line_end + 5
            yield at, end, PRIVATE_KEY
        at = text.find("-----BEGIN ", end)
    at = text.find(_PUTTY_BEGIN)
    while at >= 0:
        footer = text.find(_PUTTY_END, at)
        end = len(text) if footer < 0 else end_of(_HEX, text, footer + len(_PUTTY_END))
        yield at, end, PRIVATE_KEY
        at = text.find(_PUTTY_BEGIN, end)


def links(source: Source) -> Iterator[Span]:
    """Web hooks that anyone may post to who knows their URL, and the signatures of links that were signed."""
    text = source.text
    for at in source.occurrences(b"hook"):
        hook = _HOOK.match(text, at)
        if hook is not None:
            before = text[max(0, at - _LONGEST_HOST) : at].rpartition("//")[2]
            start = at - len(before) + len(before.rstrip(_HOST_CHARS))
            yield start, hook.end(), API_KEY
    if b"=" not in source.ascii:
        return
    for name in (b"sig=", b"signature="):
        for at in source.occurrences(name):
            before = text[max(0, at - 6) : at]
            if before[-1:].isalnum() and not before.endswith("\\u0026"):  # how some write `&` in JSON
                continue
            signature = _SIGNATURE.match(text, at + len(name))
            if signature is not None:
                yield signature.start(), signature.end(), SECRET


def connection_strings(source: Source) -> Iterator[Span]:
    """URLs that carry a password or a token before the host."""
    text = source.text
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
