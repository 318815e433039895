"""`correlate` and its adjoints against their definitions, and against `convolve`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from hcnn_core import convolve, correlate, correlate_vjp_w, correlate_vjp_x
from hcnn_core._tuning import tuned
from tests.core.oracle import (
    ENGINES,
    NDArray,
    Problem,
    assert_close,
    noise,
    problems,
    with_cotangents,
)


@given(with_cotangents(problems().map(lambda problem: replace(problem, sign=1))), ENGINES)
def test_correlation_and_its_adjoints_are_their_definitions(
    case: tuple[Problem, NDArray], constants: dict[str, Any]
) -> None:
    problem, g = case
    x, w = problem.x, problem.w
    with tuned(**constants):
        y = problem.run(correlate, x, w)
        g_x, g_w = problem.run(correlate_vjp_x, g, x, w), problem.run(correlate_vjp_w, g, x, w)
    assert y.dtype == g_x.dtype == g_w.dtype == x.dtype
    assert_close(y, problem.convolution(), x, w)
    assert_close(g_x, problem.transpose_x(g), g, w)
    assert_close(g_w, problem.transpose_w(g), g, x)


@given(problems(method="direct"))
def test_odd_filters_correlate_as_flipped_ones_convolve(problem: Problem) -> None:
    kernel_axes = range(len(problem.summed), len(problem.summed) + len(problem.convolved))
    odd = tuple(slice(0, n - 1 + n % 2) if a in kernel_axes else slice(None) for a, n in enumerate(problem.w.shape))
    w = problem.w[odd]
    y = problem.run(correlate, problem.x, w)
    assert np.array_equal(y, problem.run(convolve, problem.x, np.flip(w, tuple(kernel_axes))))


def test_a_flip_alone_moves_even_filters() -> None:
    x, w = noise(0, (8,), "float64"), noise(1, (4,), "float64")
    right, moved = correlate(x, w, 0, boundary="periodic"), convolve(x, w[::-1], 0, boundary="periodic")
    assert not np.allclose(right, moved)
    assert np.allclose(right, np.roll(moved, 1))


def test_messages_name_the_shape_that_was_given() -> None:
    with pytest.raises(ValueError, match=r"w has shape \(2, 4\); its leading axes must be \(3,\)"):
        correlate(np.ones((5, 3)), np.ones((2, 4)), 0, sum_axes=1, boundary="zero")
    with pytest.raises(ValueError, match=r"g has shape \(4,\); the result of this convolution has \(5,\)"):
        correlate_vjp_x(np.ones(4), (5,), np.ones(2), 0, boundary="zero")
    assert correlate(np.ones((0, 5)), np.ones(2), 1, boundary="zero").shape == (0, 5)
