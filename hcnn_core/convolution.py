"""The linear operator of the paper's Eqs. (2), (3), (4), (6) and (8), and its adjoints (arXiv:1703.04140)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias, Unpack, overload

import numpy as np

from hcnn_core._engines.planner import make_plan
from hcnn_core._problem import MISSING, OPTIONS, Problem, make_problem, normalize_axes, shape_of, takes
from hcnn_core.activations import elu, elu_vjp
from hcnn_core.backend import (
    FLOATING_DTYPES,
    array_namespace,
    dtype_name,
    on_host,
    placement,
    plain_namespace,
    require_broadcast,
    require_floating,
    require_real,
)
from hcnn_core.backend import Array as EngineArray
from hcnn_core.marginals import marginal
from hcnn_core.translation import beginning_with, circles, cropped, extend, fold, on_circles
from hcnn_core.typing import Array, Axes, ConvolveOptions, NumpyArray, Scalar, Shape

__all__ = ["convolve", "convolve_elu", "convolve_elu_marginal", "convolve_vjp_w", "convolve_vjp_x"]

NUMPY_DTYPES = frozenset(map(np.dtype, FLOATING_DTYPES))
"""The supported dtypes, in native byte order."""


@overload
def convolve(
    x: NumpyArray[Scalar], w: NumpyArray[Scalar], /, axes: Axes | None = None, **options: Unpack[ConvolveOptions]
) -> NumpyArray[Scalar]: ...
@overload
def convolve(x: Array, w: Array, /, axes: Axes | None = None, **options: Unpack[ConvolveOptions]) -> Array: ...
@takes(OPTIONS)  # type: ignore[misc]
def convolve(x: Array, w: Array, /, axes: Axes | None, *unnamed: object, **options: Unpack[ConvolveOptions]) -> Array:
    r"""Convolve along some axes, contract others, and append new attribute axes.

    .. math:: y[.., i, .., k] = \sum_{c, t} x[.., c, .., stride \cdot i - (t - \lfloor s/2 \rfloor), ..]\, w[c, t, k]

    >>> import numpy as np
    >>> x = np.arange(4.0)
    >>> convolve(x, np.array([1.0, 0.0, 0.0]), 0, boundary="periodic")
    array([1., 2., 3., 0.])

    The axes of w come in this order: those of `sum_axes`, one per convolved axis, then the new ones. A filter in the
    layout of PyTorch, (K, C, kh, kw), or HWIO, (kh, kw, C, K), must be transposed to (C, kh, kw, K) first. Otherwise
    its last axes count as new axes of the result, or its lengths do not fit.

    The filters are flipped, as in mathematics and SciPy. `correlate` is the same without the flip, which is what
    deep-learning frameworks call a convolution.

    Parameters
    ----------
    x : array
        Signal with any number of axes: float32, float64, complex64 or complex128, in any memory layout. Integers and
        bools are computed in float64; `scipy.ndimage` truncates the result to integers, `scipy.signal` does not.
    w : array, shape (\*summed lengths, \*kernel_size, \*out)
        Filters: first the lengths of x along `sum_axes`, then one kernel size per convolved axis in the order of
        `axes`, then any number of new axes `out` (the attribute v_j). x and w are promoted to a common dtype, by
        NumPy's rules.
    axes : int or sequence of int, optional
        The 1 to 6 axes of x that are convolved; by default all, where w has as many and none is summed.
    boundary : {"periodic", "zero", "reflect", "nearest", "mirror"} or sequence of them
        How x is extended beyond its ends, one for all convolved axes or one per axis. See the table below.
    sum_axes : int or sequence of int, optional
        Axes of x that are contracted with the leading axes of w, such as input channels.
    stride : int or sequence of int, optional
        The result keeps every stride-th sample, starting with the first. One for all convolved axes or one per axis.
        Where a stride does not divide the length of a periodic axis, translating x along that axis does not translate
        the result.
    method : {"auto", "direct", "fft", "measure"} or sequence of them, optional
        How each axis is computed, one for all convolved axes or one per axis. ``"direct"`` sums taps, ``"fft"``
        multiplies spectra, ``"auto"`` takes what a measured cost model predicts to be faster. ``"measure"`` tries what
        is open at the first call and keeps the fastest, as `planning` says.

    Returns
    -------
    array
        The axes of x in their order without `sum_axes`, convolved ones of length ceil(n / stride), then `out`.
        It may be a transposed view of newly allocated memory.

    Raises
    ------
    TypeError
        If a dtype is none of these, or arrays of two libraries are mixed.
    ValueError
        If axes, shapes, strides, boundary or method do not fit; the message says what would.

    Warns
    -----
    RuntimeWarning
        If a NumPy array x is not finite everywhere, and a transform has spread that along axes.

    See Also
    --------
    correlate : The same sum without the flip.
    convolve_vjp_x, convolve_vjp_w : The derivatives.
    planning : Turn measuring on for code that you cannot edit.
    convolve_elu : A convolution, a bias and an ELU in one pass over memory.
    autodiff.convolve : The same function on traced values.

    Notes
    -----
    Eqs. (2), (3), (4), (6) and both halves of (8) of arXiv:1703.04140 are calls of this function.

    *Range.* With "fft", errors are relative to the largest number of a signal. Results of which only the spectra
    overflow are computed again with scaled operands; on a GPU and before an ELU (`convolve_elu`) they are NaN.
    Subnormal numbers lose digits.

    *Boundaries.* Four samples a b c d, as each boundary extends them, and what others call it:

    ==========  =====================  =============  ===========  ===========
    here        extended               scipy.ndimage  numpy.pad    PyTorch
    ==========  =====================  =============  ===========  ===========
    periodic    b c d | a b c d | a b  wrap           wrap         circular
    zero        0 0 0 | a b c d | 0 0  constant       constant     zeros
    reflect     c b a | a b c d | d c  reflect        symmetric    none
    nearest     a a a | a b c d | d d  nearest        edge         replicate
    mirror      d c b | a b c d | c b  mirror         reflect      reflect
    ==========  =====================  =============  ===========  ===========

    Translations commute with the first alone. The last three take more time and memory: x is copied to axes of about
    n + s - 1 samples (kernel size s), at most 2n with "reflect" and "mirror". `convolve_elu` applies its ELU later.

    *In SciPy.* For one filter, ascending `axes` and stride 1 this is ``scipy.ndimage.convolve(x, w, mode=MODE,
    axes=axes)`` with the mode of the table, for every kernel size: odd, even, and longer than the axis. Where `axes` do
    not ascend the two differ: here the axes of w follow the order of `axes`, SciPy sorts `axes` first.

    *In PyTorch and JAX.* Let x have shape (N, C, H, W), and let ``weight`` hold K filters in the shape (K, C, kh, kw),
    with kh and kw odd. Then ::

        correlate(x, weight.transpose(1, 2, 3, 0), (2, 3), sum_axes=1, boundary="zero", stride=r)

    has shape (N, ceil(H / r), ceil(W / r), K). With K as axis 1 instead it is ::

        torch.nn.functional.conv2d(x, weight, stride=r, padding=(kh // 2, kw // 2))
        jax.lax.conv_general_dilated(x, weight, (r, r), [(kh // 2, kh // 2), (kw // 2, kw // 2)])

    ``conv3d`` is the same with one more axis. For an even kernel size s, pad s // 2 samples before and s // 2 - 1
    after. For another boundary, pad x by ``torch.nn.functional.pad`` with the mode of the table first.

    *What is left out.* Constants other than zero beyond the ends: subtract the constant from x first. Dilation: put
    zeros between the taps of w. Groups: call once per group. SciPy's ``origin``: append zeros to w, or use `translate`.

    *Accuracy.* Rounding errors, NaN and infinity spread over the whole axis with ``"fft"``, and over the kernel with
    ``"direct"``. There is one exception. Filters with 3 taps may be applied by Winograd's algorithm F(4, 3)
    (arXiv:1509.09308), which spreads them over 6 samples: along axes beside transformed ones, and with ``"auto"`` where
    there are many channels.

    Examples
    --------
    A blur darkens an even image at its ends, unless the image goes on there:

    >>> blur = np.array([0.25, 0.5, 0.25])
    >>> convolve(np.ones(4), blur, 0, boundary="zero")
    array([0.75, 1.  , 1.  , 0.75])
    >>> convolve(np.ones(4), blur, 0, boundary="reflect")
    array([1., 1., 1., 1.])

    16 filters over the 3 channels of 2 images, of which every second sample is kept:

    >>> images = np.ones((2, 3, 8, 8))  # (N, C, H, W)
    >>> filters = np.ones((3, 5, 5, 16))  # (C, kernel sizes, K)
    >>> convolve(images, filters, (2, 3), sum_axes=1, boundary="zero", stride=2).shape
    (2, 4, 4, 16)
    """
    xp, x, w = operands("x", x, "w", w)
    return forward(xp, make_problem(x.shape, w.shape, axes, *unnamed, **options), x, w)


@overload
def convolve_elu(
    x: NumpyArray[Scalar],
    w: NumpyArray[Scalar],
    bias: NumpyArray[Scalar],
    /,
    axes: Axes,
    **options: Unpack[ConvolveOptions],
) -> NumpyArray[Scalar]: ...
@overload
def convolve_elu(x: Array, w: Array, bias: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> Array: ...
@takes(OPTIONS)
def convolve_elu(x: Array, w: Array, bias: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> Array:
    """Return the layer x_j = rho(W_j x_{j-1} + b), which is ``elu(convolve(x, w, axes, ...), bias=bias)``.

    These are Eqs. (3) and (4), in one pass over memory. x and w are real, else TypeError. The bias is converted to the
    dtype of the result; its shape broadcasts to that of the result, else ValueError. All else as in `convolve`.
    """
    xp, problem, x, w, bias = _with_bias(x, w, bias, axes, options)
    if problem.plain:
        return make_plan(problem, x).forward(xp, x, w, bias)
    return elu(forward(xp, problem, x, w), bias=bias)


def _with_bias(
    x: Array, w: Array, bias: Any, axes: Axes, options: ConvolveOptions
) -> tuple[Any, Problem, EngineArray, EngineArray, EngineArray]:
    """Return the namespace and the problem of a real convolution with a bias, and its operands in one dtype."""
    xp, x, w = operands("x", x, "w", w)
    if dtype_name(x.dtype).startswith("complex"):
        require_real(xp, "x", x)
    bias = xp.astype(require_real(array_namespace(x, bias), "bias", bias), x.dtype, copy=False)
    problem = make_problem(x.shape, w.shape, axes, **options)
    require_broadcast(xp, "bias", bias, problem.y_shape)
    return xp, problem, x, w, bias


@takes(OPTIONS)
def convolve_elu_marginal(
    x: Array, w: Array, bias: Array, /, axes: Axes, axis: int, **options: Unpack[ConvolveOptions]
) -> tuple[Array, Array]:
    """Return layer x_j as `convolve_elu` does, and its marginal over an axis, which the next layer convolves.

    The marginal is that of Eq. (6). The second array is ``marginal(y, axis)`` of the first, y, else ValueError. A GPU
    adds it up while it writes y.
    """
    xp, problem, x, w, bias = _with_bias(x, w, bias, axes, options)
    (axis,) = normalize_axes("axis", axis, len(problem.y_shape), 1)
    if problem.plain:
        return make_plan(problem, x).forward_and_marginal(xp, x, w, bias, axis)
    y = elu(forward(xp, problem, x, w), bias=bias)
    return y, marginal(y, axis)


def convolve_and_parts(
    x: EngineArray, w: EngineArray, axes: Axes, **options: Unpack[ConvolveOptions]
) -> tuple[EngineArray, EngineArray | None]:
    """`convolve`, and parts of its moments for `normalized_and_moments`; None where no kernel makes them on the way."""
    xp, x, w = operands("x", x, "w", w)
    problem = make_problem(x.shape, w.shape, axes, **options)
    with_parts = getattr(make_plan(problem, x), "forward_and_parts", None) if problem.plain else None
    return (forward(xp, problem, x, w), None) if with_parts is None else with_parts(xp, x, w)


@overload
def convolve_vjp_x(
    g: NumpyArray[Scalar], x: Array | Shape, w: NumpyArray[Scalar], /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> NumpyArray[Scalar]: ...
@overload
def convolve_vjp_x(
    g: Array, x: Array | Shape, w: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> Array: ...
@takes(OPTIONS)
def convolve_vjp_x(g: Array, x: Array | Shape, w: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> Array:
    """Return the cotangent of x in ``convolve(x, w, axes, ...)``: a correlation of g with w, linear in both.

    g has the shape of the result, else ValueError. x is the signal or its shape. The result is the transpose of the
    linear map ``x -> convolve(x, w)`` applied to g, in the shape of x, without conjugation:
    ``sum(g * convolve(x, w)) == sum(x * convolve_vjp_x(g, x, w))``. The Hilbert adjoint of complex operators is
    ``convolve_vjp_x(g, x, w.conj())``. All else as in `convolve`.
    """
    xp, g, w = operands("g", g, "w", w)
    return derivative(xp, "x", make_problem(shape_of("x", x), w.shape, axes, **options), g, w)


@overload
def convolve_vjp_w(
    g: NumpyArray[Scalar], x: NumpyArray[Scalar], w: Array | Shape, /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> NumpyArray[Scalar]: ...
@overload
def convolve_vjp_w(
    g: Array, x: Array, w: Array | Shape, /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> Array: ...
@takes(OPTIONS)
def convolve_vjp_w(g: Array, x: Array, w: Array | Shape, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> Array:
    """Return the cotangent of w in ``convolve(x, w, axes, ...)``: a correlation of g with x, linear in both.

    As `convolve_vjp_x`, with the signal x, and the filters w or their shape, which is that of the result.
    """
    xp, g, x = operands("g", g, "x", x)
    return derivative(xp, "w", make_problem(x.shape, shape_of("w", w), axes, **options), g, x)


def convolve_cotangents(
    g: EngineArray,
    x: EngineArray,
    w: EngineArray,
    axes: Axes = MISSING,
    *,
    wanted: tuple[bool, bool] = (True, True),
    ans: EngineArray | None = None,
    **options: Unpack[ConvolveOptions],
) -> tuple[EngineArray | None, EngineArray | None, EngineArray | None]:
    """`convolve_vjp_x` and `convolve_vjp_w` in one call, which transforms g once; None for what is not wanted.

    If `ans` is given, the function is `convolve_elu` and `ans` its result. The third array is then the cotangent of the
    ELU's argument, possibly summed already over axes along which the bias is broadcast. All arrays have one dtype.
    """
    xp = array_namespace(g, x, w)
    if xp is np:
        g, x, w = on_host(g), on_host(x), on_host(w)
    problem = make_problem(x.shape, w.shape, axes, **options)
    return adjoints(xp, problem, g, x if wanted[1] else None, w if wanted[0] else None, ans)


def forward(xp: Any, problem: Problem, x: EngineArray, w: EngineArray, plan: Any = None) -> EngineArray:
    """Convolve operands of one dtype; the problem describes them and is validated."""
    if problem.plain:
        plan = plan or make_plan(problem, x)
        if hasattr(plan, "fastest"):
            plan = plan.fastest(xp, "forward", (x, w), partial(forward, xp, problem, x, w))
        if xp is np and getattr(getattr(plan, "transform", None), "frequencies", 0) != 1:  # or may go by spectra
            return _in_range(lambda x, w: (plan.forward(np, x, w),), (x, w), ((0, 1),))[0]
        return plan.forward(xp, x, w)
    if problem.empty:
        return xp.zeros(problem.y_shape, dtype=x.dtype, **placement(xp, x))
    return cropped(xp, forward(xp, on_circles(problem), extend(xp, x, circles(problem)), w), problem.y_shape)


def adjoints(
    xp: Any,
    problem: Problem,
    g: EngineArray,
    x: EngineArray | None,
    w: EngineArray | None,
    ans: EngineArray | None = None,
    plan: Any = None,
) -> tuple[EngineArray | None, EngineArray | None, EngineArray | None]:
    """Cotangents of x, if w is given, and of w, if x is given, as `convolve_cotangents` returns them."""
    if g.shape != problem.y_shape:
        raise ValueError(f"g has shape {g.shape}; the result of this convolution has {problem.y_shape}")
    if problem.plain:
        plan = plan or make_plan(problem, g if x is None else x)
        if hasattr(plan, "fastest"):
            plan = plan.fastest(xp, "adjoints", (g, x, w, ans), partial(adjoints, xp, problem, g, x, w, ans))
        if xp is np and ans is None and getattr(getattr(plan, "transform", None), "frequencies", 0) != 1:
            pull = lambda g, x, w: plan.adjoints(np, g, x, w)[:2]  # noqa: E731
            return (*_in_range(pull, (g, x, w), ((0, 2), (0, 1))), None)
        return plan.adjoints(xp, g, x, w, ans)
    g_bias = None if ans is None else elu_vjp(g, ans)
    if problem.empty:
        zeros = [xp.zeros(s, dtype=g.dtype, **placement(xp, g)) for s in (problem.x_shape, problem.w_shape)]
        return (None if w is None else zeros[0]), (None if x is None else zeros[1]), g_bias
    inner = on_circles(problem)
    g = beginning_with(xp, xp.zeros, inner.y_shape, g if g_bias is None else g_bias)
    g_x, g_w, _ = adjoints(xp, inner, g, None if x is None else extend(xp, x, circles(problem)), w)
    return (None if g_x is None else fold(xp, g_x, circles(problem))), g_w, g_bias


def _in_range(run: Any, arrays: tuple[Any, ...], factors: tuple[tuple[int, int], ...]) -> tuple[Any, ...]:
    """Return the results of `run` on NumPy's arrays, each linear in two; on scaled arrays if one is not finite.

    Spectra are larger than results by up to the number of samples, so they overflow where results do not.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        results: tuple[Any, ...] = run(*arrays)
        if all(a is None or np.isfinite(np.sum(a)) for a in results):
            return results
    largest = [0.0 if a is None or not a.size else np.max(np.maximum(abs(a.real), abs(a.imag))) for a in arrays]
    if not np.all(np.isfinite(largest)):
        if len(arrays) == 2 and not np.isfinite(largest[0]):  # else cotangents, or filters, which all results read
            text = "x is not finite everywhere, and the FFT spreads that along axes; method='direct' keeps it to the"
            warnings.warn(f"{text} samples that read it", RuntimeWarning, stacklevel=4)
        return results
    powers = [int(np.frexp(size)[1]) - 1 for size in largest]
    scaled = run(*map(_times, arrays, np.negative(powers)))
    return tuple(_times(a, powers[i] + powers[j]) for a, (i, j) in zip(scaled, factors, strict=True))


def _times(array: Any, exponent: int) -> Any:
    """Return an array, where there is one, times a power of two."""
    if array is None:
        return None
    scaled = np.ldexp(array.real, exponent).astype(array.dtype)
    if array.dtype.kind == "c":
        scaled.imag = np.ldexp(array.imag, exponent)
    return scaled


def operands(name_a: str, a: Any, name_b: str, b: Any) -> tuple[Any, EngineArray, EngineArray]:
    """Return the namespace and both arrays in their common dtype."""
    if type(a) is type(b) and (xp := plain_namespace(a.__class__)) and a.dtype == b.dtype and a.dtype in NUMPY_DTYPES:
        return xp, a, b  # a shortcut: the checks below take as long as a small convolution
    xp = array_namespace(a, b)
    a, b = (require_floating(xp, name, array, integers=True) for name, array in ((name_a, a), (name_b, b)))
    if a.dtype != b.dtype:
        dtype = xp.result_type(a, b)
        a, b = xp.astype(a, dtype), xp.astype(b, dtype)
    return xp, a, b


Role: TypeAlias = Literal["y", "x", "w"]
"""With the cotangent y, ``sum(y * convolve(x, w))`` is a form of three arrays. Its derivative by each is bilinear in
the other two. These three maps are each other's derivatives: PyTorch and JAX need no others for any order.
"""

OPERANDS: dict[Role, tuple[Role, Role]] = {"y": ("x", "w"), "x": ("y", "w"), "w": ("y", "x")}
"""The operands of each derivative. By y it is `convolve`, by x and w they are its vector-Jacobian products."""

NAMES: dict[Role, str] = {"y": "convolve", "x": "convolve_vjp_x", "w": "convolve_vjp_w"}


def derivative(xp: Any, role: Role, problem: Problem, a: EngineArray, b: EngineArray) -> EngineArray:
    """Return the form's derivative by one of its arrays, from the other two."""
    if role == "y":
        return forward(xp, problem, a, b)
    x, w = (None, b) if role == "x" else (b, None)
    g_x, g_w, _ = adjoints(xp, problem, a, x, w)
    result = g_x if role == "x" else g_w
    assert result is not None
    return result


def shape(role: Role, problem: Problem) -> tuple[int, ...]:
    """Return the shape of one of the three arrays."""
    return {"y": problem.y_shape, "x": problem.x_shape, "w": problem.w_shape}[role]


def mapped(pair: set[Role], problem: Problem, size: int) -> tuple[Problem, int]:
    """Return the problem in which two of the arrays have one more axis of that size, and where they have it, 0 or -1.

    For y and x it is a batch, for y and w more filters, and for x and w more channels.
    """
    x_shape, w_shape, axes, sum_axes = problem.x_shape, problem.w_shape, problem.axes, problem.sum_axes
    if "x" in pair:
        x_shape = (size, *x_shape)
        axes, sum_axes = tuple(a + 1 for a in axes), tuple(a + 1 for a in sum_axes)
    if pair == {"x", "w"}:
        w_shape, sum_axes = (size, *w_shape), (0, *sum_axes)
    elif "w" in pair:
        w_shape = (*w_shape, size)
    place = -1 if pair == {"y", "w"} else 0
    return replace(problem, x_shape=x_shape, w_shape=w_shape, axes=axes, sum_axes=sum_axes), place
