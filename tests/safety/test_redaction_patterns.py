"""Redaction's short cuts: they find exactly what the single patterns find, applied one by one to the whole text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskpilot_obs.safety import credentials, personal
from taskpilot_obs.safety.redaction import Redactor
from taskpilot_obs.safety.source import SearchedText, Span

_KEYS: dict[str, str] = {
    **{prefix: rest for kinds, rest in credentials._UNMISTAKABLE.items() for prefix in kinds.split()},
    **{rf"\b{prefix}": rest for kinds, rest in credentials._AT_A_WORD_START.items() for prefix in kinds.split()},
}
_DOTTED = {prefix: rest for kinds, rest in credentials._DOTTED.items() for prefix in kinds.split()}
PREFIXES = (
    *("sk-proj-", "sk-ant-", "sk-or-", "sk-svcacct-", "sk-admin-", "sk-lf-", "sk-None-", "sk-"),
    *("AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "glptt-", "gldt-", "glrt-", "glsoat-", "AIza", "GOCSPX-", "xox", "dapi", "lsv2_"),
    *("sk_live_", "sk_test_", "rk_live_", "rk_test_", "SG.", "ya29.", "hvs.", "hvb.", "hvr."),
    *("xapp-", "xai-", "pplx-", "tvly-", "nvapi-", "pypi-", "SK", "NRAK", "PMAK", "ATATT3", "ATCTT3"),
    *("whsec_", "hf_", "gsk_", "npm_", "ntn_", "r8_", "sbp_", "pcsk_", "dop_v1_", "lin_api_", "dckr_pat_"),
    *("glsa_", "glc_", "sntrys_", "e2b_", "jina_", "shpat_", "shpca_", "shppa_", "shpss_"),
)
TAIL = re.compile(r"[\w.~+/=-]*", re.ASCII)
ONE_CARD = re.compile(
    r"(?:[0-9]{12,19}+|[0-9]{4}[ .\u00a0-](?:[0-9]{4}[ .\u00a0-][0-9]{4}(?:[ .\u00a0-][0-9]{1,7})?"
    r"|[0-9]{6}[ .\u00a0-][0-9]{4,5}))(?![0-9])"
)
LOCAL = re.compile(r"[\w.%+\-'#!$&*^~]*\Z")
ADDRESS = re.compile(r"@((?:[\w-]+\.)+[^\W\d_][\w-]+(?![\w-])(?!\.[\w-]))")
IMAGE = re.compile(r"[0-9](\.[0-9])?x\.(png|jpe?g|gif|webp|svg|avif|heic|bmp|tiff?)", re.IGNORECASE)
GLUE = ("", " ", "-", "_", ".", "@", "=", "/", "\n", "é", "\u00a0", "'", "\u0661")
KNOWN = (
    *("4111111111111111", "4111 1111 1111 1111", "3782-822463-10005", "5555555555554444", "6304000000000000"),
    *("DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "nl91abna0417164300", "3fa85f64-5717-4562-b3fc-2c963f"),
    *("jane.doe@example.com", "jörg@müller.de", "o'neil@a.io", "git@github.com", "logo@2x.png", "a@3.5x.png", "task-"),
)
pieces = st.one_of(
    st.sampled_from(PREFIXES),
    st.sampled_from(GLUE),
    st.sampled_from(KNOWN),
    st.text("0123456789", min_size=1, max_size=20),
    st.text("abcdefABCDEF0123456789", min_size=10, max_size=36),
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=8, max_size=40),
)
texts = st.lists(pieces, max_size=12).map("".join)


def keys_one_by_one(text: str) -> Iterator[tuple[int, int]]:
    """In each token of at least 16 characters that is not hexadecimal: from the first key that any pattern finds."""
    for token in re.finditer(r"[\w-]{16,}", text, re.ASCII):
        if re.fullmatch(r"[0-9A-Fa-f-]+", token[0]):
            continue
        patterns = [
            re.compile(re.sub(r"^\\b", "(?<![A-Za-z0-9])", key) + rest, re.ASCII) for key, rest in _KEYS.items()
        ]
        found = [key for pattern in patterns if (key := pattern.search(text, token.start(), token.end()))]
        begins = [key.start() for key in found]
        if not found:
            begins = [token.start() - len(dotted) for dotted in _DOTTED if text.endswith(dotted, 0, token.start())]
        if begins:
            yield min(begins), whole(TAIL.match(text, token.end())).end()


def cards_one_by_one(text: str) -> Iterator[tuple[int, int]]:
    """Wherever no digit stands before: each number that has the groups, the issuer and the checksum of a card."""
    source = SearchedText.of(text)
    for at in range(len(text)):
        card = ONE_CARD.match(text, at) if not re.match("[0-9]", text[at - 1 : at]) else None
        if card is None or personal._in_longer(source, at, card.end()):
            continue
        if is_card_by_definition(re.sub("[^0-9]", "", card[0])):
            yield card.span()


def is_card_by_definition(digits: str) -> bool:
    """Luhn as ISO/IEC 7812-1 writes it down: every second digit from the right doubled, and its digits added."""
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    luhn = sum(number // 10 + number % 10 for number in doubled) % 10 == 0
    return luhn and personal._ISSUED.fullmatch(digits.encode()) is not None


def ibans_one_by_one(text: str) -> Iterator[tuple[int, int]]:
    """Wherever no letter or digit stands before: what has the length of its country and the right checksum."""
    for country, length in personal._IBAN_LENGTHS.items():
        pattern = rf"(?<![A-Za-z0-9]){country}[0-9]{{2}}(?:[ \u00a0-]?[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])"
        for iban in re.finditer(f"(?=({pattern}))", text, re.IGNORECASE | re.ASCII):
            if personal.is_iban(iban[1]):
                yield iban.span(1)


def emails_one_by_one(text: str) -> Iterator[tuple[int, int]]:
    """At each `@`: the address around it, unless it is an image's scale or `git@`."""
    done = 0
    for host in ADDRESS.finditer(text):
        before = text[max(done, host.start() - 320) : host.start()]
        local = whole(LOCAL.search(before))[0].lstrip("'")
        if local and local != "git" and not IMAGE.fullmatch(host[1]):
            done = host.end()
            yield host.start() - len(local), done


def whole(match: re.Match[str] | None) -> re.Match[str]:
    """A match that there must be."""
    assert match is not None
    return match


def hidden(spans: Iterable[tuple[int, int] | Span]) -> set[int]:
    """Every character that spans cover."""
    return {place for span in spans for place in range(span[0], span[1])}


@settings(max_examples=300)
@pytest.mark.parametrize(
    ("quick", "one_by_one"),
    [
        (credentials.provider_keys, keys_one_by_one),
        (personal.cards, cards_one_by_one),
        (personal.ibans, ibans_one_by_one),
        (personal.emails, emails_one_by_one),
    ],
)
@example("ghp_short-ghp_0123456789abcdefghijklmnop hvs.CAESIJ1234567890abcdefgh")
@example("AKIA-not-a-key-and-then-SG.ngeVfQFYQlKU0ufo8x5d1A")
@example("GB82 WEST 1234 5698 7654 32 1234 4111 1111 1111 1111 12345678 4111 1111 1111 1111")
@given(texts)
def test_short_cuts_find_what_single_patterns_find(
    quick: Callable[[SearchedText], Iterator[Span]], one_by_one: Callable[[str], Iterator[tuple[int, int]]], text: Any
) -> None:
    """Not a character more or less than each pattern alone would find, tried on the whole of any text."""
    assert hidden(quick(SearchedText.of(text))) == hidden(one_by_one(text))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("lead", ["", "{} ", "word ", "0123456789abcdef0123456789abcdef ", "snake_case_identifiers "])
def test_every_prefix_is_found_alone_and_among_identifiers(prefix: Any, lead: Any) -> None:
    """A key of each provider is hidden in prose, and among so many identifiers that the text is searched at once."""
    rest = {**_DOTTED, **{key.removeprefix(r"\b"): rest for key, rest in _KEYS.items()}}[prefix]
    start = {"xox": "b-", "lsv2_": "pt_"}.get(prefix, "")
    hexadecimal = "a-f" in rest
    key = prefix + start + ("0123456789abcdef" * 2 if hexadecimal else "A1B2C3D4E5F6G7H8Z9" * 2)
    key = key[: len(prefix) + 16] if rest == "[A-Z0-9]{16}" else key
    assert Redactor().text(f"{lead}{key} end") == f"{lead}[REDACTED:api_key] end"
