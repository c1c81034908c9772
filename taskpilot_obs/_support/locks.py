"""Locks: whether they are still those of the process, and taking one without losing it to an interrupt."""

from __future__ import annotations

import threading


def acquire_into(held: list[bool], lock: threading.Lock, timeout_s: float) -> None:
    """Wait for a lock, and append whether it was taken, so that a `finally` knows what to release.

    A single C call takes the lock and records it, because a Ctrl-C in between would leave the lock held for ever.

    Args:
        held: gets the result.
        lock: the lock.
        timeout_s: how long to wait at most.
    """
    held.extend(map(lock.acquire, (True,), (timeout_s,)))


def is_current_lock(lock: object) -> bool:
    """Whether `threading.Lock` still makes locks of this type.

    gevent and eventlet replace it when they patch, which may be after a lock was made (`gunicorn -k gevent --preload`).
    A greenlet that waits for an unpatched lock blocks all others for ever.
    """
    return type(lock) is type(threading.Lock())
