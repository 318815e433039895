"""Files that are at every moment either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from pathlib import Path

PARTIAL = re.compile(r"\..+?(?:\.(\d+))?\.partial")
"""Names of files that are being written, with the writer's process."""


AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of open: follow no link, and wait for nobody at the other end of a pipe."""

MOST_TEXT = 1 << 28
"""Bytes of the longest text file that is read."""

COMMANDS_OF_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that reverse what is written; a file's names may hold them."""


def harmless(text: str) -> str:
    """The text with what a terminal takes for commands as escape sequences of Python."""
    return COMMANDS_OF_TERMINALS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gives, on a command line or as an argument: `~` is the home folder.

    Whatever opens a user's path calls this. A user of whom the system knows no home stays as written.
    """
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file of a run, for `open` as its opener; OSError if `path` is a link, or no regular file."""
    descriptor = -1
    try:
        descriptor = os.open(path, flags | AS_IT_IS, 0o666)
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError as error:
        if not os.path.islink(path) and error.errno != errno.ENXIO:  # of a pipe that nobody reads
            raise
        regular = False
    if not regular:
        if descriptor >= 0:
            os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a link, or no file; remove it", os.fspath(path))
    return descriptor


def read_regular(path: Path) -> str:
    """The text of a file of a run; OSError if it is a link, no regular file, or too long."""
    with open(path, "rb", opener=open_regular) as file:
        if os.fstat(file.fileno()).st_size > MOST_TEXT:
            raise OSError(errno.EFBIG, f"it is longer than {MOST_TEXT >> 20} MiB", os.fspath(path))
        return file.read(MOST_TEXT).decode(errors="replace")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside `path`, flush it to the disk and move it there; an older one stays if that fails.

    The file beside it is named after the process, so two writers of one path do not write into each other's.
    """
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as stream:
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


def make_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder and those that it lies in, and flush the entry of each to the disk: after a power cut it is there.

    OSError if that cannot be done; FileExistsError if it is there and `exist_ok` is not given.
    """
    made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=exist_ok)
    for folder in made:
        flush_entries(folder.parent)


def flush_entries(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partial_files(folder: Path, *names: str) -> None:
    """Remove what processes that no longer run, and earlier ones with this process's number, left half written.

    In a folder of one's own, files of any name; elsewhere files and folders whose whole names the expressions match.
    """
    pattern = re.compile(rf"\.(?:{'|'.join(names)})\.(\d+)\.partial") if names else PARTIAL
    for path in folder.glob(".*.partial"):
        found = pattern.fullmatch(path.name)
        if found and not _other_process_runs(int(found[1] or 0)):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if names and path.is_dir() else path.unlink()


def _other_process_runs(pid: int) -> bool:
    if pid in (0, os.getpid()):
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs and is another user's
        return True
    return True
