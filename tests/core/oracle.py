"""What the tests of the core share: the definition of a convolution in plain loops, and inputs to try it on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import strategies as st

from hcnn_core import _threads, convolve, convolve_vjp_w, convolve_vjp_x
from hcnn_core._engines.cpu import allocator
from hcnn_core._problem import EXTENSIONS as EXTENSIONS
from hcnn_core._tuning import Tuning, tuned
from hcnn_core.testing.strategies import SEEDS, noise

NDArray = np.ndarray[Any, Any]

DTYPES = ("float32", "float64", "complex64", "complex128")
BOUNDARIES = ("periodic", "zero")
METHODS = ("direct", "fft", "auto")
LAYOUTS = ("C", "F", "shuffled", "negative", "sliced", "read-only", "broadcast")

C = 20
"""Roundings allowed, in units of eps times the norms of the operands.

By Cauchy-Schwarz a sum of products is at most the product of two norms, and its rounding error, a walk of N steps of
half an eps, about sqrt(N) / 2 of that. A convolution chains at most three sums (to the spectrum, over it, and back),
of N <= 1000 terms in these tests, and most are summed in blocks, so far less than 20 remains; an error of meaning
(a tap, a sign, a border) is larger by the factor 1 / eps.
"""


def lay_out(array: NDArray, layout: str, seed: int = 0, *, axis: int | None = None) -> NDArray:
    """The array in another memory layout; "broadcast" repeats its first values along `axis` or a random axis."""
    assert layout in LAYOUTS, layout
    array, rng = np.array(array), np.random.default_rng(seed)
    if layout == "F":
        return np.array(array, order="F")
    if layout == "shuffled":
        order = rng.permutation(array.ndim)
        return np.array(array.transpose(order), order="C").transpose(np.argsort(order))
    if layout == "negative":
        return np.flip(np.flip(array).copy())
    if layout == "sliced":
        wider = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
        view = wider[(slice(1, None, 2),) * array.ndim + (...,)]
        view[...] = array
        return view
    if layout == "broadcast" and array.ndim:
        axis = int(rng.integers(array.ndim)) if axis is None else axis
        return np.broadcast_to(array[(slice(None),) * axis + (slice(0, 1),)], array.shape) if array.size else array
    array.flags.writeable = layout != "read-only"
    return array


def eps(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


def norm(array: NDArray) -> float:
    """Euclidean norm, in double precision."""
    return float(np.linalg.norm(wide(array).ravel()))


def wide(array: NDArray) -> NDArray:
    """The array in double precision."""
    return np.asarray(array, np.result_type(array.dtype, np.float64))


def dot(a: NDArray, b: NDArray) -> complex:
    """The sum of the products, without conjugation, in double precision."""
    return complex(np.sum(wide(a) * wide(b)))


def assert_close(actual: NDArray, expected: NDArray, *operands: NDArray) -> None:
    """Equal shapes, and no element further off than C eps times the product of the operands' norms."""
    assert actual.shape == expected.shape
    if actual.size:
        scale = math.prod(norm(a) for a in operands)
        error = float(np.abs(wide(actual) - expected).max())
        assert error <= C * eps(actual.dtype) * scale, (
            f"off by {error:.2g}, {error / (eps(actual.dtype) * scale):.1f} eps"
        )


def assert_maps(problem: Problem, g: NDArray) -> None:
    """A convolution by the package, and both of its cotangents, are those of the definition."""
    x, w = problem.x, problem.w
    assert_close(problem.run(convolve, x, w), problem.convolution(), x, w)
    assert_close(problem.run(convolve_vjp_x, g, x, w), problem.transpose_x(g), g, w)
    assert_close(problem.run(convolve_vjp_w, g, x, w), problem.transpose_w(g), g, x)


def reached(index: NDArray, n: int, boundary: str) -> tuple[NDArray, NDArray]:
    """Which of n samples an index inside or outside of them means, and whether it means one."""
    everywhere = np.ones(index.shape, bool)
    match boundary:
        case "periodic":
            return index % max(n, 1), everywhere
        case "zero":
            return index % max(n, 1), (index >= 0) & (index < n)
        case "reflect":
            index = index % max(2 * n, 1)
            return np.minimum(index, 2 * n - 1 - index), everywhere
        case "mirror":
            index = index % max(2 * n - 2, 1)
            return np.minimum(index, abs(2 * n - 2 - index)), everywhere
        case "nearest":
            return np.minimum(np.maximum(index, 0), n - 1), everywhere
    raise AssertionError(boundary)


@dataclass(frozen=True)
class Problem:
    """Operands and options of one convolution, or of one correlation."""

    x: NDArray
    w: NDArray
    axes: Any
    options: dict[str, Any]
    sign: int = -1
    """Tap t reads sample i + sign * (t - size // 2): -1 for a convolution, 1 for a correlation."""

    def per_axis(self, name: str, default: Any = None) -> tuple[Any, ...]:
        """An option, one entry per convolved axis."""
        value = self.options.get(name, default)
        return (value,) * len(self.convolved) if isinstance(value, str | int) else tuple(value)

    @property
    def convolved(self) -> tuple[int, ...]:
        return self._normal(self.axes)

    @property
    def summed(self) -> tuple[int, ...]:
        return self._normal(self.options.get("sum_axes", ()))

    def _normal(self, axes: int | Sequence[int]) -> tuple[int, ...]:
        return tuple(a % self.x.ndim for a in ((axes,) if isinstance(axes, int) else axes))

    def with_options(self, **options: Any) -> Problem:
        return replace(self, options={**self.options, **options})

    def run(self, function: Callable[..., Any], *operands: Any) -> Any:
        """The function on other operands with the options of this problem."""
        return function(*operands, self.axes, **self.options)

    def taps(self) -> Iterator[tuple[tuple[int, ...], list[NDArray], list[NDArray]]]:
        """For each tap t: the source index of every output index along every axis, and whether it lies inside x."""
        kernel_size = self.w.shape[len(self.summed) : len(self.summed) + len(self.convolved)]
        for t in np.ndindex(*kernel_size):
            sources, inside = [], []
            for axis, tap, size, r, boundary in zip(
                self.convolved, t, kernel_size, self.per_axis("stride", 1), self.per_axis("boundary"), strict=True
            ):
                n = self.x.shape[axis]
                index = r * np.arange(math.ceil(n / r)) + self.sign * (tap - size // 2)
                source, means_one = reached(index, n, boundary)
                sources.append(source)
                inside.append(means_one)
            yield t, sources, inside

    def lead(self, x: NDArray) -> NDArray:
        """A signal with its axes in the order summed, convolved, others."""
        return np.moveaxis(x, (*self.summed, *self.convolved), range(len(self.summed) + len(self.convolved)))

    def lead_result(self, y: NDArray) -> NDArray:
        """A result with its axes in the order convolved, others of x, new."""
        kept = [a for a in range(self.x.ndim) if a not in self.summed]
        return np.moveaxis(y, [kept.index(a) for a in self.convolved], range(len(self.convolved)))

    @property
    def y_shape(self) -> tuple[int, ...]:
        stride = dict(zip(self.convolved, self.per_axis("stride", 1), strict=True))
        kept = [math.ceil(n / stride.get(a, 1)) for a, n in enumerate(self.x.shape) if a not in self.summed]
        return (*kept, *self.w.shape[len(self.summed) + len(self.convolved) :])

    def convolution(self) -> NDArray:
        """The definition: y[.., i, .., k] = sum_{c,t} x[.., c, .., r i - (t - s // 2), ..] w[c, t, k]."""
        return self._convolution

    @cached_property
    def _convolution(self) -> NDArray:
        first = len(self.summed)
        x, w = self.lead(wide(self.x)), wide(self.w)
        y = np.zeros(self.y_shape, np.result_type(x, w))
        target = self.lead_result(y)
        for t, sources, inside in self.taps():
            cut = x[(slice(None),) * first + np.ix_(*sources)]
            cut = np.where(_grid(inside, cut.ndim - first), cut, 0)
            target += np.tensordot(cut, w[(slice(None),) * first + t], (range(first), range(first)))
        y.flags.writeable = False  # kept for the next call
        return y

    def transpose_x(self, g: NDArray) -> NDArray:
        """The sum g . convolution, differentiated by x."""
        first, new = len(self.summed), self.w.ndim - len(self.summed) - len(self.convolved)
        g, w = self.lead_result(wide(g)), wide(self.w)
        result = np.zeros(self.x.shape, np.result_type(g, w))
        target = self.lead(result)
        for t, sources, inside in self.taps():
            share = np.tensordot(w[(slice(None),) * first + t], g, (range(first, first + new), range(-new, 0)))
            share = np.where(_grid(inside, share.ndim - first), share, 0)
            where = (slice(None),) * first + np.ix_(*sources)
            if set(self.per_axis("boundary")) <= set(BOUNDARIES):
                target[where] += share  # one tap reads no element twice
            else:
                np.add.at(target, where, share)
        return result

    def transpose_w(self, g: NDArray) -> NDArray:
        """The sum g . convolution, differentiated by w."""
        first = len(self.summed)
        x, g = self.lead(wide(self.x)), self.lead_result(wide(g))
        result = np.zeros(self.w.shape, np.result_type(x, g))
        for t, sources, inside in self.taps():
            cut = x[(slice(None),) * first + np.ix_(*sources)]
            cut = np.where(_grid(inside, cut.ndim - first), cut, 0)
            positions = cut.ndim - first
            result[(slice(None),) * first + t] = np.tensordot(cut, g, (range(first, cut.ndim), range(positions)))
        return result


def _grid(inside: list[NDArray], ndim: int) -> NDArray:
    """Whether all indices lie inside, over the leading axes of an array with `ndim` axes."""
    grid = np.ones((1,) * ndim, bool)
    for axis, mask in enumerate(inside):
        grid = grid & mask.reshape((1,) * axis + (-1,) + (1,) * (ndim - axis - 1))
    return grid


def windows(
    x: NDArray,
    axes: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    fill: float,
) -> NDArray:
    """The samples of every window of a pooling in C order, along a new last axis, and `fill` for those outside x."""
    around, steps = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for axis, step, pad in zip(axes, stride, padding, strict=True):
        around[axis], steps[axis] = (pad, pad), slice(None, None, step)
    padded = np.pad(x, around, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel_size), tuple(axes))[tuple(steps)]
    return view.reshape(*view.shape[: x.ndim], math.prod(kernel_size))


LONGEST = {1: 12, 2: 7, 3: 5, 4: 3, 5: 3, 6: 2}  # of an axis, by the number of convolved axes
WIDEST = {1: 15, 2: 9, 3: 6, 4: 4, 5: 3, 6: 3}  # of a filter


@st.composite
def problems(
    draw: st.DrawFn,
    dtypes: Sequence[str] = DTYPES,
    max_axes: int = 6,
    boundaries: Sequence[str] = BOUNDARIES,
    **fixed: Any,
) -> Problem:
    """Convolutions of every kind the contract names, small enough for loops; `fixed` options are not drawn."""
    m = draw(st.sampled_from([m for m in (2, 1, 3, 3, 4, 5, 6) if m <= max_axes]))
    others, channels = (
        draw(st.lists(st.sampled_from([2, 3, 1]), min_size=n, max_size=n))
        for n in draw(st.tuples(st.sampled_from([1, 0, 2]), st.sampled_from([1, 0, 2])))
    )
    order = draw(st.permutations(range(m + len(others) + len(channels))))
    if others and draw(st.booleans()):  # a batch axis comes first
        first = m + len(channels)
        i = order.index(0)
        order[i], order[first] = order[first], order[i]
    axes, sum_axes = order[:m], order[m : m + len(channels)]
    lengths, kernel_size = (
        draw(st.lists(st.sampled_from([*range(2, top + 1), 1]), min_size=m, max_size=m))
        for top in (LONGEST[m], WIDEST[m])
    )
    out = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = [0] * len(order)
    for a, n in zip(order, [*lengths, *channels, *others], strict=True):
        shape[a] = n

    def per_axis(choices: st.SearchStrategy[Any]) -> Any:
        return draw(choices | st.lists(choices, min_size=m, max_size=m).map(tuple))

    options = {
        "boundary": per_axis(st.sampled_from(boundaries)),
        "stride": per_axis(st.integers(1, 3)),
        "method": per_axis(st.sampled_from(METHODS)),
        "sum_axes": tuple(sum_axes),
        **fixed,
    }
    if draw(st.booleans()):  # count axes from the end
        axes = [a - len(order) for a in axes]
    seed, dtype = draw(SEEDS), draw(st.sampled_from(list(dtypes)))
    x, w = (
        lay_out(noise(seed + i, tuple(s), dtype), draw(st.sampled_from(LAYOUTS)), seed)
        for i, s in enumerate((shape, [*channels, *kernel_size, *out]))
    )
    return Problem(x, w, axes[0] if m == 1 and draw(st.booleans()) else tuple(axes), options)


@st.composite
def with_cotangents(draw: st.DrawFn, drawn: st.SearchStrategy[Problem]) -> tuple[Problem, NDArray]:
    """A problem, and a cotangent of its result in any layout."""
    problem = draw(drawn)
    g = noise(draw(SEEDS), problem.y_shape, str(problem.x.dtype))
    return problem, lay_out(g, draw(st.sampled_from(LAYOUTS)))


DEFAULT = Tuning()

ENGINES = st.fixed_dictionaries(
    {
        "matrix_macs": st.sampled_from([DEFAULT.matrix_macs, 0]),  # 0: every transform is an FFT
        "gathered_elements": st.sampled_from([50, DEFAULT.gathered_elements]),
        "extended_elements": st.sampled_from([50, DEFAULT.extended_elements]),
        "positions_per_part": st.sampled_from([1, DEFAULT.positions_per_part]),
        "spectrum_elements": st.sampled_from([50, DEFAULT.spectrum_elements]),
        "cotangent_elements": st.sampled_from([50, DEFAULT.cotangent_elements]),
        "transform_elements": st.sampled_from([1, DEFAULT.transform_elements]),
        "spectral_channels": st.sampled_from([1, 2, DEFAULT.spectral_channels]),
        "product_elements": st.sampled_from([1, DEFAULT.product_elements]),
        "compiled_positions": st.sampled_from([1, 1, DEFAULT.compiled_positions]),  # 1: compiled wherever possible
        "merged_macs": st.sampled_from([1, DEFAULT.merged_macs]),  # 1: short lines are merged
        "transpose_elements": st.sampled_from([1, DEFAULT.transpose_elements]),
        "inner_elements": st.sampled_from([1, 1, DEFAULT.inner_elements]),  # 1: outer batch axes stay where they lie
        # -1: one filter goes by FFT along all axes at once
        "costs": st.sampled_from([-1, 1, DEFAULT.costs.plan]).map(lambda plan: replace(DEFAULT.costs, plan=plan)),
    }
)
"""Sizes by which a plan chooses its engine, some set so that small inputs reach each of them."""


@cache
def _let_numba_find_numpy() -> None:
    """Numba looks up NumPy's functions when it first compiles; later it would find what stands in their place."""
    numba.njit(lambda: (np.empty(1), np.zeros(1)))()


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """New memory full of NaN, so that what is never written shows; what compiled code allocates is not."""
    _let_numba_find_numpy()
    empty = np.empty

    def poisoned(shape: Any, dtype: Any = float, **options: Any) -> NDArray:
        array = empty(shape, dtype, **options)
        if array.dtype.kind in "fc":
            array.fill(np.nan)
        elif array.dtype == np.uint8:  # what the allocator makes floating-point arrays of
            array.fill(0xFF)
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "empty", poisoned)
        patch.setattr(allocator, "_store", lambda: allocator.Store(0))
        yield


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Work shared among this many threads, however small it is."""
    caches = (_threads.worker_count, _threads.asked_for)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCNN_NUM_THREADS", str(count))
        for cached in caches:
            cached.cache_clear()
        with tuned(serial_elements=0):
            yield
    for cached in caches:
        cached.cache_clear()
