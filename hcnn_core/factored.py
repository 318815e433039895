"""A (+) layer: two convolutions with the nonlinearity between and after them (arXiv:1703.04140, section 4.2)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from hcnn_core._engines.planner import make_factored_plan
from hcnn_core._problem import BOUNDARIES, Problem, make_problem, normalize_axes, normalize_choice, normalize_integers
from hcnn_core._tuning import current
from hcnn_core.activations import elu_vjp
from hcnn_core.backend import Array as EngineArray
from hcnn_core.backend import array_namespace, joined, require_broadcast, require_real
from hcnn_core.convolution import adjoints, convolve, convolve_elu
from hcnn_core.marginals import marginal
from hcnn_core.typing import Array, Axes, Boundaries

__all__ = ["factored_layer"]

EXPANSION_ELEMENTS = current().expansion_elements
"""Elements of the Q intermediate signals that are held at a time on the path without compiled kernels."""


def factored_layer(
    x: Array,
    h: Array,
    shift: Array,
    g: Array,
    bias: Array | None,
    /,
    h_axes: Axes,
    g_axes: Axes,
    *,
    boundary: Boundaries,
    stride: Axes = 1,
) -> Array:
    r"""Layer x_j = rho(W^g rho(W^h x_{j-1} + a) + b): Q filters along some axes, then filters along others and over q.

    Up to rounding it is ``convolve_elu(convolve_elu(x, h, shift, h_axes), g, bias, g_axes, sum_axes=x.ndim)``. It needs
    less memory: the Q results of the first filters exist for some positions at a time, or for some of the batch at a
    time on a GPU. Without a bias it is W^g rho(W^h x_{j-1} + a), which may then be normalised.

    Parameters
    ----------
    x : array
        Signal with any number of axes, float32 or float64. x, h and g are promoted to a common dtype.
    h : array, shape (\*kernel_size, Q)
        First filters, along `h_axes`.
    shift : array, shape (Q,)
        Bias of the first filters, added before rho. It is converted to the dtype of the result.
    g : array, shape (Q, \*kernel_size, \*out)
        Second filters, along `g_axes`, summed over q.
    bias : array or None
        Bias of the second filters. Its shape broadcasts to that of the result, and it is converted to its dtype. None
        leaves out the bias and the rho after it.
    h_axes, g_axes : int or sequence of int
        Axes of x that h and g are convolved along. No axis may be in both.
    boundary : {"periodic", "zero"} or sequence of them
        How x, and the result of the first filters, is extended beyond its ends: one for all axes, or one for each of
        h_axes followed by g_axes.
    stride : int or sequence of int, optional
        The result keeps every stride-th sample; one for all axes, or one for each of h_axes followed by g_axes.

    Returns
    -------
    array
        The axes of x in their order, of length ceil(n / stride), then `out`. It may be a transposed view.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If axes, shapes, strides or boundary do not fit; the message says what would.
    """
    xp, operands, expansion, contraction = _arguments(x, h, shift, g, bias, h_axes, g_axes, boundary, stride)
    plan = make_factored_plan(expansion, contraction, operands[0], operands[4])
    if plan is not None:
        return plan.forward(*operands)  # NumPy's arrays, or there would be no plan
    x, h, shift, g, bias = operands
    results: list[Any] = []
    for block in _blocks(expansion, contraction, operands[4]):
        z = convolve_elu(x[block], h, shift, expansion.axes, boundary=expansion.boundary, stride=expansion.stride)
        c = contraction
        options: dict[str, Any] = {"boundary": c.boundary, "stride": c.stride, "sum_axes": c.sum_axes}
        results.append(
            convolve(z, g, c.axes, **options) if bias is None else convolve_elu(z, g, bias, c.axes, **options)
        )
    return _joined(xp, results, expansion, contraction, len(contraction.out_shape))


def factored_adjoints(
    cotangent: EngineArray,
    ans: EngineArray,
    x: EngineArray,
    h: EngineArray,
    shift: EngineArray,
    g: EngineArray,
    bias: EngineArray | None,
    h_axes: Axes,
    g_axes: Axes,
    *,
    boundary: Boundaries,
    stride: Axes = 1,
) -> tuple[EngineArray | None, ...]:
    """Cotangents of x, h, shift, g and bias (or None), each in its shape; `ans` is the result of `factored_layer`."""
    xp, operands, expansion, contraction = _arguments(x, h, shift, g, bias, h_axes, g_axes, boundary, stride)
    x, h, shift, g, bias = operands
    plan = make_factored_plan(expansion, contraction, x, bias)
    if plan is not None:
        arguments: Any = cotangent, None if bias is None else ans, *operands[:4]
        *cotangents, of_sum = plan.adjoints(*arguments)
        return (*cotangents, None if bias is None or of_sum is None else _summed_to(xp, of_sum, bias.shape))
    blocks_of_x, sums = [], []
    for block in _blocks(expansion, contraction, bias):
        z: Any = convolve_elu(x[block], h, shift, expansion.axes, boundary=expansion.boundary, stride=expansion.stride)
        e, c = (replace(problem, x_shape=a.shape) for problem, a in ((expansion, x[block]), (contraction, z)))
        of_z, of_g, of_bias = adjoints(xp, c, cotangent[block], z, g, None if bias is None else ans[block])
        assert of_z is not None and of_g is not None
        if bias is not None:
            assert of_bias is not None
            if np.broadcast_shapes(bias.shape, of_bias.shape) != of_bias.shape:
                of_bias = elu_vjp(cotangent[block], ans[block])  # the other is summed along an axis of the bias
            of_bias = _summed_to(xp, of_bias, bias.shape)
        of_x, of_h, of_shift = adjoints(xp, e, of_z, x[block], h, z)
        assert of_x is not None and of_h is not None and of_shift is not None
        blocks_of_x.append(of_x)
        sums.append((of_h, _summed_to(xp, of_shift, shift.shape), of_g, of_bias))
    totals = (None if parts[0] is None else sum(parts[1:], start=parts[0]) for parts in zip(*sums, strict=True))
    return (_joined(xp, blocks_of_x, expansion, contraction, 0), *totals)


def factor_options(
    ndim: int, h_axes: Any, g_axes: Any, *, boundary: Any, stride: Any = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the two convolutions, for an x with `ndim` axes."""
    h_axes, g_axes = (normalize_axes(name, a, ndim) for name, a in (("h_axes", h_axes), ("g_axes", g_axes)))
    if both := sorted(set(h_axes) & set(g_axes)):
        raise ValueError(f"h_axes and g_axes both name {both}; an axis has one filter")
    m, count = len(h_axes), len(h_axes) + len(g_axes)
    boundary = normalize_choice("boundary", boundary, count, BOUNDARIES)
    stride = normalize_integers("stride", stride, count, 1)
    return (
        {"axes": h_axes, "boundary": boundary[:m], "stride": stride[:m]},
        {"axes": g_axes, "boundary": boundary[m:], "stride": stride[m:], "sum_axes": ndim},
    )


def _arguments(
    x: Array, h: Array, shift: Array, g: Array, bias: Array | None, h_axes: Any, g_axes: Any, boundary: Any, stride: Any
) -> tuple[Any, tuple[Any, ...], Problem, Problem]:
    """Return the namespace, the arrays in their common dtype, and the problems of both convolutions."""
    named = {"x": x, "h": h, "shift": shift, "g": g, **({} if bias is None else {"bias": bias})}
    xp = array_namespace(*named.values())
    arrays = [require_real(xp, name, a) for name, a in named.items()]
    dtype = xp.result_type(arrays[0], arrays[1], arrays[3])
    operands: list[EngineArray] = [xp.astype(a, dtype, copy=False) for a in arrays]
    x, h, shift, g = operands[:4]
    of_h, of_g = factor_options(x.ndim, h_axes, g_axes, boundary=boundary, stride=stride)
    h_axes = of_h["axes"]
    if h.ndim != len(h_axes) + 1:
        raise ValueError(f"h has shape {h.shape}; it needs {len(h_axes)} convolved axes, and one for q")
    if shift.shape != h.shape[-1:]:
        raise ValueError(f"shift has shape {shift.shape}; it needs {h.shape[-1:]}, a number for each filter of h")
    expansion = make_problem(x.shape, h.shape, sum_axes=(), method="auto", **of_h)
    contraction = make_problem(expansion.y_shape, g.shape, method="auto", **of_g)
    if bias is None:
        return xp, (*operands, None), expansion, contraction
    require_broadcast(xp, "bias", operands[4], contraction.y_shape)
    return xp, tuple(operands), expansion, contraction


def _blocks(expansion: Problem, contraction: Problem, bias: EngineArray | None) -> list[tuple[Any, ...]]:
    """Cut x along its longest batch axis into blocks whose Q intermediate signals are small enough to hold."""
    axis = _batch_axis(expansion, contraction)
    shape = () if bias is None else bias.shape
    position = len(shape) - len(contraction.y_shape) + (-1 if axis is None else axis)
    if axis is None or (0 <= position < len(shape) and shape[position] > 1):
        return [(...,)]
    n = expansion.x_shape[axis]
    size = max(1, current().expansion_elements * n // max(1, math.prod(expansion.y_shape)))
    blocks = [slice(begin, min(n, begin + size)) for begin in range(0, n, size)]
    return [(*(slice(None),) * axis, block, ...) for block in blocks] or [(...,)]


def _batch_axis(expansion: Problem, contraction: Problem) -> int | None:
    batch = [a for a in range(len(expansion.x_shape)) if a not in (*expansion.axes, *contraction.axes)]
    return max(batch, key=lambda a: expansion.x_shape[a], default=None)


def _joined(xp: Any, blocks: list[EngineArray], expansion: Problem, contraction: Problem, new: int) -> EngineArray:
    """Blocks as one array with the batch axis last in memory, which is the fastest layout for the next layer."""
    if len(blocks) == 1:
        return blocks[0]
    axis, ndim = _batch_axis(expansion, contraction), len(expansion.x_shape)
    first = (*contraction.axes, *range(ndim, ndim + new), *expansion.axes)
    order = (*first, *(a for a in range(ndim) if a not in (*first, axis)), axis)
    ordered = [xp.permute_dims(block, order) for block in blocks]
    whole = joined(ordered, -1)
    return xp.permute_dims(whole, tuple(sorted(range(ndim + new), key=order.__getitem__)))


def _summed_to(xp: Any, g: EngineArray, shape: tuple[int, ...]) -> EngineArray:
    """Return a cotangent summed over the axes along which an argument of this shape was broadcast, in that shape."""
    extra = g.ndim - len(shape)
    stretched = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1))
    axes = tuple(a for a in stretched if g.shape[a] > 1)
    return xp.reshape(marginal(g, axes) if axes else g, shape)
