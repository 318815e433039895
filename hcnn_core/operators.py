"""Convolutions as linear operators of SciPy, for its iterative solvers and those of PyLops."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from hcnn_core._problem import OPTIONS, make_problem, shape_of, takes
from hcnn_core.backend import array_namespace, refuse_notes, require_floating
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
        Of the dtype of w, float64 for integers. Its adjoint ``op.H`` is exact up to rounding, with the filters
        conjugated. Matrices of many signals, one per column, are convolved in one call. The attributes ``dims`` and
        ``dimsd``, which PyLops reads, are the shapes of x and of the result.

    Raises
    ------
    TypeError
        If w is not on the CPU, or not of a dtype that `convolve` takes.
    ValueError
        As `convolve`.

    See Also
    --------
    convolve, convolve_vjp_x : The map and its transpose, of arrays with axes.

    Notes
    -----
    PyLops' solvers take the operator as it is. For methods of PyLops' own operators, such as ``eigs``, call
    ``pylops.aslinearoperator(op)`` first.

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
    if (xp := array_namespace(w)) is not np:
        raise TypeError(
            f"w is an array of {xp.__name__}; SciPy's operators take arrays on the CPU: bring w there first"
        )
    filters = np.array(require_floating(np, "w", w, integers=True))
    problem = make_problem(shape_of("x", shape), filters.shape, axes, **options)
    moved = tuple(a + 1 for a in problem.axes)  # behind the axis of the rows
    chosen: dict[str, Any] = {name: getattr(problem, name) for name in ("boundary", "stride", "method")}
    chosen["sum_axes"] = tuple(a + 1 for a in problem.sum_axes)
    forward = _OnRows(filters, moved, chosen, problem.x_shape, problem.y_shape, transposed=False)
    adjoint = _OnRows(filters.conj(), moved, chosen, problem.y_shape, problem.x_shape, transposed=True)
    return _make_operator(forward, adjoint)


class _OnRows(NamedTuple):
    """A convolution of flattened signals along the last axis, or its transpose."""

    filters: NumpyArray[Any]
    axes: tuple[int, ...]
    options: dict[str, Any]
    shape: tuple[int, ...]  # of what a row holds
    result: tuple[int, ...]
    transposed: bool

    def __call__(self, rows: NumpyArray[Any]) -> NumpyArray[Any]:
        rows = rows if rows.shape[-1] == math.prod(self.shape) else rows.reshape(-1)  # SciPy's column, as it came
        count = math.prod(rows.shape[:-1])
        given: Any = (convolve_vjp_x, (count, *self.result)) if self.transposed else (convolve,)
        results = given[0](rows.reshape(count, *self.shape), *given[1:], self.filters, self.axes, **self.options)
        return results.reshape(*rows.shape[:-1], math.prod(self.result))

    def conj(self) -> _OnRows:
        return self._replace(filters=self.filters.conj())


def _make_operator(forward: _OnRows, adjoint: _OnRows) -> LinearOperator:
    return _operator_class()(forward, adjoint)


@lru_cache(maxsize=1)
def _operator_class() -> Any:
    """Return a class of SciPy's operators whose products refuse a mask or a unit, which SciPy's own drop."""
    from scipy.sparse.linalg import LinearOperator  # here, because importing it takes longer than hcnn_core does

    class Convolution(LinearOperator):  # type: ignore[misc]  # SciPy has no types
        def __init__(self, forward: _OnRows, adjoint: _OnRows) -> None:
            super().__init__(forward.filters.dtype, (math.prod(forward.result), math.prod(forward.shape)))
            self.dims, self.dimsd = forward.shape, forward.result
            self._forward, self._backward = forward, adjoint

        def __reduce__(self) -> Any:
            return _make_operator, (self._forward, self._backward)

        def _matvec(self, x: Any) -> Any:
            return self._forward(x)

        def _matmat(self, x: Any) -> Any:
            return self._forward(x.swapaxes(-1, -2)).swapaxes(-1, -2)

        def dot(self, x: Any) -> Any:
            refuse_notes(x)
            return super().dot(x)

        def rdot(self, x: Any) -> Any:
            refuse_notes(x)
            return super().rdot(x)

        def _rdot(self, x: Any) -> Any:  # as SciPy before 1.18 names it
            refuse_notes(x)
            return super()._rdot(x)

        def _adjoint(self) -> Any:
            return Convolution(self._backward, self._forward)

        def _transpose(self) -> Any:
            return Convolution(self._backward.conj(), self._forward.conj())

    return Convolution
