"""Convolution as PyTorch and JAX see it: one trilinear form, whose three derivatives are maps of two arrays each.

With the cotangent y, the form is ``sum(y * convolve(x, w))``. Its derivative by each of its arrays is bilinear in the
other two, and those three maps are each other's derivatives, so all orders of derivatives need nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from hcnn_core._problem import Problem
from hcnn_core.backend import Array, array_namespace
from hcnn_core.convolution import adjoints, forward

Role: TypeAlias = Literal["y", "x", "w"]

OPERANDS: dict[Role, tuple[Role, Role]] = {"y": ("x", "w"), "x": ("y", "w"), "w": ("y", "x")}
"""Which arrays each derivative is a map of: by y it is `convolve`, by x and w they are its vector-Jacobian products."""

NAMES: dict[Role, str] = {"y": "convolve", "x": "convolve_vjp_x", "w": "convolve_vjp_w"}


def derivative(role: Role, problem: Problem, a: Array, b: Array) -> Array:
    """The derivative of the form by one of its arrays, at the two others."""
    xp = array_namespace(a, b)
    if role == "y":
        return forward(xp, problem, a, b)
    x, w = (None, b) if role == "x" else (b, None)
    g_x, g_w, _ = adjoints(xp, problem, a, x, w)
    result = g_x if role == "x" else g_w
    assert result is not None
    return result


def shape(role: Role, problem: Problem) -> tuple[int, ...]:
    """The shape of one of the three arrays."""
    return {"y": problem.y_shape, "x": problem.x_shape, "w": problem.w_shape}[role]


def mapped(pair: set[Role], problem: Problem, size: int) -> tuple[Problem, int]:
    """The problem in which two of the arrays have one more axis of that size, and where they have it, 0 or -1.

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
