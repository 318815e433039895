"""`convolve_elu` against the definition of a convolution and an exponential, on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve_elu, elu
from hcnn_core._engines.cpu import elementwise
from hcnn_core._tuning import Tuning, tuned
from tests.core.oracle import (
    ENGINES,
    C,
    NDArray,
    Problem,
    eps,
    lay_out,
    noise,
    norm,
    poisoned_memory,
    problems,
    wide,
)

REAL = ("float32", "float64")


def definition(problem: Problem, bias: NDArray) -> NDArray:
    c = problem.convolution() + wide(bias)
    return np.where(c > 0, c, np.expm1(np.minimum(c, 0)))


def bound(problem: Problem, bias: NDArray) -> float:
    """ELU shrinks differences, and adds roundings of its own argument."""
    return C * eps(problem.x.dtype) * (norm(problem.x) * norm(problem.w) + float(np.abs(bias).max(initial=1)))


@st.composite
def biases(draw: st.DrawFn, problem: Problem) -> NDArray:
    """A bias that varies along some axes of the result only, of as many axes as it needs or more."""
    shape = [n if draw(st.booleans()) else 1 for n in problem.y_shape]
    dropped = draw(st.integers(0, next((a for a, n in enumerate(shape) if n != 1), len(shape))))
    return noise(draw(st.integers(0, 99)), tuple(shape[dropped:]), problem.x.dtype.name)


@given(st.data(), problems(dtypes=REAL), ENGINES)
def test_it_is_the_elu_of_the_convolution(data: st.DataObject, problem: Problem, constants: dict[str, int]) -> None:
    bias = data.draw(biases(problem))
    kept = problem.x.copy(), problem.w.copy(), bias.copy()
    with tuned(**constants), poisoned_memory():
        y = convolve_elu(problem.x, problem.w, bias, problem.axes, **problem.options)
    assert y.dtype == problem.x.dtype and y.shape == problem.y_shape
    assert np.abs(y - definition(problem, bias)).max(initial=0) <= bound(problem, bias)
    for array, before in zip((problem.x, problem.w, bias), kept, strict=True):
        assert np.array_equal(array, before) and not np.shares_memory(y, array)


LAYER: dict[str, Any] = {"boundary": "zero", "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "axes", "options"),
    [
        ((3, 9, 8, 8, 16), (3, 3, 7, 11, 5), (1, 2, 3, 4), LAYER),
        ((3, 9, 8, 8, 16), (3, 3, 7, 11, 5), (1, 2, 3, 4), {**LAYER, "boundary": "periodic", "stride": 2}),
        ((33, 5, 8, 4, 6), (3, 3, 5, 3, 3), (1, 2, 3, 4), {**LAYER, "stride": 1}),
        ((3, 9, 8, 8, 6, 4), (4, 5, 3, 5), (3, 4), {"boundary": "zero", "sum_axes": 5, "method": "fft", "stride": 2}),
        ((3, 20, 18, 4, 3), (3, 3, 9), (1, 2), {"boundary": "zero", "method": "direct"}),
    ],
    ids=["a layer", "a layer on a periodic grid", "a layer in tiles", "attributes alone", "space alone"],
)
def test_at_sizes_that_are_cut_into_blocks(
    dtype: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], axes: tuple[int, ...], options: dict[str, Any]
) -> None:
    problem = Problem(lay_out(noise(0, x_shape, dtype), "F"), noise(1, w_shape, dtype), axes, options)
    for elements in (1 << 12, 1 << 30):
        for bias_shape in (problem.y_shape[-1:], problem.y_shape[-3:], problem.y_shape):
            bias = noise(2, bias_shape, dtype)
            with tuned(spectrum_elements=elements):
                y = convolve_elu(problem.x, problem.w, bias, axes, **options)
            assert np.abs(y - definition(problem, bias)).max() <= bound(problem, bias)


@pytest.mark.parametrize("bias_shape", [(5,), (4, 8, 5), (1, 8, 1), ()])
def test_a_bias_that_is_the_same_everywhere_takes_no_pass_of_its_own(
    monkeypatch: pytest.MonkeyPatch, bias_shape: tuple[int, ...]
) -> None:
    def second_pass(*arguments: Any) -> Any:
        raise AssertionError("an ELU after the convolution")

    x, w = lay_out(noise(0, (33, 9, 8, 8, 16), "float32"), "F"), noise(1, (3, 3, 7, 11, 5), "float32")
    problem = Problem(x, w, (1, 2, 3, 4), LAYER)
    bias = noise(2, bias_shape, "float32")
    expected = convolve_elu(x, w, np.broadcast_to(bias, problem.y_shape).copy(), (1, 2, 3, 4), **LAYER)
    monkeypatch.setattr(elementwise, "elu", second_pass)
    assert np.allclose(convolve_elu(x, w, bias, (1, 2, 3, 4), **LAYER), expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(AssertionError, match="an ELU after"):
        convolve_elu(x, w, noise(3, (9, 8, 4, 8, 5), "float32"), (1, 2, 3, 4), **LAYER)


def test_signs_and_ends_of_elu() -> None:
    one = np.ones(1)
    x = np.array([0.0, -0.0, 1e300, -1e300, np.inf, -np.inf, np.nan, 1e-300, -1e-300])
    y = convolve_elu(np.resize(x, (Tuning().elementwise_elements, 9)), one, np.zeros(()), 0, boundary="zero")
    assert np.array_equal(y[0], elu(x), equal_nan=True)


def test_no_positions_and_no_taps() -> None:
    assert convolve_elu(np.ones((0, 4)), np.ones((3, 2)), np.ones(2), 1, boundary="zero").shape == (0, 4, 2)
    y = convolve_elu(np.ones((3, 4)), np.ones((0,)), np.full((), -1.0), 1, boundary="zero")
    assert np.allclose(y, np.expm1(-1), rtol=1e-15)


def test_float64_bias_of_a_float32_signal() -> None:
    x, w, bias = noise(0, (4, 6), "float32"), noise(1, (3,), "float32"), noise(2, (), "float64")
    y = convolve_elu(x, w, bias, 1, boundary="zero")
    assert y.dtype == np.float32
    assert np.array_equal(y, convolve_elu(x, w, bias.astype("float32"), 1, boundary="zero"))
