"""The same questions for two prompts of one agent: which answers better, and what does it cost? Offline."""

from __future__ import annotations

import tempfile

from taskpilot_obs import observe_agent, record_llm_call
from taskpilot_obs.compare.bench import benchmark, load_task

RIGHT = {item.prompt: item.expected or "" for item in load_task("simple").items}


@observe_agent("Calculator")
def short(question: str) -> str:
    """A short prompt on a small model, which gets every third question wrong."""
    record_llm_call(model="gpt-4o-mini", usage={"input_tokens": 40, "output_tokens": 3})
    return "0" if len(question) % 3 == 0 else RIGHT[question]


@observe_agent("Calculator")
def careful(question: str) -> str:
    """A long prompt on a large model, which is right."""
    record_llm_call(model="gpt-4o", usage={"input_tokens": 900, "output_tokens": 120})
    return f"I add it up. The answer is {RIGHT[question]}."


def main() -> None:
    """Ask both, in turn, and print what is certain."""
    with tempfile.TemporaryDirectory() as folder:
        report = benchmark({"short": short, "careful": careful}, iterations=2, out=folder, max_cost_usd="1")
    for name, arm in report.arms.items():
        if arm.correct is not None:
            between = f"{arm.correct.low:.0%} to {arm.correct.high:.0%}"
            print(f"{name}: {arm.correct.value:.0%} correct ({between}), {arm.cost_per_correct_usd} USD for each")
    for finding in report.findings:
        print(finding.sentence)


if __name__ == "__main__":
    main()
