"""What is known of LangChain's runs while they last: which invocation each is, or is beneath.

An entry lives as long as LangChain's own run: it is a weak reference to the run's ID, which LangChain's run manager
holds. After a stream that is not read to its end, a dropped task or a missing callback, the entry disappears with
the manager, and the invocation ends as abandoned. So nothing has to be swept, and nothing accumulates.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple, final
from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

from taskpilot_obs.integration import add_current_resolver

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

    from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, Recorder, Scope, Step
    from taskpilot_obs_langchain.middleware import Hook


class StreamedUsage(NamedTuple):
    """The usage that the chunks of a stream have stated."""

    last: UsageMetadata
    """By the latest of them."""
    usage: UsageMetadata
    """By all of them."""
    repeats: bool
    """Whether a chunk stated again what another had: then their sum counts it more than once."""


@final
class Link(weakref.ref[UUID]):
    """One run that is plumbing: all that is known of it is what it stands beneath."""

    __slots__ = ("key", "node", "under")

    key: int
    node: RunEntry
    """The nearest run above that is more than plumbing."""
    under: Link | RunEntry
    """The run that LangChain names as its parent."""


@final
class RunEntry(weakref.ref[UUID]):
    """One run of LangChain's. Slots are set by `note`, and by who begins an invocation for it."""

    __slots__ = (
        "above",
        "cacheable",
        "gap",
        "graph",
        "hook",
        "key",
        "left",
        "mine",
        "open",
        "owner",
        "paused",
        "run",
        "scopes",
        "step",
        "under",
    )

    key: int
    owner: object
    """The handler that saw the run first; another one, which a user gave in another place, is not heard."""
    above: RunEntry | None
    """The nearest run above that is more than plumbing."""
    under: Link | RunEntry | None
    """The run that LangChain names as its parent."""
    run: ActiveInvocation | None
    """The invocation that this run is, or is beneath."""
    mine: bool
    """Whether the run is an invocation, rather than plumbing beneath one."""
    open: dict[int, RunEntry]
    """The invocations that have not ended, of all that belongs to the same root."""
    paused: bool
    """Whether something beneath waits for a human."""
    left: bool
    """Whether the consumer of the stream that this run is part of has stopped reading."""
    cacheable: bool
    """Whether LangChain looks the call up in a cache of its own."""
    gap: str | None
    """What the request asks for that costs more than its tokens, and that a streamed answer does not repeat."""
    graph: bool
    """Whether it is the graph of an agent, whose nodes are not agents themselves."""
    hook: Hook | None
    scopes: tuple[Scope | None, Scope] | None
    """The request context that was found, and the one that replaces it because LangGraph names the conversation."""
    step: Step | None


class RunRegistry(dict[int, RunEntry | Link]):
    """The runs that a recorder's handlers share, by the number of their ID, so that a run is recorded once."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: dict[int, LlmInvocation] = {}
        """The LLM calls without a token yet: all that is asked for every token of a stream is whether there are any."""
        self.stated: dict[int, StreamedUsage] = {}
        """What the chunks of streams have stated of usage, from the first that did."""

    def forget(self, gone: weakref.ref[UUID]) -> None:
        """Drop a run whose ID is no longer referenced."""
        if isinstance(gone, RunEntry | Link) and self.get(gone.key) is gone:
            del self[gone.key]
            if isinstance(gone, RunEntry):
                gone.open.pop(gone.key, None)
                self.silent.pop(gone.key, None)
                self.stated.pop(gone.key, None)


_all: weakref.WeakKeyDictionary[Recorder, RunRegistry] = weakref.WeakKeyDictionary()


def runs_of(recorder: Recorder) -> RunRegistry:
    """The runs of a recorder."""
    found = _all.get(recorder)
    return found if found is not None else _all.setdefault(recorder, RunRegistry())


def link(runs: RunRegistry, run_id: UUID, under: Link | RunEntry, node: RunEntry) -> None:
    """Remember a run that is plumbing. Most runs are, so this is kept small; being told twice changes nothing."""
    made = Link(run_id, runs.forget)
    key = made.key = run_id.int
    made.under, made.node = under, node
    runs[key] = made


def note(runs: RunRegistry, owner: object, run_id: UUID, under: Link | RunEntry | None) -> RunEntry | None:
    """Remember a run that begins; None where it has been noted, by another handler or by the same one given twice.

    An ID that a caller uses again, in a new object, is a new run.
    """
    key = run_id.int
    known = runs.get(key)
    if type(known) is RunEntry:
        if known.owner is not owner or known() is run_id:
            return None
        known.open.pop(key, None)
    entry = RunEntry(run_id, runs.forget)
    entry.key, entry.owner, entry.under = key, owner, under
    entry.mine = entry.paused = entry.left = entry.graph = entry.cacheable = False
    entry.hook = entry.step = entry.gap = None
    if under is None:
        entry.above = entry.run = entry.scopes = None
        entry.open = {}
    else:
        above = entry.above = under.node if type(under) is Link else under
        entry.run, entry.scopes, entry.open = above.run, above.scopes, above.open
    runs[key] = entry
    return entry


def take(runs: RunRegistry, run_id: UUID) -> RunEntry | None:
    """Remove and return a run that ends; None for plumbing, and for a run whose start was not seen."""
    entry = runs.pop(run_id.int, None)
    if type(entry) is not RunEntry:
        return None
    close(runs, entry)
    return entry


def close(runs: RunRegistry, entry: RunEntry) -> None:
    """Settle what is kept of a run that ends."""
    if entry.mine:
        entry.open.pop(entry.key, None)
        runs.silent.pop(entry.key, None)
        runs.stated.pop(entry.key, None)
        if entry.step is not None and entry.run is not None:
            entry.run.detach(entry.step)


def end_beneath(runs: RunRegistry, entry: RunEntry | Link, error: BaseException) -> None:
    """End the open runs beneath a cancelled or abandoned one, because LangChain may never report their end."""
    for below in open_beneath(entry):
        runs.pop(below.key, None)
        runs.silent.pop(below.key, None)
        runs.stated.pop(below.key, None)
        below.open.pop(below.key, None)
        if below.run is not None:
            below.run.fail(error)


def open_beneath(entry: RunEntry | Link) -> list[RunEntry]:
    """The invocations beneath a run that have not ended."""
    open_now = (entry if type(entry) is RunEntry else entry.node).open
    return [below for below in list(open_now.values()) if _is_beneath(below, entry)]


def mark_left(entry: RunEntry) -> None:
    """Distinguish a stream that was read to its end from one that was abandoned.

    LangChain swallows the GeneratorExit and reports an end, with the runs beneath still open. Those it then reads to
    their end by itself, so that their usage is known all the same.
    """
    for below in open_beneath(entry):
        below.left = entry.left = True


def _is_beneath(below: RunEntry, entry: RunEntry | Link) -> bool:
    under = below.under
    while under is not None and under is not entry:
        under = under.under
    return under is entry


def innermost(known: ActiveInvocation | None, found: ActiveInvocation | None) -> ActiveInvocation | None:
    """Of what the context says runs here and what LangChain says, the one that is beneath the other."""
    if found is None or found.ended_ns:
        return known
    if known is None or known is found:
        return found
    above = known.parent
    while above is not None and above is not found:
        above = above.parent
    return found if above is None else known


def _ask_langchain(known: ActiveInvocation | None) -> ActiveInvocation | None:
    """What runs here, as LangChain's own context variable tells it, which it never leaks to a caller."""
    config = var_child_runnable_config.get()
    if config is None:
        return known
    callbacks = config.get("callbacks")
    run_id = getattr(callbacks, "parent_run_id", None)
    if run_id is None:
        return known
    for runs in list(_all.values()):
        found = runs.get(run_id.int)
        if found is not None:
            return innermost(known, (found.node if type(found) is Link else found).run)
    return known


add_current_resolver(_ask_langchain)
