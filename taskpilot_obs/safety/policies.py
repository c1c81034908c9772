"""The shipped policies. Each validates its options when it is made, and may be shared by threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.records import Severity, Stage, Verdict
from taskpilot_obs.safety.asked import Approved, answers_later, as_approved, at_once, settle_approval
from taskpilot_obs.safety.options import INPUT, NamedCheck, Stages, as_words, positive
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult
from taskpilot_obs.safety.words import DenyWords

__all__ = ["AllowTools", "DenyPattern", "DenyTools", "DenyWords", "MaxInputLength", "MaxTokens", "RequireApproval"]

Predicate = Callable[[Mapping[str, object]], bool]
"""Takes a tool call's arguments by name, and returns whether a rule applies to them."""
Tools = Collection[str] | Mapping[str, Predicate | None]


class DenyPattern(NamedCheck):
    """Denies text that matches one of these patterns, in time linear in the text for any pattern.

    Patterns use RE2 syntax, which is that of `re` without look-around and back-references.

    Args:
        patterns: one or several.
        name: of the policy; a metric label.
        severity: of a violation.
        stages: where it is asked: input, output or both.

    Raises:
        ConfigurationError: an option is not as described, or RE2 rejects the pattern.
        MissingExtraError: google-re2 is not installed (extra `safety`).
    """

    __slots__ = ("_patterns",)

    def __init__(
        self,
        patterns: str | Iterable[str],
        *,
        name: str = "deny_pattern",
        severity: Severity | str = Severity.MEDIUM,
        stages: Stages | Stage | str = INPUT,
    ) -> None:
        super().__init__(name, severity, stages)
        self._patterns = tuple(_linear(pattern) for pattern in as_words("patterns", patterns))

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Look for the patterns."""
        for number, pattern in enumerate(self._patterns, 1):
            if pattern.search(subject.text) is not None:
                return PolicyResult(Verdict.DENY, f"matches pattern {number}")
        return ALLOW


def _linear(pattern: str) -> Any:
    try:
        import re2  # type: ignore[import-untyped]  # it has no stubs
    except ImportError:
        raise MissingExtraError("DenyPattern", "safety") from None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ConfigurationError(f"patterns: RE2 does not take {pattern!r}: {error}") from None


class _ToolPolicy(NamedCheck):
    """Base of the policies of tool calls, for some agents or for all."""

    __slots__ = ("_agents", "_tools")

    default_name: ClassVar[str]

    def __init__(
        self,
        tools: Tools,
        *,
        agents: Iterable[str] | None = None,
        name: str | None = None,
        severity: Severity | str = Severity.HIGH,
    ) -> None:
        super().__init__(self.default_name if name is None else name, severity)
        rules = tools if isinstance(tools, Mapping) else dict.fromkeys(as_words("tools", tools))
        wrong = [tool for tool, rule in rules.items() if rule is not None and not _is_predicate(rule)]
        if not rules or wrong:
            expected = "names, or names with predicates of the arguments that are not asynchronous"
            raise ConfigurationError(f"tools: expected {expected}, got {tools!r}")
        self._tools: dict[str, Predicate | None] = dict(rules)
        self._agents = None if agents is None else frozenset(as_words("agents", agents))

    def _concerns(self, subject: CheckInput) -> bool:
        return subject.tool is not None and (self._agents is None or subject.agent in self._agents)

    def _applies(self, subject: CheckInput) -> bool:
        """Whether the call's tool is listed and its predicate matches the arguments."""
        if subject.tool not in self._tools:
            return False
        predicate = self._tools[subject.tool]
        return predicate is None or bool(at_once("a predicate", predicate(subject.arguments)))


def _is_predicate(rule: object) -> bool:
    """Whether it can be asked; what an asynchronous function returns would be true for any arguments."""
    return callable(rule) and not answers_later(rule)


class AllowTools(_ToolPolicy):
    """Denies every tool call but these.

    `AllowTools(["search", "read"], agents=["Researcher"])`,
    `AllowTools({"refund": lambda arguments: arguments["amount"] <= 100})`.

    Args:
        tools: names of tools; as a mapping, each with a predicate of the call's arguments, or None for any arguments.
        agents: whose calls are judged; all agents' when left out.
        name: of the policy; a metric label; by default `allow_tools`.
        severity: of a violation.

    Raises:
        ConfigurationError: an option is not as described.
    """

    __slots__ = ()
    default_name = "allow_tools"

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Is it one of the tools?"""
        if not self._concerns(subject) or self._applies(subject):
            return ALLOW
        return PolicyResult(Verdict.DENY, f"tool {subject.tool!r} is not allowed so")


class DenyTools(_ToolPolicy):
    """Denies these tool calls; arguments as for `AllowTools`, where the predicate says which calls are denied."""

    __slots__ = ()
    default_name = "deny_tools"

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Is it one of the tools?"""
        if self._concerns(subject) and self._applies(subject):
            return PolicyResult(Verdict.DENY, f"tool {subject.tool!r} is denied")
        return ALLOW


class RequireApproval(_ToolPolicy):
    """Lets these tool calls go ahead only if a person has approved them; arguments as for `AllowTools`.

    Args:
        tools: which calls need an approval.
        approved: a function, not asynchronous, that is asked before each such call; only True approves. Without it,
            no call is approved.
        agents: whose calls are judged; all agents' when left out.
        name: of the policy; a metric label.

    Raises:
        ConfigurationError: an option is not as described.
    """

    __slots__ = ("_approved",)

    def __init__(
        self,
        tools: Tools,
        *,
        approved: Approved | None = None,
        agents: Iterable[str] | None = None,
        name: str = "require_approval",
    ) -> None:
        super().__init__(tools, agents=agents, name=name, severity=Severity.MEDIUM)
        self._approved = as_approved(approved)

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Does it need an approval, and is there one?"""
        if not (self._concerns(subject) and self._applies(subject)):
            return ALLOW
        return settle_approval(self._approved, subject, f"tool {subject.tool!r}")


class MaxInputLength(NamedCheck):
    """Denies input of more than so many characters.

    Args:
        characters: the most that is allowed.
        name: of the policy; a metric label.
        severity: of a violation.

    Raises:
        ConfigurationError: an option is not as described.
    """

    __slots__ = ("_limit",)

    def __init__(
        self, characters: int, *, name: str = "max_input_length", severity: Severity | str = Severity.LOW
    ) -> None:
        super().__init__(name, severity)
        self._limit = positive("characters", characters)

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Count."""
        length = len(subject.text)
        if length <= self._limit:
            return ALLOW
        return PolicyResult(Verdict.DENY, f"{length} characters, allowed are {self._limit}")


class MaxTokens(NamedCheck):
    """Limits the tokens of a run, summed over all LLM calls beneath it.

    Attached to a workflow or an agent, it counts each of its runs; attached to a recorder, each task. The LLM call that
    exceeds the limit is the run's one violation. Its answer is not withheld, because its tokens are spent. Later
    LLM calls of the run require an approval: in enforce mode they are refused.

    Args:
        tokens: the most that a run may take, input and output.
        name: of the policy; a metric label.
        severity: of a violation.

    Raises:
        ConfigurationError: an option is not as described.
    """

    __slots__ = ("limit", "refuses_at")
    counts_tokens = True

    def __init__(self, tokens: int, *, name: str = "max_tokens", severity: Severity | str = Severity.MEDIUM) -> None:
        super().__init__(name, severity, (Stage.INPUT, Stage.OUTPUT))
        self.refuses_at = INPUT
        self.limit = positive("tokens", tokens)

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Before an LLM call: is the limit passed already? After it: did this call pass it?"""
        if subject.tokens_so_far <= self.limit:
            return ALLOW
        if subject.stage is Stage.INPUT:
            return PolicyResult(Verdict.REQUIRE_APPROVAL, f"the run has taken more than {self.limit} tokens")
        if subject.tokens_so_far - subject.call_tokens > self.limit:
            return ALLOW
        return PolicyResult(Verdict.DENY, f"{subject.tokens_so_far} tokens, allowed are {self.limit}")
