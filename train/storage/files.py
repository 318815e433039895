"""Files that are at every moment either whole or absent."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

PARTIAL = re.compile(r"\..+?(?:\.(\d+))?\.partial")
"""Names of files that are being written, with the writer's process."""


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
    with contextlib.suppress(OSError):  # not every file system can flush a directory
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


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
