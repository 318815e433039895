"""Arrays of any framework, in and out of an operator: NumPy's on this side, whatever it wants on the other."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from hcnn_core._backend import Array, constant, to_numpy

NDArray = np.ndarray[Any, Any]


def to_host(name: str, array: Array) -> NDArray:
    """A NumPy array with the values of an array of any framework; TypeError with one line where that is impossible."""
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    if hasattr(array, "detach"):  # a tensor that records gradients refuses to be exported
        array = array.detach()
    if hasattr(array, "cpu"):
        array = array.cpu()
    try:
        if kind.startswith("cupy."):
            host = to_numpy(array)
        elif hasattr(array, "__array__"):
            host = np.asarray(array)
        elif hasattr(array, "__dlpack__"):
            host = np.from_dlpack(array)
        elif isinstance(array, int | float | complex):
            host = np.asarray(array)
        else:
            raise TypeError("it has neither __array__ nor __dlpack__")
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name} is a {kind} that cannot be brought to NumPy: {_line(error)}") from error
    if not np.issubdtype(host.dtype, np.inexact):
        raise TypeError(f"{name} has dtype {host.dtype}; give real or complex floating-point numbers")
    return host


def like(host: NDArray, reference: Array) -> Array:
    """A new array with the values of `host`, of the framework and on the device of `reference`."""
    fresh = np.array(host)  # contiguous and writeable, as exchange between frameworks wants it
    if isinstance(reference, np.ndarray | np.generic):
        return fresh
    root = type(reference).__module__.partition(".")[0]
    if root == "cupy":
        return constant(sys.modules["cupy"], fresh, reference)
    if hasattr(reference, "__array_namespace__"):
        return constant(reference.__array_namespace__(), fresh, reference)
    exchanged = sys.modules[root].from_dlpack(fresh)
    return exchanged.to(reference.device) if hasattr(exchanged, "to") else exchanged


def call(name: str, op: Any, x: Array) -> NDArray:
    """op(x) on the host; what it raises, or returns besides an array, is a ValueError or TypeError with one line."""
    try:
        result = op(x)
    except Exception as error:
        shape = tuple(getattr(x, "shape", ()))
        raise ValueError(
            f"{name} raised {type(error).__name__} on an array of shape {shape}, {getattr(x, 'dtype', '')}: "
            f"{_line(error)}"
        ) from error
    return to_host(f"the result of {name}", result)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
