"""Signals as a shell in the foreground gives them to the programs that it starts."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Undo what `nohup`, a background job or a CI runner made of SIGINT.

    A shell starts background jobs with SIGINT ignored, and every child inherits that: Python then installs no handler,
    and Ctrl-C, which some tests press, does nothing. A handler is not inherited, so children start with the default.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
