"""Cotangents of `convolve_elu` against the transposes of the definition, on every engine."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autodiff
from autodiff import check_grads, vjp
from hcnn_core._tuning import tuned
from tests.core.oracle import ENGINES, C, Problem, eps, lay_out, noise, norm, poisoned_memory, problems, wide
from tests.core.test_convolution_elu import REAL, biases, definition


def reduced(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sum over what was broadcast from a shape."""
    extra = g.ndim - len(shape)
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1))
    return g.sum(axis=axes).reshape(shape)


def assert_cotangents(
    problem: Problem,
    bias: np.ndarray,
    g: np.ndarray,
    wanted: tuple[int, ...] = (0, 1, 2),
    sizes: tuple[dict[str, Any], ...] = ({},),
) -> None:
    """Compare at each of some settings of the engines."""
    operands = [problem.x, problem.w, bias]

    def layer(*some: np.ndarray) -> np.ndarray:
        full = list(operands)
        for i, a in zip(wanted, some, strict=True):
            full[i] = a
        return autodiff.convolve_elu(*full, problem.axes, **problem.options)

    c_cotangent = wide(g) * (np.minimum(definition(problem, bias), 0) + 1)
    expected = problem.transpose_x(c_cotangent), problem.transpose_w(c_cotangent), reduced(c_cotangent, bias.shape)
    inner = 1 + norm(problem.x) * norm(problem.w) + float(np.abs(bias).max(initial=0))  # errors of the derivative
    scales = norm(problem.w), norm(problem.x), np.sqrt(max(1, g.size))
    for constants in sizes:
        with tuned(**constants), poisoned_memory():
            _, pullback = vjp(layer, *(operands[i] for i in wanted))
            found = pullback(g)
        for i, cotangent in zip(wanted, found, strict=True):
            assert cotangent.shape == operands[i].shape and cotangent.dtype == operands[i].dtype
            limit = C * eps(problem.x.dtype) * norm(g) * scales[i] * inner
            assert np.abs(cotangent - expected[i]).max(initial=0) <= limit


@given(st.data(), problems(dtypes=REAL), ENGINES)
def test_cotangents_are_the_transposes(data: st.DataObject, problem: Problem, constants: dict[str, int]) -> None:
    bias = data.draw(biases(problem))
    shape = tuple(n if data.draw(st.booleans()) else 1 for n in problem.y_shape)  # as a marginal's cotangent repeats
    g = np.broadcast_to(noise(7, shape, problem.x.dtype.name), problem.y_shape)
    wanted = data.draw(st.sampled_from([(0, 1, 2), (0, 1), (1, 2), (0, 2), (0,), (1,), (2,)]))
    assert_cotangents(problem, bias, g, wanted, (constants,))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_layers_in_chunks(dtype: str, boundary: str) -> None:
    chunks: tuple[dict[str, Any], ...] = {"spectrum_elements": 1 << 12}, {"spectrum_elements": 1 << 30}
    methods = ("direct", "direct", "fft", "fft")
    plain = Problem(
        lay_out(noise(0, (3, 9, 8, 8, 16), dtype), "F"),
        noise(1, (3, 3, 7, 11, 5), dtype),
        (1, 2, 3, 4),
        {"boundary": boundary, "stride": (1, 1, 2, 2), "method": methods},
    )
    plus = Problem(
        noise(2, (3, 5, 5, 6, 4, 4), dtype),
        noise(3, (4, 5, 3, 5), dtype),
        (3, 4),
        {"boundary": boundary, "sum_axes": 5, "method": "fft", "stride": 2},
    )
    tiles = Problem(
        noise(9, (18, 5, 4, 6, 4), dtype),
        noise(10, (3, 3, 5, 3, 5), dtype),
        (1, 2, 3, 4),
        {"boundary": boundary, "stride": (1, 1, 2, 1), "method": methods},
    )
    for problem in (plain, plus, tiles):
        shape = problem.y_shape
        marginal = np.broadcast_to(noise(4, (*shape[:3], 1, *shape[4:]), dtype), shape)
        cotangents = noise(5, shape, dtype), marginal, lay_out(noise(6, shape, dtype), "negative")
        for g, bias_shape in zip(cotangents, (shape[-1:], shape[-3:], shape), strict=True):
            assert_cotangents(problem, noise(8, bias_shape, dtype), g, sizes=chunks)


def test_a_layer_and_its_marginal_by_keyword() -> None:
    x, w, bias = noise(0, (2, 5, 4), "float64"), noise(1, (3, 2, 3), "float64"), noise(2, (3,), "float64")
    (y, total), pullback = vjp(lambda *a: autodiff.convolve_elu_marginal(*a, (1, 2), 1, boundary="zero"), x, w, bias)
    for axes, keywords in (((), {"axes": (1, 2), "axis": 1}), (((1, 2),), {"axis": 1})):
        _, by_keyword = vjp(
            lambda *a, i=axes, k=keywords: autodiff.convolve_elu_marginal(*a, *i, **k, boundary="zero"), x, w, bias
        )
        for a, b in zip(pullback((y, total)), by_keyword((y, total)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_lists_and_numbers_as_operands() -> None:
    x, g = noise(0, (2, 5, 4), "float64"), noise(1, (2, 3), "float64")
    convolve: Any = functools.partial(autodiff.convolve, axes=1, boundary="zero")
    layer: Any = functools.partial(autodiff.factored_layer, h_axes=1, g_axes=2, boundary="zero")
    check_grads(lambda x: convolve(x, [1.0, 2.0, 3.0]))(x)
    check_grads(lambda w: convolve(x.tolist(), w))(g[0])
    check_grads(lambda x: autodiff.convolve_elu(x, [1.0, 2.0, 3.0], 0.5, 1, boundary="zero"))(x)
    check_grads(lambda x, g: layer(x, g[:1, :2], g[0, :2], g, 0.5))(x, g)


@pytest.mark.parametrize("shift", [np.uint8(1), np.array([1], np.uint8), (1,), 1])
def test_translations_by_integers_of_any_type(shift: Any) -> None:
    check_grads(lambda x: autodiff.translate(x, shift, 1, boundary="zero"))(noise(0, (2, 5), "float64"))
