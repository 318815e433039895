"""A lock on a folder: one process at a time writes there, and the system releases it when that process dies."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
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


class HeldError(RuntimeError):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file that this makes, writes the process and its host into, and removes in the end.

    The lock is flock's. Linux passes it on to an NFS server, which releases it when the process or, after a lease of
    some 90 s, the whole host dies. Where the file system has no locks, one line on standard error says so, and the
    context is entered without one.
    """
    descriptor = _acquire(path)
    try:
        with contextlib.suppress(OSError):  # a full disk takes the name of the owner, but not the lock
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """A descriptor of the file at `path`, locked where that can be done."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock on this system")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)  # the owner before has just removed this file: another one counts now
        except OSError as error:
            if error.errno not in HELD:
                print(
                    f"{path.parent} is not locked ({error.strerror}): let no second process write there",
                    file=sys.stderr,
                )
                return descriptor
            time.sleep(0.1)  # until an owner that has locked the file this moment has written its name
            owner = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise HeldError(" ".join(owner.split()) or "another process") from error
