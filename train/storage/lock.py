"""A lock on a folder: one process at a time writes there, and the system releases it when that process dies."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from train.storage.files import AS_IT_IS, HELD

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


class HeldError(RuntimeError):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock on a file that this makes, writes the process and its host into, and removes in the end.

    Yields a function that locks the file again if it was removed by hand: HeldError if another process was quicker.

    The lock is flock's. Linux passes it on to an NFS server, which releases it when the process or, after a lease of
    some 90 s, the whole host dies. Where the file system has no locks, one line on standard error says so, and the
    context is entered without one. OSError if `path` is a link or no file: what it leads to would be written over.
    """
    descriptor, held = _signed(path)

    def keep() -> None:
        nonlocal descriptor, held
        if held and not _is_at(descriptor, path):
            removed = descriptor
            descriptor, held = _signed(path)
            os.close(removed)

    try:
        yield keep
    finally:
        with contextlib.suppress(OSError):
            if _is_at(descriptor, path):  # else it is another process's
                os.unlink(path)
        os.close(descriptor)


def _signed(path: Path) -> tuple[int, bool]:
    """Return the result of `_acquire`, and write the name of this process into the file if it is locked."""
    descriptor, held = _acquire(path)
    if held:
        with contextlib.suppress(OSError):  # a full disk takes the name of the owner, but not the lock
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
    return descriptor, held


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    """Return a descriptor of the file at `path`, which no other name leads to."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | AS_IT_IS, 0o666)
    except OSError:
        if not os.path.lexists(path) or (path.is_file() and not path.is_symlink()):
            raise
    else:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
    raise OSError(errno.EINVAL, f"its {path.name} is a link, or no file; remove it")


def _acquire(path: Path) -> tuple[int, bool]:
    """Return a descriptor of the file at `path`, and whether it is locked, not so where that cannot be done."""
    while True:
        descriptor = _open(path)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock on this system")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor, True
            os.close(descriptor)  # the owner before has just removed this file: another one counts now
        except OSError as error:
            if error.errno not in HELD:
                text = f"{path.parent} is not locked ({error.strerror}): let no second process write there"
                print(text, file=sys.stderr)
                return descriptor, False
            time.sleep(0.1)  # until an owner that has locked the file this moment has written its name
            owner = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise HeldError(" ".join(owner.split()) or "another process") from error
