"""A lock on a folder: one process at a time writes there, and the system releases it when that process dies."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""What a lock that another process holds is refused with, depending on the file system."""


AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of open: follow no link, and wait for nobody at the other end of a pipe."""


class HeldError(RuntimeError):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file that this makes, writes the process and its host into, and removes in the end.

    The lock is flock's. Linux passes it on to an NFS server, which releases it when the process or, after a lease of
    some 90 s, the whole host dies. Where the file system has no locks, one line on standard error says so, and the
    context is entered without one. OSError if `path` is a link or no file: what it leads to would be written over.
    """
    descriptor, held = _acquire(path)
    try:
        if held:
            with contextlib.suppress(OSError):  # a full disk takes the name of the owner, but not the lock
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _open(path: Path) -> int:
    """A descriptor of the file at `path`, which no other name leads to."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | AS_IT_IS, 0o666)
    except OSError:
        if not os.path.lexists(path) or (path.is_file() and not path.is_symlink()):
            raise
    else:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
    raise OSError(errno.EINVAL, f"its {path.name} is a link, or no file; remove it")


def _acquire(path: Path) -> tuple[int, bool]:
    """A descriptor of the file at `path`, and whether it is locked, which is not so where that cannot be done."""
    while True:
        descriptor = _open(path)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock on this system")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor, True
            os.close(descriptor)  # the owner before has just removed this file: another one counts now
        except OSError as error:
            if error.errno not in HELD:
                print(
                    f"{path.parent} is not locked ({error.strerror}): let no second process write there",
                    file=sys.stderr,
                )
                return descriptor, False
            time.sleep(0.1)  # until an owner that has locked the file this moment has written its name
            owner = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise HeldError(" ".join(owner.split()) or "another process") from error
