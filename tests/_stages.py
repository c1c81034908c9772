"""What a test sees of the running stack: how a stage ended, once Prometheus and its rules have seen it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from _dashboards import ask
from _stack import JOB, Stack
from _webhook import Delivery

from taskpilot_obs import golden_signals

FRESH_S = 2.5
"""After this every rule has been evaluated at least twice: once from the last scrape, and once from those results."""
WAIT_S = 60.0
WINDOW = "5m"
"""It holds the life of the process and, in Prometheus, nothing of the deployment before."""


class Stage(NamedTuple):
    """The end of a stage, once it has been scraped and the rules have seen it."""

    stack: Stack
    at: float
    told: dict[str, Any]
    """What the application counted by itself."""
    delivered: tuple[Delivery, ...]
    """Everything that had been delivered by then."""
    here: dict[str, Any]
    """The golden signals of the last five minutes, in the process."""
    fleet: dict[str, Any]
    """The value in Prometheus."""

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant vector at the end of the stage."""
        answer = ask(self.stack.prometheus, "query", query=expression, time=f"{self.at}")
        result: list[dict[str, Any]] = answer["result"]
        return result

    def figure(self, expression: str) -> float:
        """The one value of an expression."""
        (series,) = self.query(expression)
        return float(series["value"][1])


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition returns once it is something."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"no sign of {what} within {WAIT_S:g} s")


def ended(stack: Stack, told: dict[str, Any]) -> Stage:
    """Wait until a scrape and every rule have seen what just happened."""
    done = time.time()
    scraped = until(lambda: _scraped_after(stack, done), "a scrape")
    until(lambda: _evaluated_after(stack, scraped + FRESH_S), "an evaluation of every rule")
    here = stack.application.ask("signals", window=WINDOW)
    fleet = golden_signals(WINDOW, prometheus=stack.prometheus).model_dump(mode="json")
    # At a scrape that succeeded: on a loaded machine the next one may fail, and then nothing is there at that moment.
    at = until(lambda: _scraped_after(stack, scraped), "another scrape")
    return Stage(stack, at, told, tuple(stack.webhook.deliveries), here, fleet)


def _scraped_after(stack: Stack, moment: float) -> float | None:
    answer = ask(stack.prometheus, "query", query=f'timestamp(taskpilot_obs_info{{job="{JOB}"}})')["result"]
    return next((at for series in answer if (at := float(series["value"][1])) > moment), None)


def groups(stack: Stack) -> list[dict[str, Any]]:
    """The groups of rules, with the state of each rule."""
    found: list[dict[str, Any]] = ask(stack.prometheus, "rules")["groups"]
    return found


def _evaluated_after(stack: Stack, moment: float) -> bool:
    return all(_unix(group["lastEvaluation"]) > moment for group in groups(stack))


def _unix(moment: str) -> float:
    """Seconds since the epoch, of a moment with nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", moment)).timestamp()


def alerts(stack: Stack, name: str) -> list[dict[str, Any]]:
    """The active alerts of this name, as Alertmanager has them."""
    with urlopen(f"{stack.alertmanager}/api/v2/alerts?filter=alertname%3D{name}", timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found
