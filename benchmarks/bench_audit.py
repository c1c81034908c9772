"""What an audit line costs, beside what it cannot cost less than, and beside doing it by hand.

Run: python benchmarks/bench_audit.py
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from taskpilot_obs.audit.rows import AuditLines
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.exporters.json_logging import StdoutExporter
from taskpilot_obs.records import Invocation, Operation, Record, Started, Status
from taskpilot_obs.usage import Usage

PAIRS = 500
ROUNDS = 30
LIMIT_US = 8.0
VERIFY_LIMIT_S = 60.0
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
START_NS = time.time_ns()
KEY = b"0123456789abcdef"

START = Started(
    Operation.AGENT,
    "PlannerAgent",
    "req-abc-123",
    "a1b2c3d4e5f60718",
    None,
    "handle",
    "PlannerAgent",
    START_NS,
    input_length=12,
    trace_id=TRACE,
    span_id=SPAN,
    tenant="acme",
    user="u1",
)
END = Invocation(
    Status.SUCCESS,
    0.0123456,
    Operation.AGENT,
    "PlannerAgent",
    "req-abc-123",
    "a1b2c3d4e5f60718",
    None,
    "handle",
    "PlannerAgent",
    START_NS,
    input_length=12,
    output_length=33,
    trace_id=TRACE,
    span_id=SPAN,
    tenant="acme",
    user="u1",
)
CALL = END._replace(
    operation=Operation.CHAT,
    name="gpt-4o",
    provider="openai",
    request_model="gpt-4o",
    usage=Usage(10, 20),
    cost=Decimal("0.0000525"),
)


def best_us(work: Callable[[], object], lines: int) -> float:
    """CPU time of the best round, in microseconds a line."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best / lines * 1e6


def in_a_file(folder: Path, batch: list[Record], options: AuditOptions) -> float:
    """Everything: row, text, seal, write, anchors."""
    exporter = AuditLogExporter(folder / "audit.jsonl", options, service="bench")
    cost = best_us(lambda: exporter.export(batch), len(batch))
    exporter.shutdown(1.0)
    return cost


def by_hand(batch: list[Record], file: Path) -> float:
    """A logging call with python-json-logger for each record, to a file: no chain."""
    handler = logging.FileHandler(file)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("bench")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    extras = [
        {name: float(value) if isinstance(value, Decimal) else value for name, value in found.items()}
        for record in batch
        if (found := AuditLines("bench").fields(record))
    ]
    messages = [str(extra.pop("message")) for extra in extras]

    def log() -> None:
        for message, extra in zip(messages, extras, strict=True):
            logger.info(message, extra=extra)

    cost = best_us(log, len(batch))
    handler.close()
    return cost


def floor(batch: list[Record]) -> float:
    """SHA-256 over finished bytes, and nothing else."""
    lines = [json.dumps(AuditLines("bench").fields(record), default=str).encode() for record in batch]
    return best_us(lambda: [hashlib.sha256(line).hexdigest() for line in lines], len(batch))


def verification(folder: Path, batch: list[Record]) -> float:
    """Seconds for a million records."""
    exporter = AuditLogExporter(folder / "audit.jsonl", AuditOptions())
    for _ in range(100):
        exporter.export(batch)
    exporter.shutdown(1.0)
    begun = time.process_time()
    (report,) = verify(folder)
    assert report.is_whole
    return (time.process_time() - begun) / report.records * 1e6


def main() -> None:
    """Print the table."""
    runs: list[Record] = [START, END] * PAIRS
    calls: list[Record] = [CALL] * (2 * PAIRS)
    rows: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as name, (Path(name) / "stdout").open("w") as stream:
        folder = Path(name)
        rows.append(("SHA-256 alone (what a chain cannot cost less than)", floor(runs)))
        rows.append(("audit file, agent start and end", in_a_file(folder / "a", runs, AuditOptions())))
        rows.append(
            ("audit file, agent start and end, with a key", in_a_file(folder / "b", runs, AuditOptions(key=KEY)))
        )
        rows.append(("audit file, LLM call with usage and cost", in_a_file(folder / "c", calls, AuditOptions())))
        to_stream = StdoutExporter(stream, service="bench")
        rows.append(("standard output by python-json-logger, no chain", best_us(lambda: to_stream.export(runs), 1_000)))
        rows.append(("by hand: a logging call and python-json-logger, no chain", by_hand(runs, folder / "hand")))
        seconds = verification(folder / "d", runs)
    ours = rows[1][1]
    print("| what | CPU, µs a line | of the audit file's |\n| --- | --: | --: |")
    for what, cost in rows:
        print(f"| {what} | {cost:.2f} | {cost / ours:.2f} |")
    print(f"\nverify: {seconds:.1f} s CPU for 1,000,000 records (limit {VERIFY_LIMIT_S:.0f})")
    print(f"a line with its chain: {ours:.2f} µs (limit {LIMIT_US:.0f})")
    raise SystemExit(0 if ours <= LIMIT_US and seconds <= VERIFY_LIMIT_S else 1)


if __name__ == "__main__":
    main()
