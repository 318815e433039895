"""Small files: one reader, bounded and of regular files only, and one writer, after which they are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

WAIT_FOR_NOBODY = getattr(os, "O_NONBLOCK", 0)
"""Flag of open: do not wait for the other end of a pipe."""

AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | WAIT_FOR_NOBODY
"""Flags of open: follow no link either."""

MOST_TEXT = 1 << 28
"""Bytes of the longest text file that is read."""

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""Errors of a lock that another process holds, depending on the file system."""

PATIENCE = 10.0
"""Seconds that a writer waits for others, each of which takes some milliseconds."""

Opener: TypeAlias = Callable[[str, int], int]


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open a file, for `open` as its opener; OSError if it is no regular file, or a link not to `follow`."""
    descriptor = -1
    try:
        descriptor = os.open(path, flags | (WAIT_FOR_NOBODY if follow else AS_IT_IS), 0o666)
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError as error:
        if (follow or not os.path.islink(path)) and error.errno != errno.ENXIO:  # of a pipe that nobody reads
            raise
        regular = False
    if not regular:
        if descriptor >= 0:
            os.close(descriptor)
        what = "it is no file" if follow else "it is a link, or no file; remove it"
        raise OSError(errno.EINVAL, what, os.fspath(path))
    return descriptor


follow_links = partial(open_regular, follow=True)
"""Opens a regular file that a link may lead to."""


def read_text(
    path: str | os.PathLike[str], *, opener: Opener | None = open_regular, encoding: str = "utf-8-sig",
    errors: str = "strict",
) -> str:  # fmt: skip
    """Return the text of a file, as editors of any system save it, without a mark of the encoding in front.

    OSError if the opener refuses it or if it is too long; UnicodeDecodeError if it is not text.
    """
    with open(path, "rb", opener=opener) as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise OSError(errno.EFBIG, f"it is longer than {MOST_TEXT >> 20} MiB", os.fspath(path))
    return content.decode(encoding, errors)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside `path`, flush it to the disk and move it there; an older one stays if that fails.

    The new file has the older one's mode. The file beside it is named after the process, so two writers of one path do
    not write into each other's.
    """
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as stream:
            if path.is_file() and not path.is_symlink():
                os.chmod(partial, stat.S_IMODE(os.stat(path).st_mode))
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error  # not a name that nobody gave
        raise
    flush_entries(path.parent)


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Change the text of a file by a function, which gets "" where there is no file; links are followed.

    The file is locked meanwhile, so that processes that write at once add to each other's text. OSError if the file is
    no regular file, cannot be written, or is locked by others for longer than `PATIENCE`.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with _locked(path):
        text = read_text(path, opener=follow_links, encoding="utf-8", errors="replace")
        try:
            write_atomically(path, change(text).encode())
        except BaseException:
            if is_new and not text:  # it was made to be locked
                path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file, which is made if there is none; without one where the file system has no locks."""
    deadline = time.monotonic() + PATIENCE
    while True:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, follow=True)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        except OSError as error:
            if error.errno not in HELD:
                break
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise OSError(error.errno, "another process holds it", os.fspath(path)) from error
            time.sleep(0.005)
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def flush_entries(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
