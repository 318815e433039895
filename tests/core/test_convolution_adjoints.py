"""The adjoints of `convolve`, and of its transforms, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x
from hcnn_core._engines.cpu.real_dft import RealDFT
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.fft import LibraryFFT
from hcnn_core._engines.generic.plan import Plan
from hcnn_core._engines.planner import make_plan
from hcnn_core._engines.transform import Along
from hcnn_core._problem import make_problem
from hcnn_core._tuning import tuned
from hcnn_core.convolution import adjoints, convolve_cotangents
from tests.core.oracle import (
    BOUNDARIES,
    DTYPES,
    ENGINES,
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


@given(with_cotangents(problems()), ENGINES)
def test_adjoints_are_their_definitions(case: tuple[Problem, NDArray], constants: dict[str, int]) -> None:
    problem, g = case
    x, w = problem.x, problem.w
    kept = [a.copy() for a in (g, x, w)]
    with tuned(**constants), poisoned_memory():
        g_x, g_w = problem.run(convolve_vjp_x, g, x, w), problem.run(convolve_vjp_w, g, x, w)
    assert g_x.dtype == g_w.dtype == x.dtype
    assert_close(g_x, problem.transpose_x(g), g, w)
    assert_close(g_w, problem.transpose_w(g), g, x)
    for result in (g_x, g_w):
        assert result.flags.writeable
        assert not any(np.shares_memory(result, a) for a in (g, x, w))
    assert all(np.array_equal(a, before) for a, before in zip((g, x, w), kept, strict=True))


@given(with_cotangents(problems(max_axes=3)))
def test_both_adjoints_at_once_are_the_two(case: tuple[Problem, NDArray]) -> None:
    problem, g = case
    asked = make_problem(problem.x.shape, problem.w.shape, problem.axes, **problem.options)
    g_x, g_w, _ = adjoints(np, asked, g, problem.x, problem.w)
    assert g_x is not None and g_w is not None
    assert_close(g_x, wide(problem.run(convolve_vjp_x, g, problem.x, problem.w)), g, problem.w)
    assert_close(g_w, wide(problem.run(convolve_vjp_w, g, problem.x, problem.w)), g, problem.x)
    assert adjoints(np, asked, g, None, None) == (None, None, None)


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_only_wanted_cotangents_are_returned(count: int, wanted: tuple[bool, bool]) -> None:
    x, w = np.ones((count, 5)), np.ones(3)
    g = convolve(x, w, 1, boundary="zero")
    found = convolve_cotangents(g, x, w, 1, wanted=wanted, boundary="zero")
    shapes = [None if a is None else a.shape for a in found]
    assert shapes == [a.shape if want else None for a, want in zip((x, w), wanted, strict=True)] + [None]


@pytest.mark.parametrize("g_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_promote_as_in_numpy(g_dtype: str, dtype: str) -> None:
    problem = Problem(noise(0, (4, 5), dtype), noise(1, (3, 2), dtype), 1, {"boundary": "periodic"})
    g = noise(2, problem.y_shape, g_dtype)
    g_x, g_w = (problem.run(f, g, problem.x, problem.w) for f in (convolve_vjp_x, convolve_vjp_w))
    assert g_x.dtype == g_w.dtype == np.result_type(g, problem.x)
    assert_close(g_x, problem.transpose_x(g), g, problem.w)
    assert_close(g_w, problem.transpose_w(g), g, problem.x)


def test_dtype_of_the_argument_that_is_only_a_shape_does_not_matter() -> None:
    g, x, w = noise(0, (4,), "float32"), noise(1, (4,), "float64"), noise(2, (3,), "float64")
    assert convolve_vjp_x(g, x, w.astype("f4"), 0, boundary="zero").dtype == np.float32
    assert convolve_vjp_w(g, x.astype("f4"), w, 0, boundary="zero").dtype == np.float32


@st.composite
def grids(draw: st.DrawFn) -> tuple[Any, ...]:
    m = draw(st.integers(1, 3))
    sizes = [draw(st.lists(st.sampled_from([*range(2, top + 1), 1]), min_size=m, max_size=m)) for top in (6, 8, 3)]
    boundary = draw(st.lists(st.sampled_from(BOUNDARIES), min_size=m, max_size=m))
    return (*map(tuple, sizes), tuple(boundary))


def along(grid: tuple[Any, ...]) -> list[Along]:
    return [Along(*axis) for axis in zip(*grid, strict=True)]


def by_phases(*grid: Any) -> RealDFT:
    """The transform of reals that has this kind; it suits grids whose strides divide them."""
    axes, real, three_products = grid
    transform = RealDFT(axes, three_products)
    assume(real and all(axis.supports for axis in transform.axes))
    return transform


KINDS: dict[str, Any] = {
    "matrices": MatrixDFT,
    "library": LibraryFFT,
    "three products": lambda *grid: by_phases(*grid, True),
    "four products": lambda *grid: by_phases(*grid, False),
}


@given(grids(), st.sampled_from(list(KINDS)), st.sampled_from(["float64", "complex128"]), SEEDS)
def test_each_map_of_a_transform_has_its_transpose(grid: tuple[Any, ...], kind: str, dtype: str, seed: int) -> None:
    """Where a spectrum of reals is half of itself, in complex numbers, the real part of the products counts."""
    transform = KINDS[kind](along(grid), dtype == "float64")
    lengths, kernel_size, stride, _ = grid
    spectrum_dtype = "complex128" if kind == "library" else dtype
    samples, kept = np.prod(lengths), np.prod([-(-n // r) for n, r in zip(lengths, stride, strict=True)])
    f, a, p = transform.frequencies, transform.aliases, transform.planes

    def check(forward: Any, transpose: Any, x: NDArray, s: NDArray) -> None:
        there, back = forward(np, x), transpose(np, s)
        assert there.shape == s.shape and back.shape == x.shape
        left, right = dot(there, s), dot(x, back)
        if dtype == "float64":
            left, right = left.real, right.real
        assert abs(left - right) <= 2 * C * eps("float64") * (norm(there) * norm(s) + norm(x) * norm(back))

    x, y = noise(seed, (samples, 3), dtype), noise(seed + 1, (kept, 3), dtype)
    w = noise(seed + 2, (np.prod(kernel_size), 2, 3, 2), dtype)
    check(transform.analyze, transform.analyze_transpose, x, noise(seed + 3, (f, a * p, 3), spectrum_dtype))
    check(transform.synthesize, transform.synthesize_transpose, noise(seed + 4, (f, p, 3), spectrum_dtype), y)
    filters = noise(seed + 5, (f, 2 * p, 6 * a * p), spectrum_dtype)
    check(transform.kernel, lambda xp, s: transform.kernel_transpose(xp, s, (2, 3, 2)), w, filters)


@given(grids(), st.booleans(), SEEDS)
def test_spectra_by_phases_make_the_convolution(grid: tuple[Any, ...], three_products: bool, seed: int) -> None:
    """y = S[(K w)(A x)], by NumPy, for two channels and two filters; with four products no number is held in vain."""
    transform = by_phases(along(grid), True, three_products)
    points = [axis.length for axis in transform.axes]
    assert three_products or 2 * transform.frequencies == np.prod(points) + np.prod(points) % 2
    lengths, kernel_size, stride, boundary = grid
    x, w = noise(seed, (*lengths, 2, 3), "float64"), noise(seed + 1, (2, *kernel_size, 2), "float64")
    spectrum = transform.analyze(np, x.reshape(-1, 6)).reshape(transform.frequencies, -1, 3)
    filters = transform.kernel(np, np.moveaxis(w, 0, -2).reshape(-1, 1, 2, 2))
    y = transform.synthesize(np, (filters @ spectrum).reshape(transform.frequencies, transform.planes, -1))
    axes = tuple(range(len(lengths)))
    problem = Problem(x, w, axes, {"boundary": boundary, "stride": stride, "sum_axes": len(lengths)})
    expected = np.moveaxis(problem.convolution(), -1, -2).reshape(-1, 6)
    assert_close(y, expected, x, w)


@pytest.mark.parametrize("out", [(3, 1), (1, 3), (1, 3, 1), (1, 1), (2, 1, 3)])
@pytest.mark.parametrize("kind", ["newaxis", "sliced", "copied"])
def test_new_axes_of_length_one_have_any_stride(out: tuple[int, ...], kind: str) -> None:
    x, w = noise(0, (5, 4, 24), "float32"), noise(1, (4, 3, *out), "float32")
    problem = Problem(x, w, (0,), {"boundary": "periodic", "sum_axes": (1,), "method": "fft"})
    g = np.ascontiguousarray(np.moveaxis(noise(2, problem.y_shape, "float32"), 1, -1))  # memory as the plan has it
    g = np.moveaxis(g, -1, 1)
    if kind == "newaxis":
        g = g.reshape([n for n in g.shape if n > 1])
        g = g[tuple(slice(None) if n > 1 else None for n in problem.y_shape)]
    elif kind == "sliced":
        wide_memory = np.zeros((*(2 if n == 1 else n for n in (5, *out)), 24), "float32")
        inside = np.moveaxis(wide_memory, -1, 1)[tuple(slice(-n, None) for n in problem.y_shape)]
        inside[...] = g
        g = inside
    assert_maps(problem, g)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_phases_and_groups_of_channels_are_told_apart(boundary: str) -> None:
    x, w, g = (
        noise(0, (6, 8, 16, 33), "float64"),
        noise(1, (6, 7, 11, 5), "float64"),
        noise(2, (4, 8, 33, 5), "float64"),
    )
    options: dict[str, Any] = {"axes": (1, 2), "sum_axes": 0, "stride": 2, "boundary": boundary}
    maps = (convolve, (x, w), (x, w)), (convolve_vjp_x, (g, x, w), (g, w)), (convolve_vjp_w, (g, x, w), (g, x))
    with tuned(spectral_channels=2):
        for function, operands, multiplied in maps:
            taps, spectra = (function(*operands, method=method, **options) for method in ("direct", "fft"))
            assert_close(spectra, taps, *multiplied)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("filters", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("n", [16, 17, 30, 47, 100])
def test_lines_of_any_length(n: int, filters: int, dtype: str) -> None:
    """Vectors, of 2 to 16 numbers, and tiles of them divide few of these."""
    x, w = noise(0, (3, 5, n), dtype), noise(1, (3, 3, 5, filters), dtype)
    for boundary in BOUNDARIES:
        problem = Problem(x, w, (1, 2), {"boundary": boundary, "sum_axes": (0,), "method": "direct"})
        g = noise(2, problem.y_shape, dtype)
        assert_maps(problem, g)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_cotangents_of_strided_axes_in_parts(n: int, stride: int) -> None:
    """Phases have different numbers of samples, some none in a part; a few taps leave samples that none reads."""
    for shape, size in (((n, 40), (3,)), ((n, 40), (1,)), ((n, 7, 18), (3, 2)), ((n, 6, 5, 18), (3, 1, 3))):
        x, w = noise(0, shape, "float64"), noise(1, size, "float64")
        for boundary in BOUNDARIES:
            options = {"boundary": boundary, "method": "direct", "stride": stride}
            problem = Problem(x, w, tuple(range(len(size))), options)
            g = noise(2, problem.y_shape, "float64")
            with tuned(extended_elements=1, positions_per_part=1), poisoned_memory():
                assert_close(problem.run(convolve_vjp_x, g, x, w), problem.transpose_x(g), g, w)


def test_filters_of_few_and_of_many_positions() -> None:
    """Sums over more than `MAX_TERMS` positions are passed on in double precision, as often as that."""
    x, w, g = noise(0, (13_001, 2, 6), "float32"), noise(1, (2, 3, 3), "float32"), noise(2, (13_001, 3, 6), "float32")
    options: dict[str, Any] = {"axes": 2, "sum_axes": 1, "boundary": "periodic"}
    for n in (300, 4_100, 13_001):
        spectra = convolve_vjp_w(g[:n].transpose(0, 2, 1), x[:n], w, method="fft", **options)
        taps = convolve_vjp_w(wide(g[:n]).transpose(0, 2, 1), wide(x[:n]), wide(w), method="direct", **options)
        assert_close(spectra, taps, g[:n], x[:n])


@pytest.mark.parametrize(
    ("n", "stride", "boundary", "length"),
    [
        (39, 1, "zero", 42),  # 41 would do, but its straight-line code is long
        (2, 2, "zero", 2),
        (2, 2, "periodic", 1),
        (41, 1, "periodic", None),
        (9, 2, "periodic", None),
    ],
)
def test_transforms_of_awkward_lengths(n: int, stride: int, boundary: str, length: int | None) -> None:
    """By straight-line code of a fast length, or where there is none by the library."""
    options: dict[str, Any] = {"boundary": boundary, "stride": (stride, 1), "method": ("fft", "direct")}
    problem = Problem(noise(0, (n, 40), "float64"), noise(1, (5, 3, 4), "float64"), (0, 1), options)
    g = noise(2, problem.y_shape, "float64")
    asked = make_problem(problem.x.shape, problem.w.shape, (0, 1), sum_axes=(), **options)
    plan = make_plan(asked, problem.x)
    assert isinstance(plan, Plan)
    transform = plan.transform
    lengths = [axis.length for axis in transform.axes] if isinstance(transform, RealDFT) else [None]
    assert lengths == [length]
    assert_maps(problem, g)
