"""Convolutions as linear operators of SciPy, for its iterative solvers and those of PyLops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from hcnn_core._problem import OPTIONS, make_problem, shape_of, takes
from hcnn_core.backend import array_namespace, require_floating
from hcnn_core.convolution import convolve, convolve_vjp_x
from hcnn_core.typing import Array, Axes, ConvolveOptions, NumpyArray, Shape

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

__all__ = ["linear_operator"]


@takes(OPTIONS)
def linear_operator(w: Array, shape: Shape, axes: Axes, **options: Unpack[ConvolveOptions]) -> LinearOperator:
    """Return the map ``x -> convolve(x, w, axes, ...)`` of flattened signals as SciPy's `LinearOperator`.

    Parameters
    ----------
    w : array
        Filters on the CPU, as `convolve` takes them. They are copied.
    shape : sequence of int
        Shape of the signals x.
    axes, boundary, sum_axes, stride, method
        As in `convolve`.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Of the dtype of w. Its adjoint ``op.H`` is exact up to rounding, with the filters conjugated. Matrices of many
        signals, one per column, are convolved in one call. The attributes ``dims`` and ``dimsd``, which PyLops reads,
        are the shapes of x and of the result.

    Raises
    ------
    TypeError
        If w is not on the CPU, or not of a floating dtype.
    ValueError
        As `convolve`.

    See Also
    --------
    convolve, convolve_vjp_x : The map and its transpose, of arrays with axes.

    Notes
    -----
    PyLops' solvers take the operator as it is. What is only a method of PyLops' own operators, such as ``eigs``, has
    ``pylops.aslinearoperator(op)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import lsqr
    >>> op = linear_operator(np.array([0.25, 0.5, 0.25]), (5,), 0, boundary="zero")
    >>> op @ np.array([0.0, 0.0, 4.0, 0.0, 0.0])
    array([0., 1., 2., 1., 0.])
    >>> lsqr(op, np.array([0.0, 1.0, 2.0, 1.0, 0.0]))[0].round(6) + 0
    array([0., 0., 4., 0., 0.])
    """
    from scipy.sparse.linalg import LinearOperator  # here, because importing it takes longer than hcnn_core does

    if (xp := array_namespace(w)) is not np:
        raise TypeError(
            f"w is an array of {xp.__name__}; SciPy's operators take arrays on the CPU: bring w there first"
        )
    filters = np.array(require_floating(np, "w", w))
    problem = make_problem(shape_of("x", shape), filters.shape, axes, **options)
    moved = tuple(a + 1 for a in problem.axes)  # behind the axis of the columns
    chosen: dict[str, Any] = {
        "boundary": problem.boundary,
        "sum_axes": tuple(a + 1 for a in problem.sum_axes),
        "stride": problem.stride,
        "method": problem.method,
    }

    forward = _OnColumns(filters, moved, chosen, problem.x_shape)
    adjoint = _OnColumns(filters.conj(), moved, chosen, problem.y_shape, problem.x_shape)
    op = LinearOperator(
        (math.prod(problem.y_shape), math.prod(problem.x_shape)),
        matvec=forward,
        matmat=forward,
        rmatvec=adjoint,
        rmatmat=adjoint,
        dtype=filters.dtype,
    )
    op.dims, op.dimsd = problem.x_shape, problem.y_shape
    return op


class _OnColumns(NamedTuple):
    """A convolution of a vector, or of the columns of a matrix, or its adjoint, where the shape of x is given."""

    filters: NumpyArray[Any]
    axes: tuple[int, ...]
    options: dict[str, Any]
    shape: tuple[int, ...]  # of what a column holds
    x_shape: tuple[int, ...] | None = None

    def __call__(self, columns: NumpyArray[Any]) -> NumpyArray[Any]:
        count = columns.shape[1] if columns.ndim == 2 else 1
        given = columns.T.reshape(count, *self.shape)
        if self.x_shape is None:
            results = convolve(given, self.filters, self.axes, **self.options)
        else:
            results = convolve_vjp_x(given, (count, *self.x_shape), self.filters, self.axes, **self.options)
        return results.reshape(count, math.prod(results.shape[1:])).T
