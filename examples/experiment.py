"""An A/B test of two prompts on users, read from the store; then the same month at another model's price. Offline."""

from __future__ import annotations

import tempfile
from random import Random

from taskpilot_obs import configure, flush, observe_workflow, record_llm_call, shutdown
from taskpilot_obs.compare import Experiment, compare_variants, optimise, reprice

USERS = 800
PROMPTS = Experiment("planner-prompt", {"v1": 0.5, "v2": 0.5}, primary="success", secondary=("cost",))
CHANCE = Random(4)


@observe_workflow("plan")
def plan(variant: str) -> str:
    """The second prompt is longer, and fails less often."""
    record_llm_call(model="gpt-4o", usage={"input_tokens": 400 if variant == "v1" else 900, "output_tokens": 200})
    if CHANCE.random() < (0.25 if variant == "v1" else 0.05):
        raise ValueError("no plan")
    return "a plan"


def main() -> None:
    """Two tasks for each user, then the verdict."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/telemetry.db"
        configure(store=store)
        for user in range(USERS):
            with PROMPTS.assign(f"user-{user}") as variant:
                for _ in range(2):
                    try:
                        plan(variant)
                    except ValueError:
                        continue  # recorded as a failed task
        flush()
        print(compare_variants(PROMPTS, store=store).conclusion)
        month = reprice("1d", as_model="gpt-4o-mini", by="agent", store=store).total
        print(f"booked {month.booked_usd} USD, as gpt-4o-mini {month.repriced_usd} USD")
        print(f"savings found: {len(optimise('1d', store=store).savings)}")
        shutdown()


if __name__ == "__main__":
    main()
