"""A policy in Rego decides what tools an agent may call, and which calls wait for a person. Offline."""

from __future__ import annotations

from pathlib import Path

from taskpilot_obs import configure, get_recorder, observe_agent, observe_tool
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.records import Decision
from taskpilot_obs.safety import CheckInput, RegoPolicy
from taskpilot_obs.testing import capture_records

POLICY = Path(__file__).parent / "policies" / "tool_calls.rego"
approved: set[object] = set()


def is_approved(subject: CheckInput) -> bool:
    """Whether a person has approved the call; a real one is asked by your application."""
    return subject.arguments["order"] in approved


@observe_tool
def refund(order: str, amount: int) -> str:
    """Pay money back."""
    return f"{amount} EUR paid for {order}"


@observe_tool
def delete_account(user: str) -> str:
    """A tool that the policy does not know."""
    return f"{user} is gone"


@observe_agent("Support")
def support(order: str, amount: int) -> str:
    """Refund, or hand over to a person."""
    try:
        return refund(order=order, amount=amount)
    except PolicyViolationError as refused:
        return f"not yet: {refused}"


def main() -> None:
    """Ask for refunds, approve one, and show what the policy decided."""
    policy = RegoPolicy(POLICY, package="taskpilot.tool_calls", approved=is_approved)
    configure(service="helpdesk", policies=[policy], mode="enforce")
    with capture_records(Decision) as decisions:
        print(support("order-1", 50))
        print(support("order-2", 300))
        approved.add("order-2")
        print(support("order-2", 300))
        print(support("order-3", 900))
        try:
            delete_account("jane")
        except PolicyViolationError as refused:
            print(f"refused: {refused}")
        get_recorder().drain()
        for decision in decisions:
            if decision.tool is not None:  # agents are allowed without a look at the policy
                version = str(decision.attributes["policy_version"])[:19]
                print(f"{decision.tool}: {decision.verdict.value}, {decision.reason} ({version}…)")


if __name__ == "__main__":
    main()
