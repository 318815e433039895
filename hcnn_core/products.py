"""Matrix products of small matrices."""

from __future__ import annotations

from hcnn_core._engines import planner
from hcnn_core.backend import Array

__all__ = ["matmul"]


def matmul(a: Array, b: Array, /) -> Array:
    """Matrix product ``a @ b``, which on a GPU can be part of a recorded step.

    Parameters
    ----------
    a, b : array
        As `numpy.matmul` takes them, both of NumPy or both of CuPy. Real vectors and matrices of CuPy's with at most
        2^26 multiply-adds are multiplied by a kernel of this package, since CuPy refuses cuBLAS while a CUDA graph is
        recorded; all others by the library.

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
    return planner.matmul(a, b)
