"""Download of one file: resumed where it stopped, checked, and in place only when whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from train.data.dataset import DataError
from train.data.progress import heard
from train.storage.lock import HeldError, locked

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are here, and the bytes of the whole (0: unknown)."""

BLOCK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


def show_progress(name: str, done: int, total: int) -> None:
    """Write how far a download is to standard error: one moving line, or the last one where that is no terminal."""
    finished = done == total
    if finished or sys.stderr.isatty():
        whole = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{name}: {done / 1e6:.1f}{whole} MB", end="\n" if finished else "", file=sys.stderr, flush=True)
        heard()


def fetch(url: str, destination: Path, md5: str, *, size: int = 0, progress: Progress = show_progress) -> None:
    """Download a file, through ``destination.part``, which a later call resumes.

    Waits for another process that downloads the same file. `size` is the file's in bytes, 0 if it is not known.
    """
    folders = [folder for folder in (destination.parent, *destination.parent.parents) if not folder.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _alone(destination):
            if not destination.is_file():  # else another process was quicker
                _obtain(url, destination, md5, size, progress)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"cannot download {url} ({error})") from error
    finally:
        with contextlib.suppress(OSError):  # those that are not empty stay
            for folder in folders:
                folder.rmdir()


@contextlib.contextmanager
def _alone(destination: Path) -> Iterator[None]:
    """Wait until no other process downloads the file, and let none begin."""
    said = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(destination.with_name(f".{destination.name}.lock")))
            except HeldError as error:
                if not said:
                    print(f"{destination.name}: waiting for {error}, which downloads it", file=sys.stderr, flush=True)
                said = True
                time.sleep(0.2)
                continue
            yield
            return


def _obtain(url: str, destination: Path, md5: str, size: int, progress: Progress) -> None:
    """Complete the part, check it, and move it into place."""
    part = destination.with_name(destination.name + ".part")
    if os.path.lexists(part) and (part.is_symlink() or not part.is_file() or 0 < size < part.stat().st_size):
        part.unlink()  # no beginning of the file
    if not part.exists() or _md5(part) != md5:
        _transfer(url, part, size, progress)
    digest = _md5(part)
    if digest != md5:
        part.unlink()
        raise DataError(f"{url}: what arrived has MD5 {digest}, expected {md5}; it is removed, try again")
    os.replace(part, destination)


def _transfer(url: str, part: Path, size: int, progress: Progress) -> None:
    """Append what is missing to the file, or write all of it where the server does not resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        part.unlink()  # as long as the whole or longer, and not the whole: no beginning of it
        _transfer(url, part, size, progress)
        return
    with response:
        done = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isascii() and length.isdecimal() else 0
        with part.open("ab" if done else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                if 0 < size < done:
                    break
                progress(part.stem, done, total)
            file.flush()
            os.fsync(file.fileno())
    if 0 < size < done:
        part.unlink()
        raise DataError(f"{url}: what arrives is longer than {size} bytes, so it is another file; it is removed")
    if total and done != total:
        raise DataError(f"{url}: the connection ended after {done} of {total} bytes; try again to resume")


def _md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
