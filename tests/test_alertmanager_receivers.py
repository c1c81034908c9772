"""The commented receivers of the shipped Alertmanager configuration, uncommented: what they really send."""

from __future__ import annotations

import json
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_string
from email.policy import default
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from _http import Reply, answering
from _schemas import OperatorLoader, schema_file
from _servers import alertmanager_server

SHIPPED = Path(__file__).resolve().parent.parent / "observability" / "alertmanager"
SECRETS = "/etc/alertmanager/secrets/"
ONE = ("checkout",)
TWO = ("checkout", "returns")


def uncommented() -> dict[str, Any]:
    """The shipped configuration with its example receivers in force."""
    lines = (SHIPPED / "alertmanager.yml").read_text(encoding="utf-8").splitlines()
    head = lines.index("receivers:")
    receivers = [line.replace("    # ", "    ", 1) for line in lines[head:] if not re.match(r"    # [A-Z]", line)]
    config: dict[str, Any] = yaml.safe_load("\n".join([*lines[:head], *receivers]))
    return config


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as Alertmanager speaks without TLS."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().decode():
            word = line.split()[0].upper() if line.split() else ""
            if word == "EHLO":
                self.wfile.write(b"250-here\r\n250 8BITMIME\r\n")
            elif word == "DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.mails.append(self._body())  # type: ignore[attr-defined]  # set where it is made
                self.wfile.write(b"250 ok\r\n")
            elif word == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")

    def _body(self) -> str:
        lines = []
        while (line := self.rfile.readline().decode()) != ".\r\n":
            lines.append(line)
        return "".join(lines)


@contextmanager
def mail_server() -> Iterator[socketserver.ThreadingTCPServer]:
    """A loopback SMTP server; its `mails` holds what came."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail) as server:
        server.mails = []  # type: ignore[attr-defined]  # an attribute of this test
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _alert(workflow: str) -> dict[str, Any]:
    return {
        "labels": {
            "alertname": "TaskpilotSuccessRateCritical",
            "job": "shop",
            "workflow": workflow,
            "severity": "critical",
            "signal": "success_rate",
        },
        "annotations": {
            "summary": f"Only 60% of runs succeed: workflow {workflow} of shop (below 90%)",
            "description": f"60% of the runs of workflow {workflow} of shop succeeded.",
            "runbook_url": "https://example.com/runbook.md#taskpilotsuccessratecritical",
            "dashboard_url": "http://localhost:3000/d/taskpilot-golden-signals",
        },
    }


def _sent(tmp_path: Path, workflows: tuple[str, ...]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """What each receiver got for alerts of one name: bodies by path, and mails."""
    bodies: dict[str, list[dict[str, Any]]] = {}

    def reply(handler: BaseHTTPRequestHandler) -> Reply:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        bodies.setdefault(handler.path, []).append(body)
        return 202 if handler.path == "/pagerduty" else 200, "application/json", b'{"status": "success"}'

    with answering(reply) as url, mail_server() as mails:
        config = _directed(tmp_path, url, f"127.0.0.1:{mails.server_address[1]}")
        with alertmanager_server(config) as alertmanager:
            alerts = json.dumps([_alert(workflow) for workflow in workflows]).encode()
            headers = {"Content-Type": "application/json"}
            with urlopen(Request(f"{alertmanager}/api/v2/alerts", data=alerts, headers=headers), timeout=10):
                pass
            _until(lambda: {"/pagerduty", "/slack", "/teams", "/alerts"} <= set(bodies) and mails.mails)  # type: ignore[attr-defined]  # see above
        return bodies, list(mails.mails)  # type: ignore[attr-defined]  # see above


def _directed(tmp_path: Path, url: str, smtp: str) -> Path:
    """The configuration with addresses of this test, and both receivers for every alert."""
    config = uncommented()
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    (pagerduty,), (slack,) = receivers["on-call"]["pagerduty_configs"], receivers["team"]["slack_configs"]
    for name, text in (
        ("pagerduty", "0" * 32),
        ("slack", f"{url}/slack"),
        ("smtp", "secret"),
        ("watchdog", f"{url}/dog"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert pagerduty["routing_key_file"] == f"{SECRETS}pagerduty"
    pagerduty |= {"routing_key_file": str(tmp_path / "pagerduty"), "url": f"{url}/pagerduty"}
    slack["api_url_file"] = str(tmp_path / "slack")
    receivers["team"]["webhook_configs"][0]["url"] = f"{url}/alerts"
    receivers["team"]["slack_configs"].append(_as_slack(receivers["team"].pop("msteamsv2_configs"), f"{url}/teams"))
    (mail,) = receivers["team"]["email_configs"]
    mail |= {"smarthost": smtp, "require_tls": False}
    del mail["auth_username"], mail["auth_password_file"]
    receivers["watchdog"]["webhook_configs"][0]["url_file"] = str(tmp_path / "watchdog")
    receivers["watchdog"]["webhook_configs"] = [{"url": f"{url}/dog"}]
    route = config["route"]
    route |= {"group_wait": "100ms", "group_interval": "200ms"}
    route["routes"][-1] |= {"group_wait": "100ms", "continue": True, "routes": []}
    route["routes"].append({"receiver": "team", "matchers": []})
    config["templates"] = [str(SHIPPED / "templates" / "*.tmpl")]
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _as_slack(teams: list[dict[str, Any]], url: str) -> dict[str, Any]:
    """The title and the text of the Teams receiver, for an Alertmanager that is older than that receiver (0.28)."""
    (config,) = teams
    assert config.pop("webhook_url_file") == f"{SECRETS}teams"
    assert set(config) == {"title", "text", "send_resolved"}
    return {**config, "api_url": url, "channel": "#teams"}


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "a receiver got nothing within 30 s"
        time.sleep(0.05)


@pytest.mark.parametrize("workflows", [ONE, TWO], ids=["one alert", "two grouped alerts"])
def test_no_receiver_gets_an_empty_summary(tmp_path: Path, workflows: tuple[str, ...]) -> None:
    """PagerDuty, Slack, Teams, a webhook and e-mail get a title and every summary, also when alerts are grouped."""
    bodies, mails = _sent(tmp_path, workflows)
    summaries = [_alert(workflow)["annotations"]["summary"] for workflow in workflows]
    title = summaries[0] if len(workflows) == 1 else "TaskpilotSuccessRateCritical of shop: 2 firing"
    page = bodies["/pagerduty"][-1]
    assert page["payload"]["summary"] == title
    assert all(summary in page["payload"]["custom_details"]["alerts"] for summary in summaries)
    assert [link["href"] for link in page["links"]] == [
        "https://example.com/runbook.md#taskpilotsuccessratecritical",
        "http://localhost:3000/d/taskpilot-golden-signals",
    ]
    for path in ("/slack", "/teams"):
        (attachment,) = bodies[path][-1]["attachments"]
        assert attachment["title"] == title
        assert all(summary in attachment["text"] for summary in summaries)
    assert [alert["annotations"]["summary"] for alert in bodies["/alerts"][-1]["alerts"]] == summaries
    mail = message_from_string(mails[-1], policy=default)
    assert mail["Subject"] == title
    text = mail.get_body(("plain",))
    assert text is not None
    assert all(summary in text.get_content() for summary in summaries)


def test_the_teams_receiver_has_settings_that_alertmanager_knows() -> None:
    """The operator's schema, which follows Alertmanager 0.28, has each setting of the Teams receiver."""
    text = schema_file("alertmanagerconfigs.yaml").read_text(encoding="utf-8")
    crd = yaml.load(text, OperatorLoader)  # noqa: S506  a safe loader
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    known = set(schema["receivers"]["items"]["properties"]["msteamsv2Configs"]["items"]["properties"])
    (team,) = (receiver for receiver in uncommented()["receivers"] if receiver["name"] == "team")
    (teams,) = team["msteamsv2_configs"]
    assert teams.pop("webhook_url_file").startswith(SECRETS)
    assert "webhookURL" in known
    assert {re.sub(r"_(.)", lambda found: found[1].upper(), name) for name in teams} <= known
