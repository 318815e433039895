"""CuPy itself on a machine without a driver: `python -m benchmarks.gpu.driverless` takes training steps with it.

The C functions of CUDA's runtime and driver, as CuPy's modules call them, are replaced before CuPy is loaded. Memory is
the host's, and a launch does nothing but to be written down. So all of CuPy's own code runs, and ours as it does on a
GPU; results are whatever memory holds, which is zeros. What a driver or a card would refuse is collected in `refused`:
calls that a graph cannot hold, grids and shared memory that are too large, arguments that a kernel does not take.

`python -m benchmarks.gpu.driverless --module train.cifar --backend cupy` trains so, and `--module benchmarks.gpu.stages
small FOLDER` runs a stage of the gate. Of libraries, cuFFT is replaced (`cufft`); cuBLAS and others are not.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import re
import runpy
import sys
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu.occupancy import RESERVED, resources

python = ctypes.pythonapi
python.PyCapsule_GetName.restype = ctypes.c_char_p
python.PyCapsule_GetName.argtypes = [ctypes.py_object]
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
python.Py_IncRef.argtypes = [ctypes.py_object]
libc = ctypes.CDLL(None)
libc.calloc.restype, libc.calloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
READ_WRITE, ANONYMOUS_UNRESERVED, DONTNEED, PAGE = 3, 0x4022, 4, 4096

TYPES: dict[str, Any] = {
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "intptr_t": ctypes.c_ssize_t,
    "size_t": ctypes.c_size_t,
    "uintmax_t": ctypes.c_uint64,
    "PyObject *": ctypes.py_object,
    "CUdevice": ctypes.c_int,
    "cudaMemcpyKind": ctypes.c_int,
    "float": ctypes.c_float,
}
TO_HOST, ON_DEVICE, ANYWHERE = 2, 3, 4
DEFAULT_STREAM = 0

MAX_SHARED_ATTRIBUTE = 8
"""CUDA's number for the bytes of dynamic shared memory that a kernel may be given."""

UNASKED_SHARED = 48 << 10
"""Bytes of shared memory that a block may take without that attribute."""

DEVICES = {
    "T4": {75: 7, 76: 5, 16: 40, 97: 64 << 10, 81: 64 << 10, 111: 0},
    "RTX 3090": {75: 8, 76: 6, 16: 82, 97: 99 << 10, 81: 100 << 10, 111: 1 << 10},
    "A100": {75: 8, 76: 0, 16: 108, 97: 163 << 10, 81: 164 << 10, 111: 1 << 10},
    "H100": {75: 9, 76: 0, 16: 132, 97: 227 << 10, 81: 228 << 10, 111: 1 << 10},
    "RTX 5090": {75: 12, 76: 0, 16: 170, 97: 99 << 10, 81: 100 << 10, 111: 1 << 10},
}
"""Attributes by CUDA's numbers: compute capability, multiprocessors, and bytes of shared memory: of a block, of a
multiprocessor, and taken of it a block."""

MOST_SHARED = 97
"""CUDA's number for the bytes of shared memory that a block may have if its kernel's attribute allows it."""

OWN = "using real ="
"""Only in the texts of this project's kernels."""

HARMLESS = {"graphDestroy", "_ensure_context", "streamIsCapturing", "getDevice", "setDevice", "memcpyAsync"}
HARMLESS |= {"memsetAsync", "launchKernel", "streamEndCapture", "deviceGetAttribute", "funcGetAttribute"}
HARMLESS |= {"occupancyMaxActiveBlocksPerMultiprocessor", "occupancyMaxPotentialBlockSize", "ctxGetCurrent"}
"""What may be called while a graph is recorded."""


DECLARED = 16 << 10
"""Bytes of shared memory that no kernel declares beside what its launch asks for."""


def declared_by(text: str, name: str) -> int:
    """Return the bytes of shared memory that one of this project's kernels declares, as NVRTC compiles it."""
    return resources(text, name)[1] - RESERVED if OWN in text else 0


@dataclass(frozen=True)
class Array:
    """A CuPy kernel's argument: an array's address, C type, shape, and strides in bytes."""

    pointer: int
    type: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    constant: bool


@dataclass(frozen=True)
class Launch:
    """A kernel, its text, and what it was given."""

    name: str
    text: str
    grid: tuple[int, ...]
    block: int
    shared: int
    arguments: dict[str, Any]
    """By name: an `Array`, the integer of a pointer or a number, or None where nothing is known of the type."""

    @property
    def own(self) -> bool:
        """Whether it is one of this project's kernels."""
        return OWN in self.text


class Driver:
    """The functions that do something; the others do nothing.

    With `differs`, whatever a graph computes is said to differ from the same step launched kernel by kernel. Otherwise
    it does if the graph holds other launches than the rehearsal before it. `device` is one of `DEVICES`, or several
    that are separated by commas.
    """

    def __init__(self, *, differs: bool = False, device: str = "H100") -> None:
        self.devices = [{8: UNASKED_SHARED, 10: 32, **DEVICES[name]} for name in device.split(",")]
        self.current = 0
        self.owners: dict[int, int] = {}
        self.recording: int | None = None
        self.refused: list[str] = []
        self.names: dict[int, tuple[int, str]] = {}
        self.functions: dict[tuple[int, str], int] = {}
        self.texts: dict[int, str] = {}
        self.compiled: dict[tuple[Any, ...], None] = {}
        self.shared: dict[int, int] = {}
        self.allocated: dict[int, int] = {}
        self.held = self.peak = 0
        self.handles = 100
        self.busy: set[int] = set()
        self.launches = 0
        self.differs = differs
        self.listening = False
        self.heard: list[Launch] = []
        self.recorded: list[Launch] = []
        self._signatures: list[tuple[Any, ...]] = []
        self._reached: dict[int, float] = {}
        self._begun = 0
        self._same = 1

    def refuse(self, what: str) -> None:
        """Write down what a driver would not do, and who asked for it."""
        frames = [f for f in traceback.extract_stack() if "driverless" not in f.filename]
        self.refused.append(f"{what}, by " + " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames[-4:])))

    def on_stream(self, what: str, stream: int) -> None:
        """Work on a stream, which goes on until somebody waits for it; other streams must not work meanwhile."""
        if self.recording not in (None, stream):
            self.refuse(f"{what} on another stream than is recorded")
        if self.recording is None:
            if others := self.busy - {stream}:
                self.refuse(f"{what} on stream {stream} while {sorted(others)} may still work, and nobody waited")
            self.busy.add(stream)

    def streamSynchronize(self, stream: int, *_: Any) -> None:
        self.busy.discard(stream)

    def deviceSynchronize(self, *_: Any) -> None:
        self.busy.clear()

    def graphLaunch(self, graph: int, stream: int, *_: Any) -> None:
        self.on_stream("a graph", stream)

    def handle(self, *_: Any) -> int:
        self.handles += 1
        return self.handles

    streamCreate = streamCreateWithFlags = streamCreateWithPriority = graphInstantiate = handle
    eventCreate = eventCreateWithFlags = handle

    def eventRecord(self, event: int, *_: Any) -> None:
        self._reached[event] = time.perf_counter()

    def eventElapsedTime(self, begin: int, end: int, *_: Any) -> float:
        return 1e3 * (self._reached[end] - self._reached[begin])

    def moduleLoadData(self, *_: Any) -> int:
        self.owners[self.handle()] = self.current
        return self.handles

    def getDeviceCount(self, *_: Any) -> int:
        return len(self.devices)

    def getDevice(self, *_: Any) -> int:
        return self.current

    def setDevice(self, device: int, *_: Any) -> None:
        self.current = device

    def malloc(self, size: int, *_: Any) -> int:
        pointer = int(libc.mmap(None, max(1, size), READ_WRITE, ANONYMOUS_UNRESERVED, -1, 0))  # no page until written
        self.allocated[pointer], self.owners[pointer] = size, self.current
        self.held += size
        self.peak = max(self.peak, self.held)
        return pointer

    def hostAlloc(self, size: int, *_: Any) -> int:
        return int(libc.calloc(max(1, size), 1))

    def free(self, pointer: int, *_: Any) -> None:
        size = self.allocated.pop(pointer)
        self.held -= size
        libc.munmap(pointer, max(1, size))

    def freeHost(self, pointer: int, *_: Any) -> None:
        libc.free(pointer)

    def memcpy(self, to: int, source: int, size: int, kind: int, *_: Any) -> None:
        if kind not in (ON_DEVICE, ANYWHERE):
            self.busy.discard(DEFAULT_STREAM)  # it waits
        ctypes.memmove(to, source, size)

    def memcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int, *_: Any) -> None:
        self.on_stream("a copy", stream)
        if self.recording is not None and kind not in (ON_DEVICE, ANYWHERE):
            self.refuse("a copy from or to the host")
        ctypes.memmove(to, source, size)
        if kind == TO_HOST and size == 1:  # whether a loss is finite, or two results are the same
            ctypes.memset(to, self._same, 1)
        if self.listening and kind in (ON_DEVICE, ANYWHERE):
            given = {
                name: Array(at, "char", (size,), (1,), name == "from") for name, at in (("from", source), ("to", to))
            }
            self.heard.append(Launch("memcpy", "", (1, 1, 1), 1, 0, given))

    def memset(self, pointer: int, value: int, size: int, *_: Any) -> None:
        first, last = -(-pointer // PAGE) * PAGE, (pointer + size) // PAGE * PAGE
        if value or first >= last:
            ctypes.memset(pointer, value, size)
            return
        libc.madvise(first, last - first, DONTNEED)  # pages of zeros, which take no memory
        ctypes.memset(pointer, 0, first - pointer)
        ctypes.memset(last, 0, pointer + size - last)

    def memsetAsync(self, pointer: int, value: int, size: int, stream: int, *_: Any) -> None:
        self.on_stream("zeros", stream)
        self.memset(pointer, value, size)
        if self.listening:
            self.heard.append(
                Launch("memset", "", (1, 1, 1), 1, 0, {"to": Array(pointer, "char", (size,), (1,), False)})
            )

    def streamBeginCapture(self, stream: int, *_: Any) -> None:
        self.recording = stream
        self._begun = len(self._signatures)
        self.heard = []

    def streamEndCapture(self, *_: Any) -> int:
        self.recording = None
        self.recorded, self.heard = self.heard, []
        recorded = self._signatures[self._begun :]
        rehearsed = self._signatures[self._begun - len(recorded) : self._begun]
        self._same = int(recorded == rehearsed and not self.differs)
        return self.handle()

    def streamIsCapturing(self, stream: int, *_: Any) -> int:
        return int(stream == self.recording)

    def deviceGetAttribute(self, attribute: int, device: int, *_: Any) -> int:
        return self.devices[device].get(attribute, 1024)

    def driverGetVersion(self, *_: Any) -> int:
        return 13000

    runtimeGetVersion = driverGetVersion

    def _getCUDAMajorVersion(self, *_: Any) -> int:
        return 13

    def memGetInfo(self, *_: Any) -> tuple[int, int]:
        return 1 << 36, 1 << 37

    def deviceGetPCIBusId(self, *_: Any) -> str:
        return "0000:00:00.0"

    def moduleGetFunction(self, module: int, name: str, *_: Any) -> int:
        if (module, name) not in self.functions:  # a module has one function of a name, whoever asks for it
            self.functions[module, name] = self.handle()
            self.names[self.handles] = (module, name)
        return self.functions[module, name]

    def funcSetAttribute(self, function: int, attribute: int, value: int, *_: Any) -> None:
        if attribute == MAX_SHARED_ATTRIBUTE:
            self.shared[function] = value

    def funcGetAttribute(self, attribute: int, function: int, *_: Any) -> int:
        return self.shared.get(function, UNASKED_SHARED) if attribute == MAX_SHARED_ATTRIBUTE else 64

    def occupancyMaxActiveBlocksPerMultiprocessor(self, *_: Any) -> int:
        return 4

    def occupancyMaxPotentialBlockSize(self, *_: Any) -> tuple[int, int]:
        return 132, 256

    def launchKernel(self, function: int, *arguments: Any) -> None:
        *sizes, shared, stream, values = arguments[:9]
        module, name = self.names[function]
        self.launches += 1
        self._signatures.append((name, module, *sizes, shared))
        self.on_stream(f"kernel {name}", stream)
        (_, y, z), (across, down, deep) = sizes[:3], sizes[3:]
        most, text = self.devices[self.current][MOST_SHARED], self.texts.get(module, "")
        if (
            max(y, z) >= 1 << 16
            or across * down * deep > 1024
            or shared > most
            or min(sizes) < 1
            or (shared + DECLARED > most and shared + declared_by(text, name) > most)
            or across * down * deep > threads_of(text, name)
        ):
            self.refuse(f"kernel {name} in a grid of {sizes[:3]}, blocks of {sizes[3:]}, {shared} bytes")
        elif shared > self.shared.get(function, UNASKED_SHARED):
            self.refuse(f"kernel {name} with {shared} bytes of shared memory, which its attribute does not allow")
        given = arguments_of(text, name, values) if self.listening or len(self.devices) > 1 else {}
        self.on_device(name, module, given)
        if self.listening:
            self.heard.append(Launch(name, text, tuple(sizes[:3]), across * down * deep, shared, given))

    def on_device(self, name: str, module: int, given: dict[str, Any]) -> None:
        """Refuse a kernel, or an array, of another device than the current one."""
        owners = {"its code": self.owners.get(module, self.current)}
        for label, value in given.items() if len(self.devices) > 1 else ():
            at = value.pointer if isinstance(value, Array) else value if isinstance(value, int) else 0
            memory = next((p for p, size in self.allocated.items() if p <= at < p + size), None)
            owners |= {} if memory is None else {label: self.owners[memory]}
        for label, owner in owners.items():
            if owner != self.current:
                self.refuse(f"kernel {name} on device {self.current}, where {label} is on device {owner}")

    def hear_of_library(self, name: str, x: Any, result: Any) -> None:
        """A launch by a library of CuPy's, which does not go through the driver's functions replaced here."""
        self.launches += 1
        self._signatures.append((name, x.shape))
        if self.listening:
            arrays = {"in": (x, True), "out": (result, False)}
            given = {
                label: Array(a.data.ptr, C_TYPES[a.dtype.name], a.shape, a.strides, constant)
                for label, (a, constant) in arrays.items()
            }
            self.heard.append(Launch(name, "", (1, 1, 1), 1, 0, given))


C_TYPES = {"bool": "bool", "uint8": "unsigned char", "int32": "int", "int64": "long long", "float32": "float"}
C_TYPES |= {"float64": "double", "complex64": "complex<float>", "complex128": "complex<double>"}


def cufft(driver: Driver) -> types.ModuleType:
    """What `cupy.fft` asks of `cupy.cuda.cufft`: plans that transform nothing, and launch one kernel each time.

    cuFFT itself launches one or more.
    """
    import cupy

    module = types.ModuleType("cupy.cuda.cufft")
    kinds = {"C2C": 0x29, "R2C": 0x2A, "C2R": 0x2C, "Z2Z": 0x69, "D2Z": 0x6A, "Z2D": 0x6C}
    to_complex, to_real = (kinds["R2C"], kinds["D2Z"]), (kinds["C2R"], kinds["Z2D"])
    for name, number in (*kinds.items(), ("FORWARD", -1), ("INVERSE", 1)):
        setattr(module, f"CUFFT_{name}", number)

    class Plan:
        """A plan along `axis`, of which `size` numbers are left, and others that keep their lengths."""

        gpus = work_area = None

        def __init__(self, fft_type: int, axis: int, size: int) -> None:
            self.fft_type, self.axis, self.size = fft_type, axis, size

        def get_output_array(self, a: Any, order: str = "C") -> Any:
            if self.fft_type not in to_complex + to_real:
                return cupy.empty(a.shape, a.dtype, order=order)
            shape, kind = list(a.shape), a.dtype.char
            shape[self.axis] = self.size
            return cupy.empty(shape, kind.upper() if self.fft_type in to_complex else kind.lower(), order=order)

        def fft(self, a: Any, out: Any, direction: int) -> None:
            driver.on_stream("cuFFT", cupy.cuda.get_current_stream().ptr)
            driver.hear_of_library("cufft", a, out)

    class Plan1d(Plan):
        """Along the last axis of length nx."""

        def __init__(self, nx: int, fft_type: int, batch: int, **_: Any) -> None:
            super().__init__(fft_type, -1, nx // 2 + 1 if fft_type in to_complex else nx)
            self.nx, self.batch = nx, batch

    class PlanNd(Plan):
        """Along up to three axes at once."""

        def __init__(self, *keys: Any) -> None:
            fft_type, _, _, last_axis, last_size = keys[7:12]
            super().__init__(fft_type, last_axis, last_size)

    module.Plan1d, module.PlanNd, module.get_current_plan = Plan1d, PlanNd, lambda: None  # type: ignore[attr-defined]
    return module


@functools.lru_cache(maxsize=1024)
def parameters(text: str, name: str) -> tuple[tuple[str, str], ...]:
    """(type, name) of each parameter of a kernel in a text."""
    found = re.search(rf"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?{re.escape(name)}\s*\(", text)
    if found is None:
        return ()
    depth, listed = 1, [""]
    for c in text[found.end() :]:
        depth += (c in "(<") - (c in ")>")
        if depth == 0:
            break
        if c == "," and depth == 1:
            listed.append("")
        else:
            listed[-1] += c
    pairs = (parameter.strip().rpartition(" ") for parameter in listed)
    return tuple((kind.strip(), label.strip("*& ")) for kind, _, label in pairs)


@functools.lru_cache(maxsize=1024)
def threads_of(text: str, name: str) -> float:
    """The threads that a block of a kernel of ours may have, by its text."""
    found = re.search(rf"__launch_bounds__\(([\w */]+)[^)]*\)\s*{re.escape(name)}\s*\(", text)
    if found is None or OWN not in text:
        return 1024
    sizes = dict(re.findall(r"^#define (\w+) (\d+)$", text, re.MULTILINE))
    return float(eval(re.sub(r"[A-Z_]\w*", lambda macro: sizes[macro[0]], found[1])))  # a number, or a quotient


POINTERS = ("Reals", "Target", "Table")
NUMBERS = {"int": ctypes.c_int32, "long long": ctypes.c_int64, "ptrdiff_t": ctypes.c_int64}


def arguments_of(text: str, name: str, values: int) -> dict[str, Any]:
    """What a kernel is launched with, read from the addresses that the driver is given."""
    found: dict[str, Any] = {}
    addresses = ctypes.cast(values, ctypes.POINTER(ctypes.c_void_p))
    for i, (kind, label) in enumerate(parameters(text, name)):
        address = addresses[i]
        assert address is not None
        array = re.search(r"CArray<\s*([^,]+?)\s*,\s*(\d+)", kind)
        if array:
            ndim = int(array[2])
            numbers = (ctypes.c_int64 * (2 + 2 * ndim)).from_address(address)
            shape, strides = tuple(numbers[2 : 2 + ndim]), tuple(numbers[2 + ndim :])
            found[label] = Array(numbers[0], array[1], shape, strides, kind.startswith("const"))
        elif kind.endswith("*") or kind in POINTERS or "__restrict__" in kind:
            found[label] = ctypes.c_uint64.from_address(address).value
        elif kind.removeprefix("const ") in NUMBERS:
            found[label] = NUMBERS[kind.removeprefix("const ")].from_address(address).value
        elif kind.endswith(("Sums", "Matrices", "Axes")):  # a table of addresses, sizes or steps
            size = re.search(r"^#define BYTES (\d+)$", text, re.MULTILINE)
            assert size
            found[label] = bytes((ctypes.c_char * int(size[1])).from_address(address))
        else:
            found[label] = None
    return found


class CheckedKernel:
    """A kernel of `RawModule` whose arguments are compared with its parameters."""

    def __init__(self, driver: Driver, kernel: Any, text: str, name: str) -> None:
        self.__dict__.update(driver=driver, kernel=kernel, text=text, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.kernel, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)

    def __call__(self, grid: Any, block: Any, arguments: tuple[Any, ...], **options: Any) -> None:
        wanted = parameters(self.text, self.name)
        if len(arguments) != len(wanted):
            self.driver.refuse(f"kernel {self.name} with {len(arguments)} arguments for {len(wanted)} parameters")
        for value, (kind, label) in zip(arguments, wanted, strict=False):
            dtypes = self._dtypes(kind)
            if getattr(value, "dtype", np.dtype("O")).kind == "V":  # a structure, whose size its text asserts
                continue
            if str(getattr(value, "dtype", type(value))) not in dtypes:
                self.driver.refuse(f"kernel {self.name} with a {value.dtype} as {kind} {label}")
        self.kernel(grid, block, arguments, **options)

    def _dtypes(self, kind: str) -> tuple[str, ...]:
        """What a parameter takes; a null pointer is a uint64."""
        real = "float32" if f"{OWN} float;" in self.text else "float64"
        match kind.replace("__restrict__", "").replace("const ", "").strip():
            case "Reals" | "Target" | "real*":
                return real, "uint64"
            case "Table" | "int*":
                return "int32", "uint64"
            case "long long*":
                return ("int64", "uint64")
            case "double*":
                return "float64", "uint64"
            case "double":
                return ("float64",)
            case "int":
                return ("int32",)
            case "long long":
                return ("int64",)
        return (kind,)


def ctype(name: str) -> Any:
    """The type of an argument or a result, as the name of a capsule spells it."""
    name = name.strip().replace(" __pyx_skip_dispatch", "")
    return TYPES.get(name, ctypes.c_void_p if "*" in name else None)


def install(driver: Driver, module: Any, kept: list[Any]) -> None:
    """Put the driver's functions in the place of a module's, for C and for Python."""
    table = module.__pyx_capi__
    for name, capsule in list(table.items()):
        signature = python.PyCapsule_GetName(capsule)
        found = re.fullmatch(r"(.*?)\s*\((.*)\)", signature.decode())
        if found is None or name in ("check_status", "_ensure_context0"):
            continue
        result, *arguments = map(ctype, (found[1], *([] if found[2] == "void" else found[2].split(","))))
        if None in (result, *arguments):
            continue
        function = ctypes.CFUNCTYPE(result, *arguments)(called(driver, name, result is ctypes.py_object))
        label = ctypes.create_string_buffer(signature)
        kept += [function, label]
        pointer = ctypes.cast(function, ctypes.c_void_p).value
        table[name] = python.PyCapsule_New(pointer, ctypes.cast(label, ctypes.c_char_p), None)
        if hasattr(module, name):
            setattr(module, name, getattr(driver, name, lambda *_, **__: None))


def called(driver: Driver, name: str, wants_object: bool) -> Callable[..., Any]:
    """A function of the driver, as C calls it."""
    function = getattr(driver, name, None)

    def call(*arguments: Any) -> Any:
        if driver.recording is not None and name not in HARMLESS:
            driver.refuse(name)
        result = function(*arguments) if function else None if wants_object else 0
        if wants_object and result is None:
            python.Py_IncRef(None)
        return result

    return call


def without_driver(*, differs: bool = False, device: str = "H100") -> tuple[Any, Driver]:
    """CuPy, and the driver it believes in. No other module may have loaded CuPy before."""
    import cupy_backends.cuda.api.driver as driver_module
    import cupy_backends.cuda.api.runtime as runtime_module

    driver, kept = Driver(differs=differs, device=device), []  # type: ignore[var-annotated]
    for module in (runtime_module, driver_module):
        install(driver, module, kept)
    import cupy
    from cupy.cuda import compiler, function

    def compiled(source: str, *options: Any) -> Any:
        module = function.Module()
        module.load(b" ")
        driver.texts[driver.handles] = source
        driver.compiled[source, *options] = None
        return module

    compiler._compile_with_cache_cuda = compiled
    get_function = cupy.RawModule.get_function

    class RawModule:
        """CuPy's, whose kernels compare their arguments with their parameters."""

        def __init__(self, *, code: str, options: tuple[str, ...] = (), **more: Any) -> None:
            self.code, self.module = code, cupy_module(code=code, options=options, **more)

        def get_function(self, name: str) -> Any:
            return CheckedKernel(driver, get_function(self.module, name), self.code, name)

    cupy_module, cupy.RawModule = cupy.RawModule, RawModule
    from cupy.cuda import cub

    by_cub = cub.cub_reduction

    def cub_reduction(x: Any, *options: Any, **more: Any) -> Any:  # which launches its kernels itself
        result = by_cub(x, *options, **more)
        if result is not None:
            driver.hear_of_library("cub_reduction", x, result)
        return result

    cub.cub_reduction = cub_reduction
    sys.modules["cupy.cuda.cufft"] = cupy.cuda.cufft = cufft(driver)
    cupy._kept_by_driverless = kept
    return cupy, driver


def write_texts(path: str) -> None:
    """What the stages of the gate ask CuPy to compile, as it asks its compiler."""
    import pickle

    cupy, driver = without_driver()
    from benchmarks.gpu.stages import exercise

    exercise(cupy)
    if driver.refused:
        raise SystemExit(driver.refused[0])
    with open(path, "wb") as file:
        pickle.dump(list(driver.compiled), file)
    sys.stdout.flush()
    os._exit(0)


def run_module(name: str, *arguments: str) -> None:
    """Run a command on the stand-in. Its status is 1 if a driver would refuse something; lines say what."""
    _, driver = without_driver()
    sys.argv[1:] = arguments
    status: Any = 0
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    lines = [*driver.refused, status] if isinstance(status, str) else driver.refused
    for line in lines:
        print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if lines else status or 0)  # what CuPy does when it is unloaded is not ours to test


def main() -> None:
    """Take steps of the network that the settings on the command line describe; print what became of them."""
    if sys.argv[1] == "--module":
        run_module(*sys.argv[2:])
    if sys.argv[1] == "--texts":
        write_texts(sys.argv[2])
    settings = json.loads(sys.argv[1])
    cupy, driver = without_driver(differs=settings.pop("differs", False), device=settings.pop("device", "H100"))

    import numpy as np

    from autodiff import tree_map
    from hcnn_core.backend import get_namespace, to_numpy
    from train.config import make_config
    from train.data import Images
    from train.networks.registry import build
    from train.runs import step as steps

    assert get_namespace("cupy") is cupy
    side = settings.pop("size", 32)
    config = make_config(settings.pop("preset"), {"batch_size": 2, **settings})
    classes = 100 if config.dataset == "cifar100" else 10
    network, rng = build(config, 32, classes), np.random.default_rng(0)
    arrays = tree_map(cupy.asarray, steps.initial_arrays(network, network.initialize(rng)))
    pixels, labels = cupy.zeros((8, 32, 32, 3), cupy.uint8), cupy.zeros(8, int)
    images = Images(pixels, labels, np.full(3, 120.0), np.full(3, 60.0), config.dtype)
    take = steps.GraphedStep(cupy, steps.gradient_step(config, network, images, (side, side)), 2)
    launches, held, pool = [], [], cupy.get_default_memory_pool()
    results = [pool.total_bytes()]
    for size in [2] * (steps.WARM_UP + 2) + [1, 2]:
        rates = {
            name: np.asarray(0.5, config.dtype)
            for name in ("rate", "step", "moments_kept", "moments_taken", "average_kept")
        }
        rows = np.tile(np.arange(32), (size, 1))
        inputs = {"index": np.arange(size), "rows": rows, "columns": rows, **rates}
        if config.cutout:
            inputs |= {"hidden_rows": rows < 8, "hidden_columns": rows < 8}
        before = driver.launches
        arrays, loss, numbers = take(arrays, inputs)
        float(loss), int(numbers["accuracy"]), to_numpy(labels)
        launches.append(driver.launches - before)
        gc.collect()
        pool.free_all_blocks()
        held.append(driver.held)
        results.append(pool.total_bytes())
    found = {"recorded": take.launch is not None, "launches": launches, "held": held, "refused": driver.refused[:5]}
    found["in CuPy's own pool"] = results
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # what CuPy does when it is unloaded is not ours to test


if __name__ == "__main__":
    main()
