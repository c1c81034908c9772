"""Opens the files of an audit log: only regular files of this user that others cannot write, and no symbolic links.

An audit log is often in a folder that several users share. A link or a prepared file in its place must not make this
process append to a file that another user chose, nor disclose the records to another user.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

FILE_MODE = 0o600
_GROUP_MAY_WRITE_OR_OTHERS_MAY_ANYTHING = 0o027
"""Group read (0640) is allowed, because log shippers run under a group of their own."""
_GZIP = b"\x1f\x8b"


class UnfitFileError(OSError):
    """A file at the log's path is unsafe for this process to write to."""


class DamagedFileError(OSError):
    """A compressed file of the log cannot be read to its end."""


def open_own(path: Path, flags: int) -> int:
    """Open a file of the log for writing, without following a link; with `O_CREAT` it is created with mode 0600.

    Args:
        path: the file.
        flags: as for `os.open`.

    Raises:
        UnfitFileError: the file is a link, is not regular, belongs to another user, or others may write or read it.
        OSError: the file cannot be opened.
    """
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unfit(path, "is a symbolic link, which is not followed") from error
        raise
    try:
        _check(path, os.fstat(file))
    except OSError:
        os.close(file)
        raise
    return file


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unfit(path, "is not a regular file")
    if found.st_uid != os.geteuid():
        raise _unfit(path, f"belongs to another user (uid {found.st_uid}; this process runs as {os.geteuid()})")
    if found.st_mode & _GROUP_MAY_WRITE_OR_OTHERS_MAY_ANYTHING:
        mode = stat.S_IMODE(found.st_mode)
        raise _unfit(path, f"has mode {mode:04o}, so other users can read or change it; `chmod 600` it, or 640")


def _unfit(path: Path, reason: str) -> UnfitFileError:
    return UnfitFileError(errno.EPERM, reason, str(path))


def is_regular(path: Path) -> bool:
    """Whether the path is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def open_to_read(path: Path) -> BinaryIO:
    """Open a file of the log for reading, without following a link; a compressed one is decompressed as it is read.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    file = path.open("rb") if is_regular(path) else None
    if file is None:
        path.lstat()  # raises FileNotFoundError, which readers expect for files removed meanwhile
        raise _unfit(
            path, "is a symbolic link, which is not followed" if path.is_symlink() else "is not a regular file"
        )
    try:
        is_compressed = file.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
    except OSError:
        file.close()
        raise
    if not is_compressed:
        return file
    file.close()
    return cast("BinaryIO", gzip.open(path))
