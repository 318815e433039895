"""CUDA kernels compiled for the processor, in place of CuPy's: the same text, the same launches, on NumPy arrays."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodiff import primitives
from autodiff._rules import products
from hcnn_core import convolution
from hcnn_core._engines import devices, planner
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core.backend import DeviceLimits, library_of, seconds_of
from hcnn_core.testing.strategies import noise

ROOT = Path(__file__).parents[2]

DEVICES = {
    name: DeviceLimits(block << 10, multiprocessor // 2 - reserved << 10, capability)
    for name, capability, block, multiprocessor, reserved in (
        ("T4", (7, 5), 64, 64, 0),
        ("RTX 3090", (8, 6), 99, 100, 1),
        ("A100", (8, 0), 163, 164, 1),
        ("H100", (9, 0), 227, 228, 1),
    )
}
"""Limits of some devices; in KiB, what a block may have, what a multiprocessor has, and what is taken of it a block."""


def exact_noise(seed: int, shape: tuple[int, ...]) -> Any:
    """Random numbers that TensorFloat-32 has too, so that products by tensor cores are right to float32's rounding."""
    return np.round(64 * noise(seed, shape, "float32")) / np.float32(64)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of Python from the project's folder, without warnings."""
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


SCRIPT = """
import json, os, sys
import numpy as np
from benchmarks.gpu.driverless import without_driver
cupy, driver = without_driver(device={device!r})
from hcnn_core.backend import device_limits, record
{work}
sys.stdout.flush()
os._exit(0)
"""


def scripted(work: str, device: str = "H100") -> subprocess.CompletedProcess[str]:
    """A process that does some work by CuPy with a stand-in for the driver of a device."""
    return python("-c", SCRIPT.format(work=work, device=device))


HEADER = Path(__file__).with_name("host_cuda.h")
COMPILER = shutil.which("g++")


@contextlib.contextmanager
def in_place_of_cupy(kernel: Callable[..., Any], device: DeviceLimits = DEVICES["H100"]) -> Iterator[None]:
    """NumPy arrays go the way of CuPy's, through kernels of one's own, chosen for a device."""
    for plans in (planner._plan_of, planner._plan_for):  # of other kernels
        plans.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cuda, "kernel", kernel)
        patch.setattr(_cuda, "device_limits", lambda: device)
        patch.setitem(vars(devices.CUPY), "clock", seconds_of)
        patch.setattr(convolution, "_in_range", lambda run, arrays, _: run(*arrays))  # NumPy's arrays alone
        for module in (devices, products, primitives):
            patch.setattr(module, "library_of", lambda array: library_of(array) if _own_library else "cupy")
        yield


_own_library: list[None] = []
"""Not empty where NumPy arrays go their own way."""


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """NumPy arrays go their own way: for what kernels are compared with, which must not launch them."""
    _own_library.append(None)
    try:
        yield
    finally:
        _own_library.pop()


def host_kernels(folder: Path, *options: str) -> Callable[..., Any]:
    """A stand-in for `_cuda.kernel` that compiles into a folder, all kernels of a text at once."""
    built: dict[str, ctypes.CDLL] = {}

    def kernel(name: str, dtype: str, sizes: tuple[tuple[str, int], ...], shared: int = 0) -> Any:
        text = _cuda.source(dtype, dict(sizes))
        if text not in built:
            built[text] = _compile(folder, compiled_part(text), *options)
        return _launcher(built[text], name)

    kernel.checked = partial(host_kernels, folder, "-fsanitize=alignment")  # type: ignore[attr-defined]
    return kernel


def compiled_part(text: str) -> str:
    """A text without the kernels that its macros leave out, so that a change to those makes no other library."""
    kept: list[str] = []
    defined, active = set(), [True]
    for line in text.splitlines():
        directive, _, rest = line.partition(" ")
        assert directive not in ("#else", "#elif"), line
        if directive in ("#if", "#ifdef", "#ifndef"):
            terms = re.findall(r"(!?)(?:defined )?(\w+)", rest)
            holds = all((name in defined) != (negated == "!" or directive == "#ifndef") for negated, name in terms)
            active.append(active[-1] and holds)
        elif directive == "#endif":
            active.pop()
        elif not active[-1]:
            continue
        elif directive == "#define":
            defined.add(rest.partition(" ")[0])
        kept.append(line)
    return "\n".join(kept)


def precompile_header(folder: Path, *options: str) -> None:
    """Put the header into a folder as g++ takes it in at once, which is 40 % of the work of compiling a kernel."""
    _run_compiler(folder / f"{HEADER.name}.gch", *options, "-xc++-header", str(HEADER))


def _run_compiler(target: Path, *options: str, **pipes: Any) -> None:
    """Other processes may make the same file."""
    assert COMPILER
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    subprocess.run(
        [COMPILER, "-std=c++17", "-O1", "-w", "-fPIC", "-o", partial, *options], check=True, text=True, **pipes
    )
    partial.rename(target)


def program(target: Path, text: str, *options: str) -> None:
    """Compile a text of kernels, and what calls them, for the processor."""
    text = text.replace('extern "C" __global__', "static")  # so that g++ drops the other kernels early
    text = f'#include "{HEADER.name}"\n{text}'
    _run_compiler(target, *options, f"-I{HEADER.parent}", "-xc++", "-", input=text)


def _compile(folder: Path, text: str, *options: str) -> ctypes.CDLL:
    names = re.findall(r"__global__ void __launch_bounds__\(.*\) (\w+)\(", text)
    entry = 'extern "C" void entry_{0}(const unsigned* sizes, unsigned long shared, void** values) '
    entry += "{{ host::launch({0}, sizes, shared, values); }}\n"
    text = "\n".join([text, *map(entry.format, names)])
    library = (folder / hashlib.sha256("".join([text, *options]).encode()).hexdigest()[:20]).with_suffix(".so")
    if not library.exists():
        program(library, text, "-shared", f"-I{folder}", *options)
    return ctypes.CDLL(str(library))


def _launcher(library: ctypes.CDLL, name: str) -> Callable[..., None]:
    misaligned = ctypes.c_int.in_dll(library, "misaligned")

    def launch(
        grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared_mem: int = 0,
        first: tuple[int, int, int] = (0, 0, 0),
    ) -> None:  # fmt: skip
        """Run a kernel's blocks, or only those from `first` on along each axis."""
        values = [np.asarray(a.ctypes.data if isinstance(a, np.ndarray) else a) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        sizes = (ctypes.c_uint * 7)(*grid, *(1,) * (3 - len(grid)), *block, *first)
        misaligned.value = 0
        library[f"entry_{name}"](sizes, ctypes.c_ulong(shared_mem), pointers)
        assert not misaligned.value, f"{name} moves several numbers at once to or from an address that is not theirs"

    return launch
