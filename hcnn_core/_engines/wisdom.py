"""Measured times of choices, in this process and in the user's text files: one for each machine, and choice files.

A file's first line names its format, its second the machine. Each further line has a problem and the milliseconds of
its choices, the fastest first. It is only read, never executed. Processes add to what others have written. Damaged
lines of a machine's file, and a file of another machine, are ignored. A choice file is one that a caller names. It
decides on any machine, so one that cannot be read as a whole is refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from hcnn_core._threads import asked_for, worker_count
from hcnn_core._tuning import ChoiceFile
from hcnn_core.files import follow_links, read_text, rewrite

FORMAT = "hcnn wisdom 1: convolutions, and milliseconds of the ways to compute them; it may be deleted"

Times = dict[str, float]
"""Seconds of the choices of a problem by their names, the fastest first."""

_known: dict[str, dict[str, Times]] = {}
"""Times by machine that this process measured or read. They stay, so that its choices do not change."""


def user_cache() -> Path:
    """Return this package's folder in the user's cache folder, $XDG_CACHE_HOME or else ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(folder):  # which the specification says to ignore
        folder = os.path.expanduser(os.path.join("~", ".cache"))
    return Path(folder) / "hcnn"


@lru_cache(maxsize=64)
def machine_of(packages: tuple[str, ...], card: str = "") -> str:
    """Return what times depend on: processor or card, threads and versions."""
    from importlib import metadata

    threads = f"{worker_count()} threads" if asked_for() is None else f"{asked_for()} threads, as asked for"
    versions = []
    for name in ("hcnn", *packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    of_blas = os.environ.get("OPENBLAS_NUM_THREADS")
    blas = f", {of_blas} of OpenBLAS" if of_blas else ""
    return "; ".join([card or _processor(), threads + blas, ", ".join(versions)])


def _processor() -> str:
    """Name the processor; on Linux with family and model, since virtual machines call different ones the same."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0].splitlines()
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
        if "model name" in said:
            return ", ".join(
                [said["model name"], *(f"{key} {said[key]}" for key in ("cpu family", "model") if key in said)]
            )
    return platform.processor() or platform.machine()


def recall(machine: str, problem: str, file: ChoiceFile | None = None) -> Times:
    """Look a problem up; nothing if it was not measured. What only the machine's file has is added to a choice file."""
    if machine not in _known:
        _known[machine] = _of_machine(_file(machine), machine)
    times = _known[machine].get(problem, {})
    if file is not None:
        if file.known is None:
            file.known = _choices_in(_text(Path(file.path)), file)
        return file.known.get(problem) or (_add(file, machine, problem, times) if times else {})
    return times


def keep(machine: str, problem: str, times: Times, file: ChoiceFile | None = None) -> Times:
    """Keep measured times, and write them to the machine's file, if possible, and to the choice file.

    Return the times that hold: if another process was the first to write them to the choice file, its times.
    """
    ranked = {name: times[name] for name in sorted(times, key=times.__getitem__)}
    if math.inf not in ranked.values():  # else it was not measured
        _known.setdefault(machine, _of_machine(_file(machine), machine))[problem] = ranked
        with contextlib.suppress(OSError):
            rewrite(_file(machine), lambda text: _lines(machine, {**_measured(text, machine), problem: ranked}))
    return ranked if file is None else _add(file, machine, problem, ranked)


def _add(file: ChoiceFile, machine: str, problem: str, times: Times) -> Times:
    """Add times to a choice file before anything is computed by them."""
    before, known = (file.known or {}).get(problem), dict[str, Times]()

    def with_this(text: str) -> str:
        known.update(_choices_in(text, file))
        if known.get(problem) == before:  # no other process was quicker
            known[problem] = times
        return _lines(machine, known)

    rewrite(Path(file.path), with_this)
    file.known = known
    return known[problem]


def in_words(name: str) -> str:
    """Return a choice in words: the method along each axis, and the class where it is uncommon."""
    kind, _, methods = name.partition(" ")
    if methods in ("", "all axes at once"):
        return {"FFTPlan": "FFT of all axes", "BlockPlan": "FFT by blocks"}.get(kind, name)
    ways = [{"direct": "taps", "fft": "FFT"}.get(method, method) for method in methods.split()]
    way = ways[0] if len({*ways}) == 1 else " and ".join(ways)
    return way + {"CpuPlan": "", "Plan": " axis by axis"}.get(kind, f" ({kind})")


def sentences(asked: Mapping[str, str]) -> str:
    """Return what was measured on each machine: a problem, and the ways to compute it, the fastest first."""
    lines = []
    for written in (_text(path, f"{path} cannot be read\n") for path in _files()):
        lines.append(["", *written.splitlines()[:2]][-1])
        for problem, times in _measured(written, lines[-1]).items():
            what, _, where = problem.partition(" ")
            of, plus, more = what.partition("+")
            ways = "; ".join(f"{in_words(name)} {1e3 * seconds:.4g} ms" for name, seconds in times.items())
            lines.append(f"{asked.get(of, of)}{plus}{more}, {re.sub(', [a-z ]+, batch .*', '', where)}: fastest {ways}")
    return "\n".join(lines)


def text() -> str:
    """Return the files of all machines, one after the other."""
    return "\n".join(_text(path, f"{path} cannot be read\n") for path in _files())


def forget() -> tuple[int, list[str]]:
    """Delete all files; return how many, and errors of the others. Running processes keep their choices."""
    files, left = _files(), []
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            left.append(f"cannot delete {path}: {error.strerror}")
    return len(files) - len(left), left


def _files() -> list[Path]:
    return sorted(user_cache().glob("wisdom-*.txt"))


def _file(machine: str) -> Path:
    import hashlib

    return user_cache() / f"wisdom-{hashlib.sha256(machine.encode()).hexdigest()[:12]}.txt"


def _text(path: Path, otherwise: str = "") -> str:
    """Read a file, links followed; where it cannot be read, `otherwise`, or OSError if that is empty."""
    try:
        return read_text(path, opener=follow_links, encoding="utf-8", errors="replace")
    except OSError as error:
        if otherwise or isinstance(error, FileNotFoundError | NotADirectoryError):
            return otherwise
        raise


def _of_machine(path: Path, machine: str) -> dict[str, Times]:
    """Return the times in a machine's file by problem; nothing if it cannot be read."""
    return _measured(_text(path, "\n"), machine)


def _measured(text: str, machine: str) -> dict[str, Times]:
    """Return the times in the valid lines of a machine's file, by problem."""
    if text.splitlines()[:2] != [FORMAT, machine]:
        return {}
    problems = {problem: times for line in text.splitlines()[2:] for problem, times in _line(line)}
    return {problem: times for problem, times in problems.items() if math.inf not in times.values()}


def _choices_in(text: str, file: ChoiceFile) -> dict[str, Times]:
    """Read a choice file; ValueError if it is another file, of another format, or damaged. An empty one is new."""
    head, *lines = text.splitlines() or [FORMAT, ""]
    if head != FORMAT:
        raise ValueError(f"{file.path} is no file of choices: it begins {head[:60]!r}, not {FORMAT!r}; name another")
    problems: dict[str, Times] = {}
    for number, line in enumerate(lines[1:], 3):
        if not (pairs := list(_line(line))) or text[-1] != "\n":
            raise ValueError(f"{file.path}, line {number}, is damaged; restore the file, or remove it to choose anew")
        problems.update(pairs)
    return problems


def _line(line: str) -> Iterator[tuple[str, Times]]:
    """Yield a problem and its times, if the line is valid."""
    problem, *times = line.split("\t")
    with contextlib.suppress(ValueError):
        if of_choices := dict(map(_time, times)):
            yield problem, of_choices


def _time(field: str) -> tuple[str, float]:
    """Return a choice and its seconds, inf if it was not measured; ValueError where the field says anything else."""
    name, milliseconds, unit = field.rsplit(" ", 2)
    seconds = float(milliseconds) / 1e3
    if unit != "ms" or not seconds > 0:
        raise ValueError(field)
    return name, seconds


def _lines(machine: str, known: dict[str, Times]) -> str:
    """Return the text of a file."""
    lines = [FORMAT, machine]
    for problem, times in sorted(known.items()):
        lines.append("\t".join([problem, *(f"{name} {1e3 * seconds:.5g} ms" for name, seconds in times.items())]))
    return "\n".join(lines) + "\n"
