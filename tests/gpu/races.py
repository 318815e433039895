"""Launches of the CUDA kernels under ThreadSanitizer: each thread of a block a thread of the system.

A launch is written to a file: its sizes, all arrays that it may touch, and its arguments, with the places of addresses
in them. A program of the kernel's text reads it and runs the first blocks. It ends with status 66 where two threads
touch one place, one of them writing, and no barrier orders them.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core._engines.cuda.muon import ARRAYS
from tests.gpu.host import program

RACE = 66
"""What ThreadSanitizer's programs end with."""

BY_ADDRESSES = "weigh"
"""A kernel whose threads do not meet, and whose argument holds addresses that are no matrices."""

FLAGS = "-fsanitize=thread", "-DHOST_THREADS", "-pthread"
BOUNDS = "-fsanitize=address", *FLAGS[1:]
"""For reads and writes beyond an array, whose values may be dropped: each array of a launch has memory of its own."""

SECONDS = 300
"""After which a program waits at a barrier that not all threads reach."""


class Launches:
    """A stand-in for `_cuda.kernel` that writes down the largest launch of each kind, and computes nothing.

    The folder is that of the precompiled header.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[tuple[Any, ...], tuple[str, str, bytes]] = {}
        """By kind: the name of a kernel, its text, and the file of a launch."""

    def __call__(self, name: str, dtype: str, sizes: tuple[tuple[str, int], ...], shared: int = 0) -> Any:
        macros = dict(sizes)

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: Any, shared_mem: int = 0) -> None:
            null = tuple(isinstance(a, np.uintp) and not a for a in arguments)
            kind = (name, dtype, macros.get("TENSOR_CORES"), null)
            if name != BY_ADDRESSES:
                found = name, _cuda.source(dtype, macros), written(grid, block, arguments, shared_mem)
                self.found[kind] = max(self.found.get(kind, found), found, key=lambda launch: len(launch[2]))

        return launch


class _Buffers:
    """Copies of the memory that a launch may touch."""

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.copies: list[bytes] = []

    def place(self, address: int, begin: int, size: int) -> tuple[int, int]:
        """Number of the copy that holds an address, and how far inside; the memory from `begin` on is copied once."""
        for number, (first, copy) in enumerate(zip(self.begins, self.copies, strict=True)):
            if first <= begin and begin + size <= first + len(copy):
                return number, address - first
        self.begins.append(begin)
        self.copies.append(ctypes.string_at(begin, size))
        return len(self.copies) - 1, address - begin

    def of_array(self, array: np.ndarray[Any, Any]) -> tuple[int, int]:
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        begin, end = np.lib.array_utils.byte_bounds(root)
        return self.place(array.ctypes.data, begin, end - begin)


def written(grid: tuple[int, ...], block: tuple[int, ...], arguments: Any, shared: int) -> bytes:
    """The file of a launch, as `host_threads.h` reads it."""
    buffers = _Buffers()
    values: list[tuple[bytes, list[tuple[int, int, int]]]] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            values.append((bytes(8), [(0, *buffers.of_array(argument))]))
        else:
            raw = np.asarray(argument)
            values.append((raw.tobytes(), _addresses(raw, buffers)))
    parts = [struct.pack("<6Q", shared, *grid, *(1,) * (3 - len(grid)), *block, len(buffers.copies))]
    for copy in buffers.copies:
        parts += [struct.pack("<Q", len(copy)), copy]
    parts.append(struct.pack("<Q", len(values)))
    for value, addresses in values:
        parts += [struct.pack("<Q", len(value)), value, struct.pack("<Q", len(addresses))]
        parts += [struct.pack("<3Q", *address) for address in addresses]
    return b"".join(parts)


def _addresses(table: np.ndarray[Any, Any], buffers: _Buffers) -> list[tuple[int, int, int]]:
    """Where addresses stand in the table of Muon's kernels, and what lies there."""
    names = table.dtype.names or ()
    found: list[tuple[int, int, int]] = []

    def note(record: Any, name: str, size: int) -> None:
        if address := int(record[name]):
            at = record.ctypes.data - table.ctypes.data + record.dtype.fields[name][1]
            found.append((at, *buffers.place(address, address, size)))

    if "matrix" in names:
        size = table["rate"].itemsize
        note(table, "rate_at", size)
        for matrix in table["matrix"].reshape(-1):
            record = np.asarray(matrix)
            for name in ARRAYS:
                note(record, name, size * int(matrix["rows"]) * int(matrix["columns"]))
    return found


def races(
    launches: Launches, folder: Path, only: tuple[str, ...], change: Callable[[str], str] = lambda text: text,
    flags: tuple[str, ...] = FLAGS,
) -> dict[str, str]:  # fmt: skip
    """What a sanitizer says of each kind of launch, or of those of some kernels with their text changed."""
    by_text: dict[str, list[tuple[Any, str, bytes]]] = {}
    for kind, (name, text, file) in launches.found.items():
        if name in only:
            by_text.setdefault(change(text), []).append((kind, name, file))
    said: dict[str, str] = {}
    for number, (text, some) in enumerate(by_text.items()):
        names = sorted({name for _, name, _ in some})
        runs = "\n".join(f'if (name == "{n}") host::launch({n}, l.sizes, l.shared, l.pointers.data());' for n in names)
        main = f"int main(int, char** given) {{ const std::string name = given[1]; host::Launch l(given[2]); {runs} }}"
        executable = folder / f"races-{number}"
        program(executable, f"{text}\n{main}\n", f"-I{launches.folder}", *flags)
        for place, (kind, name, file) in enumerate(some):
            path = folder / f"launch-{number}-{place}"
            path.write_bytes(file)
            command = ["setarch", "-R", str(executable), name, str(path)]  # ThreadSanitizer wants its usual addresses
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                env=dict.fromkeys(("TSAN_OPTIONS", "ASAN_OPTIONS"), f"exitcode={RACE} halt_on_error=1 detect_leaks=0"),
            )
            assert done.returncode in (0, RACE), done.stderr
            said[", ".join(map(str, kind[:3])) + f", {sum(kind[3])} null"] = done.stderr if done.returncode else ""
    return said
