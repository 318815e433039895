"""Patch moments against patches written out one by one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import patch_moments, patch_moments_vjp
from hcnn_core._engines import devices
from hcnn_core._tuning import tuned
from hcnn_core.moments import moments_and_mean, patch_covariance, patch_filter
from tests.core.oracle import (
    BOUNDARIES,
    LAYOUTS,
    SEEDS,
    C,
    NDArray,
    Problem,
    eps,
    lay_out,
    noise,
    norm,
    wide,
)


@dataclass(frozen=True)
class Patches:
    """Arguments of `patch_moments`, and what they mean."""

    x: NDArray
    axes: tuple[int, ...]
    kernel_size: tuple[int, ...]
    boundary: Any

    def arguments(self, x: NDArray | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.x if x is None else x, self.axes, self.kernel_size), {"boundary": self.boundary}

    def moments(self, x: NDArray | None = None) -> tuple[NDArray, NDArray]:
        args, options = self.arguments(x)
        mean, covariance = patch_moments(*args, **options)
        return mean, covariance

    def vjp(self, g_mean: NDArray, g_covariance: NDArray) -> NDArray:
        args, options = self.arguments()
        return np.asarray(patch_moments_vjp(g_mean, g_covariance, *args, **options))

    def taps(self, x: NDArray) -> Iterator[tuple[NDArray, tuple[NDArray, ...], NDArray]]:
        """For each tap: x with the patch axes leading, where every position reads it, and which reads count."""
        problem = Problem(x, np.zeros(self.kernel_size), self.axes, {"boundary": self.boundary})
        signal = problem.lead(x)
        for _, sources, inside in problem.taps():
            mask = functools.reduce(np.logical_and.outer, inside)
            yield signal, np.ix_(*sources), mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))

    def rows(self, x: NDArray | None = None) -> NDArray:
        """The T patch entries of every position, (T, positions), in double precision."""
        return np.array(
            [np.where(mask, x[source], 0).ravel() for x, source, mask in self.taps(wide(self.x if x is None else x))]
        )

    def add_back(self, rows: NDArray, x: NDArray) -> None:
        """Add every patch entry to the element of x it was read from."""
        for row, (signal, source, mask) in zip(rows, self.taps(x), strict=True):
            np.add.at(signal, source, np.where(mask, row.reshape(signal[source].shape), 0))


def covariance_bound(case: Patches) -> NDArray:
    """What rounding may leave of each covariance.

    C eps of the entries' spread about the mean of x (Cauchy-Schwarz), or N / 2 eps where N is large: what lies beyond
    a zero boundary is one number over and over, and equal terms are rounded the same way each time. To that comes the
    rounding of the mean itself. Sums over all samples are rounded in double precision.
    """
    rows, centre = case.rows(), wide(case.x).mean()
    count = rows.shape[1]
    spread = np.linalg.norm(rows - centre, axis=1)
    scale = np.outer(spread, spread) / count
    tolerance = C * eps(case.x.dtype)
    return max(C, count / 2) * eps(case.x.dtype) * scale + (tolerance**2 + C * eps("float64")) * centre**2


@st.composite
def cases(
    draw: st.DrawFn, dtypes: Sequence[str] = ("float32", "float64"), means: Sequence[float] = (0, 1e4, 1)
) -> Patches:
    ndim = draw(st.sampled_from([2, 3, 1, 4]))
    axes = draw(st.permutations(range(ndim)))[: draw(st.sampled_from([m for m in (2, 1, 3) if m <= ndim]))]
    shape = draw(st.lists(st.sampled_from([2, 3, 4, 5, 6, 1]), min_size=ndim, max_size=ndim))
    sizes = st.sampled_from([2, 3, 4, 1] if len(axes) < 3 else [2, 1])
    kernel_size = draw(st.lists(sizes, min_size=len(axes), max_size=len(axes)))
    each = st.sampled_from(BOUNDARIES)
    boundary = draw(each | st.lists(each, min_size=len(axes), max_size=len(axes)))
    seed = draw(SEEDS)
    x = noise(seed, tuple(shape), draw(st.sampled_from(dtypes)))
    x = x + x.dtype.type(draw(st.sampled_from(means)))
    return Patches(lay_out(x, draw(st.sampled_from(LAYOUTS)), seed), tuple(axes), tuple(kernel_size), boundary)


@given(cases(), st.sampled_from([1, 1 << 19]), st.sampled_from([8, 256]))
def test_moments_of_explicit_patches(case: Patches, tile: int, long: int) -> None:
    kept = case.x.copy()
    with tuned(gathered_elements=tile, patch_line_elements=long):
        mean, covariance = case.moments()
    rows = case.rows()
    assert mean.dtype == covariance.dtype == case.x.dtype
    tolerance = C * eps(case.x.dtype)
    assert mean.shape == (len(rows),)
    assert (np.abs(mean - rows.mean(1)) <= tolerance * np.abs(case.x).mean()).all()
    assert covariance.shape == (len(rows), len(rows))
    error = np.abs(covariance - np.cov(rows, bias=True).reshape(covariance.shape))
    assert (error <= covariance_bound(case)).all()
    assert np.array_equal(case.x, kept)
    assert not np.shares_memory(mean, case.x) and not np.shares_memory(covariance, case.x)


def cotangents(case: Patches, seed: int) -> tuple[NDArray, NDArray]:
    taps = int(np.prod(case.kernel_size))
    dtype = str(case.x.dtype)
    return noise(seed, (taps,), dtype), noise(seed + 1, (taps, taps), dtype)


@given(cases(), SEEDS, st.sampled_from(LAYOUTS), st.sampled_from([8, 256]))
def test_cotangent_keeps_its_precision(case: Patches, seed: int, layout: str, long: int) -> None:
    """In either precision, with or without a large mean, the cotangent is that of double precision.

    So is its sum with another array, by the mean that the moments come with.
    """
    g_mean, g_covariance = cotangents(case, seed)
    kept = case.x.copy()
    with tuned(patch_line_elements=long):
        g_x = case.vjp(g_mean, g_covariance)
    assert g_x.shape == case.x.shape and g_x.dtype == case.x.dtype and g_x.flags.writeable
    assert np.array_equal(case.x, kept) and not np.shares_memory(g_x, case.x)

    rows, symmetric = case.rows(), wide(g_covariance + g_covariance.T)
    deviation = rows - rows.mean(1, keepdims=True)
    expected = np.zeros(case.x.shape)
    share = (wide(g_mean)[:, None] + symmetric @ deviation) / rows.shape[1]
    case.add_back(share, expected)
    # every element of x enters T patch entries, each of which is a sum over T deviations from a rounded mean
    largest = np.linalg.norm(np.abs(deviation).max(1) + abs(wide(case.x).mean()))
    scale = np.sqrt(len(rows)) * (norm(g_mean) + norm(symmetric) * largest) / rows.shape[1]
    assert np.abs(g_x - expected).max() <= C * eps(case.x.dtype) * scale

    args, options = case.arguments()
    other = lay_out(noise(seed + 2, case.x.shape, str(case.x.dtype)), layout)
    before, mean = other.copy(), moments_and_mean(*args, **options)[2]
    with tuned(patch_line_elements=long):
        total = patch_filter(g_mean, g_covariance + g_covariance.T, *args, **options, mean=mean, addend=other)
    assert total.shape == case.x.shape and total.dtype == case.x.dtype and mean.dtype == float
    assert np.array_equal(other, before) and not np.shares_memory(total, other)
    assert np.abs(total - (expected + other)).max() <= C * eps(case.x.dtype) * (scale + np.abs(other).max())


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_covariance_survives_a_first_guess_of_the_mean_that_misleads(boundary: str) -> None:
    x = noise(0, (20, 24, 16), "float32") + np.float32(1e4)
    x[::4, ::4] = 0
    case = Patches(x, (1, 2), (3, 3), boundary)
    mean, covariance = case.moments()
    expected = np.cov(case.rows(), bias=True)
    assert np.abs(mean - case.rows().mean(axis=1)).max() <= C * eps("float32") * 1e4
    assert np.abs(covariance - expected).max() <= C * eps("float32") * np.diag(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4, 8, 2, 16), (4, 32, 2, 64)])
def test_a_tap_that_only_meets_zeros_is_zero(shape: tuple[int, ...], dtype: str) -> None:
    """Not what rounding leaves of zeros less a large mean, squared, which may be below zero."""
    x = noise(0, shape, dtype) + np.dtype(dtype).type(1000)
    unmet = np.tile([True, False, False, False, True], 3)
    for x_axes, boundary in (((1, 2), "zero"), ((1, 2, 0), ("periodic", "zero", "zero"))):
        case = Patches(x, x_axes, (3, 5, 1)[: len(x_axes)], boundary)
        moments = [*case.moments(), patch_covariance(x, x[::-1].copy(), x_axes, case.kernel_size, boundary=boundary)]
        for found in moments:
            assert not found[unmet].any() and not found.T[unmet].any()
            assert found[np.ix_(*(~unmet,) * found.ndim)].all()


@given(cases(dtypes=["float64"], means=[0, 1]), SEEDS)
def test_cross_covariance_and_its_transposes(case: Patches, seed: int) -> None:
    """`patch_covariance` is bilinear; `patch_filter` is its transpose in either argument."""
    x, y = case.x, noise(seed, case.x.shape, "float64")
    options = {"boundary": case.boundary}
    rows = case.rows(x), case.rows(y)
    covariance = patch_covariance(x, y, case.axes, case.kernel_size, **options)
    centred = [r - r.mean(1, keepdims=True) for r in rows]
    size = norm(rows[0]) * norm(rows[1])
    assert np.abs(covariance - centred[0] @ centred[1].T / rows[0].shape[1]).max() <= C * eps("float64") * size

    g = cotangents(case, seed + 1)[1]
    zeros = np.zeros(len(g))
    value, bound = np.sum(g * covariance), 2 * C * eps("float64") * size * norm(g)
    by_x = patch_filter(zeros, g, y, case.axes, case.kernel_size, **options)
    by_y = patch_filter(zeros, g.T, x, case.axes, case.kernel_size, **options)
    assert abs(np.sum(by_x * x) - value) <= bound
    assert abs(np.sum(by_y * y) - value) <= bound


@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 5)])
@pytest.mark.parametrize("boundary", [*BOUNDARIES, ("periodic", "zero")])
@pytest.mark.parametrize("shape", [(4, 7, 6, 5), (1, 7, 45, 1)])
def test_without_numba_the_result_is_the_same(
    shape: tuple[int, ...], kernel_size: tuple[int, int], boundary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Patches(noise(0, shape, "float32"), (1, 2), kernel_size, boundary)
    g_mean, g_covariance = cotangents(case, 1)
    compiled = *case.moments(), case.vjp(g_mean, g_covariance)
    monkeypatch.setattr(devices, "has_compiled_kernels", lambda: False)
    plain = *case.moments(), case.vjp(g_mean, g_covariance)
    rows = case.rows()
    scales = np.abs(rows).mean(), np.square(rows).mean(), norm(g_mean) + norm(g_covariance) * np.linalg.norm(rows)
    for a, b, scale in zip(compiled, plain, scales, strict=True):
        assert np.abs(a - b).max() <= C * eps("float32") * scale


def test_nan_and_infinity_propagate() -> None:
    for value in (np.nan, np.inf):
        x = noise(0, (3, 6, 5), "float32")
        x[1, 2, 3] = value
        with np.errstate(invalid="ignore"):
            mean, covariance = patch_moments(x, (1, 2), 3, boundary="periodic")
        assert not np.isfinite(mean).any() and not np.isfinite(covariance).any()


X = np.ones((3, 5, 4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"axes": ()}, ValueError, "axes names no axis; patches extend along at least one"),
        ({"axes": (1, 3)}, ValueError, "axes names axis 3 of an array with 3 axes; use -3 to 2"),
        ({"kernel_size": 0}, ValueError, "kernel_size holds 0; give 1 or more"),
        ({"kernel_size": (2.5, 3)}, TypeError, "kernel_size holds 2.5; give integers"),
        ({"boundary": "wrap"}, ValueError, "boundary is 'wrap'; its name here is 'periodic'; choose"),
        ({"x": np.ones((3, 0, 4))}, ValueError, r"x has shape \(3, 0, 4\); an empty array has no moments"),
        ({"x": np.ones((3, 5, 4), int)}, TypeError, "x has dtype int64; convert it to one of float32, float64"),
        ({"x": np.ones((3, 5, 4), complex)}, TypeError, "x has dtype complex128; this function takes float32"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": X, "axes": (1, 2), "kernel_size": 3, "boundary": "zero", **change}
    x, axes, kernel_size = (arguments.pop(name) for name in ("x", "axes", "kernel_size"))
    with pytest.raises(error, match=message):
        patch_moments(x, axes, kernel_size, **arguments)
    with pytest.raises(error, match=message):
        patch_moments_vjp(np.ones(9), np.ones((9, 9)), x, axes, kernel_size, **arguments)
