"""Results in the memory order of their operands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcnn_core.backend._arrays import Array
from hcnn_core.backend._namespaces import array_namespace, library_of
from hcnn_core.typing import Array as PublicArray


def memory_order(array: PublicArray) -> tuple[int, ...]:
    """Axes from the largest stride to the smallest; in their own order if the array has no `strides`."""
    strides = getattr(array, "strides", None)
    axes = range(array.ndim)
    return tuple(axes) if strides is None else tuple(sorted(axes, key=lambda axis: -abs(strides[axis])))


def in_memory_order(function: Callable[..., Any], *arrays: PublicArray) -> Any:
    """Apply a pointwise function to arrays of one shape, with a result in the memory order of the largest of them.

    Axes along which that one repeats its elements come first, as in the plans of marginals. CuPy's own results are in C
    order. If the arrays are in another order, neighbouring threads then access distant memory, and each 4-byte access
    moves a sector of 32 bytes.
    """

    def held(a: PublicArray) -> int:
        return math.prod(n for n, repeated in zip(a.shape, _repeated(a), strict=True) if not repeated)

    largest = max(arrays, key=held)
    repeated = _repeated(largest)
    order = tuple(sorted(memory_order(largest), key=lambda axis: not repeated[axis]))
    if order == tuple(range(len(order))):
        return function(*arrays)
    xp = array_namespace(*arrays)
    result = function(*(xp.permute_dims(array, order) for array in arrays))
    return xp.permute_dims(result, _inverse(order))


def reduced(function: Callable[..., Any], x: PublicArray, axes: Sequence[int], **options: Any) -> Any:
    """Apply a reduction such as a sum over some axes, with a result in the memory order of x."""
    order = memory_order(x)
    if order == tuple(range(len(order))):
        return function(x, axis=tuple(axes), **options)
    xp = array_namespace(x)
    remaining = [axis for axis in order if axis not in axes]
    result = function(xp.permute_dims(x, order), axis=tuple(order.index(axis) for axis in axes), **options)
    return xp.permute_dims(result, _inverse(remaining))


def joined(arrays: Sequence[Array], axis: int) -> Array:
    """Concatenate arrays. CuPy's own function would copy a table of addresses to the device where there are many."""
    if library_of(arrays[0]) != "cupy" and hasattr(arrays[0], "__array_function__"):
        return np.concatenate(arrays, axis)
    xp = array_namespace(*arrays)
    if library_of(arrays[0]) != "cupy":
        return xp.concat(arrays, axis=axis)
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


def _repeated(array: PublicArray) -> list[bool]:
    """For each axis, whether an array repeats its elements along it."""
    return [n > 1 and not step for n, step in zip(array.shape, getattr(array, "strides", array.shape), strict=True)]


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    """Return the permutation that undoes an order of axes."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))
