"""Where arrays lie, and the tables that are kept there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core.backend._arrays import Array
from hcnn_core.backend._namespaces import array_namespace, get_namespace, library_of


def use_device(index: int) -> str:
    """Make a CUDA device the current one, by its number modulo the number of devices; return its PCI address."""
    import cupy

    device = cupy.cuda.Device(index % cupy.cuda.runtime.getDeviceCount())
    device.use()
    return str(device.pci_bus_id)


@contextlib.contextmanager
def cuda_stream(device: int, stream: Any) -> Iterator[Any]:
    """Let CuPy work on a device and on another library's stream, which has ``__cuda_stream__``; yields CuPy."""
    cupy = _usable_cupy()
    with cupy.cuda.Device(device), cupy.cuda.Stream.from_external(stream):
        yield cupy


@lru_cache(maxsize=1)
def _usable_cupy() -> Any:
    return get_namespace("cupy")


def placement(xp: Any, like: Array) -> dict[str, Any]:
    """Keyword arguments that make a creation function allocate on the device of `like`; NumPy and CuPy need none."""
    return {} if xp is np or xp.__name__ == "cupy" else {"device": like.device}


def empty(xp: Any, shape: tuple[int, ...], like: Array) -> Array:
    """Return an uninitialised array of the dtype and on the device of `like`."""
    return xp.empty(shape, dtype=like.dtype, **placement(xp, like))


def lasting_memory(xp: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which CuPy allocates from a pool of its own: for arrays that outlast a step.

    In CuPy's default pool such an array would be a piece of a larger block, and keep all of it from being given back.
    """
    if xp.__name__ != "cupy":
        return contextlib.nullcontext()
    import cupy

    return cupy.cuda.using_allocator(_lasting_pool().malloc)


@lru_cache(maxsize=1)
def _lasting_pool() -> Any:
    import cupy

    return cupy.cuda.MemoryPool()


def constant(xp: Any, values: np.ndarray[Any, Any], device: Any) -> Array:
    """Host values as an array of `xp` on a device."""
    if xp.__name__ == "cupy":
        import cupy

        with device, lasting_memory(xp):
            return cupy.asarray(values, blocking=True)  # it may next be read on another stream
    where = {} if xp is np else {"device": device}
    return xp.asarray(values, **where)


_touched: list[list[Any]] = []
"""Lists that note requested tables: a recorded graph reads its tables as long as it is launched."""


@contextlib.contextmanager
def keeping(tables: list[Any]) -> Iterator[None]:
    """Append every requested table to a list, so that it outlasts the plan it belongs to."""
    _touched.append(tables)
    try:
        yield
    finally:
        _touched.pop()


class DeviceTables:
    """Host tables that are sent to a device at their first use there, once."""

    def __init__(self) -> None:
        self._placed: dict[tuple[Any, ...], Any] = {}

    def beside(self, like: Array, name: Any, make: Callable[[], Any]) -> Any:
        """Return the array or tuple of arrays that `make` returns on the host, on the device of `like`.

        The name tells it from others, of another dtype too.
        """
        key = (name, type(like), str(getattr(like, "device", "cpu")))
        if key not in self._placed:
            xp, host = array_namespace(like), make()
            several = isinstance(host, tuple)
            placed = tuple(constant(xp, table, like.device) for table in (host if several else (host,)))
            self._placed[key] = placed if several else placed[0]
        for tables in _touched:
            tables.append(self._placed[key])
        return self._placed[key]


_zeros = DeviceTables()


def lasting_zeros(like: Array) -> Any:
    """Zeros of the shape and dtype of a small array, that nobody writes to; on a GPU they are made once."""
    if library_of(like) != "cupy":
        return array_namespace(like).zeros_like(like)
    return _zeros.beside(like, (like.shape, like.dtype), lambda: np.zeros(like.shape, like.dtype))


def address_of(array: Array) -> int:
    """Where the first element of an array lies, of NumPy's or CuPy's."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def write(array: Any, values: np.ndarray[Any, Any]) -> None:
    """Write host values to an array."""
    if library_of(array) == "cupy":
        array.set(values)
    else:
        xp = array_namespace(array)
        array[...] = xp.asarray(values, **placement(xp, array))
