"""Where secrets lie in a text: keys of providers, tokens, private keys, connection strings, `password: …`.

Each finder takes time linear in the text whatever the text is: literals are found by `bytes.find`, and patterns are
applied only there, with possessive or bounded repeats. In doubt too much is hidden, not too
little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.source import Source, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

API_KEY: Final = "api_key"
JWT: Final = "jwt"
BEARER_TOKEN: Final = "bearer_token"  # noqa: S105  names a kind
PRIVATE_KEY: Final = "private_key"
CONNECTION_STRING: Final = "connection_string"
SECRET: Final = "secret"  # noqa: S105  names a kind

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
_HEX_AND_DASH = b"0123456789abcdefABCDEF-"
_TOKEN_TAIL = re.compile(r"[\w.~+/=-]*+", re.ASCII)
_JWT = re.compile(r"eyJ[\w-]*+((?<=[\w-]{11})(?:\.[\w-]*+){1,4}+)?+", re.ASCII)
_BEARER = re.compile(r"bearer\s{1,8}+([\w.~+/=-]{8,}+)", re.ASCII | re.IGNORECASE)
_NO_DIGIT = re.compile(r"[^0-9]*+")
_SURELY_A_TOKEN = 20
"""Characters. A shorter word after `bearer` is a token only with a digit in it ("bearer instruments" is prose)."""
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,60}+-----")
_URL_REST = re.compile(r"""[^\s"<>`]*+""")
_AUTHORITY = re.compile(r"""[^\s"<>`/?#]*+""")
_LONGEST_SCHEME = 40
_SCHEME_CHARS = b"abcdefghijklmnopqrstuvwxyz0123456789+.-"
_LONG_USER = 16
"""Characters. A user name this long in an URL is a token (`https://<token>@git.example.com`)."""


def provider_keys(source: Source) -> Iterator[Span]:
    """Keys that their providers mark by a prefix."""
    text = source.text
    for start, end in source.long_tokens():
        if not source.ascii[start:end].translate(None, _HEX_AND_DASH):
            continue  # a UUID, a trace ID: no key is without another letter
        key = _KEY.search(text, start, end)
        if key is None and text[start - 1 : start] == ".":
            key = _DOTTED_KEY.search(text, max(0, start - _DOTTED_PREFIX), end)
        if key is not None:
            yield Span(key.start(), _end_of(_TOKEN_TAIL, text, key.end()), API_KEY)


def web_tokens(source: Source) -> Iterator[Span]:
    """JSON web tokens, signed or encrypted, and what follows `Bearer`."""
    text = source.text
    at = text.find("eyJ")
    while at >= 0:
        token = _JWT.match(text, at)
        end = token.end() if token is not None else at + 3
        if token is not None and token[1]:
            yield Span(at, end, JWT)
        at = text.find("eyJ", end)
    for at in source.occurrences(b"bearer"):
        bearer = _BEARER.match(text, at)
        if bearer is None:
            continue
        if len(bearer[1]) >= _SURELY_A_TOKEN or not _NO_DIGIT.fullmatch(bearer[1]):
            yield Span(bearer.start(1), bearer.end(1), BEARER_TOKEN)


def private_keys(source: Source) -> Iterator[Span]:
    """Private keys in PEM or PGP armour; one whose end is missing reaches to the end of the text."""
    text = source.text
    at = text.find("-----BEGIN ")
    while at >= 0:
        begin = _KEY_BEGIN.match(text, at)
        end = at + 5
        if begin is not None and "PRIVATE KEY" in begin[0]:
            footer = text.find("-----END ", begin.end())
            line_end = text.find("-----", footer + 9) if footer >= 0 else -1
            end = len(text) if line_end < 0 else line_end + 5
            yield Span(at, end, PRIVATE_KEY)
        at = text.find("-----BEGIN ", end)


def connection_strings(source: Source) -> Iterator[Span]:
    """URLs that carry a password or a token before the host."""
    text = source.text
    done = end = 0
    at_sign = -1
    mark = text.find("://")
    while mark >= 0:
        if mark >= end:
            end = _end_of(_URL_REST, text, mark + 3)
            at_sign = text.rfind("@", mark, end)
        scheme = source.lower[max(done, mark - _LONGEST_SCHEME) : mark]
        done = mark + 3
        if _has_password(text, done, at_sign, web=scheme.endswith((b"http", b"https"))):
            yield Span(mark - len(scheme) + len(scheme.rstrip(_SCHEME_CHARS)), end, CONNECTION_STRING)
            done = end
        mark = text.find("://", done)


def _has_password(text: str, start: int, at_sign: int, *, web: bool) -> bool:
    """Whether a password or a token stands between `://` and the last `@`."""
    if web:  # a path may hold `:` and `@`; elsewhere an unescaped `/` of the password is likelier
        at_sign = text.rfind("@", start, _end_of(_AUTHORITY, text, start))
    return at_sign > start and (at_sign - start >= _LONG_USER or text.find(":", start, at_sign) >= 0)


_SEPARATOR = rb"""(?:\\*["'])?+(?:[ \t]{0,8}+(?:=>|:=|[:=])[ \t]{0,8}+|[ \t]{1,8}+)"""
_SECRET_WORDS = tuple(
    (hint, re.compile(word + _SEPARATOR))
    for hint, word in (
        (b"pass", rb"pass(?:word|wd|phrase|code)"),
        (b"pwd", rb"pwd"),
        (b"secret", rb"secret"),
        (b"token", rb"token"),
        (b"key", rb"key"),
        (b"credential", rb"credentials?"),
        (b"authoriz", rb"authorization"),
        (b"cookie", rb"cookie"),
    )
)
_KEY_BEFORE = (
    *(b"api", b"access", b"account", b"auth", b"encryption", b"master"),
    *(b"private", b"secret", b"service", b"shared", b"signing", b"subscription"),
)
_OPENING = re.compile(r"""\\{0,8}+["'`]""")
_WORD = re.compile(r"""[^\s"'`]*+""")
_VALUES = {
    b"authoriz": re.compile(r"""(?:[A-Za-z]{1,20}+[ \t]{1,8}+)?[^\s"'`]*+"""),  # scheme and credentials
    b"cookie": re.compile(r"""[^\r\n"'`]*+"""),
}
_MAX_QUOTED = 4_096
_OPTION = 30
"""Characters in which a command line's `--…password` is looked for."""
_NOT_SECRET = re.compile(
    r"(?:null|none|true|false|nil|undefined|\d{1,7}|\[redacted:[^\n]*+)?+[.,;)\]}\\]*+", re.IGNORECASE
)


def assignments(source: Source) -> Iterator[Span]:
    """What is assigned to a word like `password`, in any of the usual notations, or given to an option like it."""
    lower = source.lower
    for hint, pattern in _SECRET_WORDS:
        at = lower.find(hint)
        while at >= 0:
            found = pattern.match(lower, at)
            end = at + len(hint)
            if found is not None and _assigns(lower, found, hint):
                start, end = _value_after(source.text, found.end(), hint)
                if not _NOT_SECRET.fullmatch(source.text, start, end):
                    yield Span(start, end, SECRET)
            at = lower.find(hint, end)


def _assigns(lower: bytes, found: re.Match[bytes], hint: bytes) -> bool:
    """Whether a value follows: after `=` or `:`, or after a space behind a command line's option."""
    before = lower[max(0, found.start() - _OPTION) : found.start()]
    if hint == b"key" and not before.rstrip(b"_- ").endswith(_KEY_BEFORE):
        return False
    words = found[0].rstrip()
    if words.endswith((b"=", b":", b">")):
        return True
    return not words.endswith((b'"', b"'")) and (before.split() or [b""])[-1].startswith(b"--")


def _value_after(text: str, start: int, hint: bytes) -> tuple[int, int]:
    """Where the value begins and ends, without its quotes."""
    opening = _OPENING.match(text, start)
    if opening is not None:
        start = opening.end()
        closing = _closing_quote(text, start, opening[0])
        if closing >= 0:
            return start, closing
    pattern = _VALUES.get(hint, _WORD)
    return start, _end_of(pattern, text, start)


def _closing_quote(text: str, start: int, quote: str) -> int:
    """Where the quote comes again, not counting those that a backslash escapes; -1 if it does not."""
    limit = start + _MAX_QUOTED
    closing = text.find(quote, start, limit)
    while closing > start and text[closing - 1] == "\\" and not quote.startswith("\\"):
        closing = text.find(quote, closing + 1, limit)
    return closing


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where the match at `start` ends; `start` itself where there is none."""
    match = pattern.match(text, start)
    return match.end() if match is not None else start
