"""Tokens, sessions, limits and headers."""

from __future__ import annotations

import logging
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import httpx
import pytest
from _serving import bearer, fill, present, requests_of, serving, tokens_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.server import create_app
from taskpilot_obs.server.principal import Principal
from taskpilot_obs.server.rate import WrongTokens
from taskpilot_obs.server.tokens import TokenFile, create_token, list_tokens, revoke_token
from taskpilot_obs.store import Store


@pytest.fixture
def tokens(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    return tokens_in(tmp_path)


@pytest.fixture
def client(store: Store, tokens: tuple[Path, dict[str, str]]) -> Iterator[TestClient]:
    """A browser before a server with tokens."""
    fill(store, requests_of("acme", 3))
    app = create_app(store=store, tokens=tokens[0], now=present)
    with TestClient(app, base_url="https://obs.example", client=("203.0.113.5", 1), follow_redirects=False) as made:
        yield made


def log_in(client: TestClient, token: str, **more: str) -> Any:
    """Fill in the form of the login page and send it."""
    page = client.get("/login")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf
    return client.post("/login", data={"csrf": csrf[1], "token": token, "next": "/costs", **more})


@pytest.mark.promise("owner-only")
def test_a_token_is_kept_as_a_digest_in_a_file_of_its_owner(tmp_path: Path) -> None:
    """The token is nowhere in the file, which only its owner may read; the name is unique, and revoked it is gone."""
    file = tmp_path / "tokens.toml"
    token = create_token(file, "grafana", "viewer", "acme")
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert TokenFile(file).find(token) == Principal("grafana", "viewer", "acme")
    assert TokenFile(file).find(token + "x") is None
    other = create_token(file, "ops", "admin", "*")
    assert TokenFile(file).find(other) == Principal("ops", "admin", None)
    with pytest.raises(ConfigurationError, match="'ops' is taken"):
        create_token(file, "ops", "viewer", "acme")
    revoke_token(file, "grafana")
    assert [one.name for one in list_tokens(file)] == ["ops"]
    with pytest.raises(ConfigurationError, match="no token 'grafana'"):
        revoke_token(file, "grafana")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", "viewer", "acme"), "name"),
        (("a b", "viewer", "acme"), "allowed are 1 to 100 letters"),
        (("a", "king", "acme"), "allowed are viewer, writer, admin"),
        (("a", "viewer", ""), "give its name, or \\* for every tenant"),
        (("a", "viewer", "a\nb"), "tenant"),
        (("a", "viewer", "__none__"), "tenant"),
    ],
)
def test_a_wrong_token_entry_is_refused(tmp_path: Path, given: tuple[Any, ...], message: str) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigurationError, match=message):
        create_token(tmp_path / "tokens.toml", *given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "token = 3",
        "[[token]]\nname = 'a'",
        "[[token]]\nname='a'\nsha256='xyz'\nrole='viewer'\ntenant='acme'",
        "colour = 'red'",
        "= =",
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, store: Store, text: str) -> None:
    """With the name of the file."""
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"token file .*tokens\.toml"):
        create_app(store=store, tokens=file)


def test_a_revoked_token_is_refused_while_the_server_runs(tmp_path: Path) -> None:
    """The file is read again when it changes."""
    file = tmp_path / "tokens.toml"
    token = create_token(file, "a", "viewer", "acme")
    held = TokenFile(file)
    assert held.find(token)
    revoke_token(file, "a")
    with mock.patch("taskpilot_obs.server.tokens.RELOAD_S", 0.0):
        assert held.find(token) is None


def test_the_sixth_wrong_token_of_a_minute_is_429(client: TestClient, tokens: tuple[Path, dict[str, str]]) -> None:
    """With the time to wait; a right token passes all the same, and its owner is not locked out."""
    codes = [client.get("/v1/stats", headers=bearer(f"tpo_wrong{number}")).status_code for number in range(6)]
    assert codes == [401] * 5 + [429]
    refused = client.get("/v1/stats", headers=bearer("tpo_wrong"))
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert client.get("/v1/stats", headers=bearer(tokens[1]["acme"])).status_code == 200


def test_wrong_tokens_are_forgotten_after_a_minute_and_by_address() -> None:
    """Five a minute for each address, and no more addresses are remembered than fit."""
    now = [0.0]
    wrong = WrongTokens(lambda: now[0])
    assert [wrong.note("a") for _ in range(6)] == [None] * 5 + [60]
    assert wrong.note("b") is None
    now[0] = 60.5
    assert wrong.note("a") is None
    for number in range(10_001):
        wrong.note(str(number))
    assert len(wrong._seen) == 10_000


def test_without_tokens_only_this_machine_is_answered(store: Store) -> None:
    """Another address is refused, and so is a name that another site could point here."""
    app = create_app(store=store)
    for address, host, expected in (
        ("127.0.0.1", "localhost:8090", 200),
        ("::1", "[::1]:8090", 200),
        ("127.0.0.1", "evil.example", 403),
        ("203.0.113.5", "localhost", 403),
        ("10.0.0.1", "10.0.0.1", 403),
    ):
        asked = TestClient(app, base_url=f"http://{host}", client=(address, 1), headers={"host": host})
        assert asked.get("/v1/stats").status_code == expected, (address, host)
        assert asked.get("/").status_code == expected


def test_a_browser_logs_in_and_out(client: TestClient, tokens: tuple[Path, dict[str, str]]) -> None:
    """The cookie is HttpOnly, Strict and, over TLS, Secure; it opens what the token opens, until the logout."""
    assert client.get("/costs").headers["location"] == "/login?next=%2Fcosts"
    answer = log_in(client, tokens[1]["owner"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/costs")
    cookie = next(one for one in answer.headers.get_list("set-cookie") if "session" in one)
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Secure", "Path=/"))
    assert tokens[1]["owner"] not in cookie
    page = client.get("/requests/acme-1")
    assert page.status_code == 200
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert csrf
    refused = client.post("/requests/acme-1/feedback", data={"csrf": "0" * 64, "correct": "true"})
    assert refused.status_code == 403
    given = client.post("/requests/acme-1/feedback", data={"csrf": csrf[1], "correct": "false"})
    assert given.status_code == 303
    assert "incorrect" in client.get("/requests/acme-1").text
    assert client.post("/logout", data={"csrf": "x"}).status_code == 403
    assert client.post("/logout", data={"csrf": csrf[1]}).headers["location"] == "/login"
    assert client.get("/costs").status_code == 303


def test_another_site_cannot_act_in_a_readers_name(client: TestClient, tokens: tuple[Path, dict[str, str]]) -> None:
    """Its form is refused even with a right CSRF token, and the session alone posts nothing to the API."""
    log_in(client, tokens[1]["owner"])
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get("/").text)
    assert csrf
    form = {"csrf": csrf[1], "correct": "true"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert client.post("/requests/acme-1/feedback", data=form, headers=headers).status_code == 403
    body = {"request_id": "acme-1", "correct": True}
    assert client.post("/v1/feedback", json=body).status_code == 403
    assert client.post("/v1/feedback", json=body, headers={"X-CSRF-Token": csrf[1]}).status_code == 202


def test_a_local_server_takes_no_form_of_another_site(store: Store) -> None:
    """Without tokens there is no session to steal, but a page of another site could post to this machine."""
    fill(store, requests_of("acme", 1))
    local = TestClient(create_app(store=store), base_url="http://localhost", client=("127.0.0.1", 1))
    refused = local.post(
        "/requests/acme-0/feedback", data={"correct": "true"}, headers={"Origin": "https://evil.example"}
    )
    assert refused.status_code == 403


def test_sessions_end(client: TestClient, tokens: tuple[Path, dict[str, str]]) -> None:
    """With their time, with their token, and when they are tampered with."""
    log_in(client, tokens[1]["acme"])
    cookie = next(one.value for one in client.cookies.jar if one.name == "taskpilot_obs_session") or ""
    assert client.get("/costs").status_code == 200
    with mock.patch("taskpilot_obs.server.sessions.time.time", return_value=time.time() + 13 * 3_600):
        assert client.get("/costs").status_code == 303
    for forged in (cookie[:-1], cookie[1:], cookie.replace(".", ".0"), "x", ".", ""):
        fresh = client.get("/costs", headers={"cookie": f"taskpilot_obs_session={forged}"})
        assert fresh.status_code == 303, forged
    log_in(client, tokens[1]["acme"])
    revoke_token(tokens[0], "acme")
    with mock.patch("taskpilot_obs.server.tokens.RELOAD_S", 0.0):
        assert client.get("/costs").status_code == 303


def test_any_replica_takes_a_session(store: Store, tokens: tuple[Path, dict[str, str]]) -> None:
    """The key stands in the token file, so that a second server knows the first one's browsers."""
    first, second = (
        TestClient(create_app(store=store, tokens=tokens[0]), base_url="https://obs.example", follow_redirects=False)
        for _ in range(2)
    )
    log_in(first, tokens[1]["acme"])
    second.cookies.update(first.cookies)
    assert second.get("/costs").status_code == 200


@pytest.mark.parametrize(
    "following", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_login_leads_to_no_other_site(
    client: TestClient, tokens: tuple[Path, dict[str, str]], following: str
) -> None:
    """A link that logs in and leads away is a trap."""
    assert log_in(client, tokens[1]["acme"], next=following).headers["location"] == "/"


def test_a_wrong_token_in_the_form_is_told_on_the_form(client: TestClient) -> None:
    """401 and the page again; the sixth is 429; a form that is too old is sent again."""
    answers = [log_in(client, f"wrong{number}") for number in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert 'role="alert"' in answers[0].text
    assert client.post("/login", data={"csrf": "old", "token": "x"}).status_code == 403


def test_bodies_are_bounded(store: Store, tokens: tuple[Path, dict[str, str]]) -> None:
    """64 KB: stated or in chunks, 413 and a problem document, and the server goes on."""

    def chunks() -> Iterator[bytes]:
        for _ in range(70):
            yield b"x" * 1_024

    header = {**bearer(tokens[1]["owner"]), "Content-Type": "application/json"}
    with serving(create_app(store=store, tokens=tokens[0])) as url:
        for content in (b"x" * 65_537, chunks()):
            answer = httpx.post(f"{url}/v1/feedback", content=content, headers=header)
            assert (answer.status_code, answer.json()["status"]) == (413, 413)
        assert httpx.post(f"{url}/login", content=b"x" * 65_537).status_code == 413
        body = {"request_id": "r", "correct": True, "comment": "x" * 2_000}
        assert httpx.post(f"{url}/v1/feedback", json=body, headers=header).status_code == 202


@pytest.mark.promise("server-leaks-nothing")
def test_every_answer_has_the_security_headers(client: TestClient, tokens: tuple[Path, dict[str, str]]) -> None:
    """Pages, JSON, files, refusals and redirects; over TLS HSTS too; nothing is framed or loaded from elsewhere."""
    for path in ("/", "/login", "/v1/stats", "/nope", "/static/app.js", "/health/live", "/costs.csv"):
        headers = client.get(path, headers=bearer(tokens[1]["acme"])).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "strict-transport-security" in headers
        assert "access-control-allow-origin" not in headers


def test_a_crash_tells_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """500, a problem document with the headers, and the trace in the log alone."""
    app = create_app(store=store)
    asked = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1), raise_server_exceptions=False)
    with mock.patch("taskpilot_obs.server.questions.get_stats", side_effect=RuntimeError("secret of the inside")):
        answer = asked.get("/v1/stats")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "content-security-policy" in answer.headers
    assert caplog.records == [] or caplog.records[0].levelno <= logging.ERROR


def test_other_sites_may_ask_where_they_are_listed(store: Store) -> None:
    """CORS for the origins that were given, with the header that carries a token; for no other."""
    app = create_app(store=store, cors_origins=["https://board.example"])
    asked = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1))
    allowed = asked.get("/v1/stats", headers={"Origin": "https://board.example"}).headers
    assert allowed["access-control-allow-origin"] == "https://board.example"
    assert (
        "access-control-allow-origin" not in asked.get("/v1/stats", headers={"Origin": "https://evil.example"}).headers
    )


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    [
        "",
        "%00",
        "\x00",
        "'",
        "' OR 1=1 --",
        "../../etc/passwd",
        "{{7*7}}",
        "<script>",
        "9" * 400,
        "-1",
        "1e400",
        "NaN",
        "\u202e",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_parameter_breaks_the_server(
    client: TestClient, tokens: tuple[Path, dict[str, str]], data: st.DataObject
) -> None:
    """Any text for any parameter of any route: an answer, or a refusal that says what is allowed; never a crash."""
    document = client.get("/openapi.json").json()["paths"]
    path = data.draw(st.sampled_from([path for path, methods in document.items() if "get" in methods]))
    named = [one["name"] for one in document[path]["get"].get("parameters", ()) if one["in"] == "query"]
    parameters = {
        name: data.draw(TEXTS, label=name) for name in data.draw(st.lists(st.sampled_from([*named, "x"]), max_size=3))
    }
    request_id = data.draw(st.text(st.characters(codec="utf-8", exclude_characters="/?#\\."), min_size=1, max_size=30))
    answer = client.get(
        path.replace("{request_id}", quote(request_id, safe="")), params=parameters, headers=bearer(tokens[1]["root"])
    )
    if path == "/health/golden" and answer.status_code == 503:
        return  # the signals are critical
    assert answer.status_code in (200, 404, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["detail"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_parameter_breaks_a_page(
    client: TestClient, tokens: tuple[Path, dict[str, str]], data: st.DataObject
) -> None:
    """No query parameter makes a page fail; pages never show what was typed as markup."""
    names = ["period", "model", "provider", "tenant", "group_by", "by", "status", "min_cost", "_next", "table", "x"]
    path = data.draw(st.sampled_from(["/", "/benchmarks", "/costs", "/calls", "/tenants", "/calls.csv", "/costs.json"]))
    parameters = {
        name: data.draw(TEXTS, label=name) for name in data.draw(st.lists(st.sampled_from(names), max_size=3))
    }
    answer = client.get(path, params=parameters, headers=bearer(tokens[1]["root"]))
    assert answer.status_code in (200, 404, 422), answer.text
    if "html" in answer.headers["content-type"]:
        assert answer.text.count("<script") == 1
