"""Writes `gbstats.json`: what GrowthBook's statistics engine answers to the cases of `test_oracles.py`.

gbstats 0.8 needs numpy and pandas below 2, so it runs in an environment of its own:

    python3.11 -m venv build/gbstats && build/gbstats/bin/pip install gbstats==0.8.0
    build/gbstats/bin/python tests/compare/_gbstats.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

ANSWERS = Path(__file__).with_name("gbstats.json")
TUNED_FOR = 1_000
"""The number of observations at which the sequence of `compare.sequences` is tightest."""
SIZES = ((120, 150), (400, 360), (2_500, 2_500), (9_000, 1_000), (30_000, 60_000))
SPLITS = (
    ((600, 400), (0.5, 0.5)),
    ((520, 480), (0.5, 0.5)),
    ((5_300, 4_700), (0.5, 0.5)),
    ((910, 90), (0.9, 0.1)),
    ((850, 150), (0.9, 0.1)),
    ((330, 340, 330), (1 / 3, 1 / 3, 1 / 3)),
    ((3_000, 3_400, 3_000), (1 / 3, 1 / 3, 1 / 3)),
)


def observed(n: int, seed: int, shift: float) -> list[float]:
    """Costs of an arm."""
    chance = Random(seed)
    return [shift + chance.lognormvariate(-4, 0.2) for _ in range(n)]


def sums(values: list[float]) -> list[float]:
    """Number, sum, sum of squares and of cubes."""
    return [len(values), sum(values), sum(x * x for x in values), sum(x**3 for x in values)]


def difference(arm: list[float], base: list[float], alpha: float) -> dict[str, Any]:
    """One case and its answer."""
    from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest  # type: ignore[import-not-found]
    from gbstats.models.statistics import SampleMeanStatistic  # type: ignore[import-not-found]

    own, other = (SampleMeanStatistic(n=int(n), sum=total, sum_squares=squares) for n, total, squares, _ in (arm, base))
    config = SequentialConfig(difference_type="absolute", alpha=alpha, sequential_tuning_parameter=TUNED_FOR)
    test = SequentialTwoSidedTTest(other, own, config)
    return {
        "arm": arm,
        "base": base,
        "confidence": 1 - alpha,
        "variance": [float(own.variance), float(other.variance)],
        "interval": [float(end) for end in test.confidence_interval],
    }


def main() -> None:
    """Ask gbstats, and write what it answers."""
    from gbstats.utils import check_srm  # type: ignore[import-not-found]

    found: dict[str, Any] = {"gbstats": version("gbstats"), "differences": [], "splits": []}
    for seed, (n, base_n) in enumerate(SIZES):
        arm, base = sums(observed(n, seed, 0.002)), sums(observed(base_n, 100 + seed, 0.0))
        found["differences"] += [difference(arm, base, alpha) for alpha in (0.05, 0.01)]
    for units, shares in SPLITS:
        p_value = float(check_srm(list(units), list(shares)))
        found["splits"].append({"units": units, "shares": shares, "p_value": p_value})
    ANSWERS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
