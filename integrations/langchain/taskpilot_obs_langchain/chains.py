"""What a run that LangChain calls a chain is: a graph's node, an agent, or plumbing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from taskpilot_obs_langchain.runs import RunEntry

_AGENT_GRAPH: Final = "langchain_create_agent"
_UNNAMED: Final = "LangGraph"
_NODE_TAG: Final = "graph:step:"
_START: Final = "__start__"
"""LangGraph's own node, which runs where the edges that leave the start are conditional."""
_PAUSE: Final = "langgraph.errors.GraphInterrupt"


class ChainKind(Enum):
    """What becomes of a chain's run."""

    PLUMBING = "plumbing"
    """Prompts, parsers, lambdas, sequences, graphs within graphs: nothing is recorded."""
    ROOT = "root"
    """The outermost run."""
    AGENT = "agent"
    """A node of a graph."""
    AGENT_GRAPH = "agent_graph"
    """A graph that an LLM drives (`create_agent`); its nodes are steps of this one agent."""
    STEP = "step"
    """A node of such a graph."""


PLUMBING: Final = ChainKind.PLUMBING
ROOT: Final = ChainKind.ROOT
"""Looked up once: a member of an enumeration costs as much as a clock reading."""


def kind_of(name: str, tags: Sequence[str] | None, metadata: Mapping[str, Any], above: RunEntry | None) -> ChainKind:
    """The kind of a run, recognised by what LangChain and LangGraph state at its start."""
    if "ls_integration" not in metadata and "langgraph_node" not in metadata:
        return ChainKind.ROOT if above is None else ChainKind.PLUMBING
    of_agent = metadata.get("ls_integration") == _AGENT_GRAPH
    if above is None:
        return ChainKind.AGENT_GRAPH if of_agent else ChainKind.ROOT
    if metadata.get("langgraph_node") == name and _is_node(tags):
        if above.graph:
            return ChainKind.STEP
        return ChainKind.PLUMBING if name == _START else ChainKind.AGENT
    if of_agent and name == metadata.get("lc_agent_name", _UNNAMED) and not above.graph:
        return ChainKind.AGENT_GRAPH
    return ChainKind.PLUMBING


def agent_name(name: str, metadata: Mapping[str, Any] | None) -> str:
    """An agent's own name before the run's."""
    given = metadata.get("lc_agent_name") if metadata else None
    return given if isinstance(given, str) and given else name


def _is_node(tags: Sequence[str] | None) -> bool:
    return any(tag.startswith(_NODE_TAG) for tag in tags or ())


def is_own_node(name: str, above: RunEntry | None) -> bool:
    """Whether the run above is the node that an agent's graph is: then they are one agent."""
    if above is None or not above.mine or above.run is None or not above.run.callsite.is_agent:
        return False
    return name in {above.run.name, _UNNAMED}


def is_pause(kind: type[BaseException]) -> bool:
    """Whether an exception pauses the graph for a human; the graph's own run then ends without any."""
    return any(f"{ancestor.__module__}.{ancestor.__qualname__}" == _PAUSE for ancestor in kind.__mro__)
