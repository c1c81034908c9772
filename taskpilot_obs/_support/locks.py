"""Whether locks that were made before are still those of the process."""

from __future__ import annotations

import threading


def is_current_lock(lock: object) -> bool:
    """Whether `threading.Lock` still makes locks of this type.

    gevent and eventlet replace it when they patch, which may be after a lock was made (`gunicorn -k gevent --preload`).
    A greenlet that waits for an unpatched lock blocks all others for ever.
    """
    return type(lock) is type(threading.Lock())
