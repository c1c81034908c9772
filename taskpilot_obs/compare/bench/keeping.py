"""Where a run is kept while it goes on: a folder, from which it can be resumed, and the store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.compare.bench.calls import BenchCall
from taskpilot_obs.compare.bench.plan import Plan
from taskpilot_obs.compare.bench.runner import Reporter
from taskpilot_obs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from taskpilot_obs.compare.bench.figures import BenchmarkReport
    from taskpilot_obs.store import Store

PLAN: Final = "plan.json"
CALLS: Final = "calls.jsonl"
_PRIVATE: Final = 0o600


class Folder(Reporter):
    """The files of one run: `plan.json`, `calls.jsonl`, and the reports at its end. Only their owner reads them.

    Args:
        path: made by `write_plan` where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends_whole = False

    def write_plan(self, plan: Plan) -> None:
        """Keep what the run does.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.write(PLAN, plan.model_dump_json(indent=2))

    def read_plan(self) -> Plan:
        """What the run of this folder does.

        Raises:
            ConfigurationError: the folder holds no run.
        """
        try:
            return Plan.model_validate_json((self.path / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = reason_of(error)
            raise ConfigurationError(f"{self.path} holds no benchmark run that could be resumed: {why}") from error

    def read_calls(self) -> list[BenchCall]:
        """The calls that were complete. A line that was cut off by a crash is left out: its call is made again.

        Raises:
            ConfigurationError: a whole line is not a call.
        """
        file = self.path / CALLS
        if not file.exists():
            return []
        lines = file.read_bytes().split(b"\n")
        try:
            return [BenchCall.model_validate_json(line) for line in lines[:-1] if line]
        except ValueError as error:
            raise ConfigurationError(f"{file} cannot be resumed, because a line is not a call: {error}") from error

    def saved(self, calls: Sequence[BenchCall]) -> None:
        """Append calls."""
        if not self._ends_whole:
            self._cut_off_fragment()
        lines = "".join(f"{call.model_dump_json()}\n" for call in calls)
        self._ends_whole = False
        self._put(self.path / CALLS, os.O_APPEND, lines)
        self._ends_whole = True

    def _cut_off_fragment(self) -> None:
        """Remove the line that a crash cut off, because the next call would continue it."""
        with suppress(FileNotFoundError), (self.path / CALLS).open("r+b") as opened:
            opened.truncate(opened.read().rfind(b"\n") + 1)

    def write(self, name: str, text: str) -> None:
        """Write one file of the folder, which is made where it is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._put(self.path / name, os.O_TRUNC, text)

    @staticmethod
    def _put(file: Path, flag: int, text: str) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | flag, _PRIVATE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)


class StoreKeeper(Reporter):
    """Writes a run into `benchmark_runs` and `benchmark_calls`.

    Args:
        store: with tables of the newest version.
        plan: what the run does.
        service: under which it is stored.
    """

    def __init__(self, store: Store, plan: Plan, service: str) -> None:
        from taskpilot_obs.store.benchmark_runs import begin_run

        store.require_current()
        self._store = store
        self._run_id = plan.run_id
        begin_run(
            store,
            plan.run_id,
            created_at=plan.created_at,
            name=plan.name,
            service=service,
            seed=plan.seed,
            settings=plan.model_dump_json(),
        )

    def saved(self, calls: Sequence[BenchCall]) -> None:
        """Write calls."""
        from taskpilot_obs.store.benchmark_runs import write_calls

        write_calls(self._store, self._run_id, [call.model_dump() for call in calls])

    def finish(self, report: BenchmarkReport) -> None:
        """Write the result."""
        from taskpilot_obs.store.benchmark_runs import finish_run

        finish_run(
            self._store,
            self._run_id,
            status=report.status,
            finished_at=report.end_time,
            summary=report.model_dump_json(),
        )
