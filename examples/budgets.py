"""A limit on what an agent may spend in a day: alerts on the way, then a refusal before the call. Offline."""

from __future__ import annotations

from taskpilot_obs import configure, get_recorder, observe_agent, observe_llm
from taskpilot_obs.budgets import Budget, BudgetAlert
from taskpilot_obs.exceptions import BudgetExceededError


def tell(alert: BudgetAlert) -> None:
    """What a chat message or a ticket would say."""
    print(f"alert: {alert.budget} has spent {alert.spent} of {alert.limit} USD ({alert.threshold:.0%})")


configure(on_budget_alert=tell)


@observe_llm(model="gpt-4o")
def ask(prompt: str, *, max_tokens: int) -> dict[str, object]:
    """Where a provider's client would be called; 40,000 tokens in and `max_tokens` out."""
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": max_tokens}
    return {"model": "gpt-4o", "usage": usage, "answer": "42"}


@observe_agent("Analyst", budget=Budget("analyst", limit_usd="0.45", action="enforce", timezone="Europe/Berlin"))
def analyse(report: str) -> object:
    """One LLM call over a long report."""
    return ask(report, max_tokens=1_000)["answer"]


def main() -> None:
    """Analyse until there is no room."""
    report = "word " * 24_000
    for number in range(1, 10):
        try:
            print(f"run {number}: {analyse(report)}")
        except BudgetExceededError as error:
            print(f"run {number}: refused before the call, {error.limit - error.spent} USD were left")
            break
        get_recorder().flush()


if __name__ == "__main__":
    main()
