"""The boundaries "reflect", "nearest" and "mirror", alone and beside the others: against their definition and SciPy."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import assume, given
from hypothesis import strategies as st

import autodiff
from autodiff import check_grads
from hcnn_core import (
    convolution,
    convolve,
    convolve_elu,
    convolve_elu_marginal,
    convolve_vjp_w,
    convolve_vjp_x,
    correlate,
    correlate_vjp_w,
    correlate_vjp_x,
    elu,
    translate,
)
from hcnn_core._problem import make_problem
from hcnn_core._tuning import tuned
from hcnn_core.translation import circles, extend, fold
from tests.core.oracle import (
    BOUNDARIES,
    DTYPES,
    ENGINES,
    EXTENSIONS,
    METHODS,
    SEEDS,
    C,
    NDArray,
    Problem,
    assert_close,
    assert_maps,
    dot,
    eps,
    noise,
    norm,
    poisoned_memory,
    problems,
    wide,
    with_cotangents,
)

NEW = EXTENSIONS[2:]
MODES = {"periodic": "wrap", "zero": "constant", "reflect": "reflect", "nearest": "nearest", "mirror": "mirror"}
CONVOLUTIONS = convolve, convolve_vjp_x, convolve_vjp_w
CORRELATIONS = correlate, correlate_vjp_x, correlate_vjp_w


@st.composite
def extending(draw: st.DrawFn) -> Problem:
    """Convolutions and correlations, with at least one of the new boundaries."""
    problem = replace(draw(problems(boundaries=EXTENSIONS)), sign=draw(st.sampled_from([-1, 1])))
    assume(set(problem.per_axis("boundary")) & set(NEW))
    return problem


@given(with_cotangents(extending()), ENGINES)
def test_results_and_adjoints_are_their_definitions(case: tuple[Problem, NDArray], constants: dict[str, Any]) -> None:
    problem, g = case
    x, w = problem.x, problem.w
    kept = [a.copy() for a in (x, w, g)]
    function, vjp_x, vjp_w = CONVOLUTIONS if problem.sign == -1 else CORRELATIONS
    with tuned(**constants), poisoned_memory():
        found = problem.run(function, x, w), problem.run(vjp_x, g, x.shape, w), problem.run(vjp_w, g, x, w.shape)
    for array, expected, operands in zip(
        found,
        (problem.convolution(), problem.transpose_x(g), problem.transpose_w(g)),
        ((x, w), (g, w), (g, x)),
        strict=True,
    ):
        assert array.dtype == x.dtype and array.flags.writeable
        assert not any(np.shares_memory(array, a) for a in (x, w, g))
        assert_close(array, expected, *operands)
    assert all(map(np.array_equal, (x, w, g), kept))


@st.composite
def scipy_problems(draw: st.DrawFn) -> Problem:
    """One filter, axes in their order, one boundary: what SciPy can do.

    Where a filter reaches 4 n samples or more before the start, `correlate` and `convolve` of SciPy 1.17 read outside
    the array in mode "reflect"; its `correlate1d` does not.
    """
    ndim = draw(st.integers(1, 4))
    axes = sorted(draw(st.lists(st.integers(0, ndim - 1), min_size=1, max_size=min(3, ndim), unique=True)))
    shape = draw(st.lists(st.sampled_from([4, 2, 3, 5, 6, 1]), min_size=ndim, max_size=ndim))
    sizes = [draw(st.sampled_from([n for n in (3, 2, 4, 9, 1, 6, 14) if n // 2 < 4 * shape[a]])) for a in axes]
    seed, dtype = draw(SEEDS), draw(st.sampled_from(DTYPES))
    options = {"boundary": draw(st.sampled_from(EXTENSIONS)), "method": draw(st.sampled_from(METHODS))}
    return Problem(noise(seed, tuple(shape), dtype), noise(seed + 1, tuple(sizes), dtype), tuple(axes), options)


@given(scipy_problems(), st.integers(1, 3))
def test_one_filter_is_applied_as_in_scipy(problem: Problem, stride: int) -> None:
    """At every boundary; and the transpose of a convolution at the two of the engines is a correlation."""
    x, w, mode = wide(problem.x), wide(problem.w), MODES[problem.options["boundary"]]
    every = tuple(slice(None, None, stride if a in problem.axes else 1) for a in range(x.ndim))
    strided = problem.with_options(stride=stride)
    convolved = scipy.ndimage.convolve(x, w, mode=mode, axes=problem.axes)
    correlated = scipy.ndimage.correlate(x, w.conj(), mode=mode, axes=problem.axes)  # SciPy conjugates the filter
    assert_close(strided.run(convolve, problem.x, problem.w), convolved[every], problem.x, problem.w)
    assert_close(strided.run(correlate, problem.x, problem.w), correlated[every], problem.x, problem.w)
    if problem.options["boundary"] in BOUNDARIES:
        g_x = problem.run(convolve_vjp_x, problem.x, x.shape, problem.w)
        assert_close(g_x, correlated, problem.x, problem.w)


@pytest.mark.parametrize("boundary", EXTENSIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_far_beyond_the_array_is_scipys_rule(n: int, boundary: Any) -> None:
    x = noise(n, (n,), "float64")
    for size in (40, 41):
        for w in (noise(size, (size,), "float64"), *np.eye(size)):
            for function, scipys in (convolve, scipy.ndimage.convolve1d), (correlate, scipy.ndimage.correlate1d):
                y = function(x, w, 0, boundary=boundary, method="direct")
                assert_close(y, scipys(x, w, mode=MODES[boundary]), x, w)


def test_the_table_of_the_docstring_is_true() -> None:
    """What a boundary does to a b c d, and under which name SciPy and NumPy do the same."""
    rows = re.findall(r"^ *(\w+) +(\w \w \w \| a b c d \| \w \w)  (\w+) +(\w+)", convolve.__doc__ or "", re.M)
    assert [row[0] for row in rows] == list(EXTENSIONS)
    x = np.array([1.0, 2.0, 3.0, 4.0])
    letters = dict(zip((0.0, *x), "0abcd", strict=True))
    for boundary, drawn, scipys, numpys in rows:
        read = [translate(x, shift, 0, boundary=boundary)[0] for shift in range(3, -6, -1)]
        assert [letters[value] for value in read] == re.findall(r"\w", drawn)
        assert read == np.pad(x, (3, 2), mode=numpys).tolist()
        every = [scipy.ndimage.correlate(x, w, mode=scipys)[0] for w in np.eye(12)[3:]]
        assert read == every


def test_extension_of_the_cotangent_is_not_the_adjoint() -> None:
    """Why an adjoint folds: at periodic and zero boundaries it extends g as x is extended, and nowhere else."""
    x, w, g = noise(0, (8,), "float64"), noise(1, (5,), "float64"), noise(2, (8,), "float64")
    for boundary in EXTENSIONS:
        options: dict[str, Any] = {"boundary": boundary}
        y = convolve(x, w, 0, **options)
        assert abs(g @ y - x @ convolve_vjp_x(g, x, w, 0, **options)) < 1e-12
        off = abs(g @ y - x @ correlate(g, w, 0, **options))
        assert off > 0.01 if boundary in NEW else off < 1e-12


@given(problems(boundaries=NEW, max_axes=3), SEEDS)
def test_fold_is_the_transpose_of_extend(problem: Problem, seed: int) -> None:
    options = {"stride": 1, **problem.options}
    on = circles(make_problem(problem.x.shape, problem.w.shape, problem.axes, **options))
    extended = extend(np, problem.x, on)
    g = noise(seed, extended.shape, str(extended.dtype))
    expected = dot(g, extended)
    folded = fold(np, g.copy(), on)
    assert folded.shape == problem.x.shape
    bound = 2 * C * eps(g.dtype) * norm(g) * norm(extended)
    assert abs(dot(folded, problem.x) - expected) <= bound


@pytest.mark.parametrize(
    ("boundary", "size", "stride", "method", "length"),
    [
        ("reflect", 3, 1, "direct", 12),
        ("reflect", 4, 3, "direct", 15),  # a multiple of the stride
        ("reflect", 4, 1, "auto", 14),
        ("reflect", 11, 1, "direct", 20),  # the whole extension, 10 samples there and back
        ("reflect", 10_001, 7, "fft", 20),
        ("mirror", 10_001, 1, "auto", 18),
        ("nearest", 10, 1, "direct", 19),
        ("nearest", 10, 1, "fft", 20),  # an FFT of 19 samples takes longer
    ],
)
def test_circles_are_no_longer_than_they_must(boundary: str, size: int, stride: int, method: str, length: int) -> None:
    (circle,) = circles(make_problem((10,), (size,), 0, boundary=boundary, stride=stride, method=method))
    assert circle.length == length


@pytest.mark.parametrize("boundary", NEW)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 3)])
@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_few_samples_and_few_taps(boundary: Any, shape: tuple[int, int], size: int) -> None:
    x, w = noise(0, shape, "float32"), noise(1, (size, 2), "float32")
    for method in METHODS:
        problem = Problem(x, w, 0, {"boundary": boundary, "stride": 2, "method": method})
        assert_maps(problem, noise(2, problem.y_shape, "float32"))


@given(problems(boundaries=EXTENSIONS, dtypes=["float32", "float64"], max_axes=3), SEEDS)
def test_layers_are_convolutions_with_a_bias_and_an_elu(problem: Problem, seed: int) -> None:
    x, w = problem.x, problem.w
    expected = problem.convolution()
    bias = noise(seed, expected.shape, str(x.dtype))
    rng = np.random.default_rng(seed)
    bias = bias[tuple(slice(None) if rng.integers(2) else slice(1) for _ in bias.shape)]
    y = problem.run(convolve_elu, x, w, bias)
    # the ELU's slope is 1 at most, so it passes errors on as they are
    assert y.dtype == x.dtype and y.shape == expected.shape
    bound = C * eps(x.dtype) * (norm(x) * norm(w) + norm(bias))
    assert np.abs(wide(y) - elu(expected, bias=wide(bias))).max() <= bound
    both = convolve_elu_marginal(x, w, bias, problem.axes, 0, **problem.options)
    assert np.array_equal(both[0], y)
    assert np.abs(wide(both[1]) - wide(y).sum(0)).max() <= bound * len(y)


@pytest.mark.parametrize("boundary", [("reflect", "zero"), ("mirror", "nearest"), ("periodic", "reflect")])
def test_second_derivatives(boundary: Any) -> None:
    options: dict[str, Any] = {"axes": (1, 2), "boundary": boundary, "sum_axes": 0, "stride": (2, 1)}
    x, w = noise(0, (2, 4, 3), "float64"), noise(1, (2, 3, 7, 2), "float64")
    bias = 3 + noise(2, (2, 1, 2), "float64")
    check_grads(lambda x, w: autodiff.convolve(x, w, **options))(x, w)
    check_grads(lambda x, w: autodiff.correlate(x, w, **options))(x, w)
    check_grads(lambda x, w, b: autodiff.convolve_elu(x, w, b, **options))(x, w, bias)
    check_grads(lambda x, w, b: autodiff.convolve_elu_marginal(x, w, b, axis=1, **options)[1])(x, w, bias)
    check_grads(lambda x: autodiff.translate(x, (3, -7), (1, 2), boundary=boundary))(x)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_what_the_engines_extend_is_not_copied(boundary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("extend", "fold", "beginning_with", "cropped", "on_circles"):
        monkeypatch.delattr(convolution, name)
    x, w = noise(0, (2, 8), "float32"), noise(1, (3,), "float32")
    for function, vjp_x, vjp_w in (CONVOLUTIONS, CORRELATIONS):
        y = function(x, w, 1, boundary=boundary)
        vjp_x(y, x, w, 1, boundary=boundary)
        vjp_w(y, x, w, 1, boundary=boundary)
    convolve_elu(x, w, w[:1], 1, boundary=boundary)
    with pytest.raises(NameError):
        convolve(x, w, 1, boundary="mirror")


@pytest.mark.parametrize("boundary", NEW)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_results_hold_no_more_memory_than_they_show(boundary: Any, order: tuple[int, ...]) -> None:
    """What was computed beyond the ends is freed, and memory keeps the order that the plan gave it."""
    x = np.ascontiguousarray(noise(0, (6, 7, 8), "float64").transpose(order)).transpose(np.argsort(order))
    y = convolve(x, noise(1, (5, 5), "float64"), (1, 2), boundary=boundary)
    for array in (y, convolve_vjp_x(y, x, noise(1, (5, 5), "float64"), (1, 2), boundary=boundary)):
        assert (array if array.base is None else array.base).nbytes == array.nbytes
    assert extend(np, x, ()).strides == x.strides
