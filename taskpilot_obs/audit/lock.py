"""The lock on a chain's anchor file, which allows one writer per chain."""

from __future__ import annotations

import os
from pathlib import Path

from taskpilot_obs.audit.access import open_own
from taskpilot_obs.exceptions import ConfigurationError


def take_lock(path: Path) -> int | None:
    """Open a file and lock it until it is closed; None if another process or writer has the lock.

    Raises:
        OSError: the file cannot be opened, or is unsafe to write to.
        ConfigurationError: this operating system has no such locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigurationError(
            "an audit log in a file needs POSIX file locks; here, send it to stdout or a logger"
        ) from error
    while True:
        file = open_own(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        keep = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            keep = same_file(file, path)  # or it was removed between the opening and the locking
        except BlockingIOError:
            return None
        finally:
            if not keep:
                os.close(file)
        if keep:
            return file


def is_locked(path: Path) -> bool:
    """Whether a writer is at work on the chain whose anchor file this is."""
    if not path.exists():
        return False
    lock = take_lock(path)
    if lock is None:
        return True
    os.close(lock)
    return False


def same_file(file: int, path: Path) -> bool:
    """Whether an open file is still the one that the path names."""
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file)
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
