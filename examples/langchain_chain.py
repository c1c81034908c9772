"""A LangChain chain, observed by a callback handler. Runs offline: python examples/langchain_chain.py."""

from typing import Any

from langchain_core.language_models import GenericFakeChatModel, LangSmithParams
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs import golden_signals, request_context
from taskpilot_obs.testing import capture_invocations


class FakeModel(GenericFakeChatModel):
    """Answers with a fixed text. In your service: ChatOpenAI(model="gpt-4o-mini")."""

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="openai", ls_model_name="gpt-4o-mini")


answer = AIMessage(
    "A callback is a function that somebody else calls.",
    usage_metadata={"input_tokens": 150, "output_tokens": 50, "total_tokens": 200},
    response_metadata={"model_name": "gpt-4o-mini-2024-07-18"},
)
prompt = ChatPromptTemplate.from_template("Explain in one sentence: {term}")
chain = (prompt | FakeModel(messages=iter([answer])) | StrOutputParser()).with_config(run_name="explain")
handler = ObservabilityHandler()  # one for all runs, concurrent ones too

if __name__ == "__main__":
    with capture_invocations() as seen, request_context(user_id="u1"):
        print(chain.invoke({"term": "callback"}, config={"callbacks": [handler]}))
        for run in seen:
            tokens = "" if run.usage is None else f", {run.usage.input_tokens} tokens in, {run.usage.output_tokens} out"
            print(f"{run.operation} {run.name}: {run.status}{tokens}")
    print(f"cost per successful task: {golden_signals('15m').cost_per_successful_task_usd} USD")
