"""The one linear operator of the paper, Eqs. (2), (3), (4), (6) and (8), and its adjoints (arXiv:1703.04140)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hcnn_core._engines.planner import make_plan
from hcnn_core._problem import Problem, make_problem, shape_of
from hcnn_core.activations import elu, elu_vjp
from hcnn_core.backend import (
    FLOATING_DTYPES,
    Array,
    array_namespace,
    dtype_name,
    on_host,
    placement,
    require_floating,
    require_real,
)

__all__ = ["convolve", "convolve_elu", "convolve_vjp_w", "convolve_vjp_x"]

NUMPY_DTYPES = frozenset(map(np.dtype, FLOATING_DTYPES))
"""The supported dtypes, in the machine's order of bytes."""


def convolve(
    x: Array,
    w: Array,
    /,
    axes: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
    sum_axes: int | Sequence[int] = (),
    stride: int | Sequence[int] = 1,
    method: str | Sequence[str] = "auto",
) -> Array:
    r"""Convolve along some axes, contract others, and append new attribute axes.

    .. math:: y[.., i, .., k] = \sum_{c, t} x[.., c, .., stride \cdot i - (t - \lfloor s/2 \rfloor), ..]\, w[c, t, k]

    For one filter and stride 1 this is ``scipy.ndimage.convolve(x, w, mode="wrap" or "constant", axes=axes)``, for
    every filter length: odd, even, and longer than the axis. That holds for ascending `axes`: here the axes of w follow
    the order given, which SciPy ignores.

    Parameters
    ----------
    x : array
        Signal with any number of axes: float32, float64, complex64 or complex128, in any memory layout.
    w : array, shape (\*summed lengths, \*kernel_size, \*out)
        Filters: first the lengths of x along `sum_axes`, then one kernel size per convolved axis, then any number of
        new axes `out` (the attribute v_j). A dtype different from x's is promoted as NumPy promotes.
    axes : int or sequence of int
        The 1 to 6 axes of x that are convolved.
    boundary : {"periodic", "zero"} or sequence of them
        How x is extended beyond its ends, one for all convolved axes or one per axis.
    sum_axes : int or sequence of int, optional
        Axes of x contracted with the leading axes of w.
    stride : int or sequence of int, optional
        Every how many samples the result is kept, one for all convolved axes or one per axis.
    method : {"auto", "direct", "fft"} or sequence of them, optional
        ``"direct"`` sums taps, ``"fft"`` multiplies spectra; ``"auto"`` takes what a measured cost model finds
        cheaper, per axis. Spectra spread rounding errors, NaN and infinity over an axis, taps only over the kernel. 3
        taps beside axes that have spectra, or of many channels where ``"auto"`` is given, are products of F(4, 3)
        (arXiv:1509.09308), which spread them over 6 samples.

    Returns
    -------
    array
        The axes of x in their order without `sum_axes`, convolved ones of length ceil(n / stride), then `out`.
        It may be a transposed view of newly allocated memory.

    Raises
    ------
    TypeError
        If a dtype is not one of the four (integers are refused), or arrays of two libraries are mixed.
    ValueError
        If axes, shapes, strides, boundary or method do not fit; the message says what would.

    Notes
    -----
    Eqs. (2), (3), (4), (6) and both halves of (8) of arXiv:1703.04140 are calls of this function.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4.0)
    >>> convolve(x, np.array([1.0, 0.0, 0.0]), 0, boundary="periodic")
    array([1., 2., 3., 0.])
    """
    xp, x, w = _operands("x", x, "w", w)
    problem = make_problem(x.shape, w.shape, axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method)
    if problem.empty:
        return xp.zeros(problem.y_shape, dtype=x.dtype, **placement(xp, x))
    return make_plan(problem, _is_real(x), x).forward(xp, x, w)


def convolve_elu(
    x: Array,
    w: Array,
    bias: Array,
    /,
    axes: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
    sum_axes: int | Sequence[int] = (),
    stride: int | Sequence[int] = 1,
    method: str | Sequence[str] = "auto",
) -> Array:
    """Layer x_j = rho(W_j x_{j-1} + b): ``elu(convolve(x, w, axes, ...), bias=bias)``, in one pass over memory.

    Parameters
    ----------
    x : array
        Signal, float32 or float64, as `convolve` takes it.
    w : array
        Filters, as `convolve` takes them.
    bias : array
        Its shape broadcasts to that of the result, whose dtype it takes.
    axes, boundary, sum_axes, stride, method
        As in `convolve`.

    Returns
    -------
    array
        As `convolve`.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        As `convolve`, and if the bias does not broadcast to the result.

    Notes
    -----
    Eqs. (3) and (4) of arXiv:1703.04140, rho being `elu`.
    """
    xp, x, w = _operands("x", x, "w", w)
    x, bias = (
        require_real(xp, "x", x),
        xp.astype(require_real(array_namespace(x, bias), "bias", bias), x.dtype, copy=False),
    )
    problem = make_problem(x.shape, w.shape, axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method)
    try:
        xp.broadcast_to(bias, problem.y_shape)
    except ValueError:
        raise ValueError(f"bias has shape {bias.shape}, which does not broadcast to {problem.y_shape}") from None
    if problem.empty:
        return elu(xp.zeros(problem.y_shape, dtype=x.dtype, **placement(xp, x)), bias=bias)
    return make_plan(problem, True, x).forward(xp, x, w, bias)


def convolve_vjp_x(
    g: Array,
    x: Array | Sequence[int],
    w: Array,
    /,
    axes: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
    sum_axes: int | Sequence[int] = (),
    stride: int | Sequence[int] = 1,
    method: str | Sequence[str] = "auto",
) -> Array:
    """Cotangent of x in ``convolve(x, w, axes, ...)``: a correlation of g with w, linear in both.

    Parameters
    ----------
    g : array
        Cotangent of the result, of its shape.
    x : array or sequence of int
        The signal or its shape; its values do not matter.
    w : array
        The filters.
    axes, boundary, sum_axes, stride, method
        As in `convolve`.

    Returns
    -------
    array
        The transpose of the linear map ``x -> convolve(x, w)`` applied to g, in the shape of x. There is no
        conjugation: ``sum(g * convolve(x, w)) == sum(x * convolve_vjp_x(g, x, w))``. The Hilbert adjoint of complex
        operators is ``convolve_vjp_x(g, x, w.conj())``.

    Raises
    ------
    TypeError, ValueError
        As `convolve`, and ValueError if g has not the shape of the result.
    """
    xp, g, w = _operands("g", g, "w", w)
    problem = make_problem(
        shape_of("x", x), w.shape, axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method
    )
    return adjoints(xp, problem, g, None, w)[0]


def convolve_vjp_w(
    g: Array,
    x: Array,
    w: Array | Sequence[int],
    /,
    axes: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
    sum_axes: int | Sequence[int] = (),
    stride: int | Sequence[int] = 1,
    method: str | Sequence[str] = "auto",
) -> Array:
    """Cotangent of w in ``convolve(x, w, axes, ...)``: a correlation of g with x, linear in both.

    Parameters
    ----------
    g : array
        Cotangent of the result, of its shape.
    x : array
        The signal.
    w : array or sequence of int
        The filters or their shape; their values do not matter.
    axes, boundary, sum_axes, stride, method
        As in `convolve`.

    Returns
    -------
    array
        The transpose of the linear map ``w -> convolve(x, w)`` applied to g, in the shape of w. There is no
        conjugation: ``sum(g * convolve(x, w)) == sum(w * convolve_vjp_w(g, x, w))``.

    Raises
    ------
    TypeError, ValueError
        As `convolve`, and ValueError if g has not the shape of the result.
    """
    xp, g, x = _operands("g", g, "x", x)
    problem = make_problem(
        x.shape, shape_of("w", w), axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method
    )
    return adjoints(xp, problem, g, x, None)[1]


def convolve_cotangents(
    g: Array,
    x: Array,
    w: Array,
    axes: int | Sequence[int],
    *,
    wanted: tuple[bool, bool] = (True, True),
    ans: Array | None = None,
    boundary: str | Sequence[str],
    sum_axes: int | Sequence[int] = (),
    stride: int | Sequence[int] = 1,
    method: str | Sequence[str] = "auto",
) -> tuple[Array | None, Array | None, Array | None]:
    """`convolve_vjp_x` and `convolve_vjp_w` at once, which share the spectrum of g; None for what is not wanted.

    With `ans`, the result of `convolve_elu`, the cotangents of x and w in that; third is a cotangent that sums to the
    bias's. All arrays are of one dtype.
    """
    xp = array_namespace(g, x, w)
    if xp is np:
        g, x, w = on_host(g), on_host(x), on_host(w)
    problem = make_problem(x.shape, w.shape, axes, boundary=boundary, sum_axes=sum_axes, stride=stride, method=method)
    return adjoints(xp, problem, g, x if wanted[1] else None, w if wanted[0] else None, ans)


def adjoints(
    xp: Any, problem: Problem, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
) -> tuple[Array | None, Array | None, Array | None]:
    """Both cotangents at once, sharing the spectrum of g: x's where w is given, w's where x is given.

    With `ans`, the result of `convolve_elu`, theirs, and a cotangent that sums to the bias's.
    """
    if g.shape != problem.y_shape:
        raise ValueError(f"g has shape {g.shape}; the result of this convolution has {problem.y_shape}")
    if problem.empty:
        zeros = [xp.zeros(s, dtype=g.dtype, **placement(xp, g)) for s in (problem.x_shape, problem.w_shape)]
        bias = None if ans is None else elu_vjp(g, ans)
        return (None if w is None else zeros[0]), (None if x is None else zeros[1]), bias
    return make_plan(problem, _is_real(g), g if x is None else x).adjoints(xp, g, x, w, ans)


def _operands(name_a: str, a: Array, name_b: str, b: Array) -> tuple[Any, Array, Array]:
    """The namespace and both arrays in their common dtype."""
    if type(a) is type(b) is np.ndarray and a.dtype == b.dtype and a.dtype in NUMPY_DTYPES:
        return np, a, b  # as what follows would have it, in less time than a small convolution takes
    xp = array_namespace(a, b)
    a, b = require_floating(xp, name_a, a), require_floating(xp, name_b, b)
    if a.dtype != b.dtype:
        dtype = xp.result_type(a, b)
        a, b = xp.astype(a, dtype), xp.astype(b, dtype)
    return xp, a, b


def _is_real(array: Array) -> bool:
    return not dtype_name(array.dtype).startswith("complex")
