"""The shipped policies: what they deny, what they let through, and what they refuse to be made of."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.records import Operation, Severity, Stage, Verdict
from taskpilot_obs.safety.policies import (
    AllowTools,
    DenyPattern,
    DenyTools,
    DenyWords,
    MaxInputLength,
    MaxTokens,
    RequireApproval,
)
from taskpilot_obs.safety.subjects import CheckInput, PolicyResult, deny, require_approval

NOT_TEXT: Any = 1
NOT_A_NUMBER: Any = "9"


def said(text: Any) -> Any:
    return CheckInput(Operation.AGENT, Stage.INPUT, text)


def call(tool: Any, agent: Any = "planner", **arguments: Any) -> Any:
    return CheckInput(Operation.TOOL, Stage.INPUT, tool=tool, agent=agent, arguments=arguments)


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("please delete it", True),
        ("DELETE", True),
        ("(delete)", True),
        ("undelete it", False),
        ("deleted", False),
        ("delete_all", False),
        ("\uff24\uff25\uff2c\uff25\uff34\uff25 it", True),
        ("de\u200blete it", True),
        ("del\u200eete it", True),
        ("d\ufe0felete it", True),
        ("del\u034fete it", True),
        ("d\u2063el\u180eete it", True),
        ("\u0130stanbul", True),
        ("istanbul", True),
        ("drop  table", True),
        ("now DROP\n\t\u00a0 Table", True),
        ("drop-table", False),
        ("now Drop Table users", True),
        ("drop tables", False),
        ("raindrop table", False),
        ("raindrop table, drop table", True),
        ("I write C++ here", True),
        ("STRASSE", True),
        ("stra\u00dfe", True),
        ("\u8bf7\u5220\u9664\u6587\u4ef6", True),
        ("\u0e25\u0e1a\u0e44\u0e1f\u0e25\u0e4c", True),
        ("\u0443\u0434\u0430\u043b\u0438", True),
        ("\u0443\u0434\u0430\u043b\u0438\u043c", False),
        ("हिन्द है", True),
        ("यह हिन्दी है", False),
        ("हिन्द।", True),
        ("लिखो हि\u200cन्द", True),
        ("மிழ்", False),
        ("தமிழ் மொழி", True),
        ("தமிழை", False),
        ("عَرَبِيّ", False),
        ("ร้าน", False),
        ("ไปลบไฟล์", True),
        ("delete\u0337", True),
        ("", False),
    ],
)
def test_denied_words_are_whole_words_in_any_case_and_script(text: Any, denied: Any) -> None:
    """Words are found whole, in any case and compatibility form, and inside of scripts that write no spaces."""
    words = ["Delete", "drop table", "c++", "straße", "删除", "ลบ", "удали", "ISTANBUL", "हिन्द", "தமிழ்", "عرب"]
    assert (DenyWords(words).check(said(text)).verdict is Verdict.DENY) is denied
    many = [*words, *(f"other{number}" for number in range(20))]
    assert (DenyWords(many).check(said(text)).verdict is Verdict.DENY) is denied


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_denied_word_between_spaces_is_always_found(before: Any, after: Any) -> None:
    """Whatever stands around, a denied word between spaces is denied."""
    assert DenyWords(["délete"]).check(said(f"{before} DÉLETE {after}")).verdict is Verdict.DENY


def test_denied_pattern_says_which() -> None:
    """A pattern is searched for in the text, and the reason names its number, not the text."""
    policy = DenyPattern([r"(?i)ignore (all|previous)", r"\d{3}-\d{2}-\d{4}"], severity="critical")
    ruling = policy.check(said("my number is 123-45-6789"))
    assert (ruling.verdict, ruling.reason) == (Verdict.DENY, "matches pattern 2")
    assert policy.check(said("Ignore previous orders")).reason == "matches pattern 1"
    assert policy.check(said("hello")).verdict is Verdict.ALLOW
    assert policy.severity is Severity.CRITICAL


def test_denied_pattern_is_linear_where_a_backtracking_engine_is_not() -> None:
    """A pattern that costs `re` 2^n steps on n characters comes back on 100,000 of them."""
    assert DenyPattern(r"^(a|aa)+$").check(said("a" * 100_000 + "b")).verdict is Verdict.ALLOW


@pytest.mark.parametrize("pattern", ["(a", r"(?<=a)b", r"(a)\1"])
def test_pattern_that_is_not_linear_is_refused(pattern: Any) -> None:
    """What RE2 does not take is refused when the policy is made."""
    with pytest.raises(ConfigurationError, match="RE2 does not take"):
        DenyPattern(pattern)


def test_pattern_without_the_engine_names_the_extra(monkeypatch: Any) -> None:
    """Without google-re2, making a DenyPattern says which extra brings it."""
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(MissingExtraError, match=r"taskpilot-obs\[safety\]"):
        DenyPattern("x")


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        (call("search"), True),
        (call("refund", amount=100), True),
        (call("refund", amount=101), False),
        (call("delete"), False),
        (call("delete", agent="other"), True),
        (said("delete"), True),
    ],
)
def test_allowed_tools_are_the_only_ones(subject: Any, allowed: Any) -> None:
    """Of the agents named, only the tools named may be called, and only with such arguments."""
    policy = AllowTools({"search": None, "refund": lambda arguments: arguments["amount"] <= 100}, agents=["planner"])
    assert (policy.check(subject).verdict is Verdict.ALLOW) is allowed


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        (call("search"), True),
        (call("shell", command="rm -rf /"), False),
        (call("shell", command="ls"), True),
        (call("shell", agent=None, command="rm"), False),
        (said("shell"), True),
    ],
)
def test_denied_tools(subject: Any, allowed: Any) -> None:
    """The tools named may not be called with arguments to which the predicate says yes, by any agent."""
    policy = DenyTools({"shell": lambda arguments: "rm" in arguments["command"]})
    assert (policy.check(subject).verdict is Verdict.ALLOW) is allowed


def test_approval() -> None:
    """A tool that needs an approval waits for one; other tools do not."""
    nobody = RequireApproval(["pay"])
    assert nobody.check(call("pay")).verdict is Verdict.REQUIRE_APPROVAL
    assert nobody.check(call("search")).verdict is Verdict.ALLOW
    asked = RequireApproval(["pay"], approved=lambda subject: subject.arguments["to"] == "known")
    assert asked.check(call("pay", to="known")) == PolicyResult(Verdict.ALLOW, "approved")
    assert asked.check(call("pay", to="new")).verdict is Verdict.REQUIRE_APPROVAL


class Later:
    """An object whose call is asynchronous."""

    async def __call__(self, _: Any) -> bool:
        return False


async def later(_: Any) -> bool:
    return False


def yielded(_: Any) -> Any:
    yield False


async def yielded_later(_: Any) -> Any:
    yield False


def passed_on(subject: Any) -> Any:
    return later(subject)


ASYNCHRONOUS = [later, Later(), partial(later), Later().__call__, yielded, yielded_later]


@pytest.mark.parametrize("function", ASYNCHRONOUS)
def test_functions_that_answer_later_are_refused(function: Any) -> None:
    """A coroutine and a generator are true, so a function that returns one would approve or match every call."""
    with pytest.raises(ConfigurationError, match=r"approved: .*, which is asynchronous"):
        RequireApproval(["pay"], approved=function)
    for kind in (AllowTools, DenyTools, RequireApproval):
        with pytest.raises(ConfigurationError, match=r"tools: .* not asynchronous"):
            kind({"pay": function})


@pytest.mark.parametrize("function", [passed_on, partial(Later())])
def test_awaitables_are_failures(function: Any) -> None:
    """An awaitable that a plain function returns is a failure of the check, and no coroutine is left unawaited."""
    with pytest.raises(TypeError, match="approved returned an awaitable"):
        RequireApproval(["pay"], approved=function).check(call("pay"))
    with pytest.raises(TypeError, match="a predicate returned an awaitable"):
        AllowTools({"pay": function}).check(call("pay"))


@pytest.mark.parametrize("answer", [1, "yes", [0], object()])
def test_only_true_approves(answer: Any) -> None:
    """A value that is merely true does not approve, and the reason names its type; None and False do not need that."""
    ruling = RequireApproval(["pay"], approved=lambda _: answer).check(call("pay"))
    named = f"approved returned an object of type {type(answer).__name__} in place of True"
    assert ruling == PolicyResult(Verdict.REQUIRE_APPROVAL, f"tool 'pay' needs an approval: {named}")
    for approved in (lambda _: None, lambda _: False):
        refused = RequireApproval(["pay"], approved=approved).check(call("pay"))  # type: ignore[arg-type]  # None is wrong
        assert refused == PolicyResult(Verdict.REQUIRE_APPROVAL, "tool 'pay' needs an approval")


def test_many_words_of_a_script_without_spaces_are_found_in_running_text() -> None:
    """A long list of Chinese words is searched within sentences, and one of English words by whole words."""
    chinese = DenyWords([chr(code) * 2 for code in range(0x4E00, 0x4E00 + 200)])
    assert chinese.check(said("abc\u4e05\u4e05\u5e01")).verdict is Verdict.DENY
    assert chinese.check(said("\u4e05\u5e01\u4e05")).verdict is Verdict.ALLOW
    english = DenyWords([f"word{number}" for number in range(200)])
    assert english.check(said("a word7, too")).verdict is Verdict.DENY
    assert english.check(said("a word7s, too")).verdict is Verdict.ALLOW


@given(st.integers(1, 50), st.integers(0, 100))
def test_input_length(limit: Any, length: Any) -> None:
    """Denied is what is longer than the limit, and nothing else."""
    ruling = MaxInputLength(limit).check(said("x" * length))
    denied = PolicyResult(Verdict.DENY, f"{length} characters, allowed are {limit}")
    assert ruling == (denied if length > limit else PolicyResult(Verdict.ALLOW))


@given(st.integers(1, 100), st.lists(st.integers(0, 60), max_size=12))
def test_tokens_are_one_violation_when_passed(limit: Any, calls: Any) -> None:
    """Over any sequence of LLM calls there is one denial at most, at the call that passes the limit."""
    policy = MaxTokens(limit)
    total, denials = 0, 0
    for tokens in calls:
        before = policy.check(CheckInput(Operation.CHAT, Stage.INPUT, tokens_so_far=total))
        assert before.verdict is (Verdict.REQUIRE_APPROVAL if total > limit else Verdict.ALLOW)
        total += tokens
        after = policy.check(CheckInput(Operation.CHAT, Stage.OUTPUT, tokens_so_far=total, call_tokens=tokens))
        if after.verdict is Verdict.DENY:
            assert after.reason == f"{total} tokens, allowed are {limit}"
            denials += 1
    assert denials == (total > limit)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DenyWords([]), "words"),
        (lambda: DenyWords(["a", " "]), "words"),
        (lambda: DenyWords(["a", NOT_TEXT]), "words"),
        (lambda: DenyWords(["a", "\u200b"]), "words"),
        (lambda: DenyWords(["a"], severity="grave"), "severity: expected one of low, medium, high, critical"),
        (lambda: DenyWords(["a"], stages="middle"), "stages: expected one of input, output"),
        (lambda: DenyWords(["a"], stages=()), "stages"),
        (lambda: DenyWords(["a"], name=" "), "name"),
        (lambda: DenyWords(["a"], name="x" * 101), "name"),
        (lambda: DenyPattern([]), "patterns"),
        (lambda: AllowTools([]), "tools"),
        (lambda: AllowTools({}), "tools"),
        (lambda: DenyTools({"x": "y"}), "tools"),
        (lambda: DenyTools(["x"], agents=[]), "agents"),
        (lambda: RequireApproval(["x"], approved=NOT_TEXT), "approved"),
        (lambda: MaxInputLength(0), "characters"),
        (lambda: MaxInputLength(True), "characters"),
        (lambda: MaxTokens(NOT_A_NUMBER), "tokens"),
    ],
)
def test_wrong_options_are_refused_at_construction(make: Any, said: Any) -> None:
    """A wrong option is refused when the policy is made, by name and with what is allowed."""
    with pytest.raises(ConfigurationError, match=rf"^{said}\b"):
        make()


def test_one_word_is_taken_for_a_list_of_one() -> None:
    """`DenyWords("delete")` denies the word, not its letters."""
    policy = DenyWords("delete", stages="output")
    assert policy.stages == (Stage.OUTPUT,)
    assert policy.check(said("d e l")).verdict is Verdict.ALLOW


def test_rulings_by_word() -> None:
    """`deny` and `require_approval` make rulings; a severity may be a word."""
    assert deny("why", severity="low") == PolicyResult(Verdict.DENY, "why", Severity.LOW)
    assert deny() == PolicyResult(Verdict.DENY)
    assert require_approval("ask") == PolicyResult(Verdict.REQUIRE_APPROVAL, "ask")
