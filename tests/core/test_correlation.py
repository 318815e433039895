"""`correlate` against its definition, SciPy and `convolve`; its adjoints by the dot test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve, correlate, correlate_vjp_w, correlate_vjp_x
from hcnn_core._tuning import tuned
from tests.core.oracle import (
    BOUNDARIES,
    DTYPES,
    ENGINES,
    LAYOUTS,
    SEEDS,
    C,
    NDArray,
    Problem,
    assert_close,
    eps,
    lay_out,
    noise,
    norm,
    problems,
    wide,
)

MODES = {"periodic": "wrap", "zero": "constant"}


def dot(a: NDArray, b: NDArray) -> complex:
    """The sum of the products, without conjugation, in double precision."""
    return complex(np.sum(wide(a) * wide(b)))


@st.composite
def with_cotangents(draw: st.DrawFn) -> tuple[Problem, NDArray]:
    problem = replace(draw(problems()), sign=1)
    g = noise(draw(SEEDS), problem.y_shape, str(problem.x.dtype))
    return problem, lay_out(g, draw(st.sampled_from(LAYOUTS)))


@given(with_cotangents(), ENGINES)
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
    # each of the sides is off by at most 20 eps of the norms of all three
    bound = 2 * C * eps(x.dtype) * norm(g) * norm(x) * norm(w)
    assert abs(dot(g, y) - dot(g_x, x)) <= bound
    assert abs(dot(g, y) - dot(g_w, w)) <= bound


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel_size", [(3, 5), (2, 4), (1, 2), (6, 3), (9, 13), (8, 14)])
def test_one_filter_correlates_as_in_scipy(kernel_size: tuple[int, int], dtype: str, boundary: str) -> None:
    x, w = noise(0, (2, 5, 7), dtype), noise(1, kernel_size, dtype)
    # SciPy conjugates the filter of a correlation
    expected = scipy.ndimage.correlate(wide(x), wide(w).conj(), mode=MODES[boundary], axes=(1, 2))
    for stride in ((1, 1), (2, 3)):
        y = correlate(x, w, (1, 2), boundary=boundary, stride=stride)
        assert_close(y, expected[:, :: stride[0], :: stride[1]], x, w)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_channels_and_new_axes_are_sums_of_scipys(boundary: str) -> None:
    x, w = noise(0, (3, 6, 4), "float64"), noise(1, (3, 2, 5, 2), "float64")
    y = correlate(x, w, (1, 2), sum_axes=0, boundary=boundary)
    expected = np.stack(
        [
            sum(scipy.ndimage.correlate(x[c], w[c, :, :, k], mode=MODES[boundary]) for c in range(x.shape[0]))
            for k in range(w.shape[-1])
        ],
        -1,
    )
    assert_close(y, expected, x, w)


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


def test_only_shapes_stand_in_for_operands() -> None:
    x, w, g = noise(0, (5, 3), "float64"), noise(1, (4, 2), "float64"), noise(2, (5, 3, 2), "float64")
    options: dict[str, Any] = {"boundary": "zero"}
    assert np.array_equal(correlate_vjp_x(g, (5, 3), w, 0, **options), correlate_vjp_x(g, x, w, 0, **options))
    assert np.array_equal(correlate_vjp_w(g, x, (4, 2), 0, **options), correlate_vjp_w(g, x, w, 0, **options))


def test_messages_name_the_shape_that_was_given() -> None:
    with pytest.raises(ValueError, match=r"w has shape \(2, 4\); its leading axes must be \(3,\)"):
        correlate(np.ones((5, 3)), np.ones((2, 4)), 0, sum_axes=1, boundary="zero")
    with pytest.raises(ValueError, match=r"g has shape \(4,\); the result of this convolution has \(5,\)"):
        correlate_vjp_x(np.ones(4), (5,), np.ones(2), 0, boundary="zero")
    assert correlate(np.ones((0, 5)), np.ones(2), 1, boundary="zero").shape == (0, 5)
