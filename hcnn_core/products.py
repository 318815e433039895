"""Matrix products that a CUDA graph can record."""

from __future__ import annotations

from typing import overload

from hcnn_core._engines.dispatch import engine
from hcnn_core.typing import Array, NumpyArray, Scalar

__all__ = ["matmul"]


@overload
def matmul(a: NumpyArray[Scalar], b: NumpyArray[Scalar], /) -> NumpyArray[Scalar]: ...
@overload
def matmul(a: Array, b: Array, /) -> Array: ...
def matmul(a: Array, b: Array, /) -> Array:
    """Matrix product ``a @ b`` that can be recorded in a CUDA graph.

    CuPy refuses to call cuBLAS while a CUDA graph is recorded. Small real matrices on a GPU are therefore multiplied by
    a kernel of this package. All others are multiplied by their library's ``matmul``.

    Parameters
    ----------
    a, b : array
        As `numpy.matmul` takes them, both of one library. The kernel takes real vectors and matrices with at most 2^26
        multiply-adds.

    Returns
    -------
    array
        As `numpy.matmul` returns it.

    Raises
    ------
    TypeError
        If the arrays belong to different libraries.
    ValueError
        If the shapes do not fit.
    """
    return engine("matmul", a, b).matmul(a, b)
