"""Secrets that are spoken of in prose, or stand behind a short option of a command; and ordinary text beside them."""

from __future__ import annotations

import json
import shlex
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs.safety.redaction import Redactor

WORDS = (
    *(
        "required",
        "wrong",
        "incorrect",
        "expired",
        "too short",
        "not stored",
        "hashed with argon2",
        "base64-encoded",
        "optional",
    ),
    *(
        "8 characters long",
        "12 or more letters",
        "sent by e-mail",
        "case-sensitive",
        "the same",
        "valid",
        "missing",
        "$PASSWORD",
    ),
    *(
        "stored at /etc/secret1",
        "at https://x.example/a1",
        "<hidden1>",
        "an OAuth2 one",
        "sha256",
        "null",
        "rotated every 90 days",
    ),
)
PROSE = (
    *("the {key} is {value}", "My {key} was {value}", "{key}s are {value}", "your {key} for the db is {value}, ok?"),
    *("Note: the '{key}' is {value}.", "if the {key} is {value} then stop"),
)
KEYS = ("password", "Passphrase", "passcode", "API key", "access token", "secret", "client_secret", "DB_PASSWORD")
SPOKEN = (
    *("the {key} is {value}", "my {key} is {value}.", "{key} was '{value}'", "the {key} for root is now {value}, ok?"),
    *('I said: "the {key} is {value}"', "The {key} of the server is still {value} and works"),
)
SPOKEN_PASSWORDS = ("log in with user root and password {value}", "please reset my password to {value}!")
COMMANDS = (
    *(
        "mysql -u root -p{value} shop",
        "mysqldump -p{value} --all",
        "sshpass -p {value} ssh host",
        "sshpass -p{value} ssh host",
    ),
    *("docker login -u me -p {value} registry.example", "redis-cli -h x -a {value} ping", "mongosh -u a -p {value}"),
    *(
        "ldapsearch -x -w {value}",
        "sqlcmd -S db -U sa -P {value}",
        "twine upload -p {value} dist",
        "tool -u admin -p {value}",
    ),
    *("-p {value}", "7z x -p{value} a.7z", "make clean && sshpass -p {value} scp a b", "sshpass -p '{value}' ssh host"),
)
HARMLESS_COMMANDS = (
    *("-p {port}", "ssh -p {port} host", "docker run -p {port}:{port} nginx", "psql -h db -p {port}", "tool -p {port}"),
    *(
        "mkdir -p build{port}/out",
        "mkdir -p out{port}a",
        "git log -p a{port}",
        "pytest -p no:cacheprovider",
        "cargo build -p a{port}",
    ),
    *(
        "gcc -pthread -pipe",
        "find . -print0",
        "virtualenv -p python3.12 env",
        "mysql -u root -p shop",
        "ls -a dir{port}x",
    ),
    *("python -m http.server -p {port}", "claude -p 'say hello2'", "nmap -p {port} host", "cp -p a{port}b c"),
)
secrets = st.builds(
    lambda letters, digits, more: f"{letters}{digits}{more}",
    st.text(string.ascii_lowercase, min_size=4, max_size=8).filter(lambda word: word not in {"bcrypt", "scrypt"}),
    st.integers(1, 9_999),
    st.text(string.ascii_letters, min_size=3, max_size=6),
).filter(lambda word: not word.startswith("py"))


@given(st.sampled_from(SPOKEN), st.sampled_from(KEYS), secrets)
def test_a_secret_that_is_spoken_of_is_hidden(sentence: str, key: str, value: str) -> None:
    """A sentence that states a password or a key keeps its words and hides the secret."""
    shown = Redactor().text(sentence.format(key=key, value=value))
    assert shown == sentence.format(key=key, value="[REDACTED:secret]")


@given(st.sampled_from(SPOKEN_PASSWORDS), secrets)
def test_a_password_beside_its_name_is_hidden(sentence: str, value: str) -> None:
    """A password follows its name without a verb, or is what a password is changed to."""
    assert Redactor().text(sentence.format(value=value)) == sentence.format(value="[REDACTED:secret]")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("sentence", PROSE)
def test_what_else_is_said_of_a_secret_stays(sentence: str, word: str) -> None:
    """Sentences about passwords and keys that state none are left as they are."""
    redactor = Redactor()
    said = [sentence.format(key=key, value=word) for key in KEYS]
    assert [redactor.text(text) for text in said] == said


@given(st.sampled_from(COMMANDS), secrets)
def test_a_password_behind_a_short_option_is_hidden(command: str, value: str) -> None:
    """Passwords on command lines are hidden in the line, in JSON, and in a list of arguments."""
    text = command.format(value=value)
    redactor = Redactor()
    assert redactor.text(text) == command.format(value="[REDACTED:secret]")
    assert value not in redactor.text(json.dumps({"cmd": text}))
    assert value not in redactor.value(shlex.split(text))
    assert value not in redactor.text(json.dumps(shlex.split(text)))


@given(st.sampled_from(HARMLESS_COMMANDS), st.integers(1, 65_535))
def test_other_meanings_of_short_options_stay(command: str, port: int) -> None:
    """Ports, paths, projects and plugins behind the same letters are left as they are."""
    text = command.format(port=port)
    redactor = Redactor()
    assert redactor.text(text) == text
    assert "REDACTED" not in redactor.value(shlex.split(text))


@pytest.mark.parametrize(
    "text", ["the password is 'swordfish'", 'password is "open sesame"', "sshpass -p swordfish ssh x"]
)
def test_a_plain_word_is_a_password_where_it_is_marked(text: str) -> None:
    """Quotes, or a program that takes a password, mark a word that looks like any other."""
    assert "[REDACTED:secret]" in Redactor().text(text)


@pytest.mark.parametrize(
    ("text", "is_hidden"), [("my PIN is 4711", True), ("the pin is D13", False), ("OTP is 123456", True)]
)
def test_numbers_are_secret_where_their_name_says_so(text: str, is_hidden: bool) -> None:
    """Digits are hidden behind names of numeric secrets."""
    assert ("REDACTED" in Redactor().text(text)) == is_hidden


@pytest.mark.parametrize("sentence", ["the password is swordfish", "my passphrase is correct horse battery"])
def test_what_the_docs_say_stays_stays(sentence: str) -> None:
    """A secret that is a plain word without quotes stays, as `docs/safety.md` says; in quotes it is hidden."""
    assert Redactor().text(sentence) == sentence
    assert Redactor().text('the password is "swordfish"') == 'the password is "[REDACTED:secret]"'
