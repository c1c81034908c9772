"""What one notation hides, every notation hides; and no text takes more than linear time."""

from __future__ import annotations

import faulthandler
import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs.safety.redaction import Redactor
from taskpilot_obs.safety.secret_keys import ANYWHERE, ENDING, EXACTLY, HINTS, is_secret_key

VALUE = "Zq7hunter2xK9wV4tB"
"""Nothing in it tells that it is a secret: only the name beside it does."""
KEYS = (
    *(
        "password",
        "Password",
        "DB_PASSWORD",
        "dbPassword",
        "db-password",
        "passwd",
        "user_passphrase",
        "pwd",
        "db_pass",
    ),
    *("secret", "client_secret", "clientSecret", "secrets", "token", "access_token", "accessToken", "refresh-token"),
    *(
        "api_key",
        "apiKey",
        "X-API-Key",
        "x-api-key",
        "private_key",
        "aws_secret_access_key",
        "account_key",
        "signing_key",
    ),
    *("credential", "credentials", "Authorization", "authorization", "Proxy-Authorization", "cookie", "Set-Cookie"),
    *("cvv", "cvc", "pin", "ssn", "pass", "subscription_key", "password_hint", "session_cookie"),
)


class Settings:
    """An application's object."""


def as_object(key: str) -> Any:
    settings = Settings()
    setattr(settings, key, VALUE)
    return [settings]


VALUES = {
    "mapping": lambda key: {key: VALUE},
    "nested mapping": lambda key: {"a": [{"b": {key: VALUE}}]},
    "bytes": lambda key: {key.encode(): VALUE.encode()},
    "value that is a list": lambda key: {key: [VALUE]},
    "pair": lambda key: [(key, VALUE)],
    "list of headers": lambda key: {"headers": [["Host", "x"], [key, VALUE]]},
    "headers of ASGI": lambda key: [(key.encode(), VALUE.encode())],
    "options": lambda key: ["run", f"--{key}", VALUE, "now"],
    "option with =": lambda key: ["run", f"--{key}={VALUE}"],
    "name and value": lambda key: [{"name": key, "value": VALUE}],
    "value and name": lambda key: [{"value": VALUE, "name": key}],
    "key and value": lambda key: {"env": [{"key": key, "value": VALUE}]},
    "object": as_object,
}
TEXTS = {
    "assignment": lambda key: f"x {key}={VALUE} y",
    "spaced assignment": lambda key: f"{key} = {VALUE}",
    "quoted assignment": lambda key: f"{key}='{VALUE}'",
    "colon": lambda key: f"{key}: {VALUE}",
    "arrow": lambda key: f"'{key}' => '{VALUE}'",
    "go": lambda key: f'{key} := "{VALUE}"',
    "line below": lambda key: f"{key}:\n  {VALUE}\nx: y",
    "JSON": lambda key: json.dumps({"u": "jane", key: VALUE, "n": 1}),
    "JSON, indented": lambda key: json.dumps({"u": "jane", key: VALUE}, indent=2),
    "JSON in JSON": lambda key: json.dumps({"body": json.dumps({key: VALUE})}),
    "JSON in JSON in JSON": lambda key: json.dumps([json.dumps({"body": json.dumps({key: VALUE})})]),
    "name and value in JSON": lambda key: json.dumps([{"name": key, "value": VALUE}]),
    "name and value in JSON, indented": lambda key: json.dumps([{"name": key, "value": VALUE}], indent=4),
    "value and name in JSON": lambda key: json.dumps([{"value": VALUE, "name": key}]),
    "name and value in JSON in JSON": lambda key: json.dumps({"body": json.dumps([{"name": key, "value": VALUE}])}),
    "pair in JSON": lambda key: json.dumps([["a", "b"], [key, VALUE]]),
    "pair in Python": lambda key: repr([(key, VALUE)]),
    "options in JSON": lambda key: json.dumps(["run", f"--{key}", VALUE]),
    "option": lambda key: f"run --{key} {VALUE} now",
    "option with =": lambda key: f"run --{key}={VALUE}",
    "XML": lambda key: f"<login><{key}>{VALUE}</{key}></login>",
    "XML with a namespace": lambda key: f"<a:login><a:{key}>{VALUE}</a:{key}></a:login>",
    "XML with attributes": lambda key: f'<{key} kind="x">{VALUE}</{key}>',
    "XML, CDATA": lambda key: f"<{key}><![CDATA[{VALUE}]]></{key}>",
    "XML, named": lambda key: f'<property name="{key}">{VALUE}</property>',
    "XML, attribute": lambda key: f'<login user="x" {key}="{VALUE}"/>',
    "XML, attributes": lambda key: f'<param name="{key}" value="{VALUE}"/>',
    "query": lambda key: f"https://x.example/?a=b&{key}={VALUE}&c=d",
    "first of a query": lambda key: f"GET /?{key}={VALUE}",
    "header": lambda key: f"{key}: {VALUE}\r\nHost: x",
    "curl": lambda key: f"curl -H '{key}: {VALUE}' https://x.example",
    "TOML": lambda key: f'[db]\n{key} = "{VALUE}"\n',
    "YAML": lambda key: f"db:\n  - {key}: {VALUE}\n",
    "environment": lambda key: f"export {key}={VALUE}\n",
}


@given(st.sampled_from(KEYS), st.sampled_from(sorted(VALUES)), st.sampled_from(["", "x", {"a": 1}]))
def test_a_value_beside_a_secret_name_is_hidden_in_every_structure(key: str, kind: str, beside: Any) -> None:
    """A secret name hides its value in mappings, pairs, headers, options and objects, at any depth."""
    shown = Redactor().value([beside, VALUES[kind](key)])
    assert VALUE not in shown
    assert key in shown or kind == "object"


@given(st.sampled_from(KEYS), st.sampled_from(sorted(TEXTS)), st.text(max_size=5), st.text(max_size=5))
def test_a_value_beside_a_secret_name_is_hidden_in_every_notation(key: str, kind: str, before: str, after: str) -> None:
    """A secret name hides its value in every notation of text, whatever stands around."""
    shown = Redactor().text(f"{before}\n{TEXTS[kind](key)}\n{after}")
    assert VALUE not in shown, shown
    assert key in shown


@pytest.mark.parametrize("kind", TEXTS)
def test_every_notation_of_every_key(kind: str) -> None:
    """No pair of a name and a notation shows the value, as text or as text within a value."""
    redactor = Redactor()
    assert [key for key in KEYS if VALUE in redactor.text(TEXTS[kind](key))] == []
    assert [key for key in KEYS if VALUE in redactor.value({"log": [TEXTS[kind](key)]})] == []


@pytest.mark.parametrize("kind", VALUES)
def test_every_structure_of_every_key(kind: str) -> None:
    """No pair of a name and a structure shows the value."""
    redactor = Redactor()
    assert [key for key in KEYS if VALUE in redactor.value(VALUES[kind](key))] == []


@pytest.mark.parametrize(
    "text",
    [
        "curl -u alice:{} https://x.example",
        "curl -ualice:{} x",
        "curl --user 'alice:{}' x",
        "curl --proxy-user=alice:{} x",
        '["curl", "-u", "alice:{}"]',
        "sudo curl -sS -u :{} x",
        "-u alice:{} are the arguments of curl",
    ],
)
def test_a_password_on_the_command_line_of_curl(text: str) -> None:
    """`curl -u user:password` shows the user and hides the password."""
    shown = Redactor().text(text.replace("{}", VALUE))
    assert VALUE not in shown
    assert ("alice" in shown) == ("alice" in text)


@pytest.mark.parametrize("key", ["password", "api_key", "pin"])
@pytest.mark.parametrize("form", ['["user", "{}", "email"]', "type the {}, then go", "a {} is needed", "<p>{}</p> x"])
def test_a_name_without_a_value(key: str, form: str) -> None:
    """A secret name in a list of names, in prose or in an element hides nothing beside it."""
    text = form.replace("{}", key)
    assert Redactor().text(text) == text


def dumped(value: object, layers: int) -> str:
    """A value as JSON, within as many texts of JSON."""
    for _ in range(layers):
        value = json.dumps(value)
    return json.dumps(value)


@given(st.text(alphabet="ab \\\"'`", max_size=12), st.integers(0, 3))
def test_quotes_and_backslashes_in_a_secret_end_it_in_no_layer(rest: str, layers: int) -> None:
    """Tools get their arguments as JSON within JSON: the secret is hidden to its own closing quote."""
    text = dumped({"a": "x", "password": "Zq" + rest, "n": "kept"}, layers)
    assert Redactor().text(text) == dumped({"a": "x", "password": "[REDACTED:secret]", "n": "kept"}, layers)


@given(st.text(alphabet="ab\\\"'`", max_size=12), st.integers(0, 3), st.data())
def test_a_secret_that_is_cut_shows_nothing_behind_its_quotes(rest: str, layers: int, data: st.DataObject) -> None:
    """Of a text that ends within a secret, all that stands behind the opening quote is hidden."""
    whole = dumped({"a": "x", "password": "Zq" + rest + "!"}, layers)
    at = whole.index("Zq")
    cut = data.draw(st.integers(at + 2, whole.index("!") + 1))
    assert Redactor().text(whole[:cut]) == whole[:at] + "[REDACTED:secret]"


def test_the_table_is_one() -> None:
    """Every secret name of the table is found in text: each holds one of the hints that text is searched for."""
    for word in (*ANYWHERE, *ENDING, *EXACTLY):
        assert is_secret_key(word)
        assert any(hint.decode() in word for hint in HINTS), word


SHORT, LONG = 12_000, 48_000
PIECES = (
    *("password", "token", "key", "pin", "sig", "secrets", "authorization", "cookie", "--password", "curl -u", "api "),
    *(
        "=",
        ":",
        "=>",
        ": ",
        '"',
        "'",
        '\\"',
        ", ",
        "<",
        ">",
        "</",
        "[",
        "(",
        "{",
        "\n",
        "\n  ",
        "&",
        "?",
        "@",
        "://",
        " ",
    ),
    *('"value": "', '", "name": "', "<![CDATA[", '"name":', "value=", "a", "1", ".", "-", "_", "\\", "sig=", "bearer "),
    *(" is ", " to ", " for ", "reset ", "-p ", "-p", "mysql -p", "sshpass ", " -a"),
    *("eyJ", "sk-", "-----BEGIN ", "hooks.", "4111 ", "DE89 ", "\u00e9", "PuTTY-User-Key-File-", "AKIA", "0x"),
)
FAMILIES = [*PIECES, *("".join(pair) for pair in itertools.product(PIECES[:11], PIECES[11:45]))]


def cost(redactor: Redactor, piece: str, size: int) -> float:
    text = (piece * (size // len(piece) + 1))[:size]
    began = time.process_time()
    redactor.text(text)
    return time.process_time() - began


def test_no_generated_text_takes_more_than_linear_time() -> None:
    """Four times the text takes about four times as long, for every family of a name and a notation repeated.

    A quadratic family takes sixteen times as long; it is tried again before it counts, because the machine may be busy.
    """
    redactor = Redactor(max_length=10**7)
    slow = [
        piece
        for piece in FAMILIES
        if all(cost(redactor, piece, LONG) > 9 * max(cost(redactor, piece, SHORT), 0.002) for _ in range(3))
    ]
    assert slow == []


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_no_generated_megabyte_takes_more_than_linear_time() -> None:
    """The same holds for 1 MB of every family, against a quarter of that."""
    faulthandler.cancel_dump_traceback_later()  # pytest's watchdog allows four minutes, which a busy machine exceeds
    redactor = Redactor(max_length=10**7)
    slow = [
        piece
        for piece in FAMILIES
        if all(cost(redactor, piece, 1_000_000) > 9 * max(cost(redactor, piece, 250_000), 0.002) for _ in range(3))
    ]
    assert slow == []


@pytest.mark.full
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join))
def test_no_mixture_takes_more_than_linear_time(piece: str) -> None:
    """The same holds for a quarter of a megabyte of any mixture of names and notations."""
    redactor = Redactor(max_length=10**7)
    ratios = (cost(redactor, piece, 256_000) / max(cost(redactor, piece, 64_000), 0.004) for _ in range(3))
    assert any(ratio < 9 for ratio in ratios)
