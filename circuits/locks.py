"""Locks on files and folders that die with their holder, however it dies.

The one idea: the kernel keeps such a lock with the open file and drops it with the process, so no process number,
host or age has to be judged. Where there is none to be had (Windows, some network file systems), work goes on
without: locks here spare double work, and nothing is whole or broken by them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Lock = Literal["ours", "theirs", "none"]
"""Who holds it; none: this file system has no locks, or the file cannot be opened."""


@contextmanager
def locked(path: Path) -> Iterator[Lock]:
    """Takes the lock of a file, which is made if it is not there, or of a folder; without waiting."""
    descriptor = _opened(path)
    try:
        yield "none" if descriptor is None else _take(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(path: Path) -> int | None:
    # Over NFS only a file that is open for writing can be locked, and so a folder cannot.
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    try:
        return os.open(path, how, 0o666)
    except OSError:
        return None


def _take(descriptor: int) -> Lock:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "theirs"
    except (ImportError, OSError):
        return "none"
    return "ours"
