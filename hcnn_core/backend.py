"""The array library behind the arguments: NumPy, CuPy, or any array-API namespace.

Only this module imports CuPy, and only when it is asked for by name.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol, TypeVar

import numpy as np

from hcnn_core._threads import parallel_for as parallel_for
from hcnn_core._threads import worker_count as worker_count
from hcnn_core.typing import Array as PublicArray

__all__ = ["array_namespace", "get_namespace"]  # what users may call; autodiff and train also import the rest


class Array(PublicArray, Protocol):
    """An array inside an engine: what NumPy's and CuPy's arrays have, as far as it is used.

    Results are `Any`, because which library made an array is known at run time only. So are methods that the libraries
    declare differently. Arrays of another array-API library lack the methods, `strides` and `nbytes`: an engine uses
    these only where it knows that the array is NumPy's or CuPy's.
    """

    @property
    def size(self) -> int: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def flags(self) -> Any: ...
    @property
    def device(self) -> Any: ...
    @property
    def data(self) -> Any: ...
    @property
    def real(self) -> Any: ...
    @property
    def imag(self) -> Any: ...
    @property
    def any(self) -> Any: ...
    @property
    def astype(self) -> Any: ...
    @property
    def conj(self) -> Any: ...
    @property
    def copy(self) -> Any: ...
    @property
    def mean(self) -> Any: ...
    @property
    def reshape(self) -> Any: ...
    @property
    def std(self) -> Any: ...
    @property
    def sum(self) -> Any: ...
    @property
    def transpose(self) -> Any: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Any: ...
    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __array__(self) -> np.ndarray[Any, Any]: ...
    def __eq__(self, other: Any, /) -> Any: ...
    def __ne__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...
    def __pow__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __rtruediv__(self, other: Any, /) -> Any: ...
    def __rmatmul__(self, other: Any, /) -> Any: ...
    def __rpow__(self, other: Any, /) -> Any: ...


AnyArray = TypeVar("AnyArray", bound=Array)
"""One kind of array inside an engine: NumPy's in `_engines/cpu`."""

moveaxis: Callable[..., Any] = np.moveaxis
"""`numpy.moveaxis`, which also moves axes of CuPy's arrays and of traced values; NumPy's stub says it does not."""

Result = TypeVar("Result")

DLPACK_CPU = 1
"""The number of the CPU among DLPack's devices."""

IMMUTABLE = {"jax": "JAX", "jaxlib": "JAX"}
"""Array-API libraries whose arrays cannot be written to, so that what is computed of them is computed by NumPy."""

RECIPE = "docs/frameworks.md shows how"

FLOATING_DTYPES = ("float32", "float64", "complex64", "complex128")


def array_namespace(*arrays: object) -> Any:
    """Return the one namespace all the arrays belong to.

    Parameters
    ----------
    *arrays : array
        NumPy arrays, CuPy arrays or arrays with ``__array_namespace__``, all of one kind.
        Python scalars, lists and tuples count as NumPy, and so do arrays on the CPU of libraries that are none of
        these and have ``__dlpack__``: PyTorch's and JAX's.

    Returns
    -------
    module
        ``numpy``, ``cupy``, or what ``__array_namespace__`` returns.

    Raises
    ------
    TypeError
        If the arrays belong to different libraries, or one is of a type that is no array.
    """
    if arrays and list(map(type, arrays)).count(np.ndarray) == len(arrays):
        return np
    found: dict[str, Any] = {}
    for array in arrays:
        kind = type(array)
        root = kind.__module__.partition(".")[0]
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError("expected an array without a mask, got numpy.ma.MaskedArray; x.filled(0) decides for zeros")
        if isinstance(array, np.ndarray | np.generic | int | float | complex | list | tuple):
            found.setdefault("NumPy", np)
        elif root == "cupy":  # CuPy must be imported already, because this array exists
            found.setdefault("CuPy", sys.modules["cupy"])
        elif root not in IMMUTABLE and hasattr(array, "__array_namespace__"):
            found.setdefault(root, array.__array_namespace__())
        else:
            on_host(array)
            found.setdefault(IMMUTABLE.get(root, root), np)
    if len({*map(id, found.values())}) > 1:
        names = " and ".join(sorted(found))
        cure = "make them arrays of one library first"
        if "CuPy" in found:
            cure = "move them to one device first, with cupy.asarray(x) to the GPU or cupy.asnumpy(x) to the host"
        raise TypeError(f"arrays of {names} in one call: {cure}")
    return next(iter(found.values()), np)


def on_host(array: Any) -> Any:
    """Return an array of another library, such as PyTorch's or JAX's, as a NumPy array on the same memory.

    Parameters
    ----------
    array : array
        An array on the CPU with ``__dlpack__``. NumPy's arrays and scalars, numbers, lists and tuples are returned as
        they are.

    Returns
    -------
    numpy.ndarray
        Read-only where the library's arrays are.

    Raises
    ------
    TypeError
        If NumPy cannot take the array; the message says what to do.
    """
    if isinstance(array, np.ndarray | np.generic | int | float | complex | list | tuple):
        return array
    kind = type(array)
    root = kind.__module__.partition(".")[0]
    name = f"{root}.{kind.__qualname__}"
    if not hasattr(array, "__dlpack__"):
        raise TypeError(
            f"expected a NumPy or CuPy array, got {name}"
            + ("; traced values want the function of the same name in autodiff" if root == "autodiff" else "")
        )
    if root == "jax" and "Tracer" in kind.__qualname__:
        raise TypeError(f"got a {name}, inside jax.jit or jax.grad: call through jax.pure_callback, {RECIPE}")
    if getattr(array, "requires_grad", False):
        raise TypeError(f"got a {name} that records gradients: pass x.detach(), or for its gradients {RECIPE}")
    try:
        device = array.__dlpack_device__()[0]
        if device == DLPACK_CPU:
            return np.from_dlpack(array)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"got a {name} that NumPy cannot take ({reason}): make it a plain float array first") from error
    raise TypeError(f"got a {name} on another device: bring it to the CPU first, or pass cupy.from_dlpack(x)")


def permute_dims(xp: Any, array: AnyArray, axes: tuple[int, ...]) -> AnyArray:
    """The array API's function. For NumPy it calls the method, which is faster and matters in small calls."""
    return array.transpose(axes) if xp is np else xp.permute_dims(array, axes)


def reshape(xp: Any, array: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """The array API's function, by NumPy's method for the same reason."""
    return array.reshape(shape) if xp is np else xp.reshape(array, shape)


def dtype_name(dtype: Any) -> str:
    """Name of a dtype of any namespace, such as float32."""
    return _numpys_name(dtype) if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]


@lru_cache(maxsize=64)
def _numpys_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


def require_floating(xp: Any, name: str, array: PublicArray) -> Array:
    """Return the argument as an array of one of the four supported dtypes; TypeError otherwise."""
    found: Array = xp.asarray(on_host(array) if xp is np else array)
    dtype = dtype_name(found.dtype)
    if dtype not in FLOATING_DTYPES:
        raise TypeError(f"{name} has dtype {dtype}; convert it to one of {', '.join(FLOATING_DTYPES)}")
    return found


def get_namespace(backend: str) -> ModuleType:
    """Return the array namespace of a backend's name, ready for use.

    Parameters
    ----------
    backend : {"numpy", "cupy", "auto"}
        ``"auto"`` is CuPy where a GPU can be used, else NumPy.

    Returns
    -------
    module
        ``numpy`` or ``cupy``.

    Raises
    ------
    ValueError
        If the name is none of the three.
    RuntimeError
        If ``"cupy"`` is asked for and cannot be used; the message says what is missing.
    """
    if backend not in ("numpy", "cupy", "auto"):
        raise ValueError(f"backend is {backend!r}; choose 'auto', 'numpy' or 'cupy'")
    if backend == "numpy":
        return np
    try:
        return _usable_cupy()
    except RuntimeError:
        if backend == "auto":
            return np
        raise


def _usable_cupy() -> ModuleType:
    """CuPy, after a first allocation on the device; RuntimeError names what is missing."""
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            "CuPy is not installed: install the extra cuda12 or cuda13 (the wheel cupy-cuda12x or cupy-cuda13x)"
        ) from error
    except Exception as error:  # CuPy creates a folder for its kernels on import, which can fail
        raise RuntimeError(f"CuPy cannot be imported ({error})") from error
    try:
        driver, needed = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise RuntimeError(f"CuPy found no usable CUDA driver ({error}): install NVIDIA's driver") from error
    if driver // 1000 < needed // 1000:
        raise RuntimeError(
            f"NVIDIA's driver supports CUDA {driver // 1000}, CuPy's wheel needs CUDA {needed // 1000}: "
            f"install a newer driver, or the extra cuda{driver // 1000} where there is one"
        )
    if devices == 0:
        raise RuntimeError("CuPy found no CUDA device: this machine shows no NVIDIA GPU")
    try:
        cupy.zeros(1)
    except MemoryError as error:
        raise RuntimeError(f"the CUDA device has no memory left ({error}): end what else runs on it") from error
    except Exception as error:
        advice = ": end the other process that holds it" if "DevicesUnavailable" in str(error) else ""
        raise RuntimeError(f"CuPy cannot use the CUDA device ({error}){advice}") from error
    try:
        cupy.arange(1)  # its first kernel
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise RuntimeError(
            f"CuPy cannot compile kernels ({first}): install the extra cuda{needed // 1000}, which brings NVRTC and "
            "CUDA's headers, or NVIDIA's CUDA Toolkit"
        ) from error
    return cupy


def to_numpy(array: Any) -> np.ndarray[Any, Any]:
    """Return a NumPy array with the values of an array of any supported namespace."""
    if hasattr(array, "get") and type(array).__module__.startswith("cupy"):
        return array.get()
    return np.asarray(array)


def fft_namespace(xp: Any) -> Any:
    """The module with rfft, irfft, fft and ifft for a namespace; for NumPy SciPy's, which keeps single precision."""
    if xp is np:
        import scipy.fft

        return scipy.fft
    return xp.fft


def device_of(array: PublicArray) -> str:
    """Name of an array's device, for keys of caches."""
    return str(getattr(array, "device", "cpu"))


def placement(xp: Any, like: Array) -> dict[str, Any]:
    """Keyword arguments that make a creation function allocate on the device of `like`; NumPy and CuPy need none."""
    return {} if xp is np or xp.__name__ == "cupy" else {"device": like.device}


def empty(xp: Any, shape: tuple[int, ...], like: Array) -> Array:
    """An uninitialised array of the dtype and on the device of `like`."""
    return xp.empty(shape, dtype=like.dtype, **placement(xp, like))


def memory_order(array: PublicArray) -> tuple[int, ...]:
    """Axes from the largest stride to the smallest; in their own order if the array has no `strides`."""
    strides = getattr(array, "strides", None)
    axes = range(array.ndim)
    return tuple(axes) if strides is None else tuple(sorted(axes, key=lambda axis: -abs(strides[axis])))


def in_memory_order(function: Callable[..., Any], *arrays: PublicArray) -> Any:
    """Apply a pointwise function to arrays of one shape, with a result in the arrays' memory order.

    CuPy's own results are in C order. If the arrays are in another order, neighbouring threads then access distant
    memory, and each 4-byte access moves a sector of 32 bytes.
    """
    order = memory_order(next((a for a in arrays if not _is_broadcast(a)), arrays[0]))
    if order == tuple(range(len(order))):
        return function(*arrays)
    xp = array_namespace(*arrays)
    result = function(*(xp.permute_dims(array, order) for array in arrays))
    return xp.permute_dims(result, _inverse(order))


def reduced(function: Callable[..., Any], x: PublicArray, axes: Sequence[int], **options: Any) -> Any:
    """Apply a reduction such as a sum over some axes, with a result in the memory order of x, for the same reason."""
    order = memory_order(x)
    if order == tuple(range(len(order))):
        return function(x, axis=tuple(axes), **options)
    xp = array_namespace(x)
    kept = [axis for axis in order if axis not in axes]
    result = function(xp.permute_dims(x, order), axis=tuple(order.index(axis) for axis in axes), **options)
    return xp.permute_dims(result, _inverse(kept))


def _is_broadcast(array: PublicArray) -> bool:
    strides = getattr(array, "strides", ())
    return any(n > 1 and not step for n, step in zip(array.shape, strides, strict=False))


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes an order of axes."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def joined(arrays: Sequence[Array], axis: int) -> Array:
    """Concatenate arrays. CuPy's own function would copy a table of addresses to the device where there are many."""
    if library_of(arrays[0]) != "cupy":
        return np.concatenate(arrays, axis)
    xp = array_namespace(*arrays)
    lengths = [array.shape[axis] for array in arrays]
    shape = list(arrays[0].shape)
    for array, length in zip(arrays, lengths, strict=True):
        shape[axis] = length
        if array.shape != tuple(shape):
            raise ValueError(f"arrays of shapes {[a.shape for a in arrays]} cannot be joined along axis {axis}")
    shape[axis] = sum(lengths)
    order = memory_order(arrays[0])
    result = xp.empty(tuple(shape[a] for a in order), dtype=xp.result_type(*arrays))
    along = (*(slice(None),) * order.index(axis % len(order)),)
    for end, array in zip(itertools.accumulate(lengths), arrays, strict=True):
        result[(*along, slice(end - array.shape[axis], end))] = xp.permute_dims(array, order)
    return xp.permute_dims(result, _inverse(order))


@lru_cache(maxsize=1)
def _lasting_pool() -> Any:
    import cupy

    return cupy.cuda.MemoryPool()


def lasting_memory(xp: Any) -> contextlib.AbstractContextManager[Any]:
    """A context in which CuPy allocates from a pool of its own: for arrays that outlast a step.

    In CuPy's default pool such an array would be a piece of a larger block, and keep all of it from being given back.
    """
    if xp.__name__ != "cupy":
        return contextlib.nullcontext()
    import cupy

    return cupy.cuda.using_allocator(_lasting_pool().malloc)


def constant(xp: Any, values: np.ndarray[Any, Any], device: Any) -> Array:
    """Host values as an array of `xp` on a device."""
    if xp.__name__ == "cupy":
        import cupy

        with device, lasting_memory(xp):
            return cupy.asarray(values, blocking=True)  # it may next be read on another stream
    where = {} if xp is np else {"device": device}
    return xp.asarray(values, **where)


class DeviceTables:
    """Host tables that are sent to a device at their first use there, once."""

    def __init__(self) -> None:
        self._placed: dict[tuple[Any, ...], Any] = {}

    def beside(self, like: Array, name: Any, make: Callable[[], Any]) -> Any:
        """The array or tuple of arrays that `make` returns on the host, on the device of `like`.

        The name tells it from others, of another dtype too.
        """
        key = (name, library_of(like), device_of(like))
        if key not in self._placed:
            xp, made = array_namespace(like), make()
            several = isinstance(made, tuple)
            placed = tuple(constant(xp, table, like.device) for table in (made if several else (made,)))
            self._placed[key] = placed if several else placed[0]
        return self._placed[key]


def require_real(xp: Any, name: str, array: PublicArray) -> Array:
    """Return the argument as a float32 or float64 array; TypeError otherwise."""
    found = require_floating(xp, name, array)
    if xp.isdtype(found.dtype, "complex floating"):
        raise TypeError(f"{name} has dtype {found.dtype}; this function takes float32 or float64")
    return found


def library_of(array: object) -> str:
    """Name of the library that an array belongs to."""
    return type(array).__module__.partition(".")[0]


def compile_cuda(text: str, name: str, options: tuple[str, ...]) -> Any:
    """A kernel of a CUDA source, compiled for the current device; RuntimeError names the line that does not compile."""
    import cupy

    try:
        return cupy.RawModule(code=text, options=options).get_function(name)
    except cupy.cuda.compiler.CompileException as error:
        message = next((line for line in str(error).splitlines() if "error" in line), str(error))
        at = re.search(r"\((\d+)\)", message)
        line = f"; the line: {text.splitlines()[int(at[1]) - 1].strip()}" if at else ""
        raise RuntimeError(f"the CUDA kernel {name} cannot be compiled: {message}{line}") from error


def with_shared_memory(compiled: Any, name: str, shared: int) -> Callable[..., None]:
    """A kernel that may use so many bytes of dynamic shared memory on whichever device is the current one."""
    import cupy

    prepared: set[int] = set()

    def launch(*arguments: Any, **options: Any) -> None:
        if (device := cupy.cuda.get_device_id()) not in prepared:
            try:
                compiled.max_dynamic_shared_size_bytes = shared  # of the kernel on this device alone
            except Exception as error:
                raise RuntimeError(
                    f"the CUDA kernel {name} needs {shared / 1024:.0f} KiB of shared memory, more than this device has "
                    f"for a block ({error}); float32 needs half as much as float64"
                ) from error
            prepared.add(device)
        compiled(*arguments, **options)

    return launch


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


SPARE = 0.25
"""Spare memory of a recorded function, as a fraction of what the call before the recording took.

CuPy's pool keeps free blocks in sets, whose order depends on addresses, so a second call may divide them differently.
"""


def record(work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Record what a function launches as a CUDA graph; return a function that launches it again, and the results.

    Every launch reads its operands from the same memory and writes to the same memory, its results included. The graph
    owns the memory that the function allocates, so that nothing else overwrites it. Arrays that the function takes from
    caches must stay in them. The function is called twice: the first call compiles kernels and fills the memory pool,
    which must not happen while recording. The memory goes back to the device when first the results and then the
    returned function are dropped, because CuPy's pools do not free their blocks by themselves.
    """
    import cupy

    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    cupy.fft.config.get_plan_cache().set_size(-1)  # a plan that is dropped frees the memory that the graph works in
    cupy.cuda.get_current_stream().synchronize()
    cupy.get_default_memory_pool().free_all_blocks()  # the graph needs as much memory as is free in this pool
    try:
        with stream, cupy.cuda.using_allocator(pool.malloc):
            work()
            pool.malloc(int(SPARE * pool.total_bytes()))  # freed at once, and kept by the pool
            stream.synchronize()
            stream.begin_capture()
            try:
                results = work()
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    stream.end_capture()
                raise
            graph = stream.end_capture()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # frames hold arrays
        gc.collect()
        pool.free_all_blocks()
        raise

    def launch() -> None:
        cupy.cuda.get_current_stream().synchronize()
        graph.launch(stream)
        stream.synchronize()

    weakref.finalize(launch, pool.free_all_blocks).atexit = False
    return launch, results


def use_device(index: int) -> str:
    """Make a CUDA device the current one, by its number modulo the number of devices; return its PCI address."""
    import cupy

    device = cupy.cuda.Device(index % cupy.cuda.runtime.getDeviceCount())
    device.use()
    return str(device.pci_bus_id)


def nccl_is_available() -> bool:
    """Whether CuPy finds NCCL, which sums arrays over the devices of several processes."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return False
    return bool(nccl.available)


def nccl_sums(rank: int, size: int, bcast: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """A function that sums an array over the current devices of `size` processes; `bcast` returns what rank 0 gives."""
    import cupy
    from cupy.cuda import nccl

    communicator = nccl.NcclCommunicator(size, bcast(nccl.get_unique_id() if rank == 0 else None), rank)
    kinds = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

    def all_reduce(array: Array) -> Array:
        array = cupy.ascontiguousarray(array)
        total = cupy.empty_like(array)
        kind, stream = kinds[dtype_name(array.dtype)], cupy.cuda.get_current_stream().ptr
        communicator.allReduce(address_of(array), address_of(total), array.size, kind, nccl.NCCL_SUM, stream)
        return total

    return all_reduce
