"""Which library, namespace and dtype an array has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from hcnn_core.backend._arrays import AnyArray, Array
from hcnn_core.environment import require_valid
from hcnn_core.typing import Array as PublicArray

moveaxis: Callable[..., Any] = np.moveaxis
"""`numpy.moveaxis`, which also moves axes of CuPy's arrays and of traced values; NumPy's stub says it does not."""

DLPACK_CPU = 1
"""The number of the CPU among DLPack's devices."""

IMMUTABLE = {"jax": "JAX", "jaxlib": "JAX"}
"""Array-API libraries whose arrays cannot be written to, so that what is computed of them is computed by NumPy."""


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
    ValueError
        If an environment variable of this distribution is invalid.
    """
    require_valid()
    if arrays and list(map(type, arrays)).count(np.ndarray) == len(arrays):
        return np
    namespaces: dict[str, Any] = {}
    for array in arrays:
        kind = type(array)
        root = kind.__module__.partition(".")[0]
        if kind is not np.ndarray:
            refuse_notes(array)
        if isinstance(array, np.ndarray | np.generic | int | float | complex | list | tuple):
            namespaces.setdefault("NumPy", np)
        elif root == "cupy":  # CuPy must be imported already, because this array exists
            namespaces.setdefault("CuPy", sys.modules["cupy"])
        elif root not in IMMUTABLE and hasattr(array, "__array_namespace__"):
            namespaces.setdefault(root, array.__array_namespace__())
        else:
            on_host(array)
            namespaces.setdefault(IMMUTABLE.get(root, root), np)
    if len({*map(id, namespaces.values())}) > 1:
        names = " and ".join(sorted(namespaces))
        cure = "make them arrays of one library first"
        if "CuPy" in namespaces:
            cure = "move them to one device first, with cupy.asarray(x) to the GPU or cupy.asnumpy(x) to the host"
        raise TypeError(f"arrays of {names} in one call: {cure}")
    return next(iter(namespaces.values()), np)


@lru_cache(maxsize=64)
def plain_namespace(kind: type) -> Any:
    """Return NumPy or CuPy for the class of their own arrays, which need no checks; else None."""
    named = f"{kind.__module__}.{kind.__qualname__}"
    return {"numpy.ndarray": np, "cupy.ndarray": sys.modules.get("cupy")}.get(named)


CURES = {
    "autodiff.Traced": "traced values want the function of the same name in autodiff",
    "xarray.DataArray": "pass x.data, or name dimensions with xarray.apply_ufunc (docs/containers.md)",
    "xarray.Dataset": "pass one of its variables, x[name].data, or call xarray.apply_ufunc (docs/containers.md)",
    "dask.Array": "call it on blocks with dask.array.map_overlap (docs/containers.md), or pass x.compute()",
    "pandas.Series": "pass x.to_numpy()",
    "pandas.DataFrame": "pass x.to_numpy()",
}


def refuse_notes(array: object) -> None:
    """Raise TypeError for an array with a mask or a unit, which the result would not have."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("expected an array without a mask, got numpy.ma.MaskedArray; x.filled(0) decides for zeros")
    is_plain = isinstance(array, np.generic | int | float | complex | list | tuple)
    if not is_plain and (hasattr(array, "unit") or hasattr(array, "units")) and _class_name(array) not in CURES:
        raise TypeError(f"expected an array without a unit, got {_class_name(array)}; np.asarray(x) leaves it out")


def _class_name(array: object) -> str:
    """Return the library and the class of an array."""
    return f"{library_of(array)}.{type(array).__qualname__}"


def on_host(array: Any) -> Any:
    """Return an array on the CPU of another library, such as PyTorch's or JAX's, as a NumPy array on the same memory.

    It has ``__dlpack__``, else TypeError, which says what to do; what is NumPy's or Python's is returned as it is. The
    result is read-only where the library's arrays are.
    """
    if isinstance(array, np.ndarray | np.generic | int | float | complex | list | tuple):
        return array
    name = _class_name(array)
    if not hasattr(array, "__dlpack__"):
        raise TypeError(f"expected a NumPy or CuPy array, got {name}" + (f"; {CURES[name]}" if name in CURES else ""))
    if name.startswith("jax.") and "Tracer" in name:
        raise TypeError(f"got a {name}, inside jax.jit or jax.grad: call hcnn_core.jax.convolve there")
    if getattr(array, "requires_grad", False):
        raise TypeError(
            f"got a {name} that records gradients: pass x.detach(), or for its gradients call hcnn.core.torch.convolve"
        )
    try:
        if array.__dlpack_device__()[0] == DLPACK_CPU:
            return np.from_dlpack(array)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"got a {name} that NumPy cannot take ({reason}): make it a plain float array first") from error
    raise TypeError(f"got a {name} on another device: bring it to the CPU first, or pass cupy.from_dlpack(x)")


def permute_dims(xp: Any, array: AnyArray, axes: tuple[int, ...]) -> AnyArray:
    """Return the array API's function. For NumPy it calls the method, which is faster and matters in small calls."""
    return array.transpose(axes) if xp is np else xp.permute_dims(array, axes)


def reshape(xp: Any, array: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """Return the array API's function, by NumPy's method for the same reason."""
    return array.reshape(shape) if xp is np else xp.reshape(array, shape)


def dtype_name(dtype: Any) -> str:
    """Name of a dtype of any namespace, such as float32."""
    return _numpys_name(dtype) if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]


@lru_cache(maxsize=64)
def _numpys_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


def wide_dtype(xp: Any, array: AnyArray) -> Any:
    """float64, in which sums keep their digits; the array's own dtype on a device that has none."""
    info = getattr(xp, "__array_namespace_info__", None)
    if xp is np or xp.__name__ == "cupy" or info is None:
        return xp.float64
    return info().dtypes(device=array.device).get("float64", array.dtype)


def require_floating(
    xp: Any, name: str, array: PublicArray, advised: tuple[str, ...] = FLOATING_DTYPES, *, integers: bool = False
) -> Array:
    """Return the argument as an array of one of the four supported dtypes, integers as float64; else TypeError."""
    floats: Array = xp.asarray(on_host(array) if xp is np else array)
    dtype = dtype_name(floats.dtype)
    if integers and dtype.startswith(("bool", "int", "uint")):
        return xp.astype(floats, xp.float64)
    if dtype not in FLOATING_DTYPES:
        raise TypeError(
            f"{name} has dtype {dtype}; convert it to one of {', '.join(advised)}, as with {_cast(array, name)}"
        )
    return floats


def _cast(array: object, name: str) -> str:
    """Return code that converts an array of its library to float64."""
    if library_of(array) == "torch":
        return f"{name}.double()"
    if not isinstance(array, list | tuple | int) and not hasattr(array, "astype"):
        return f"xp.astype({name}, xp.float64)"
    return f"{name}.astype('float64')" if hasattr(array, "astype") else f"numpy.asarray({name}, 'float64')"


def require_real(xp: Any, name: str, array: PublicArray) -> Array:
    """Return the argument as a float32 or float64 array; TypeError otherwise."""
    floats = require_floating(xp, name, array, FLOATING_DTYPES[:2])
    if xp.isdtype(floats.dtype, "complex floating"):
        raise TypeError(f"{name} has dtype {floats.dtype}; this function takes float32 or float64")
    return floats


def require_broadcast(xp: Any, name: str, array: Any, shape: tuple[int, ...]) -> Any:
    """Return the array broadcast to a shape; ValueError where that cannot be."""
    try:
        return xp.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to {shape}") from None


def require_shapes(named: dict[str, Array], shapes: tuple[tuple[int, ...], ...], wanted: str) -> None:
    """Raise ValueError unless arrays, given by name, have these shapes; `wanted` begins the words on the latter."""
    found = tuple(array.shape for array in named.values())
    if found != shapes:
        given, right = (" and ".join(map(str, some)) for some in (found, shapes))
        raise ValueError(f"{' and '.join(named)} have shapes {given}; {wanted} {right}")


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


@lru_cache
def fft_namespace(xp: Any) -> Any:
    """Return the module with rfft, irfft, fft and ifft; for NumPy SciPy's, which keeps single precision."""
    if xp is np:
        import scipy.fft

        return scipy.fft
    return xp.fft


def library_of(array: object) -> str:
    """Name of the library that an array belongs to."""
    return type(array).__module__.partition(".")[0]
