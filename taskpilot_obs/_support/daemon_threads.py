"""Calls in threads that do not hold up the end of the process, as those of `ThreadPoolExecutor` do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_in_daemon(call: Callable[[], T], name: str) -> Future[T]:
    """Call a function in a daemon thread of its own, and return the future of its result.

    Args:
        call: what to call.
        name: of the thread.

    Raises:
        RuntimeError: this process may start no more threads.
    """
    answer: Future[T] = Future()

    def work() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  raised where the result is waited for
            answer.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return answer
