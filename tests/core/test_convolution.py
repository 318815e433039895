"""`convolve` against its definition; what it does to layouts, dtypes and odd values."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

import hcnn_core
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x
from hcnn_core._engines import planner
from hcnn_core._engines.cpu import register_tiles
from hcnn_core._engines.cpu.direct import DirectProducts
from hcnn_core._engines.cpu.kernels import direct as direct_kernels
from hcnn_core._engines.cpu.kernels import gemm
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.real_dft import RealDFT
from hcnn_core._engines.cpu.winograd import WinogradProducts
from hcnn_core._engines.devices import NUMPY, Request
from hcnn_core._engines.generic.block_plan import BlockPlan
from hcnn_core._engines.generic.fft import LibraryFFT
from hcnn_core._engines.generic.fft_plan import FFTPlan
from hcnn_core._engines.generic.im2col import Im2col
from hcnn_core._engines.planner import make_plan
from hcnn_core._engines.transform import PRIMES, Identity, next_fast_length
from hcnn_core._problem import make_problem
from hcnn_core._tuning import DEFAULT, Tuning, tuned
from tests.core.oracle import (
    BOUNDARIES,
    DTYPES,
    ENGINES,
    METHODS,
    SEEDS,
    Problem,
    assert_close,
    assert_maps,
    lay_out,
    noise,
    poisoned_memory,
    problems,
)


def plan_of(problem: Problem) -> Any:
    """The plan `convolve` makes for a problem."""
    options = {"sum_axes": (), "stride": 1, "method": "auto", **problem.options}
    asked = make_problem(problem.x.shape, problem.w.shape, problem.axes, **options)
    return make_plan(asked, problem.x)


@given(problems(), ENGINES)
def test_convolution_is_its_definition(problem: Problem, constants: dict[str, int]) -> None:
    kept = problem.x.copy(), problem.w.copy()
    with tuned(**constants), poisoned_memory():
        y = problem.run(convolve, problem.x, problem.w)
    assert y.dtype == problem.x.dtype
    assert_close(y, problem.convolution(), problem.x, problem.w)
    assert y.flags.writeable
    assert not np.shares_memory(y, problem.x) and not np.shares_memory(y, problem.w)
    assert np.array_equal(problem.x, kept[0]) and np.array_equal(problem.w, kept[1])


# Shapes large enough that the shipped constants choose each engine.
LARGE = {
    "compiled": Problem(
        noise(0, (12, 40, 32), "float32"), noise(1, (5, 4), "float32"), (1, 2), {"boundary": "zero", "method": "direct"}
    ),
    "compiled, in several blocks, rows for every tile": Problem(
        noise(2, (64, 248, 40), "float64"),
        noise(3, (3, 9, 11), "float64"),
        (0, 1),
        {"boundary": "periodic", "method": "direct"},
    ),
    "gathered, an axis shorter than its filter": Problem(
        noise(4, (3, 300, 2), "complex64"),
        noise(5, (2, 8, 2), "complex64"),
        (0,),
        {"boundary": "periodic", "sum_axes": (2,), "method": "direct"},
    ),
    "compiled, an axis shorter than its filter": Problem(
        noise(4, (3, 300, 2), "float32"),
        noise(5, (2, 8, 2), "float32"),
        (0,),
        {"boundary": "periodic", "sum_axes": (2,), "method": "direct"},
    ),
    "compiled, with strides that divide no axis": Problem(
        noise(6, (65, 41, 32), "float32"),
        noise(7, (5, 6, 2), "float32"),
        (0, 1),
        {"boundary": ("zero", "periodic"), "stride": (3, 2), "method": "direct"},
    ),
    "gathered, in several tiles": Problem(
        noise(6, (64, 40, 32), "complex64"),
        noise(7, (5, 6, 2), "complex64"),
        (2, 1),
        {"boundary": ("zero", "periodic"), "stride": (3, 2), "method": "direct"},
    ),
    "a layer: direct in space, matrices along attributes": Problem(
        lay_out(noise(8, (4, 8, 8, 8, 16), "float32"), "shuffled"),
        noise(9, (3, 3, 7, 11, 4), "float32"),
        (1, 2, 3, 4),
        {"boundary": "zero", "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")},
    ),
    "a layer on a periodic grid": Problem(
        noise(10, (5, 16, 16, 8, 8), "float32"),
        noise(11, (3, 3, 7, 11, 4), "float32"),
        (1, 2, 3, 4),
        {"boundary": "periodic", "stride": (2, 2, 2, 2), "method": ("direct", "direct", "fft", "fft")},
    ),
    **{
        f"tiles, {boundary}, {dtype}, stride {stride}": Problem(
            noise(22, (batch, n, 12, 6, 4), dtype),
            noise(23, (3, 3, 5, 3, 3), dtype),
            (1, 2, 3, 4),
            {"boundary": boundary, "stride": (stride, 1, 2, 1), "method": ("direct", "direct", "fft", "fft")},
        )
        for boundary, dtype, stride, batch, n in [
            ("zero", "float32", 1, 17, 5),
            ("zero", "float64", 2, 50, 7),
            ("periodic", "float32", 2, 33, 6),
            ("periodic", "float64", 1, 16, 4),
        ]
    },
    "library, one axis": Problem(
        noise(12, (3, 1021), "float64"), noise(13, (40, 2), "float64"), -1, {"boundary": "periodic", "method": "fft"}
    ),
    "library, two axes": Problem(
        noise(14, (64, 3, 90), "float32"),
        noise(15, (3, 6, 9), "float32"),
        (0, 2),
        {"boundary": ("periodic", "zero"), "stride": (2, 3), "sum_axes": (1,), "method": "fft"},
    ),
    "library, complex, beside a direct axis": Problem(
        noise(16, (70, 5, 64), "complex128"),
        noise(17, (5, 3, 4, 2), "complex128"),
        (2, 1, 0),
        {"boundary": "zero", "method": ("fft", "direct", "fft")},
    ),
    "outer, batch axes that lie outside the others": Problem(
        noise(18, (6, 2, 12, 10, 16), "float32"),
        noise(19, (3, 4, 2), "float32"),
        (2, 3),
        {"boundary": ("zero", "periodic"), "method": "direct"},
    ),
    "merged, short lines with channels": Problem(
        noise(26, (1, 3, 6, 7, 8, 5), "float32"),
        noise(27, (3, 3, 3, 3, 3, 9), "float32"),
        (2, 3, 4, 5),
        {"boundary": ("zero", "periodic", "periodic", "zero"), "sum_axes": 1, "method": "direct"},
    ),
    "outer, long lines": Problem(
        noise(24, (3, 2, 70), "float32"),
        noise(25, (2, 5, 3), "float32"),
        (2,),
        {"boundary": "periodic", "sum_axes": 1, "method": "direct"},
    ),
    "outer, with strides and sums": Problem(
        noise(20, (6, 12, 3, 10, 20), "complex64"),
        noise(21, (3, 3, 4, 2), "complex64"),
        (1, 3),
        {"boundary": "periodic", "stride": (2, 3), "sum_axes": 2, "method": "direct"},
    ),
}
ENGINE = {
    "compiled": (Identity, DirectProducts),
    "gathered": (Identity, Im2col),
    "merged": (Identity, DirectProducts),
    "outer": (Identity, DirectProducts | Im2col),
    "a layer": (RealDFT, DirectProducts),
    "tiles": (RealDFT, DirectProducts),
    "library": (LibraryFFT, Im2col),
}


@pytest.mark.lot
@pytest.mark.parametrize("name", LARGE)
def test_engines_at_sizes_that_choose_them(name: str) -> None:
    problem = LARGE[name]
    plan = plan_of(problem)
    kind = name.partition(",")[0].partition(":")[0].partition(" on")[0]
    assert isinstance(plan.transform, ENGINE[kind][0]) and isinstance(plan.products, ENGINE[kind][1])
    assert (plan.outer > 1) == (kind == "outer")
    if isinstance(plan.products, DirectProducts):
        assert isinstance(plan.products, WinogradProducts) == (kind == "tiles")

    assert_maps(problem, noise(99, problem.y_shape, str(problem.x.dtype)))


AT_ONCE = {
    "an image": Problem(noise(0, (64, 63), "float32"), noise(1, (15, 12), "float32"), (1, 0), {"boundary": "periodic"}),
    "signals in columns, a filter longer than they": Problem(
        noise(2, (31, 70), "float64"), noise(3, (70,), "float64"), 0, {"boundary": "periodic", "stride": 3}
    ),
    "long signals": Problem(
        noise(8, (2, 700, 3), "float32"), noise(9, (23,), "float32"), 1, {"boundary": "periodic", "stride": 2}
    ),
    "an array of each boundary": Problem(
        noise(4, (2, 10, 3, 12, 8), "complex64"),
        noise(5, (6, 5, 5), "complex64"),
        (4, 1, 3),
        {"boundary": ("zero", "periodic", "zero"), "stride": (2, 1, 3)},
    ),
    "lines of which nothing is zero, and columns that need zeros": Problem(
        noise(6, (9, 16), "complex64"), noise(7, (4, 3), "complex64"), (0, 1), {"boundary": ("zero", "periodic")}
    ),
}


@pytest.mark.parametrize("by_blocks", [False, True])
@pytest.mark.parametrize("name", AT_ONCE)
def test_one_filter_by_fft_along_all_axes(name: str, by_blocks: bool) -> None:
    """Whole, or by blocks where a signal is long enough."""
    problem = AT_ONCE[name].with_options(method="fft")
    with tuned(costs=replace(DEFAULT.costs, block_point=-1 if by_blocks else 1, transform=9, transposed=0)):
        assert isinstance(plan_of(problem), BlockPlan if by_blocks and name == "long signals" else FFTPlan)
        y = problem.run(convolve, problem.x, problem.w)
        assert y.base is None or y.base.nbytes <= 4 * y.nbytes  # what subsampling leaves out is not kept
        g, x, w = noise(99, y.shape, str(y.dtype)), problem.x, problem.w
        kept = [a.copy() for a in (g, x, w)]
        assert_maps(problem, g)
        assert all(map(np.array_equal, kept, (g, x, w)))


def test_automatic_choice_takes_taps_for_short_filters_and_spectra_for_long_ones() -> None:
    def chosen(n: int, size: int) -> tuple[str, ...]:
        options: dict[str, Any] = {"boundary": "periodic", "sum_axes": (), "stride": 1, "method": "auto"}
        problem = make_problem((64, n), (size, 16), 1, **options)
        return planner.choose(Request(problem, True, ((0,), ()), NUMPY, DEFAULT)).methods

    assert chosen(1024, 2) == ("direct",)
    assert chosen(1024, 800) == ("fft",)


def test_what_was_asked_for_is_not_chosen_again() -> None:
    options: dict[str, Any] = {"boundary": "periodic", "sum_axes": (), "stride": 1}
    for methods in itertools.product(("direct", "fft"), repeat=3):
        problem = make_problem((4, 5, 6), (3, 3, 3), (0, 1, 2), method=methods, **options)
        assert planner.choose(Request(problem, True, ((), ()), NUMPY, DEFAULT)).methods == methods


@pytest.mark.parametrize("real", [True, False])
def test_fast_lengths_are_those_of_scipy(real: bool) -> None:
    for n in (*range(1, 2000), 1_000_003, 2**31 - 1):
        assert next_fast_length(n, PRIMES[real]) == scipy.fft.next_fast_len(n, real)


@pytest.mark.skipif(VECTOR_BYTES != 64, reason="the model's coefficients are of vectors of 64 bytes")
def test_the_cost_model_counts_tiles_as_the_kernels_make_them() -> None:
    like, (tall, few, one) = np.empty(0, "float32"), register_tiles.TILES
    for n in (1, 15, 16, 100, 383, 384, 385, 1000):
        assert register_tiles.lines_at_once(n) == gemm.lines_at_once(like, n)
    assert tall == (gemm.TILE_ROWS, (gemm.TILE_VECTORS, 1))
    assert few == (gemm.FEW_ROWS, (gemm.FEW_ROWS_VECTORS, 4, 2, 1))
    assert one == (1, (gemm.ONE_ROW_VECTORS, 4, 2, 1))
    assert register_tiles.LEAST_NEAR == direct_kernels.TILE_LINES - 1


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "y_shape"),
    [
        ((0, 4), (3,), (0, 4)),  # nothing to convolve
        ((0, 4), (3, 2), (0, 4, 2)),
        ((3, 0), (3,), (2, 0)),  # no batch
        ((3, 4), (0,), (2, 4)),  # no taps: an empty sum
        ((3, 4), (2, 0), (2, 4, 0)),  # no filters
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_axes_of_length_zero(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], y_shape: tuple[int, ...], method: str
) -> None:
    x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)
    for boundary in BOUNDARIES:
        y = convolve(x, w, 0, boundary=boundary, stride=2, method=method)
        assert y.shape == y_shape and y.dtype == np.float32 and not y.any()
        g_x = convolve_vjp_x(y, x, w, 0, boundary=boundary, stride=2, method=method)
        assert g_x.shape == x_shape and g_x.dtype == np.float32 and not g_x.any()
        g_w = convolve_vjp_w(y, x, w, 0, boundary=boundary, stride=2, method=method)
        assert g_w.shape == w_shape and g_w.dtype == np.float32 and not g_w.any()


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("w_dtype", DTYPES)
def test_dtypes_promote_as_in_numpy(x_dtype: str, w_dtype: str) -> None:
    x, w = noise(0, (4, 5), x_dtype), noise(1, (3, 2), w_dtype)
    problem = Problem(x, w, 1, {"boundary": "periodic"})
    y = problem.run(convolve, x, w)
    assert y.dtype == np.result_type(x, w)
    assert_close(y, problem.convolution(), x, w)


@given(problems(dtypes=["float32", "float64"], max_axes=3, method="direct"), SEEDS, ENGINES)
def test_taps_spread_nan_and_infinity_over_the_filter_alone(
    problem: Problem, seed: int, constants: dict[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    x = problem.x.copy()
    x[tuple(rng.integers(n) for n in x.shape)] = np.nan
    x[tuple(rng.integers(n) for n in x.shape)] = np.inf
    with np.errstate(invalid="ignore"), tuned(**constants):
        y = problem.run(convolve, x, problem.w)
        expected = Problem(x, problem.w, problem.axes, problem.options).convolution()
    assert np.array_equal(np.isnan(y), np.isnan(expected))
    assert np.array_equal(np.isinf(y), np.isinf(expected))
    assert np.array_equal(y[np.isinf(y)], expected[np.isinf(y)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("limit", [Tuning().matrix_macs, 0])
def test_spectra_spread_nan_and_infinity_along_their_axes_alone(value: float, limit: int) -> None:
    x, w = noise(0, (3, 8, 4), "float32"), noise(1, (3,), "float32")
    x[1, 2, 3] = value
    with np.errstate(invalid="ignore"), tuned(matrix_macs=limit), pytest.warns(RuntimeWarning, match="FFT spreads"):
        y = convolve(x, w, 1, boundary="zero", method="fft")
    lost = np.zeros(x.shape, bool)
    lost[1, :, 3] = True
    assert not np.isfinite(y[1, 1:4, 3]).any()  # the taps themselves meet the value here
    assert np.isfinite(y[~lost]).all()


@st.composite
def neighbours(draw: st.DrawFn) -> Problem:
    """One row of sums, of x or of its cotangent, along lines that fill vectors and neighbours that share samples."""
    m, summed, back = draw(st.integers(1, 3)), draw(st.booleans()), draw(st.booleans())
    lengths = [*draw(st.lists(st.integers(2, 5), min_size=m, max_size=m)), draw(st.integers(32, 90))][-m:]
    sizes = draw(st.lists(st.sampled_from([3, 1, 2, 4, 5, 7, 13]), min_size=m, max_size=m))
    near = -2 if m > 1 else -1
    lengths[near], sizes[near] = draw(st.integers(4, 11)), draw(st.sampled_from([3, 4, 5, 6, 9, 14]))
    batch = (draw(st.integers(32, 90)),) * (m == 1) or (draw(st.integers(2, 3)),) * draw(st.booleans())
    strides = [*draw(st.lists(st.integers(1, 2), min_size=m, max_size=m))] * (not back) or [1] * m
    strides[near] = 1
    dtype, seed = draw(st.sampled_from(["float32", "float64"])), draw(SEEDS)
    filters, channels = (3,) * back, (2,) * (summed and not back)
    boundary = tuple(draw(st.lists(st.sampled_from(BOUNDARIES), min_size=m, max_size=m)))
    x, w = noise(seed, (*batch, *channels, *lengths), dtype), noise(seed + 1, (*channels, *sizes, *filters), dtype)
    first = len(batch) + len(channels)
    options = {"boundary": boundary, "stride": tuple(strides), "sum_axes": (first - 1,) * len(channels)}
    return Problem(x, w, tuple(range(first, first + m)), options | {"method": "direct"})


@given(neighbours(), st.booleans())
def test_neighbouring_lines_read_the_same_samples(problem: Problem, odd: bool) -> None:
    x, w = problem.x, problem.w
    if odd:
        rng = np.random.default_rng(0)
        for value in (np.nan, np.inf):
            x[tuple(rng.integers(n) for n in x.shape)] = value
    with np.errstate(invalid="ignore"):
        y, expected = problem.run(convolve, x, w), problem.convolution()
    for kind in (np.isnan, np.isposinf, np.isneginf):
        assert np.array_equal(kind(y), kind(expected))
    finite = np.isfinite(expected)
    assert_close(y[finite], expected[finite], np.nan_to_num(x, posinf=0), w)
    g = noise(99, y.shape, str(y.dtype))
    assert_close(problem.run(convolve_vjp_x, g, x.shape, w), problem.transpose_x(g), g, w)


# Lengths, filters, strides; how often neighbouring lines of results are made together, and of cotangents of the signal.
TO_ONE: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]] = {
    "an image": ((40, 70), (5, 3), (1, 1), 1, 1),
    "a batch of short signals": ((20, 70), (5,), (1,), 1, 1),
    "a volume": ((5, 6, 64), (2, 4, 1), (1, 1, 1), 1, 1),
    "two filters": ((40, 70), (5, 3, 2), (1, 1), 0, 1),
    "positions that stride": ((40, 140), (5, 3), (1, 2), 1, 0),
    "lines that stride": ((40, 70), (5, 3), (2, 1), 0, 0),
    "filters of two lines": ((40, 70), (2, 3), (1, 1), 0, 0),
    "few lines": ((3, 70), (5, 3), (1, 1), 0, 0),
}


@pytest.mark.parametrize("name", TO_ONE)
def test_neighbouring_lines_are_made_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, size, strides, of_results, of_cotangents = TO_ONE[name]
    calls, kernel = [], direct_kernels.apply_to_one
    monkeypatch.setattr(direct_kernels, "apply_to_one", lambda *arguments: calls.append(kernel(*arguments)))
    x, w, options = noise(0, lengths, "float32"), noise(1, size, "float32"), {"boundary": "zero", "method": "direct"}
    problem = Problem(x, w, tuple(range(len(strides))), {**options, "stride": strides})
    y = problem.run(convolve, x, w)
    assert len(calls) == of_results
    problem.run(convolve_vjp_x, y, x.shape, w)
    assert len(calls) == of_results + of_cotangents


def test_docstring_examples_hold() -> None:
    names = {m.name for m in pkgutil.iter_modules(hcnn_core.__path__)} - {"jax", "torch"}  # which may be missing
    modules = [importlib.import_module(f"hcnn_core.{name}") for name in sorted(names)]
    results = [doctest.testmod(module) for module in modules]
    assert sum(r.attempted for r in results) > 0 and sum(r.failed for r in results) == 0


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
def test_a_stride_beyond_the_axis_costs_no_more_than_its_length(boundary: str, method: str) -> None:
    """The first sample alone is kept; work in proportion to such a stride would not end."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 8, 3)), rng.standard_normal((3, 7, 2))
    options: dict[str, Any] = {"boundary": boundary, "method": method, "stride": (10**15, 10**18)}
    y = convolve(x, w, (1, 2), **options)
    whole = convolve(x, w, (1, 2), boundary=boundary)
    np.testing.assert_allclose(y, whole[:, :1, :1], rtol=0, atol=1e-13)
    kept = np.zeros_like(whole)
    kept[:, :1, :1] = y
    for found, expected in (
        (convolve_vjp_x(y, x.shape, w, (1, 2), **options), convolve_vjp_x(kept, x.shape, w, (1, 2), boundary=boundary)),
        (convolve_vjp_w(y, x, w.shape, (1, 2), **options), convolve_vjp_w(kept, x, w.shape, (1, 2), boundary=boundary)),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["fft", "auto"])
@pytest.mark.parametrize(("dtype", "large"), [("float32", 2.0**124), ("complex64", 2.0**124), ("float64", 2.0**1020)])
@pytest.mark.parametrize(("n", "taps", "boundary"), [(64, 3, "zero"), (1024, 63, "periodic"), (2048, 257, "mirror")])
def test_results_near_the_largest_number(
    n: int, taps: int, boundary: Any, dtype: str, large: float, method: Any
) -> None:
    """Spectra overflow, what is asked for does not; a power of two changes no digit of a direct convolution."""
    x, w, options = 1 + noise(0, (2, n), dtype) / 8, noise(1, (taps,), dtype) / taps, {"boundary": boundary}
    g = 1 + noise(2, (2, n), dtype) / 8  # whose sum is n times as large
    x[0] *= 1e-3  # one line alone overflows
    for function, first, second in (
        (lambda a, b, m: convolve(a, b, 1, **options, method=m), x, w),
        (lambda a, b, m: convolve_vjp_x(a, x.shape, b, 1, **options, method=m), g, w),
        (lambda a, b, m: convolve_vjp_w(a, b, w.shape, 1, **options, method=m), g / n, x),
    ):
        expected = function(first, second, "direct")
        found = function(first * np.asarray(large, w.real.dtype), second, method) / np.asarray(large, w.real.dtype)
        assert found.dtype == dtype
        assert np.abs(found - expected).max() <= 100 * np.finfo(dtype).eps * np.abs(expected).max()


def test_what_overflows_or_is_not_finite_stays_so() -> None:
    x, w = np.full(1024, 3e38, "float32"), np.ones(63, "float32")
    with np.errstate(over="ignore"):
        assert np.isposinf(convolve(x, w, 0, boundary="zero", method="fft")).all()
    x[5] = np.nan
    with pytest.warns(RuntimeWarning, match="FFT spreads"):
        assert np.isnan(convolve(x, w, 0, boundary="periodic", method="fft")).all()
