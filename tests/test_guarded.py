"""The one broad except: our failures are counted and logged, never raised, never quoted, and never without bound."""

from __future__ import annotations

import asyncio

import pytest

from taskpilot_obs._support import guarded as module
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs._support.guarded import LOG_INTERVAL_S, forget_causes, guarded, log_failure
from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.semconv import INTERNAL_ERRORS


def fail(error: BaseException) -> None:
    raise error


def errors(counters: InternalCounters, where: str) -> int:
    counters.take()
    return counters.totals[INTERNAL_ERRORS, (where,)]


def test_a_failure_is_swallowed_and_counted_once() -> None:
    """Each failure is one count under its place, by the statement as by the call; success is none."""
    counters = InternalCounters()
    with guarded("here", counters):
        fail(ValueError())
    guarded("here", counters).call(fail, ValueError())
    with guarded("here", counters):
        pass
    guarded("here", counters).call(id, 1)
    assert errors(counters, "here") == 2


def test_without_a_tally_a_failure_is_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing counts, the failure is swallowed and logged all the same."""
    with guarded("here"):
        fail(ValueError())
    assert [record.name for record in caplog.records] == ["taskpilot_obs"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()])
def test_what_is_no_exception_passes(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """What is addressed to the user's code arrives there as the same object, uncounted and unlogged."""
    counters = InternalCounters()
    with pytest.raises(type(error)) as by_statement, guarded("here", counters):
        fail(error)
    with pytest.raises(type(error)) as by_call:
        guarded("here", counters).call(fail, error)
    assert by_statement.value is by_call.value is error
    assert errors(counters, "here") == 0
    assert caplog.records == []


@pytest.mark.promise("content-off")
def test_the_errors_text_stays_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The log names place, class and line of code; the message, which may quote a prompt, is nowhere in it."""
    with guarded("audit_log"):
        fail(ValueError("my secret prompt"))
    (record,) = caplog.records
    assert "audit_log failed with ValueError at " in record.getMessage()
    assert __file__ in record.getMessage()
    assert record.exc_info is None
    assert "secret" not in caplog.text


def test_an_error_without_a_traceback_is_logged_without_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """An error that was never raised has no line of code to name."""
    log_failure("here", ValueError())
    assert caplog.messages == ["taskpilot_obs: here failed with ValueError [internal-error]"]


def test_each_cause_is_logged_at_most_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cause is a place and a class of error: repeated within a minute it is silent but counted, then heard again."""
    now = 1_000.0
    monkeypatch.setattr("taskpilot_obs._support.guarded.time.monotonic", lambda: now)
    counters = InternalCounters()

    def logged(where: str, error: Exception) -> int:
        before = len(caplog.records)
        guarded(where, counters).call(fail, error)
        return len(caplog.records) - before

    assert [
        logged("a", ValueError()),
        logged("a", ValueError()),
        logged("a", KeyError()),
        logged("b", ValueError()),
    ] == [
        *(1, 0),
        *(1, 1),
    ]
    now += LOG_INTERVAL_S - 1
    assert logged("a", ValueError()) == 0
    now += 1
    assert [logged("a", ValueError()), logged("a", ValueError())] == [1, 0]
    assert errors(counters, "a") == 6
    forget_causes()
    assert logged("a", ValueError()) == 1


def test_the_memory_of_causes_is_bounded() -> None:
    """Classes of errors that are made at run time do not fill the memory."""
    for number in range(module._MAX_CAUSES + 10):
        log_failure("here", type(f"E{number}", (Exception,), {})())
    assert len(module._last_logged) <= module._MAX_CAUSES


@pytest.mark.parametrize("error", [StoreError("the spool is full"), ConfigurationError("the spool is full")])
def test_what_we_say_ourselves_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A store that refuses, or an option that is wrong, says in the log what to do: these words are the library's."""
    with guarded("store"):
        fail(error)
    (record,) = caplog.records
    assert record.getMessage().endswith(": the spool is full [internal-error]")
