"""A Celery task with an observed agent, run eagerly: no broker, no key, no network.

With a broker: `celery -A example worker --pool=prefork`, with PROMETHEUS_MULTIPROC_DIR set to an empty directory.
"""

from __future__ import annotations

from celery import Celery
from taskpilot_obs_celery import install

from taskpilot_obs import golden_signals, observe_agent, request_context

app = Celery("example")
app.conf.task_always_eager = True
install()


@observe_agent
def summarise(text: str) -> str:
    """An agent, without its model."""
    return text[:20]


@app.task  # type: ignore[untyped-decorator]  # celery has no types
def summarise_later(text: str) -> str:
    """The task that a worker runs."""
    return summarise(text)


if __name__ == "__main__":
    with request_context("req-1", tenant_id="acme"):
        print(summarise_later.delay("a long text that takes hours to read").get())
    print("success rate:", golden_signals().success_rate)
