"""CuPy itself on a machine without a driver: `python -m tests.gpu.driverless` takes training steps with it.

The C functions of CUDA's runtime and driver, as CuPy's modules call them, are replaced before CuPy is loaded. Memory is
the host's, a launch does nothing, and what a driver refuses while a graph is recorded is written down. So all of CuPy's
own code runs, and ours as it does on a GPU; results are whatever memory holds, which is zeros.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

python = ctypes.pythonapi
python.PyCapsule_GetName.restype = ctypes.c_char_p
python.PyCapsule_GetName.argtypes = [ctypes.py_object]
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
python.Py_IncRef.argtypes = [ctypes.py_object]
libc = ctypes.CDLL(None)
libc.calloc.restype, libc.calloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

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
HARMLESS = {"graphDestroy", "_ensure_context", "streamIsCapturing", "getDevice", "setDevice", "memcpyAsync"}
HARMLESS |= {"memsetAsync", "launchKernel", "streamEndCapture", "deviceGetAttribute", "funcGetAttribute"}
HARMLESS |= {"occupancyMaxActiveBlocksPerMultiprocessor", "occupancyMaxPotentialBlockSize", "ctxGetCurrent"}
"""What may be called while a graph is recorded."""


class Driver:
    """The functions that do something; the others do nothing."""

    def __init__(self) -> None:
        self.recording: int | None = None
        self.refused: list[str] = []
        self.names: dict[int, str] = {}
        self.handles = 100
        self.launches = 0

    def refuse(self, what: str) -> None:
        """Write down what a driver would not do, and who asked for it."""
        frames = [f for f in traceback.extract_stack() if "driverless" not in f.filename]
        self.refused.append(f"{what}, by " + " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames[-4:])))

    def on_stream(self, what: str, stream: int) -> None:
        if self.recording not in (None, stream):
            self.refuse(f"{what} on another stream than is recorded")

    def handle(self, *_: Any) -> int:
        self.handles += 1
        return self.handles

    streamCreate = streamCreateWithFlags = streamCreateWithPriority = graphInstantiate = moduleLoadData = handle

    def getDeviceCount(self, *_: Any) -> int:
        return 1

    def malloc(self, size: int, *_: Any) -> int:
        return int(libc.calloc(max(1, size), 1))

    def hostAlloc(self, size: int, *_: Any) -> int:
        return self.malloc(size)

    def free(self, pointer: int, *_: Any) -> None:
        libc.free(pointer)

    freeHost = free

    def memcpy(self, to: int, source: int, size: int, kind: int, *_: Any) -> None:
        ctypes.memmove(to, source, size)

    def memcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int, *_: Any) -> None:
        self.on_stream("a copy", stream)
        if self.recording is not None and kind not in (ON_DEVICE, ANYWHERE):
            self.refuse("a copy from or to the host")
        ctypes.memmove(to, source, size)
        if kind == TO_HOST and size == 1:  # whether two results are the same: they are
            ctypes.memset(to, 1, 1)

    def memset(self, pointer: int, value: int, size: int, *_: Any) -> None:
        ctypes.memset(pointer, value, size)

    def memsetAsync(self, pointer: int, value: int, size: int, stream: int, *_: Any) -> None:
        self.on_stream("zeros", stream)
        ctypes.memset(pointer, value, size)

    def streamBeginCapture(self, stream: int, *_: Any) -> None:
        self.recording = stream

    def streamEndCapture(self, *_: Any) -> int:
        self.recording = None
        return self.handle()

    def streamIsCapturing(self, stream: int, *_: Any) -> int:
        return int(stream == self.recording)

    def deviceGetAttribute(self, attribute: int, *_: Any) -> int:
        return {75: 9, 76: 0, 16: 132, 97: 227 << 10, 8: 48 << 10, 10: 32}.get(attribute, 1024)  # an H200's

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
        self.names[self.handle()] = name
        return self.handles

    def funcGetAttribute(self, *_: Any) -> int:
        return 64

    def occupancyMaxActiveBlocksPerMultiprocessor(self, *_: Any) -> int:
        return 4

    def occupancyMaxPotentialBlockSize(self, *_: Any) -> tuple[int, int]:
        return 132, 256

    def launchKernel(self, function: int, *arguments: Any) -> None:
        *sizes, shared, stream = arguments[:8]
        name = self.names[function]
        self.launches += 1
        self.on_stream(f"kernel {name}", stream)
        (_, y, z), (across, down, deep) = sizes[:3], sizes[3:]
        too_large = max(y, z) >= 1 << 16 or across * down * deep > 1024 or shared > 227 << 10
        if too_large or min(sizes) < 1:
            self.refuse(f"kernel {name} in a grid of {sizes[:3]}, blocks of {sizes[3:]}, {shared} bytes")


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


def without_driver() -> tuple[Any, Driver]:
    """CuPy, and the driver it believes in. No other module may have loaded CuPy before."""
    import cupy_backends.cuda.api.driver as driver_module
    import cupy_backends.cuda.api.runtime as runtime_module

    driver, kept = Driver(), []  # type: ignore[var-annotated]
    for module in (runtime_module, driver_module):
        install(driver, module, kept)
    import cupy
    from cupy.cuda import compiler, function

    def compiled(*_: Any, **__: Any) -> Any:
        module = function.Module()
        module.load(b" ")
        return module

    compiler._compile_with_cache_cuda = compiled
    cupy._kept_by_driverless = kept
    return cupy, driver


def main() -> None:
    """Take steps of the network that the settings on the command line describe; print what became of them."""
    settings = json.loads(sys.argv[1])
    cupy, driver = without_driver()

    import numpy as np

    from autodiff import tree_map
    from hcnn_core.backend import get_namespace, to_numpy
    from train import step as steps
    from train.config import make_config
    from train.data import Images
    from train.network import Network
    from train.training import initial_moments

    assert get_namespace("cupy") is cupy
    config = make_config(settings.pop("preset"), {"batch_size": 2, **settings})
    classes = 100 if config.dataset == "cifar100" else 10
    network, rng = Network(config, 32, classes), np.random.default_rng(0)
    parameters = network.initialize(rng)
    state = {
        "parameters": parameters,
        "velocity": tree_map(np.zeros_like, parameters),
        "moments": initial_moments(network),
    }
    arrays = tree_map(cupy.asarray, state)
    pixels, labels = cupy.zeros((8, 32, 32, 3), cupy.uint8), cupy.zeros(8, int)
    images = Images(pixels, labels, np.full(3, 120.0), np.full(3, 60.0), config.dtype)
    take = steps.GraphedStep(cupy, steps.gradient_step(cupy, config, network, images), 2)
    launches = []
    for size in [2] * (steps.WARM_UP + 2) + [1, 2]:
        numbers = {name: np.asarray(0.5, config.dtype) for name in ("rate", "keep", "fresh")}
        rows = np.tile(np.arange(32), (size, 1))
        before = driver.launches
        arrays, loss, correct = take(arrays, {"index": np.arange(size), "rows": rows, "columns": rows, **numbers})
        float(loss), int(correct), to_numpy(labels)
        launches.append(driver.launches - before)
    print(json.dumps({"recorded": take.launch is not None, "launches": launches, "refused": driver.refused[:5]}))
    sys.stdout.flush()
    os._exit(0)  # what CuPy does when it is unloaded is not ours to test


if __name__ == "__main__":
    main()
