"""Redaction: what must be hidden is hidden, what must survive survives, and nothing is slow or raised."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import logging
import re
import uuid
from collections import OrderedDict
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs._support.guarded import forget_causes
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.safety.personal import is_card, is_iban
from taskpilot_obs.safety.redaction import KINDS, UNREADABLE, Redactor, Rule
from taskpilot_obs.safety.secret_keys import is_secret_key

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx7Zq\nq2n4Vd9k\n-----END RSA PRIVATE KEY-----"
PUTTY = (
    "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: jane\nPublic-Lines: 1\nAAAAC3NzaC1lZDI1NTE5\n"
    "Private-Lines: 1\nAAAAIHh5enp5c2VjcmV0\nPrivate-MAC: 0f1e2d3c4b5a"
)
PGP = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----"
JWT_TEXT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
SECRETS = {
    "openai": ("sk-proj-Zx9w8v7u6t5s4r3q2p1o0n9m8l7k6j5i4h3g2f1e", "api_key"),
    "openai, old": ("sk-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV", "api_key"),
    "anthropic": ("sk-ant-api03-a1b2c3d4e5f6g7h8i9j0_k1l2m3n4o5p6-AA", "api_key"),
    "aws": ("AKIAIOSFODNN7EXAMPLE", "api_key"),
    "github": ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "api_key"),
    "github, fine-grained": ("github_pat_11ABCDEFG0123456789_abcdefghijklmnop", "api_key"),
    "gitlab": ("glpat-ABCdef0123456789xyzt", "api_key"),
    "google": ("AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "api_key"),
    "google oauth": ("ya29.a0AfH6SMBx1234567890abcdefghij", "api_key"),
    "slack": ("xoxb-123456789012-abcdefABCDEF", "api_key"),
    "stripe": ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "api_key"),
    "huggingface": ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "api_key"),
    "groq": ("gsk_AbCdEfGhIjKlMnOpQrStUvWxYz01234567", "api_key"),
    "sendgrid": ("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", "api_key"),
    "vault": ("hvs.CAESIJ1234567890abcdefgh", "api_key"),
    "databricks": ("dapi0123456789abcdef0123456789abcdef", "api_key"),
    "twilio": ("SK0123456789abcdef0123456789abcdef", "api_key"),
    "bearer": ("dGhpc2lzYXRva2VuMTIzNDU2", "bearer_token"),
    "jwt": (JWT_TEXT, "jwt"),
    "pem": (PEM, "private_key"),
    "pgp": (PGP, "private_key"),
    "putty": (PUTTY, "private_key"),
    "slack webhook": ("hooks.slack.com/services/T00000000/B00000000/AbCdEfGhIjKlMnOpQrStUvWx", "api_key"),
    "discord webhook": ("discord.com/api/webhooks/123456789012345678/AbCdEf-GhIjKlMnOpQrStUvWx_yz", "api_key"),
    "postgres": ("postgresql+asyncpg://app:s3cr3t/p@ss@db.internal:5432/prod?ssl=1", "connection_string"),
    "mongo": ("mongodb+srv://root:hunter2@cluster0.example.net", "connection_string"),
    "redis": ("redis://:hunter2@cache:6379/0", "connection_string"),
    "url with token": ("https://0123456789abcdef0123@git.example.com/x.git", "connection_string"),
    "email": ("jane.o'brien+tag@mail.example.co.uk", "email"),
    "email, international": ("jörg@müller.de", "email"),
    "visa": ("4111111111111111", "card"),
    "visa, grouped": ("4111 1111 1111 1111", "card"),
    "visa, dashes": ("4111-1111-1111-1111", "card"),
    "amex": ("3782 822463 10005", "card"),
    "mastercard": ("5555555555554444", "card"),
    "iban": ("DE89370400440532013000", "iban"),
    "iban, grouped": ("GB82 WEST 1234 5698 7654 32", "iban"),
    "iban, lower case": ("nl91abna0417164300", "iban"),
}
SURVIVORS = (
    "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "ee2470e5-f60c-8bb7-3021-8c9bf49c8709",
    "12345678-1234-4123-8123-123456789012",
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "00000000000000000000000000000001",
    "order 4111111111111112",
    "order 1234567890123456",
    "41111111111111114111111111111111",
    "1111 41111111111111114111111111111111",
    "4111111111111111abcd",
    "1763692800000",
    "1763692800000000000",
    "DE89370400440532013001",
    "max_tokens=200",
    '"total_tokens": 17',
    "token: 5",
    "react@18.2.0",
    "https://example.com/a:b/@user",
    "https://example.com:8080/path?x=1",
    "risk-assessment-framework-for-planners",
    "a bearer of good news",
    "bearer instruments",
    "the key is under the mat",
    "password is what you must not say",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC",
    "ssh into user@localhost",
    "api_key: null",
    "workflow_cost_usd_total",
    "eyJ is how they begin",
    "://",
    "image@2x.png",
    "icons/logo@3x.webp",
    "git@github.com:org/repo",
    "ssh://git@github.com/org/repo",
    "price_per_token=0.000005",
    "token: 2.5e-06",
    '{"token": null}',
    "{'token': None, 'max_tokens': 4096}",
    "max_tokens=1000000",
    "hooks.slack.com/ has a page of help",
    "if token:\n    return token",
    "type the password:\nthen press the button",
    "password:\n  length: 12\n  digits: 2",
    "first password:\n\nnothing",
    "a compass: north, a bypass=open",
    "https://example.com/?design=blue&sig=2",
    "unsig=0123456789abcdef0123",
)
plain = Redactor()
NOT_CALLABLE: Any = "not callable"


@pytest.mark.parametrize(("secret", "kind"), SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("frame", ["{}", "use {} please", '{{"x": "{}"}}', "({}),", "x={}\n"])
def test_secret_is_replaced_by_its_kind(secret: Any, kind: Any, frame: Any) -> None:
    """Each kind of secret is replaced by a marker that names it, whatever stands around."""
    said = f"Bearer {secret}" if kind == "bearer_token" else secret
    shown = plain.text(frame.format(said))
    assert f"[REDACTED:{kind}]" in shown
    assert secret not in shown


@pytest.mark.parametrize("text", SURVIVORS)
def test_harmless_text_survives(text: Any) -> None:
    """UUIDs, trace IDs, order numbers, token counts and prose come out as they went in."""
    assert plain.text(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2", "password=[REDACTED:secret]"),
        ("PASSWORD : hunter2 and more", "PASSWORD : [REDACTED:secret] and more"),
        ('{"api_key": "abc\\"def", "user": "x"}', '{"api_key": "[REDACTED:secret]", "user": "x"}'),
        ("{'client_secret': 'with space'}", "{'client_secret': '[REDACTED:secret]'}"),
        ('{\\"token\\": \\"abc def\\"}', '{\\"token\\": \\"[REDACTED:secret]\\"}'),
        ('password: "never closed', 'password: "[REDACTED:secret] closed'),
        ("run --password hunter2 now", "run --password [REDACTED:secret] now"),
        ("run --db-password hunter2", "run --db-password [REDACTED:secret]"),
        ("x-api-key => abc", "x-api-key => [REDACTED:secret]"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [REDACTED:secret]"),
        ("Authorization: Bearer dGhpc2lzYXRva2VuMTIz", "Authorization: [REDACTED:bearer_token]"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [REDACTED:secret]\nHost: x"),
        ("DB_PASS=hunter2", "DB_PASS=[REDACTED:secret]"),
        ("export SMTP-PASS: hunter2", "export SMTP-PASS: [REDACTED:secret]"),
        ("login?user=x&pass=hunter2", "login?user=x&pass=[REDACTED:secret]"),
        ("password=123456", "password=[REDACTED:secret]"),
        ("password:\n  hunter2\nuser: x", "password:\n  [REDACTED:secret]\nuser: x"),
        ("password: |-\r\n  correct horse battery\r\nx", "password: |-\r\n  [REDACTED:secret]\r\nx"),
        ("Enter password:\nhunter2\n$ ls", "Enter password:\n[REDACTED:secret]\n$ ls"),
        ('"api_key":\n  "abc def", "x": 1', '"api_key":\n  "[REDACTED:secret]", "x": 1'),
        ("secrets:\n  - hunter2", "secrets:\n  - [REDACTED:secret]"),
        ('{"secrets": {"a": "b"}, "n": 1}', '{"secrets": [REDACTED:secret], "n": 1}'),
        ('{"cookies": ["a=b", "c=d"], "n": 1}', '{"cookies": [REDACTED:secret], "n": 1}'),
        ('{"token": {"value": "never closed', '{"token": [REDACTED:secret]'),
        ("a?sv=2024&sig=abc%2Bdef%2F0123456789%3D&se=1", "a?sv=2024&sig=[REDACTED:secret]&se=1"),
        ("a?b=1\\u0026sig=0123456789abcdef", "a?b=1\\u0026sig=[REDACTED:secret]"),
        (f"a?Signature={'Ab9%2B' * 4}&Key-Pair-Id=K", "a?Signature=[REDACTED:secret]&Key-Pair-Id=K"),
        ("x?X-Amz-Signature=0123456789abcdef0123 y", "x?X-Amz-Signature=[REDACTED:secret] y"),
        ("to https://hooks.slack.com/services/T0/B0/abc.", "to https://[REDACTED:api_key]."),
        ("git@github.com says jane@github.com:2x", "git@github.com says [REDACTED:email]:2x"),
        ("Server=db;Password=p;x", "Server=db;Password=[REDACTED:secret]"),
        ("'jane@example.com'", "'[REDACTED:email]'"),
        ("mail jane@example.com.", "mail [REDACTED:email]."),
        ("cards 12 4111111111111111 7", "cards 12 [REDACTED:card] 7"),
        ("1234 4111 1111 1111 1111", "1234 [REDACTED:card]"),
        ("card4111111111111111", "card[REDACTED:card]"),
    ],
)
def test_marker_stands_exactly_where_the_secret_stood(text: Any, shown: Any) -> None:
    """Only the secret is replaced: its quotes, its name and its neighbours stay."""
    assert plain.text(text) == shown


def test_private_key_without_an_end_is_hidden_to_the_end() -> None:
    """Half a private key is as useful as a whole one to an attacker, so nothing of it is left."""
    assert plain.text("key:\n" + PEM[:60]) == "key:\n[REDACTED:private_key]"
    assert plain.text(PEM + " tail") == "[REDACTED:private_key] tail"
    assert plain.text(PEM[:-3] + " tail") == "[REDACTED:private_key]"
    assert plain.text("key " + PUTTY[:-15] + " tail") == "key [REDACTED:private_key]"
    assert plain.text(PUTTY + "\ntail") == "[REDACTED:private_key]\ntail"


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_a_path_may_hold_a_colon_and_an_at_sign(scheme: str) -> None:
    """Only what stands before the host of a web address is a password."""
    assert plain.text(f"see {scheme}://example.com/a:b@2 now") == f"see {scheme}://example.com/a:b@2 now"
    assert plain.text(f"see {scheme}://me:pass@example.com/a now") == "see [REDACTED:connection_string] now"


def test_a_card_of_twelve_digits_may_be_the_whole_text() -> None:
    """The shortest numbers of cards (Maestro's) are found at the very start of a text."""
    assert plain.text("676770000005") == "[REDACTED:card]"
    assert plain.text("676770000008") == "676770000008"


def test_one_hexadecimal_letter_makes_a_number_an_id() -> None:
    """The digits of a card within a hexadecimal number are kept, however short what is around them."""
    for text in ("id a4111111111111111", "id 4111111111111111f", "a4111111111111111"):
        assert plain.text(text) == text
    assert plain.text("id 4111111111111111") == "id [REDACTED:card]"


def test_words_between_private_keys_stay() -> None:
    """Each of several private keys is hidden to its own end, and what stands between them is left."""
    for key in (PEM, PGP, PUTTY):
        hidden = "[REDACTED:private_key]"
        assert plain.text(f"old: {key}\nnew: {key}\nboth") == f"old: {hidden}\nnew: {hidden}\nboth"


def test_the_signature_of_a_link_is_hidden() -> None:
    """A signed link gives access to every reader; a text without a sign `=` has none."""
    assert plain.text("GET /x?sig=0123456789abcdef01 now") == "GET /x?sig=[REDACTED:secret] now"
    assert plain.text("GET /x signature 0123456789abcdef01") == "GET /x signature 0123456789abcdef01"


def test_overlapping_finds_become_one_marker() -> None:
    """Where two kinds overlap, the union is hidden under the graver name."""
    assert plain.text("password=postgres://u:p@h/db?x=jane@example.com") == "password=[REDACTED:connection_string]"


@given(
    st.sampled_from(sorted(SECRETS)),
    st.text(alphabet=st.characters(exclude_characters="'\"`<>\\"), max_size=40),
    st.text(max_size=40),
)
def test_no_planted_secret_is_ever_shown(name: Any, before: Any, after: Any) -> None:
    """A secret between any two texts does not come out again, as text, in a list, or under a key."""
    secret, kind = SECRETS[name]
    said = f"bearer {secret}" if kind == "bearer_token" else secret
    whole = f"{before} {said} {after}"
    assert secret not in plain.text(whole)
    assert secret not in plain.value([whole, {"x": (said,)}])
    assert secret not in plain.value({"outer": {f" {said} ": 1}})


@given(st.text(max_size=200), st.sampled_from([secret for secret, _ in SECRETS.values()]), st.text(max_size=50))
def test_redacting_twice_changes_nothing(before: Any, secret: Any, after: Any) -> None:
    """A marker is not taken for a secret: redaction is idempotent."""
    once = plain.text(f"{before} {secret} {after}")
    assert plain.text(once) == once


@example(uuid.UUID("fad8e2c7-4842-1575-0817-8da98dbc93d6"), 0)
@given(st.uuids(), st.integers(0, 2**128 - 1))
def test_identifiers_survive(identifier: Any, trace: Any) -> None:
    """No UUID and no 32-digit trace ID is ever mistaken for something secret."""
    text = f"run {identifier} in trace {trace:032x}"
    assert plain.text(text) == text


@given(st.integers(0, 2**64 - 1), st.integers(1, 9))
def test_numbers_with_a_wrong_checksum_survive(number: Any, wrong: Any) -> None:
    """A 16-digit number is a card only if its Luhn checksum is right: changing the last digit shows it."""
    digits = f"4{number % 10**14:014d}"
    check = next(last for last in range(10) if is_card(f"{digits}{last}".encode()))
    assert plain.text(f"{digits}{check}") == "[REDACTED:card]"
    other = f"{digits}{(check + wrong) % 10}"
    assert plain.text(other) == other


@pytest.mark.parametrize(
    ("number", "right"),
    [("GB82WEST12345698765432", True), ("GB82TEST12345698765432", False), ("NO9386011117947", True)],
)
def test_iban_checksum(number: Any, right: Any) -> None:
    """An IBAN counts only with the remainder 1 modulo 97."""
    assert is_iban(number) is right


@pytest.mark.parametrize(("secret", "kind"), SECRETS.values(), ids=SECRETS.keys())
def test_a_cut_never_leaves_half_a_secret(secret: Any, kind: Any) -> None:
    """Wherever the cut falls, no piece of 6 or more characters of a secret's second half or first half is left."""
    said = f"Bearer {secret}" if kind == "bearer_token" else secret
    lead = "the tool said: "
    for cut in range(len(lead), len(lead) + len(said) + 1):
        shown = Redactor(max_length=cut).text(lead + said + " " + "x" * 2_000)
        kept = shown.removesuffix("[TRUNCATED]").replace(f"[REDACTED:{kind}]", "").removeprefix(lead)
        assert kept.strip() in ("", "Bearer"[: len(kept.strip())]), (cut, shown)


@pytest.mark.parametrize("key", [PEM, PGP])
def test_text_between_two_private_keys_stays(key: str) -> None:
    """Each key ends at its own footer, and so does what is hidden for it."""
    shown = plain.text(f"first {key} then {key} last")
    assert shown == "first [REDACTED:private_key] then [REDACTED:private_key] last"


def test_long_text_is_cut_and_says_so() -> None:
    """At most `max_length` characters of the source are kept, and the cut is marked."""
    assert Redactor(max_length=5).text("abcdefgh") == "abcde[TRUNCATED]"
    assert Redactor(max_length=5).text("mail ann@example.com") == "mail [TRUNCATED]"  # what is behind the cut is gone
    assert Redactor(max_length=5).text("abcde") == "abcde"


def test_key_makes_occurrences_comparable() -> None:
    """With a key, the same secret gives the same marker, another secret or another key another one."""
    keyed = Redactor(hmac_key=b"k" * 32)
    one, two = keyed.text("a@example.com b@example.com").split()
    assert re.fullmatch(r"\[REDACTED:email:[0-9a-f]{12}\]", one)
    assert one != two
    assert keyed.text("a@example.com") == one
    assert Redactor(hmac_key="another key of 16+").text("a@example.com") != one


def test_own_rules_and_skipped_kinds() -> None:
    """A user's rules are applied beside the built-in ones, and built-in kinds can be shown."""
    own = Redactor(Rule.pattern("employee", re.compile(r"\bE\d{6}\b")), skip={"email", "jwt"})
    assert (
        own.text(f"E123456 writes to a@b.io with {JWT_TEXT}") == f"[REDACTED:employee] writes to a@b.io with {JWT_TEXT}"
    )
    assert own.text("Bearer dGhpc2lzYXRva2VuMTIzNDU2") == "Bearer [REDACTED:bearer_token]"


def test_linear_engine_serves_as_a_rule() -> None:
    """A pattern compiled by RE2 is a rule too."""
    re2 = pytest.importorskip("re2", reason="needs google-re2, extra `safety`")
    assert Redactor(Rule.pattern("ticket", re2.compile(r"T-[0-9]+"))).text("see T-12, é T-3") == (
        "see [REDACTED:ticket], é [REDACTED:ticket]"
    )


def test_rule_that_raises_withholds_the_text(caplog: Any) -> None:
    """A failing user-defined rule shows nothing instead of too much, and is counted and logged."""
    forget_causes()
    counters = InternalCounters()

    def broken(_text: Any) -> Any:
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR):
        assert Redactor(Rule("x", broken), counters=counters).text("hello") == UNREADABLE
    assert "redaction failed with RuntimeError" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"skip": "email"}, "skip"),
        ({"skip": ["phone"]}, "skip"),
        ({"hmac_key": b"short"}, "hmac_key"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"max_length": "9"}, "max_length"),
    ],
)
def test_wrong_options_are_refused_at_construction(options: Any, said: Any) -> None:
    """A wrong option is refused when the redactor is made, by name and with what is allowed."""
    with pytest.raises(ConfigurationError, match=said):
        Redactor(**options)


@pytest.mark.parametrize("rule", ["email", Rule("Has Space", lambda _: ()), Rule("x", NOT_CALLABLE)])
def test_wrong_rules_are_refused_at_construction(rule: Any) -> None:
    """An object that is not a rule, or a rule whose kind does not fit into a marker, is refused."""
    with pytest.raises(ConfigurationError, match="rule"):
        Redactor(rule)


@dataclasses.dataclass
class Account:
    owner: str
    password: str
    note: str = dataclasses.field(default="unseen", repr=False)


class Point(NamedTuple):
    x: int
    token: str


class Customer(pydantic.BaseModel):
    name: str
    api_key: str


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Client:
    def __repr__(self) -> str:
        raise RuntimeError("never called")


class LoudString(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        (4111111111111111, "[REDACTED:card]"),
        pytest.param(10**5000, '"[NUMBER]"', id="huge integer"),
        (
            {"a": [1, {"password": {"x": 1}}], "t": ("a", None, True)},
            '{"a": [1, {"password": "[REDACTED:secret]"}], "t": ["a", null, true]}',
        ),
        ({"secrets": {"a": "b"}, "cookies": ["c"]}, '{"secrets": "[REDACTED:secret]", "cookies": "[REDACTED:secret]"}'),
        ({"token": None, "password": False}, '{"token": null, "password": false}'),
        ({"price_per_token": 5e-06, "pin": 1234}, '{"price_per_token": 5e-06, "pin": "[REDACTED:secret]"}'),
        (
            {"db_pass": "x", "dbPass": "y", "bypass": "z"},
            '{"db_pass": "[REDACTED:secret]", "dbPass": "[REDACTED:secret]", "bypass": "z"}',
        ),
        (Account("jane", "hunter2"), '{"owner": "jane", "password": "[REDACTED:secret]"}'),
        (Point(1, "abc"), '{"x": 1, "token": "[REDACTED:secret]"}'),
        (Customer(name="x", api_key="abc"), '{"name": "x", "api_key": "[REDACTED:secret]"}'),
        (OrderedDict(b=1), '{"b": 1}'),
        ({1: {2}}, '{"1": [2]}'),
        (b"raw \xff a@b.io", '"raw \\\\xff [REDACTED:email]"'),
        (memoryview(b"raw"), '"raw"'),
        (ValueError("bad a@b.io"), "bad [REDACTED:email]"),
        ([ValueError("bad")], '["bad"]'),
        (dt.date(2026, 3, 1), "2026-03-01"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Account, f"<class '{__name__}.Account'>"),
        (HostileError(), UNREADABLE),
        ([1, HostileError()], UNREADABLE),
        (Client(), "<Client>"),
        ({"client": Client(), "n": object()}, '{"client": "<Client>", "n": "<object>"}'),
        pytest.param(LoudString("a@b.io"), "[REDACTED:email]", id="loud string"),
        ("\ud800 a@b.io", "\ud800 [REDACTED:email]"),
    ],
)
def test_any_value_becomes_text(value: Any, shown: Any) -> None:
    """Strings stay strings, structures become JSON-like, secrets under keys vanish, hostile values do not raise."""
    assert plain.value(value) == shown


def test_cycles_depth_and_size_are_bounded() -> None:
    """A value that contains itself, is nested 10,000 deep or holds 50 MB is rendered within the bound."""
    loop: list[object] = []
    loop.append(loop)
    assert plain.value(loop) == '["[CYCLE]"]'
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    assert "[DEEP]" in plain.value(deep)
    small = Redactor(max_length=100)
    assert small.value("x" * 50_000_000) == "x" * 100 + "[TRUNCATED]"
    assert small.value({"k": "x" * 50_000_000}).endswith("xxx[TRUNCATED]")
    assert small.value(bytes(50_000_000)).endswith("[TRUNCATED]")
    assert small.value(range(10)) == "range(0, 10)"
    assert small.value(list(range(1_000_000))).endswith("[TRUNCATED]")
    assert json.loads(plain.value({"same": [loop[:0], loop[:0]]})) == {"same": [[], []]}


def test_attributes_keep_their_types() -> None:
    """Numbers and booleans of a user's attributes stay numbers; strings, secret keys and card numbers are redacted."""
    assert plain.attributes(
        {"n": 3, "f": 0.5, "ok": True, "mail": "a@b.io", "auth_token": "x", "card": 4111111111111111, "a@b.io": 1}
    ) == {
        "n": 3,
        "f": 0.5,
        "ok": True,
        "mail": "[REDACTED:email]",
        "auth_token": "[REDACTED:secret]",
        "card": "[REDACTED:card]",
        "[REDACTED:email]": 1,
    }


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        *(
            (key, True)
            for key in (
                "password",
                "dbPassword",
                "X-API-Key",
                "client_secret",
                "accessToken",
                "Set-Cookie",
                "pin",
                "PASS",
                "secrets",
            )
        ),
        *((key, False) for key in ("max_tokens", "pinned", "key", "tokenizer", "compass")),
    ],
)
def test_secret_keys(key: Any, secret: Any) -> None:
    """A key is secret by its last words, in any notation; token counts are not."""
    assert is_secret_key(key) is secret


HUGE = 300_000
ADVERSARIAL = (
    *("a", "1", "@", "a@", "a@a.", "@a.", ".", "-", "/", "\u00e9", "\U0001f600@", " ", "'", '\\"'),
    *("://", "a://a:", "a://:@", "http://a:", "eyJaaaaaaaa.", "eyJ", "bearer ", "Bearer a1", "authorization: a "),
    *(
        "password:",
        'password:"',
        "password:\\",
        'token="[REDACTED:]',
        "token ",
        "--token ",
        "key=",
        "api_key='",
        "cookie:",
        "password:\n",
        "password:\n  ",
        "password:{",
        "secrets: [",
        "&sig=a",
        "pass=",
        "if token:\n a",
    ),
    *("PuTTY-User-Key-File-", "PuTTY-User-Key-File-2: a\nPrivate-MAC: ", "hooks.slack.com/services/", "git@"),
    *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN A PRIVATE KEY-----\n-----END "),
    *("sk-", "sk-a", "AKIA", "ghp_", "hf_", "SG.aaaaaaaaaaaaaaaaaaaa.", "SG."),
    *("aa11", "de11", "1111 ", "4111 1111 1111 1111 ", "411111"),
)


@pytest.mark.parametrize("piece", ADVERSARIAL)
def test_no_text_takes_more_than_linear_time(piece: Any) -> None:
    """300,000 characters of every prefix of a pattern come back: at quadratic cost (10^11 steps) none of them would."""
    text = (piece * (HUGE // len(piece) + 1))[:HUGE]
    wide = Redactor(max_length=HUGE)
    assert wide.text(text)
    assert wide.text(f"{text}\n{base64.b85encode(text[:1000].encode('utf-8', 'surrogatepass')).decode()}")


def test_kinds_are_documented_in_order_of_gravity() -> None:
    """The public tuple of kinds has no doubles and starts with what is gravest."""
    assert len(set(KINDS)) == len(KINDS)
    assert KINDS[0] == "private_key"
