"""LangChain and LangGraph: one callback handler that records runs, agents, tools and LLM calls.

    chain.invoke(question, config={"callbacks": [ObservabilityHandler()]})

or, without touching call sites:

    with observe_langchain():
        chain.invoke(question)
"""

from __future__ import annotations

from taskpilot_obs_langchain.attachment import observe_langchain, with_stream_usage
from taskpilot_obs_langchain.handler import ObservabilityHandler

__all__ = ["ObservabilityHandler", "observe_langchain", "with_stream_usage"]
