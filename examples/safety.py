"""Policies, guardrails and redaction around a small agent. Offline; prints what was refused and what is recorded."""

from __future__ import annotations

from collections.abc import Mapping

from taskpilot_obs import configure, get_recorder, observe_agent, observe_tool, observe_workflow
from taskpilot_obs.exceptions import GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.records import Decision
from taskpilot_obs.safety import (
    AllowTools,
    CheckInput,
    DenyWords,
    GuardrailResult,
    MaxInputLength,
    Redactor,
    RequireApproval,
    blocked,
    check_with,
)
from taskpilot_obs.testing import capture_records

SMALL_EUR = 500
approved = {"order-7"}


def no_promises(subject: CheckInput) -> GuardrailResult | None:
    """A guardrail is any function of a subject."""
    return blocked("promises a refund") if "we will refund" in subject.text.lower() else None


def is_small(call: Mapping[str, object]) -> bool:
    """A predicate of a tool call's arguments, by name."""
    amount = call["amount"]
    return isinstance(amount, int) and amount <= SMALL_EUR


@observe_tool(
    "refund",
    policies=[
        AllowTools({"refund": is_small}, agents=["Support"]),
        RequireApproval(["refund"], approved=lambda subject: subject.arguments["order"] in approved),
    ],
    mode="enforce",
)
def refund(order: str, amount: int = 50) -> str:
    """Pay money back."""
    return f"{amount} EUR for {order}"


@observe_agent(
    "Support",
    policies=[DenyWords(["delete", "drop table"], severity="high"), MaxInputLength(2_000)],
    guardrails=[check_with(no_promises, stages="output")],
    mode="enforce",
)
def support(question: str) -> str:
    """Answer a customer."""
    if "refund" in question:
        return refund(question.rsplit(" ", 1)[-1])
    return "We will refund you tomorrow." if "angry" in question else "Your parcel is on its way."


@observe_workflow("Helpdesk")
def handle(question: str) -> str:
    """One task."""
    try:
        return support(question)
    except (PolicyViolationError, GuardrailBlockedError) as refused:
        return f"refused: {refused}"


def main() -> None:
    """Ask, and show the decisions."""
    configure(service="helpdesk")
    with capture_records(Decision) as decisions:
        for question in ("Where is it?", "delete my account", "I am angry", "refund order-7", "refund order-8"):
            print(f"{question:18} -> {handle(question)}")
        print()
        for decision in decisions:
            if decision.result != "passed":
                print(f"{decision.kind.value} {decision.name}: {decision.result.value}, {decision.reason}")
    get_recorder().flush()
    text = "Write to jane@example.com, card 4111 1111 1111 1111, with key sk-proj-Zx9w8v7u6t5s4r3q2p1o0n9m"
    print(f"\n{Redactor().text(text)}")


if __name__ == "__main__":
    main()
