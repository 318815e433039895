"""CUDA kernels, compiled for the current device."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple


def compile_cuda(text: str, name: str, options: tuple[str, ...]) -> Any:
    """Compile a kernel of a CUDA source for the current device; RuntimeError names the line that does not compile."""
    import cupy

    try:
        return cupy.RawModule(code=text, options=options).get_function(name)
    except cupy.cuda.compiler.CompileException as error:
        message = next((line for line in str(error).splitlines() if "error" in line), str(error))
        at = re.search(r"\((\d+)\)", message)
        line = f"; the line: {text.splitlines()[int(at[1]) - 1].strip()}" if at else ""
        raise RuntimeError(f"the CUDA kernel {name} cannot be compiled: {message}{line}") from error


class DeviceLimits(NamedTuple):
    """The limits of a CUDA device for a kernel."""

    shared: int
    """Bytes of shared memory that a block of threads may have."""
    paired: int
    """Bytes up to which a multiprocessor holds two blocks beside each other."""
    capability: tuple[int, int]
    """Compute capability."""


def device_limits() -> DeviceLimits:
    """Return the limits of the current CUDA device."""
    import cupy

    return _limits_of(cupy.cuda.get_device_id())


@lru_cache(maxsize=64)
def _limits_of(device: int) -> DeviceLimits:
    from cupy.cuda import Device, runtime

    def attribute(name: str) -> int:
        return int(runtime.deviceGetAttribute(getattr(runtime, f"cudaDevAttr{name}"), device))

    taken = attribute("ReservedSharedMemoryPerBlock")
    return DeviceLimits(
        attribute("MaxSharedMemoryPerBlockOptin"),
        attribute("MaxSharedMemoryPerMultiprocessor") // 2 - taken,
        divmod(int(Device(device).compute_capability), 10),
    )


def with_shared_memory(compiled: Any, name: str, shared: int) -> Callable[..., None]:
    """Return a kernel that may use these bytes of dynamic shared memory on whichever device is the current one."""
    import cupy

    prepared: set[int] = set()

    def launch(*arguments: Any, **options: Any) -> None:
        if (device := cupy.cuda.get_device_id()) not in prepared:
            try:
                if compiled.max_dynamic_shared_size_bytes < shared:  # of all kernels of one text, on this device alone
                    compiled.max_dynamic_shared_size_bytes = shared
            except Exception as error:
                raise RuntimeError(
                    f"the CUDA kernel {name} needs {shared / 1024:.0f} KiB of shared memory, more than this device has "
                    f"for a block ({error})"
                ) from error
            prepared.add(device)
        compiled(*arguments, **options)

    return launch
