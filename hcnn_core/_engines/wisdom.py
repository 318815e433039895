"""What measurements found, in this process and in a text file of the user's: one for each machine, and books.

A file says in its first line how it is written, in the second which machine it is of, and in each further line a
problem and the milliseconds of its choices, the fastest first. It is only read, never executed. What is damaged, or of
another machine, is ignored. Files are replaced as a whole, so processes side by side see whole ones. Of two that write
at once one may lose what the other found, which is then measured again. A book is such a file that a caller names. It
decides on any machine.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
from functools import lru_cache
from pathlib import Path

from hcnn_core._planning import Book
from hcnn_core._threads import asked_for, worker_count

FORMAT = "hcnn wisdom 1: convolutions, and milliseconds of the ways to compute them; it may be deleted"
PACKAGES = {"numpy": ("numpy", "scipy", "numba"), "cupy": ("cupy-cuda12x", "cupy-cuda13x")}

Times = dict[str, float]
"""Seconds of the choices of a problem by their names, the fastest first."""

_known: dict[str, dict[str, Times]] = {}
"""Of each machine, what this process has found or read. It stays, so that no process changes its mind."""


def user_cache() -> Path:
    """Return the folder in which a user keeps what can be made again: of $XDG_CACHE_HOME, else ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(folder):  # which the specification says to ignore
        folder = os.path.expanduser(os.path.join("~", ".cache"))
    return Path(folder) / "hcnn"


@lru_cache(maxsize=64)
def machine_of(library: str, card: str = "") -> str:
    """What times depend on: processor, threads and versions, or the card."""
    from importlib import metadata

    threads = f"{worker_count()} threads" if asked_for() is None else f"{asked_for()} threads, as asked for"
    versions = []
    for name in ("hcnn", *PACKAGES[library]):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    of_blas = os.environ.get("OPENBLAS_NUM_THREADS")
    blas = f", {of_blas} of OpenBLAS" if of_blas else ""
    return "; ".join([card or _processor(), threads + blas, ", ".join(versions)])


def _processor() -> str:
    """The processor's name; on Linux with its family and model, since virtual machines call different ones the same."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0].splitlines()
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
        if "model name" in said:
            return ", ".join(
                [said["model name"], *(f"{key} {said[key]}" for key in ("cpu family", "model") if key in said)]
            )
    return platform.processor() or platform.machine()


def recall(machine: str, problem: str, book: Book | None = None) -> Times:
    """What is known of a problem; nothing if it was not measured. A book is told what only the machine's file says."""
    if machine not in _known:
        _known[machine] = _read(_file(machine), machine)
    found = _known[machine].get(problem, {})
    if book is not None:
        if book.known is None:
            book.known = _read(Path(book.path))
        if problem not in book.known and found:
            _enter(book, machine, problem, found)
        return book.known.get(problem, {})
    return found


def keep(machine: str, problem: str, times: Times, book: Book | None = None) -> None:
    """Remember what was found, and write it to the machine's file if that can be written, and to the book."""
    found = {name: times[name] for name in sorted(times, key=times.__getitem__)}
    if book is not None:
        _enter(book, machine, problem, found)
    if math.inf in found.values():  # not measured
        return
    file = _file(machine)
    _known.setdefault(machine, _read(file, machine))[problem] = found
    with contextlib.suppress(OSError):
        _write(file, machine, {**_read(file, machine), problem: found})


def _enter(book: Book, machine: str, problem: str, found: Times) -> None:
    """Write to a book before anything is computed by what it says."""
    known = {**(book.known or {}), problem: found}
    _write(Path(book.path), machine, known)
    book.known = known


def text() -> str:
    """The files of all machines, one after the other."""
    return "\n".join(path.read_text("utf-8", "replace") for path in _files())


def forget() -> int:
    """Delete all files and return how many there were. A process keeps what it has read, and so its mind."""
    files = _files()
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _files() -> list[Path]:
    return sorted(user_cache().glob("wisdom-*.txt"))


def _file(machine: str) -> Path:
    import hashlib

    return user_cache() / f"wisdom-{hashlib.sha256(machine.encode()).hexdigest()[:12]}.txt"


def _read(path: Path, machine: str = "") -> dict[str, Times]:
    """The lines that can be understood of a file, if it is of this machine where one is named."""
    try:
        form, of, *lines = path.read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError):  # there is none, or it has no head
        return {}
    if (form, of) != (FORMAT, machine or of):
        return {}
    found = {}
    for line in lines:
        problem, *times = line.split("\t")
        with contextlib.suppress(ValueError):
            if of_choices := dict(map(_time, times)):
                found[problem] = of_choices
    return found


def _time(field: str) -> tuple[str, float]:
    """A choice and its seconds, inf if it was not measured; ValueError where the field says anything else."""
    name, milliseconds, unit = field.rsplit(" ", 2)
    seconds = float(milliseconds) / 1e3
    if unit != "ms" or not seconds > 0:
        raise ValueError(field)
    return name, seconds


def _write(target: Path, machine: str, known: dict[str, Times]) -> None:
    import tempfile  # here, because it imports much

    lines = [FORMAT, machine]
    for problem, times in sorted(known.items()):
        lines.append("\t".join([problem, *(f"{name} {1e3 * seconds:.5g} ms" for name, seconds in times.items())]))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
