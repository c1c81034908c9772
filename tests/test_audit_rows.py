from __future__ import annotations

import json
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from _audit import SPAN, TRACE, decision, event, finished, llm_call, samples, started
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs._support.timestamps import rfc3339
from taskpilot_obs.audit.encoding import IdsText, RecordLayout, clean_value, to_json
from taskpilot_obs.audit.rows import AuditLines, audit_text
from taskpilot_obs.records import BAD, CacheSize, Feedback, Operation, Origin, Record, Rollup, Status, Verdict
from taskpilot_obs.semconv import Field
from taskpilot_obs.usage import Usage

IDS = {
    "request_id": "req-1",
    "invocation_id": "i2",
    "parent_id": "i1",
    "trace_id": TRACE,
    "span_id": SPAN,
    "tenant_id": "acme",
    "user_id": "u1",
    "session_id": "s1",
}
KNOWN = {value for name, value in vars(Field).items() if name.isupper()}


def parsed(record: Record, **options: Any) -> dict[str, Any]:
    text = audit_text(record, "svc", **options)
    assert text is not None
    assert text.isascii()
    assert text.isprintable()
    found = json.loads(text + "}", parse_float=Decimal, parse_constant=lambda word: pytest.fail(f"bare {word}"))
    assert isinstance(found, dict)
    return found


def fields(record: Record) -> dict[str, Any]:
    found = AuditLines("svc").fields(record)
    assert found is not None
    return dict(found)


def test_start_of_an_agent() -> None:
    """The start of an agent is an Input record at the time of the start."""
    assert fields(started()) == {
        "timestamp": "2025-11-21T09:30:00.000001Z",
        "level": "INFO",
        "log_type": "audit",
        "event": "agent.input",
        "message": "[AUDIT] Planner Input",
        "service": "svc",
        "workflow": "handle",
        "agent": "Planner",
        **IDS,
        "input_length": 12,
    }


def test_end_of_a_workflow() -> None:
    """The end of a workflow is an Output record at the time of the end, with what its calls add up to."""
    run = finished(Operation.WORKFLOW, "handle", rollup=Rollup(10, 20, Decimal("0.5"), 2, 1, 3))
    assert fields(run) == {
        "timestamp": "2025-11-21T09:30:01.500001Z",
        "level": "INFO",
        "log_type": "audit",
        "event": "workflow.output",
        "message": "[AUDIT] handle Output",
        "service": "svc",
        "workflow": "handle",
        "agent": "Planner",
        "status": "success",
        **IDS,
        "duration_ms": 1500.0,
        "input_length": 12,
        "output_length": 34,
        "input_tokens": 10,
        "output_tokens": 20,
        "total_tokens": 30,
        "cost_usd": Decimal("0.5"),
        "llm_calls": 2,
        "unpriced_calls": 1,
        "tool_calls": 3,
    }


def test_llm_call() -> None:
    """An LLM call is one record with the model that answered, tokens, cost to the digit, and the first token's time."""
    found = fields(llm_call())
    assert found["message"] == "[AUDIT] gpt-4o LLM"
    assert found["event"] == "llm.call"
    assert (found["model"], found["provider"]) == ("gpt-4o-2024-08-06", "openai")
    assert (found["input_tokens"], found["output_tokens"], found["total_tokens"]) == (10, 20, 30)
    assert str(found["cost_usd"]) == "0.0000525"
    assert found["time_to_first_token_ms"] == 250.0
    assert (found["streaming"], found["cached"]) == (True, False)
    assert '"cost_usd":0.0000525' in (audit_text(llm_call(), "svc") or "")


def test_tool_call_that_fails() -> None:
    """A failed tool call is a record of the type error, with the class of the exception."""
    found = fields(finished(Operation.TOOL, "create_task", status=Status.TIMEOUT, error_type="TimeoutError"))
    assert (found["tool"], found["agent"], found["status"]) == ("create_task", "Planner", "timeout")
    assert (found["log_type"], found["level"], found["message"]) == ("error", "ERROR", "[ERROR] create_task Tool")
    assert "streaming" not in found


def test_a_failed_call_has_its_category() -> None:
    """A failed LLM call is of a category, as in the metrics; other records have none."""
    failed = llm_call()._replace(status=Status.ERROR, error_type="openai.RateLimitError", error_category="rate_limit")
    assert (fields(failed)["error_type"], fields(failed)["error_category"]) == ("openai.RateLimitError", "rate_limit")
    assert "error_category" not in fields(llm_call())


@pytest.mark.parametrize("status", Status)
def test_which_statuses_are_errors(status: Status) -> None:
    """Exactly the statuses that count against the success rate are of the type error."""
    assert fields(finished(status=status))["log_type"] == ("error" if status in BAD else "audit")


def test_decisions() -> None:
    """A decision names who decided, what, why and how long it took; a refusal is a warning with its severity."""
    found = fields(decision())
    assert found["log_type"] == "decision"
    assert found["message"] == "[DECISION] DenyWords deny"
    assert (found["policy"], found["decision"], found["result"]) == ("DenyWords", "deny", "blocked")
    assert (found["level"], found["severity"], found["stage"], found["tool"]) == (
        "WARNING",
        "high",
        "input",
        "create_task",
    )
    assert (found["reason"], found["duration_ms"]) == ("says delete", 0.012)
    allowed = fields(decision(verdict=Verdict.ALLOW))
    assert allowed["level"] == "INFO"
    assert "severity" not in allowed


def test_events_and_feedback() -> None:
    """An application's event keeps its name, its attributes are one object; feedback belongs to the rated request."""
    found = fields(event("task.approved", task_id="t1"))
    assert (found["event"], found["message"]) == ("task.approved", "[AUDIT] task.approved")
    assert found["attributes"] == {"task_id": "t1"}
    rated = fields(Feedback("req-9", correct=False, revision=True, origin=Origin(), time_unix_ns=0))
    assert (rated["request_id"], rated["correct"], rated["revision"]) == ("req-9", False, True)
    assert rated["timestamp"] == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "record", [started(Operation.TOOL, "t"), started(Operation.CHAT, "m"), CacheSize("prompts", 3, 0)]
)
def test_what_leaves_no_line(record: Record) -> None:
    """Starts of tools and LLM calls, and sizes of caches, are not in the audit log."""
    assert AuditLines().fields(record) is None
    assert audit_text(record) is None


@pytest.mark.parametrize("record", samples(), ids=lambda record: type(record).__name__)
def test_both_forms_agree(record: Record) -> None:
    """The dictionary of a record and its line say the same, and only fields that are in the contract."""
    assert parsed(record) == json.loads(to_json(fields(record)), parse_float=Decimal)
    assert fields(record).keys() <= KNOWN


def test_content_when_it_is_captured() -> None:
    """Captured texts and error messages are fields of their own."""
    found = fields(finished(input_text="in", output_text="out", error_message="bad"))
    assert (found["input"], found["output"], found["error_message"]) == ("in", "out", "bad")
    assert fields(started(input_text="in"))["input"] == "in"


def test_cost_that_nobody_knows() -> None:
    """A roll-up without any priced call has no cost, and an infinite or undefined cost is not written as a number."""
    assert "cost_usd" not in fields(finished(rollup=Rollup(1, 1, Decimal(0), 2, 2)))
    assert "cost_usd" not in parsed(llm_call(cost=Decimal("NaN")))


@pytest.mark.parametrize("duration", [math.nan, 1e300])
def test_a_duration_that_is_none(duration: float) -> None:
    """A latency that is not a finite duration is left out."""
    assert "duration_ms" not in parsed(decision(duration_s=duration))
    assert "duration_ms" not in parsed(decision(duration_s=None))


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**4400, max_value=10**4401),
    st.floats(),
    st.decimals(),
    st.text(alphabet=st.characters(exclude_categories=())),
    st.binary(),
    st.lists(st.integers(), max_size=2),
)
names = st.text(alphabet=st.characters(exclude_categories=()), max_size=30)


@given(st.dictionaries(names, anything, max_size=6), names, names)
def test_one_line_for_any_input(attributes: dict[str, Any], name: str, reason: str) -> None:
    """Whatever is in a record, its line is one line of printable ASCII, is JSON, and equals its dictionary."""
    for record in (
        finished(name=name, attributes=attributes, user=reason),
        event(name)._replace(attributes=attributes),
        decision(reason=reason, name=name),
    ):
        assert parsed(record) == json.loads(to_json(fields(record)), parse_float=Decimal)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), st.text(max_size=9), min_size=1))
def test_no_field_can_be_injected(attributes: dict[str, str]) -> None:
    """An attribute named like a field of the library stays beneath `attributes`, and changes no field."""
    plain, injected = parsed(event()), parsed(event()._replace(attributes=attributes))
    assert injected.pop("attributes") == attributes
    assert injected == plain


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "\u2028", "\x85", "\x00\x1b[31m", '","level":"x', "\\ud800"])
def test_hostile_text(hostile: str) -> None:
    """Line ends, control characters and quotes come back as the text that they were, and end no line."""
    found = parsed(finished(user=hostile, attributes={hostile: hostile}))
    assert found["user_id"] == hostile
    assert found["attributes"] == {hostile: hostile}


def test_lone_surrogate() -> None:
    """A lone surrogate, which strict readers refuse, becomes the replacement character; a real pair stays."""
    assert parsed(finished(user="a\ud800b"))["user_id"] == "a\ufffdb"
    assert parsed(finished(user="\U0001f600"))["user_id"] == "\U0001f600"


def test_long_strings_are_cut_with_a_mark() -> None:
    """A string of 10 MB is cut to the configured length, and marked."""
    found = parsed(finished(output_text="x" * 10_000_000, user="y" * 300), max_string=200)
    assert found["output"].endswith("[cut: 10000000 characters]")
    assert len(found["output"]) == len(found["user_id"]) == 200


def test_values_that_json_cannot_say() -> None:
    """NaN and infinities become text, huge integers hexadecimal text, objects the name of their class."""

    class Raising:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    assert clean_value(math.nan, 99) == "nan"
    assert clean_value(-math.inf, 99) == "-inf"
    assert clean_value(Decimal("sNaN"), 99) == "sNaN"
    assert str(clean_value(1 << 70, 99)).startswith("0x4")
    assert "Raising" in str(clean_value(Raising(), 99))
    assert clean_value({"a": {"b": None, 1: "x"}}, 99) == {"a": {"<int>": "x"}}
    nested: Any = {"a": {"b": [1]}}
    assert to_json(nested) == '{"a":{"b":"<list>"}}'


def test_value_of_a_foreign_type_in_a_field_of_ours() -> None:
    """A field that is neither text nor number is refused: the record is counted and not written wrong."""
    with pytest.raises(TypeError, match="bytes"):
        audit_text(finished(user=b"bytes"))


@pytest.mark.parametrize("length", ["1", '1,"forged":2', 1.5, math.nan, Decimal(1), [1]])
def test_length_that_is_no_number(length: Any) -> None:
    """A record made by hand cannot smuggle JSON into a line: a length that is not a whole number is refused."""
    for record in (started(input_length=length), finished(input_length=length), finished(output_length=length)):
        with pytest.raises((TypeError, ValueError)):
            audit_text(record)
    with pytest.raises((TypeError, ValueError)):
        audit_text(llm_call(usage=Usage(input_tokens=length)))


def test_time_that_is_no_number_of_nanoseconds() -> None:
    """A record made by hand whose time is a float or text is refused; one before 1970 is written as it stands."""
    for unix_ns in (1.7e18, "0", math.nan):
        with pytest.raises((TypeError, ValueError)):
            audit_text(started(start_unix_ns=unix_ns))
    assert fields(started(start_unix_ns=-1))["timestamp"] == "1969-12-31T23:59:59.999999Z"


def test_threads_that_share_the_lines_of_a_log() -> None:
    """Two threads that write with one exporter do not mix up each other's seconds."""
    lines = AuditLines()
    seconds = range(1_700_000_000, 1_700_000_200)

    def write(offset: int) -> list[str]:
        return [str(lines.text(started(start_unix_ns=(second + offset) * 10**9))) for second in [*seconds] * 10]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            written = list(pool.map(write, (0, 10**6, 2 * 10**6, 3 * 10**6)))
    finally:
        sys.setswitchinterval(interval)
    for offset, texts in enumerate(written):
        expected = [rfc3339((second + offset * 10**6) * 10**9) for second in [*seconds] * 10]
        assert [text[14:41] for text in texts] == expected


def test_caches_are_bounded() -> None:
    """Ten thousand names do not grow the memory of a layout without bound."""
    layout = RecordLayout(
        lambda name: ((name,), 0, (None,) * 8, (None, "b")), lambda key: {"level": key[0]}, ("a", "b"), IdsText()
    )
    for number in range(10_000):
        layout.text(str(number))
    assert len(layout._texts) <= 4_096
    layout.text("x" * 10_000)
    assert ("x" * 10_000,) not in layout._texts


@given(st.integers(min_value=0, max_value=4_102_444_800 * 10**9))
def test_times(unix_ns: int) -> None:
    """A time is RFC 3339 in UTC with microseconds, cut and not rounded."""
    text = rfc3339(unix_ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert int(text[-7:-1]) == unix_ns // 1_000 % 1_000_000
