"""Files that are at every moment either whole or absent."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from hcnn_core.files import AS_IT_IS as AS_IT_IS
from hcnn_core.files import HELD as HELD
from hcnn_core.files import flush_entries as flush_entries
from hcnn_core.files import open_regular as open_regular
from hcnn_core.files import read_text as read_text
from hcnn_core.files import write_atomically as write_atomically

PARTIAL = re.compile(r"\..+?(?:\.(\d+))?\.partial")
"""Names of files that are being written, with the writer's process."""


COMMANDS_OF_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that reverse what is written; a file's names may hold them."""


def harmless(text: str) -> str:
    """Return a text with what a terminal takes for commands as escape sequences of Python."""
    return COMMANDS_OF_TERMINALS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gives, on a command line or as an argument: `~` is the home folder.

    Whatever opens a user's path calls this. A user of whom the system knows no home stays as written.
    """
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def make_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder and those that it lies in, and flush the entry of each to the disk: after a power cut it is there.

    OSError if that cannot be done; FileExistsError if it is there and `exist_ok` is not given.
    """
    new = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=exist_ok)
    for folder in new:
        flush_entries(folder.parent)


@contextlib.contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file or a folder, which then takes the name of the path; nothing is left if that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)
        raise


def remove_partial_files(folder: Path, *names: str) -> None:
    """Remove half-written files of processes that no longer run, and of earlier ones with this process's number.

    In a folder of one's own, files of any name; elsewhere files and folders whose whole names the expressions match.
    """
    pattern = re.compile(rf"\.(?:{'|'.join(names)})\.(\d+)\.partial") if names else PARTIAL
    for path in folder.glob(".*.partial"):
        match = pattern.fullmatch(path.name)
        if match and not _other_process_runs(int(match[1] or 0)):
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
