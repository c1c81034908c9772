"""Policies in Rego, of an OPA server and in Cedar: equal verdicts, failures, versions, threads."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _opa import Opa, opa

from taskpilot_obs import observe_tool, request_context, track_agent
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError, PolicyViolationError
from taskpilot_obs.records import CheckResult, Decision, Operation, Stage, Verdict
from taskpilot_obs.safety import (
    ALLOW,
    AsyncOpaServerPolicy,
    CedarPolicy,
    CheckInput,
    OpaServerPolicy,
    PolicyResult,
    RegoPolicy,
    check_with,
)
from taskpilot_obs.safety.engines import input_document
from taskpilot_obs.testing import capture_records, fresh_recorder

PACKAGE = "taskpilot.tool_calls"
RULES = ["allow", "deny", "require_approval"]
REGO = f"""package {PACKAGE}

import rego.v1

default allow := false

allow if input.tool in {{"search", "refund"}}

deny contains sprintf("%v is above 500", [input.args.amount]) if {{
	input.tool == "refund"
	input.args.amount > 500
}}

require_approval if {{
	input.tool == "refund"
	input.args.amount > 100
}}
"""
SEED = """package taskpilot.tool_calls

default allow = false

allow { input.tool_name == "search" }
allow { input.tool_name == "refund" }

deny[msg] {
	input.tool_name == "refund"
	input.parameters.amount > 500
	msg := sprintf("%v is above 500", [input.parameters.amount])
}

require_approval { input.parameters.amount > 100; input.agent_type == "Support" }
"""
"""Rego 0, with the names of the input that older policies use."""
CEDAR = """
permit(principal, action, resource == Tool::"search");
permit(principal, action, resource == Tool::"refund");
@reason("900 is above 500")
forbid(principal, action, resource == Tool::"refund") when { context.args.amount > 500 };
@require_approval
forbid(principal == Agent::"Support", action == Action::"execute_tool", resource == Tool::"refund")
when { context.args.amount > 100 };
"""


def call(tool: str, agent: str = "Support", **arguments: object) -> CheckInput:
    return CheckInput(Operation.TOOL, Stage.INPUT, tool=tool, arguments=arguments, agent=agent)


def written(folder: Path, text: str, name: str = "tools.rego") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def server() -> Iterator[Opa]:
    with opa(REGO, RULES) as running:
        yield running


KINDS = ["rego", "seed", "opa", "async", "cedar"]


def made(kind: str, folder: Path, server: Opa, **options: Any) -> Any:
    """One policy, decided by each engine."""
    if kind in ("rego", "seed"):
        return RegoPolicy(written(folder, REGO if kind == "rego" else SEED), package=PACKAGE, **options)
    if kind == "cedar":
        return CedarPolicy(written(folder, CEDAR, "tools.cedar"), **options)
    form = OpaServerPolicy if kind == "opa" else AsyncOpaServerPolicy
    return form(server.url, package=PACKAGE, timeout_s=30, **options)


def ask(policy: Any, subject: CheckInput) -> PolicyResult:
    answer = policy.check(subject)
    ruling: PolicyResult = asyncio.run(answer) if asyncio.iscoroutine(answer) else answer
    return ruling


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts(kind: str, tmp_path: Path, server: Opa) -> None:
    """Every engine comes to the same verdicts: allowed, denied with a reason, to be approved, not allowed."""
    policy = made(kind, tmp_path, server)
    answers = [
        ask(policy, one)
        for one in (
            call("search"),
            call("refund", amount=50),
            call("refund", amount=200),
            call("refund", amount=900),
            call("delete"),
        )
    ]
    assert [(one.verdict.value, one.reason) for one in answers] == [
        ("allow", None),
        ("allow", None),
        ("require_approval", "tool 'refund' needs an approval"),
        ("deny", "900 is above 500"),
        ("deny", "tool 'delete' is not allowed"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_approvals(kind: str, tmp_path: Path, server: Opa) -> None:
    """A person's approval lets a call pass that needs one, and none that is denied."""
    policy = made(kind, tmp_path, server, approved=lambda subject: subject.arguments["amount"] != 201)
    assert ask(policy, call("refund", amount=200)) == PolicyResult(Verdict.ALLOW, "approved")
    assert ask(policy, call("refund", amount=201)).verdict is Verdict.REQUIRE_APPROVAL
    assert ask(policy, call("refund", amount=900)).verdict is Verdict.DENY


@pytest.mark.parametrize("kind", KINDS)
def test_only_true_approves(kind: str, tmp_path: Path, server: Opa) -> None:
    """An `approved` that cannot answer at once is refused, and what is merely true does not approve."""
    with pytest.raises(ConfigurationError, match=r"approved: .* is asynchronous"):
        made(kind, tmp_path, server, approved=asked_later)
    record = made(kind, tmp_path, server, approved=lambda _: "approval 7")
    answer = ask(record, call("refund", amount=200))
    assert answer.verdict is Verdict.REQUIRE_APPROVAL
    assert answer.reason is not None
    assert answer.reason.endswith("approved returned an object of type str in place of True")
    hidden = made(kind, tmp_path, server, approved=Later().ask)
    with pytest.raises(TypeError, match="approved returned an awaitable"):
        ask(hidden, call("refund", amount=200))


class Later:
    """Passes a question on to an asynchronous function."""

    def ask(self, subject: CheckInput) -> Any:
        return asked_later(subject)


async def asked_later(_: CheckInput) -> bool:
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_operations_that_were_named_are_judged(kind: str, tmp_path: Path, server: Opa) -> None:
    """By default tool calls alone, because a list of allowed tools would deny every agent and LLM call."""
    chat = CheckInput(Operation.CHAT, Stage.INPUT, "hello")
    assert ask(made(kind, tmp_path, server), chat) is ALLOW
    wider = made(kind, tmp_path, server, operations=["chat", Operation.TOOL])
    assert ask(wider, chat)[:2] == (Verdict.DENY, "chat is not allowed")


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_cannot_be_cut(kind: str, tmp_path: Path, server: Opa) -> None:
    """Integers beyond 64 bits and texts with NUL reach the policy whole; regopy by itself would cut both."""
    policy = made(kind, tmp_path, server)
    for amount in (2**64 + 5, 2**63 + 5):
        if kind == "cedar":  # it has no numbers above 64 bits, and refuses them
            with pytest.raises(RuntimeError, match="cannot be evaluated"):
                ask(policy, call("refund", amount=amount))
        else:
            assert ask(policy, call("refund", amount=amount)).verdict is Verdict.DENY
    assert ask(policy, call("refund\0", amount=1)).verdict is Verdict.DENY
    assert ask(policy, call("search\0delete")).verdict is Verdict.DENY
    if kind != "cedar":
        assert ask(policy, call("refund", amount=Decimal("500.01"))).verdict is Verdict.DENY


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amount", [float("nan"), float("inf"), 10**400])
def test_what_json_cannot_carry_is_a_failure(kind: str, amount: Any, tmp_path: Path, server: Opa) -> None:
    """Arguments without a form in JSON make the check fail, and are not left out."""
    with pytest.raises((ValueError, OverflowError)):
        ask(made(kind, tmp_path, server), call("refund", amount=amount))


def test_a_deep_argument_is_a_failure(tmp_path: Path, server: Opa) -> None:
    """A policy cannot be avoided by nesting."""
    nested: Any = []
    for _ in range(40):
        nested = [nested]
    with pytest.raises(ValueError, match="levels deep"):
        made("rego", tmp_path, server).check(call("search", what=nested))


def test_the_input_document(server: Opa) -> None:
    """The engine is given who asks for what, under both sets of names; objects of the application by their type."""
    with fresh_recorder(policies=[OpaServerPolicy(server.url, package=PACKAGE, headers={"X-Token": "t"})]):

        @observe_tool
        def search(city: str, days: tuple[int, ...], connection: object = None) -> str:
            return city

        with request_context("req-1", tenant_id="acme", user_id="jane"), track_agent("Planner"):
            search("Oslo", days=(1, 2), connection=threading.Thread())
    headers, given = server.asked[-1]
    arguments = given.pop("args")
    assert headers["X-Token"] == "t"
    assert arguments == given.pop("parameters")
    assert (arguments["city"], arguments["days"]) == ("Oslo", [1, 2])
    assert given == {
        "operation": "execute_tool",
        "stage": "input",
        "tool": "search",
        "tool_name": "search",
        "agent": "Planner",
        "agent_type": "Planner",
        "workflow": "Planner",
        "tenant": "acme",
        "user": "jane",
        "text": "Oslo",
    }


@pytest.mark.parametrize("kind", ["rego", "cedar"])
def test_each_decision_names_the_policy_text(kind: str, tmp_path: Path, server: Opa) -> None:
    """The hash of the policy's text is on every decision, whether it passes, refuses or fails."""
    policy = made(kind, tmp_path, server)
    (path,) = tmp_path.iterdir()
    expected = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    with fresh_recorder(policies=[policy]) as recorder, capture_records(Decision, recorder=recorder) as decisions:

        @observe_tool
        def refund(amount: float) -> None:
            """Refund."""

        for amount in (1, 900, float("nan")):
            refund(amount)
    assert [one.result for one in decisions] == [CheckResult.PASSED, CheckResult.WOULD_BLOCK, CheckResult.BYPASSED]
    assert [one.attributes for one in decisions] == [{"policy_version": expected}] * 3


def test_the_version_of_data_and_of_several_files(tmp_path: Path) -> None:
    """What is decided from several files or with data has the hash of all of it."""
    first = written(tmp_path, REGO)
    second = written(tmp_path, "package other\n\nlimits := data.limits\n", "other.rego")
    made_of = [
        RegoPolicy(first, package=PACKAGE),
        RegoPolicy([first, second], package=PACKAGE),
        RegoPolicy([first, second], package=PACKAGE, data={"limits": 1}),
        RegoPolicy([first, second], package=PACKAGE, data={"limits": 2}),
    ]
    assert len({policy.version for policy in made_of}) == 4


def test_data_is_read(tmp_path: Path) -> None:
    """What is given as data is found under `data`."""
    text = "package p\n\nimport rego.v1\n\ndeny contains input.tool if input.tool in data.denied\n"
    policy = RegoPolicy(written(tmp_path, text), package="p", data={"denied": ["pay"]})
    assert policy.check(call("pay"))[:2] == (Verdict.DENY, "pay")
    assert policy.check(call("search")) is ALLOW


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("deny := true", "denied"),
        ('deny := "why"', "why"),
        ('deny := ["b", "a"]', "a; b"),
        ('deny contains {"msg": "an object"}', "an object"),
        ('deny["rule"] := "its message"', "its message"),
        ("deny contains 7", "denied"),
    ],
)
def test_forms_of_denials(rule: str, reason: str, tmp_path: Path) -> None:
    """However a package writes its denials, they deny."""
    policy = RegoPolicy(written(tmp_path, f"package p\n\nimport rego.v1\n\n{rule}\n"), package="p")
    assert policy.check(call("pay"))[:2] == (Verdict.DENY, reason)


def test_an_allow_that_is_undefined_does_not_allow(tmp_path: Path) -> None:
    """A package with a rule `allow` allows only where it is true."""
    text = 'package p\n\nimport rego.v1\n\nallow if input.args.city == "Oslo"\n'
    policy = RegoPolicy(written(tmp_path, text), package="p")
    assert policy.check(call("search", city="Oslo")) is ALLOW
    assert policy.check(call("search", city="Rome")).verdict is Verdict.DENY


WRONG = {
    "no such package": (REGO, "nowhere", "package nowhere has no rule deny, require_approval or allow"),
    "no such rule": ("package p\n\nother := 1\n", "p", "package p has no rule"),
    "no Rego": ("package p\nallow {", "p", r"tools.rego: is not accepted: this is unclosed"),
    "no name": (REGO, "a-b; data", "package: expected a name like"),
    "unknown function": ("package p\n\nimport rego.v1\n\ndeny if nothing(1)\n", "p", "calls nothing, which regopy"),
    "a call that regopy lacks": (
        'package p\n\nimport rego.v1\n\ndeny if http.send({"url": "http://127.0.0.1"})\n',
        "p",
        "calls http.send, which regopy does not have",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_rego_that_cannot_decide_is_refused_at_construction(name: str, tmp_path: Path, capfd: Any) -> None:
    """A package, a rule or a function that does not exist is found when the policy is made; nothing is printed."""
    text, package, said = WRONG[name]
    with pytest.raises(ConfigurationError, match=said):
        RegoPolicy(written(tmp_path, text), package=package)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"operations": []}, "operations: expected some of"),
        ({"operations": ["cooking"]}, "operations: expected one of"),
        ({"approved": True}, "approved: expected a function"),
        ({"severity": "grave"}, "severity"),
        ({"nmae": "x"}, "nmae: unknown; a policy takes approved, name"),
        ({"data": {"x": object()}}, "data: is not accepted"),
    ],
)
def test_wrong_options(options: Any, said: str, tmp_path: Path) -> None:
    """Options are validated when the policy is made."""
    with pytest.raises(ConfigurationError, match=said):
        RegoPolicy(written(tmp_path, REGO), package=PACKAGE, **options)


def test_wrong_files(tmp_path: Path) -> None:
    """A file that is missing or not text is named."""
    (tmp_path / "binary.rego").write_bytes(b"\xff\xfe")
    for files, said in (
        ([], "expected at least one file"),
        (tmp_path / "none.rego", "none.rego: cannot be read"),
        (tmp_path / "binary.rego", "binary.rego: cannot be read"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            RegoPolicy(files, package=PACKAGE)


@pytest.mark.parametrize(("kind", "module"), [("rego", "regopy"), ("cedar", "cedarpy")])
def test_without_the_extra(kind: str, module: str, tmp_path: Path, server: Opa, monkeypatch: Any) -> None:
    """Where the engine is not installed, the error names the extra."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"taskpilot-obs\[{kind}\]"):
        made(kind, tmp_path, server)


CONFLICT = "package p\n\nimport rego.v1\n\ndeny := 1 if input.args.x\n\ndeny := 2 if input.args.y\n"


@pytest.mark.parametrize(
    ("mode", "on_error", "runs"), [("monitor", None, 1), ("enforce", None, 0), ("enforce", "open", 1)]
)
def test_failures_open_and_closed(mode: Any, on_error: Any, runs: int, tmp_path: Path) -> None:
    """A policy that cannot decide is a failed check, as any other: closed in enforce mode unless told otherwise."""
    policy = RegoPolicy(written(tmp_path, CONFLICT), package="p")
    ran: list[int] = []
    with fresh_recorder(policies=[check_with(policy, on_error=on_error)], mode=mode) as recorder:

        @observe_tool
        def pay(x: int, y: int) -> None:
            ran.append(x)

        refusal = nullcontext() if runs else pytest.raises(PolicyViolationError, match="the check failed")
        with capture_records(Decision, recorder=recorder) as decisions, refusal:
            pay(1, 2)
    assert len(ran) == runs
    assert decisions[0].result is (CheckResult.BYPASSED if runs else CheckResult.ERROR)


@pytest.mark.parametrize("kind", ["rego", "opa", "cedar"])
def test_threads(kind: str, tmp_path: Path, server: Opa) -> None:
    """Threads that ask at once get the answers to their own questions."""
    policy = made(kind, tmp_path, server)

    def work(number: int) -> set[Any]:
        wrong = set()
        for step in range(10):
            amount = (number * 37 + step * 91) % 1_000
            verdict = policy.check(call("refund", amount=amount)).verdict
            expected = Verdict.DENY if amount > 500 else Verdict.REQUIRE_APPROVAL if amount > 100 else Verdict.ALLOW
            wrong |= {(amount, verdict)} if verdict is not expected else set()
        return wrong

    with ThreadPoolExecutor(6) as pool:
        assert set().union(*pool.map(work, range(6))) == set()


def test_a_connection_is_kept(server: Opa) -> None:
    """A thread's decisions share a connection; a server that is away fails the check, and one that is back answers."""
    policy = OpaServerPolicy(server.url, package=PACKAGE)
    before = len(server.connections)
    for _ in range(5):
        policy.check(call("search"))
    assert (before, len(server.connections)) == (1, 1)
    with opa(REGO, RULES) as other:
        port = other.server_port
        policy = OpaServerPolicy(other.url, package=PACKAGE)
    with pytest.raises(OSError, match="refused"):  # it is away
        policy.check(call("search"))
    with opa(REGO, RULES, port):
        assert policy.check(call("search")) is ALLOW


def test_a_late_answer_is_not_read_as_the_next(server: Opa) -> None:
    """After a timeout the next question has its own answer."""
    policy = OpaServerPolicy(server.url, package=PACKAGE, timeout_s=2)
    server.pause.clear()
    with pytest.raises(TimeoutError):
        policy.check(call("search"))
    server.pause.set()
    assert policy.check(call("delete")).verdict is Verdict.DENY


def test_asynchronous_code_goes_on(server: Opa) -> None:
    """While an asynchronous policy waits for its server, the event loop works; the option `timeout_s` ends it."""
    policy = AsyncOpaServerPolicy(server.url, package=PACKAGE, timeout_s=30)
    with fresh_recorder(policies=[policy], mode="enforce"):

        @observe_tool
        async def search() -> str:
            return "found"

        async def both() -> str:
            server.pause.clear()
            asking = asyncio.create_task(search())
            while not server.asked[1:]:  # noqa: ASYNC110  the question is on its way, and this loop is what must go on
                await asyncio.sleep(0.01)
            server.pause.set()
            return await asking

        assert asyncio.run(both()) == "found"


def test_a_server_that_closed_the_connection_is_asked_once_more(server: Opa) -> None:
    """Servers close idle connections; the next decision does not fail by that."""
    policy = OpaServerPolicy(server.url, package=PACKAGE)
    for connection in list(server.connections):
        connection.shutdown(socket.SHUT_RDWR)
    assert policy.check(call("search")) is ALLOW


ALLOWING = f'package {PACKAGE}\n\nimport rego.v1\n\nallow if input.tool == "search"\n'
DENYING = f'package {PACKAGE}\n\nimport rego.v1\n\ndeny if input.tool == "delete"\n'


def test_rules_are_read_again_with_each_revision() -> None:
    """A server that has loaded another bundle is asked again which rules the package has."""
    with opa(DENYING, ["deny"]) as server:
        server.revision = "1"
        policy = OpaServerPolicy(server.url, package=PACKAGE)
        assert policy.check(call("pay")).verdict is Verdict.ALLOW
        server.text, server.rules, server.revision = ALLOWING, ["allow"], "2"
        assert policy.check(call("pay"))[:2] == (Verdict.DENY, "tool 'pay' is not allowed")
        assert policy.check(call("search")).verdict is Verdict.ALLOW
        server.text, server.rules, server.revision = DENYING, ["deny"], "3"
        assert policy.check(call("pay")).verdict is Verdict.ALLOW
        server.text, server.rules, server.revision = f"package {PACKAGE}\n\nother := 1\n", ["other"], "4"
        for _ in range(2):
            with pytest.raises(LookupError, match="has no rule deny, require_approval, allow any more"):
                policy.check(call("delete"))


@pytest.mark.parametrize("is_empty", [True, False])
def test_rules_of_a_server_without_revisions(is_empty: bool) -> None:
    """Without revisions, an answer that has none of the rules makes the policy read them again, and `allow` is kept."""
    with opa(DENYING, ["deny"]) as server:
        policy = OpaServerPolicy(server.url, package=PACKAGE)
        assert policy.check(call("pay")) is ALLOW
        assert policy.check(call("delete")).verdict is Verdict.DENY
        if is_empty:
            server.text, server.rules = f"package {PACKAGE}\n\nother := 1\n", ["other"]
            with pytest.raises(LookupError, match="any more"):
                policy.check(call("delete"))
        server.text, server.rules = ALLOWING, ["allow"]
        assert policy.check(call("search")) is ALLOW
        server.status_of_policies = 403
        assert policy.check(call("pay")).verdict is Verdict.DENY


def test_stated_rules_that_have_no_value_are_a_failure() -> None:
    """Where the user states the rules, an answer with none of them decides nothing, unless `allow` is one of them."""
    with opa(DENYING, ["deny"]) as server:
        server.status_of_policies = 403
        policy = OpaServerPolicy(server.url, package=PACKAGE, rules=["deny"])
        assert policy.check(call("delete"))[:2] == (Verdict.DENY, "denied")
        with pytest.raises(LookupError, match="deny: undefined; `default deny := false`"):
            policy.check(call("pay"))
        server.text += "\ndefault deny := false\n"
        assert policy.check(call("pay")) is ALLOW
        server.text = ALLOWING
        stated = OpaServerPolicy(server.url, package=PACKAGE, rules=["allow", "deny"])
        assert stated.check(call("pay")).verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://jane:s3cret@opa.example:8181", "url: http://opa.example: has credentials, .* headers="),
        ("http://s3cret@opa.example", "has credentials"),
        ("http://opa.example/?token=s3cret", "has credentials"),
        ("http://opa.example/#s3cret", "has credentials"),
        ("http://opa.example:s3cret/", "url: http://opa.example: its port is not a number from 0 to 65535"),
        ("http://opa.example:99999", "its port"),
        ("http://[s3cret", "url: expected an OPA server's"),
        ("jane:s3cret@opa.example", "url: expected an OPA server's"),
        (None, "url: expected an OPA server's"),
        ("http://opa example", "OPA does not answer"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secrets(url: Any, said: str) -> None:
    """A URL with credentials, a query or a wrong port is refused; the message has its scheme and host at most."""
    with pytest.raises(ConfigurationError, match=said) as refused:
        OpaServerPolicy(url, package=PACKAGE)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("value", ["Bearer s3cret\n", b"Bearer s3cret", "Bearer s3cret\u20ac"])
def test_a_wrong_header_is_refused_without_its_value(value: Any) -> None:
    """A token that was read from a file with its line break is refused by the header's name."""
    with pytest.raises(ConfigurationError, match="headers: 'Authorization': expected Latin-1 text") as refused:
        OpaServerPolicy("http://127.0.0.1:9", package=PACKAGE, headers={"Authorization": value})
    assert "s3cret" not in str(refused.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_connection_of_its_own(server: Opa) -> None:
    """A child asks over its own connection, because the parent's carries the parent's answers."""
    policy = OpaServerPolicy(server.url, package=PACKAGE, timeout_s=30)
    child = os.fork()
    if child == 0:
        os._exit(0 if policy.check(call("search")) is ALLOW else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert policy.check(call("delete")).verdict is Verdict.DENY
    assert len(server.connections) == 2


def test_the_version_of_a_server_is_that_of_its_bundles(server: Opa) -> None:
    """A decision names the revision of the bundles, as the server states it with the answer; without any, nothing."""
    policy = OpaServerPolicy(server.url, package=PACKAGE)
    assert policy.check(call("search")).version is None
    server.revision = "2026-11-29"
    assert policy.check(call("search")) == PolicyResult(Verdict.ALLOW, version="main=2026-11-29")
    assert policy.check(call("delete")).version == "main=2026-11-29"


def test_what_a_server_answers_wrongly_is_a_failure(server: Opa) -> None:
    """A status other than 200 and a package that is gone are failures of the check, and no answer."""
    policy = OpaServerPolicy(server.url, package=PACKAGE)
    server.status = 500
    with pytest.raises(ValueError, match="answered 500"):
        policy.check(call("search"))
    server.status, server.text = 200, "package elsewhere\n"
    with pytest.raises(KeyError):
        policy.check(call("search"))


def test_a_server_is_asked_at_construction(server: Opa) -> None:
    """An address, a server, a package or a rule that is wrong is found when the policy is made."""
    given: list[tuple[str, str, dict[str, Any], str]] = [
        ("127.0.0.1:8181", PACKAGE, {}, "url: expected an OPA server's"),
        ("http://127.0.0.1:9", PACKAGE, {}, "OPA does not answer as it should"),
        (server.url, "nowhere", {}, "the server has no package nowhere"),
        (server.url, PACKAGE, {"timeout_s": 0}, "timeout_s: expected seconds above 0"),
        (server.url, PACKAGE, {"rules": ["alow"]}, "rules: expected some of"),
    ]
    for url, package, options, said in given:
        with pytest.raises(ConfigurationError, match=said):
            OpaServerPolicy(url, package=package, **options)
    server.rules = []
    with pytest.raises(ConfigurationError, match=r"rules: expected some of .* found \[\]"):
        OpaServerPolicy(server.url, package=PACKAGE)
    assert OpaServerPolicy(server.url, package=PACKAGE, rules=["deny"]).check(call("search")) is ALLOW


SCHEMA = """entity Agent, Tool;
action "execute_tool" appliesTo { principal: Agent, resource: Tool, context: { args: { amount: Long } } };
"""
CEDAR_WRONG = {
    "no Cedar": ("permit(", None, "tools.cedar: is not accepted"),
    "no policy": ("// nothing", None, "holds no policy"),
    "against the schema": (
        'permit(principal, action, resource) when { context.args.amount > "x" };',
        SCHEMA,
        "expected Long|unexpected type",
    ),
    "an approval on a permit": (
        '@require_approval permit(principal, action, resource == Tool::"pay");',
        None,
        r"@require_approval stands on a permit \(policy0\)",
    ),
    "a template": (
        "permit(principal, action, resource); forbid(principal == ?principal, action, resource);",
        None,
        "has templates",
    ),
}


@pytest.mark.parametrize("name", CEDAR_WRONG)
def test_wrong_cedar_is_refused_at_construction(name: str, tmp_path: Path) -> None:
    """Policies that do not parse, do not exist or contradict their schema are found when the policy is made."""
    text, schema, said = CEDAR_WRONG[name]
    schema_path = None if schema is None else written(tmp_path, schema, "tools.cedarschema")
    with pytest.raises(ConfigurationError, match=said):
        CedarPolicy(written(tmp_path, text, "tools.cedar"), schema=schema_path)


def test_a_forbid_that_cannot_be_evaluated_is_a_failure(tmp_path: Path, server: Opa) -> None:
    """Cedar skips a policy that reads an attribute which is not there; with a forbid that would allow the call."""
    with pytest.raises(RuntimeError, match="2 policies cannot be evaluated"):
        made("cedar", tmp_path, server).check(call("refund"))


def test_cedar_groups_and_fractions(tmp_path: Path) -> None:
    """Agents and tools belong to groups by `entities`; numbers with a fraction are decimals; nulls are left out."""
    text = """
    permit(principal in Team::"support", action, resource in Kind::"reads")
    when { context.args.amount.lessThan(decimal("1.5")) && !(context has tenant) };
    """
    entities = [
        {"uid": {"type": "Agent", "id": "Support"}, "attrs": {}, "parents": [{"type": "Team", "id": "support"}]},
        {"uid": {"type": "Tool", "id": "search"}, "attrs": {}, "parents": [{"type": "Kind", "id": "reads"}]},
    ]
    policy = CedarPolicy(written(tmp_path, text, "tools.cedar"), entities=entities)
    assert policy.check(call("search", amount=1.25)) is ALLOW
    assert policy.check(call("search", amount=1.75)).verdict is Verdict.DENY
    assert policy.check(call("search", agent="Other", amount=1.25)).verdict is Verdict.DENY


BOUNDS = """
permit(principal, action, resource) when { context.decimals.amount.lessThanOrEqual(decimal("500.0")) };
"""
LONG_BOUNDS = "permit(principal, action, resource) when { context.args.amount <= 500 };"
UNREAD = "permit(principal, action, resource);"


def test_cedar_decimals_have_one_type(tmp_path: Path) -> None:
    """`context.decimals` has whole numbers and fractions as decimals, so that one comparison judges both."""
    policy = CedarPolicy(written(tmp_path, BOUNDS, "tools.cedar"))
    for amount in (500, 500.0, 499.99, Decimal("499.99"), 0.1, -3, 0):
        assert policy.check(call("pay", amount=amount)) is ALLOW
    for amount in (501, 500.0001, 900.5, 922_337_203_685_476):
        assert policy.check(call("pay", amount=amount)).verdict is Verdict.DENY
    nested = 'permit(principal, action, resource) when { context.decimals.order.prices.contains(decimal("7.0")) };'
    policy = CedarPolicy(written(tmp_path, nested, "nested.cedar"))
    assert policy.check(call("pay", order={"prices": [7, 0.5], "note": None})) is ALLOW


SAD = ":(" * 300
QUIET = f'// {SAD}\npermit(principal, action, resource) unless {{ context.tool == "{SAD} \\" //" }};'
QUIET_REGO = f'package a\n# "{SAD}\nallow if {{ input.tool != "{SAD} \\" #" }}\nraw := `"{SAD}\n`\n'


def test_brackets_in_strings_and_comments_are_not_nested(tmp_path: Path) -> None:
    """Files whose strings and comments hold more open brackets than may be nested are accepted."""
    assert CedarPolicy(written(tmp_path, QUIET, "quiet.cedar")).check(call("search")) is ALLOW
    assert RegoPolicy(written(tmp_path, QUIET_REGO), package="a").check(call("search")) is ALLOW


@pytest.mark.parametrize("start", ["", QUIET, '# "', "`", '"\\"', "// a\r"])
def test_nested_cedar_is_refused(start: str, tmp_path: Path) -> None:
    """Cedar's parser recurses with brackets: what is nested too deeply is refused, also behind odd text."""
    with pytest.raises(ConfigurationError, match="nested deeper than 200 levels"):
        CedarPolicy(written(tmp_path, start + "(" * 201, "deep.cedar"))


@pytest.mark.parametrize("start", ["", QUIET_REGO, "// ", "`", '"\\q ', '"a\n', "# a\r"])
def test_nested_rego_is_refused(start: str, tmp_path: Path) -> None:
    """Rego that is nested too deeply is refused, also behind text that is neither a string nor a comment."""
    with pytest.raises(ConfigurationError, match="nested deeper than 200 levels"):
        RegoPolicy(written(tmp_path, start + "(" * 201), package="a")


@pytest.mark.parametrize("amount", [500.00001, 1 / 3, 2.0**70, 2**63, Decimal("0.00001"), 922_337_203_685_478.5])
def test_cedar_numbers_are_not_rounded(amount: Any, tmp_path: Path) -> None:
    """A policy that compares a number which Cedar cannot hold fails; one that does not read it decides."""
    policies = [CedarPolicy(written(tmp_path, text, "tools.cedar")) for text in (BOUNDS, LONG_BOUNDS, UNREAD)]
    for policy in policies[:2]:
        with pytest.raises(RuntimeError, match="1 policies cannot be evaluated"):
            policy.check(call("pay", amount=amount))
    assert policies[2].check(call("pay", amount=amount)) is ALLOW


@pytest.mark.parametrize("key", ["__extn", "__entity", "__expr"])
def test_arguments_cannot_pose_as_values_of_cedar(key: str, tmp_path: Path) -> None:
    """A record with a key by which Cedar's JSON writes entities and decimals is a failure of the check."""
    policy = CedarPolicy(written(tmp_path, UNREAD, "tools.cedar"))
    with pytest.raises(ValueError, match=f"Cedar would read {key}"):
        policy.check(call("pay", order=[{key: {"type": "Agent", "id": "Admin"}}]))


ALLOCATOR = """
import ctypes, sys
if sys.argv[1] == "later":
    ctypes.CDLL("libstdc++.so.6")  # as any other extension in C++ loads it
from taskpilot_obs.safety import DenyPattern, Operation, RegoPolicy, Stage, CheckInput
policy = RegoPolicy(sys.argv[2], package="taskpilot.tool_calls")
text = "a long text " * 100
def work():
    for amount in range(700):
        policy.check(CheckInput(Operation.TOOL, Stage.INPUT, text, "refund", {"amount": amount, "note": text}))
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096
before = work()
print(work() - before)
patterns = [r"(?i)ignore (all|previous)", "[0-9]{3}-[0-9]{2}"]
print(DenyPattern(patterns).check(CheckInput(Operation.TOOL, Stage.INPUT, "123-45")).verdict.value)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is mixed by the linker of Linux")
@pytest.mark.parametrize("order", ["first", "later"])
def test_regopy_shares_the_allocator(order: str, tmp_path: Path) -> None:
    """Whether regopy or another extension comes first: RE2 works beside it, and decisions take no memory for good."""
    pytest.importorskip("re2", reason="needs google-re2, extra `safety`")
    command = [sys.executable, "-c", ALLOCATOR, order, str(written(tmp_path, REGO))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    grown, verdict = done.stdout.split()
    assert int(grown) < 1_000_000
    assert verdict == "deny"


def test_an_import_before_ours_is_reported(tmp_path: Path) -> None:
    """A program that imported regopy by itself is told what may happen."""
    code = (
        "import regopy, sys; from taskpilot_obs.safety import RegoPolicy; RegoPolicy(sys.argv[1], package=sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(written(tmp_path, REGO)), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "regopy was imported before RegoPolicy was made" in done.stderr


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/policy-engines.md runs, and the table of the input names what engines are given."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    page = (root / "docs" / "policy-engines.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(block, "docs/policy-engines.md", "exec"), {})  # noqa: S102  our own page
    rows = page.partition("## Input")[2].partition("## Verdicts")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(input_document(call("search")))
