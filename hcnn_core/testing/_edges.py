"""Conversion between NumPy arrays and the arrays of the framework that an operator works on."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from hcnn_core.backend import Array, constant, to_numpy

NDArray = np.ndarray[Any, Any]


def to_host(name: str, array: Array) -> NDArray:
    """Return an array of any framework as a NumPy array; TypeError with one line if that is impossible."""
    try:
        host = _export(array)
    except Exception as error:
        raise TypeError(f"{name} is a {_kind(array)} that cannot be brought to NumPy: {_line(error)}") from error
    if not np.issubdtype(host.dtype, np.inexact):
        raise TypeError(f"{name} has dtype {host.dtype}; give real or complex floating-point numbers")
    return host


def like(host: NDArray, reference: Array) -> Array:
    """Return a new array with the values of `host`, of the framework and on the device of `reference`."""
    fresh = np.array(host, order="C")  # DLPack needs contiguous and writeable memory
    if isinstance(reference, np.ndarray | np.generic | float | complex):
        return fresh
    try:
        return _import(fresh, reference)
    except Exception as error:
        raise TypeError(f"no {_kind(reference)} can be made of NumPy's arrays: {_line(error)}") from error


def call(name: str, op: Any, x: Array) -> NDArray:
    """Return op(x) as a NumPy array; ValueError or TypeError with one line if op raises or returns no array."""
    try:
        result = op(x)
    except Exception as error:
        kind = f"of shape {tuple(getattr(x, 'shape', ()))}, {getattr(x, 'dtype', '')}"
        raise ValueError(f"{name} raised {type(error).__name__} on an array {kind}: {_line(error)}") from error
    # a copy, because op may write its next result to the same memory
    return np.array(to_host(f"the result of {name}", result))


def _export(array: Array) -> NDArray:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("it has a mask; x.filled(0) decides for zeros")
    if isinstance(array, int | float | complex):
        return np.asarray(array)
    if hasattr(array, "detach"):  # a tensor that records gradients cannot be exported
        array = array.detach()
    if hasattr(array, "cpu"):
        array = array.cpu()
    if _root(array) == "cupy":
        return to_numpy(array)
    if hasattr(array, "__array__"):
        try:
            return np.asarray(array)
        except Exception:  # some array-API arrays can only be exported by DLPack
            if not hasattr(array, "__dlpack__"):
                raise
    if not hasattr(array, "__dlpack__"):
        raise TypeError("it has neither __array__ nor __dlpack__")
    exported: Any = array
    return np.from_dlpack(exported)


def _import(host: NDArray, reference: Array) -> Array:
    root = _root(reference)
    if root == "cupy":
        return constant(sys.modules["cupy"], host, reference.device)
    if hasattr(reference, "__array_namespace__"):
        return constant(reference.__array_namespace__(), host, reference.device)
    from_dlpack = getattr(sys.modules.get(root), "from_dlpack", None)
    if from_dlpack is None:
        raise TypeError(f"it has no __array_namespace__, and {root} no from_dlpack")
    exchanged = from_dlpack(host)
    return exchanged.to(reference.device) if hasattr(exchanged, "to") else exchanged


def _root(array: Array) -> str:
    return type(array).__module__.partition(".")[0]


def _kind(array: Array) -> str:
    return f"{type(array).__module__}.{type(array).__qualname__}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
