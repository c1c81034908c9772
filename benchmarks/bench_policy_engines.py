"""What one decision of a policy engine costs, beside the bar of 1 ms and beside the policies written in Python.

Run: python benchmarks/bench_policy_engines.py [--quick]

One policy in three forms, about one tool call that it lets pass: in the process by regopy and cedarpy, and over a
connection that is kept by a server on loopback that answers at once. The best of many short rounds.
"""

from __future__ import annotations

import json
import sys
import threading
import timeit
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from taskpilot_obs.records import Operation, Stage, Verdict
from taskpilot_obs.safety import AllowTools, CedarPolicy, CheckInput, OpaServerPolicy, Policy, RegoPolicy
from taskpilot_obs.safety.rego import load_regopy

ROUNDS = 3 if "--quick" in sys.argv else 20
BAR_MS = 1.0
PACKAGE = "taskpilot.tool_calls"
REGO = Path(__file__).parents[1] / "examples" / "policies" / "tool_calls.rego"
CEDAR = """
permit(principal, action, resource == Tool::"refund");
forbid(principal, action, resource == Tool::"refund") when { context.args.amount > 500 };
@require_approval
forbid(principal, action, resource == Tool::"refund") when { context.args.amount > 100 };
"""
CALL = CheckInput(
    Operation.TOOL,
    Stage.INPUT,
    "order-7 a customer's letter of some length, which the policy does not read " * 4,
    tool="refund",
    arguments={"order": "order-7", "amount": 50, "note": "a customer's letter of some length " * 8},
    agent="Support",
    workflow="Helpdesk",
    tenant="acme",
    user="jane",
)


class AtOnce(BaseHTTPRequestHandler):
    """A server that answers what the policy would."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, as OPA sends them

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["content-length"]))
        content = json.dumps({"result": {"allow": True, "deny": []}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def milliseconds(policy: Policy) -> float:
    """The best time of one decision."""
    answer = policy.check(CALL)
    assert getattr(answer, "verdict", None) is Verdict.ALLOW, answer
    return min(timeit.repeat(lambda: policy.check(CALL), number=50, repeat=ROUNDS)) / 50 * 1e3


def uncompiled() -> float:
    """A decision by `query`, which compiles the policy each time."""
    interpreter = load_regopy().Interpreter()
    interpreter.add_module("tool_calls.rego", REGO.read_text())
    interpreter.set_input({"tool": "refund", "args": {"amount": 50}})
    return min(timeit.repeat(lambda: interpreter.query(f"data.{PACKAGE}"), number=10, repeat=ROUNDS)) / 10 * 1e3


def main() -> None:
    """Print one line for each engine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), AtOnce)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with TemporaryDirectory() as folder:
            cedar = Path(folder) / "tools.cedar"
            cedar.write_text(CEDAR)
            url = f"http://127.0.0.1:{server.server_port}"
            found = {
                "AllowTools, in Python": milliseconds(AllowTools(["refund"])),
                "RegoPolicy": milliseconds(RegoPolicy(REGO, package=PACKAGE)),
                "CedarPolicy": milliseconds(CedarPolicy(cedar)),
                "OpaServerPolicy": milliseconds(OpaServerPolicy(url, package=PACKAGE, rules=["allow", "deny"])),
            }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    slow = uncompiled()
    print(f"{'one decision':24s}{'ms':>8s}  of the bar of {BAR_MS:g} ms")
    for name, cost in found.items():
        print(f"{name:24s}{cost:8.4f}  {cost / BAR_MS:.2f} x")
    print(f"regopy, compiling each time: {slow:.2f} ms, {slow / found['RegoPolicy']:.1f} x of RegoPolicy")


if __name__ == "__main__":
    main()
