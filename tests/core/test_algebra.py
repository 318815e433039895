"""The algebra of `convolve`: linear, associative, commutative, an isometry of spectra; what zero boundaries keep."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve, elu, translate
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.fft import LibraryFFT
from hcnn_core._engines.transform import padded_length
from hcnn_core._tuning import tuned
from hcnn_core.testing import assert_linear, assert_translation_covariant
from tests.core.oracle import BOUNDARIES, DTYPES, ENGINES, METHODS, SEEDS, C, NDArray, eps, noise, norm, wide


def norm1(array: NDArray) -> float:
    """Sum of the moduli, in double precision."""
    return float(np.abs(wide(array)).sum())


def largest(array: NDArray) -> float:
    return float(np.abs(array).max())


# Linear in the signal and in the filters.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("boundary", [*BOUNDARIES, ("zero", "periodic")], ids=str)
@pytest.mark.parametrize("method", [*METHODS, ("direct", "fft")], ids=str)
def test_linear_in_both_operands(dtype: str, boundary: Any, method: Any) -> None:
    x, w = noise(0, (2, 9, 8, 3), dtype), noise(1, (3, 4, 5, 2), dtype)
    options: dict[str, Any] = {"boundary": boundary, "sum_axes": 3, "stride": (2, 1), "method": method}
    assert_linear(lambda x: convolve(x, w, (1, 2), **options), x)
    assert_linear(lambda w: convolve(x, w, (1, 2), **options), w)


@pytest.mark.parametrize(
    ("dtype", "op"),
    [
        ("float32", lambda y: elu(y)),
        ("float64", lambda y: y + 1),
        ("complex64", lambda y: y.conj()),
        ("complex128", lambda y: y.real + 0j),
    ],
    ids=["rectified", "with a bias", "conjugated", "its real part"],
)
def test_linearity_notices_what_is_not_linear(dtype: str, op: Any) -> None:
    x, w = noise(0, (2, 9), dtype), noise(1, (4,), dtype)
    assert_linear(lambda x: convolve(x, w, 1, boundary="zero"), x)
    with pytest.raises(AssertionError, match="op is not linear"):
        assert_linear(lambda x: op(convolve(x, w, 1, boundary="zero")), x)


# Two convolutions, one after the other, are one.


@dataclass(frozen=True)
class Cascade:
    """A convolution with K filters a, and a second one that takes the sum over them: both halves of Eq. (8)."""

    x: NDArray  # (2, *lengths)
    a: NDArray  # (*sizes, K)
    b: NDArray  # (K, *sizes)
    boundary: str
    stride: tuple[tuple[int, ...], tuple[int, ...]]
    method: tuple[str, str] = ("auto", "auto")

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(1, self.x.ndim))

    def run(self) -> NDArray:
        first, then = (
            functools.partial(convolve, axes=self.axes, boundary=self.boundary, stride=r, method=m)
            for r, m in zip(self.stride, self.method, strict=True)
        )
        return np.asarray(then(first(self.x, self.a), self.b, sum_axes=-1))

    def run_merged(self, w: NDArray) -> NDArray:
        """One convolution with w, with the product of both strides."""
        stride = tuple(math.prod(r) for r in zip(*self.stride, strict=True))
        return np.asarray(convolve(self.x, w, self.axes, boundary=self.boundary, stride=stride, method=self.method[0]))

    def products(self) -> NDArray:
        """The sum over K of a and b spread out by the first stride r, in full: lengths s_a + r (s_b - 1).

        Tap t of a filter of length s stands at p = t - s // 2. The first convolution reads x at r j - p, the second
        that at j = r' i - q: together at r r' i - (p + r q), so the product of both taps belongs at p + r q. In this
        array it has the index t_a + r t_b, which therefore stands at (index) - s_a // 2 - r (s_b // 2).
        """
        a, b = wide(self.a), wide(self.b)
        sizes, r = a.shape[:-1], self.stride[0]
        w = np.zeros([s + k * (n - 1) for s, k, n in zip(sizes, r, b.shape[1:], strict=True)], np.result_type(a, b))
        for t in np.ndindex(*b.shape[1:]):
            part = tuple(slice(k * i, k * i + s) for s, k, i in zip(sizes, r, t, strict=True))
            w[part] += np.tensordot(a, b[:, *t], 1)
        return w

    def merged(self) -> NDArray:
        """The filter that is both: `products` with zeros appended, to an odd length with position 0 in its middle."""
        w = self.products()
        reach = [
            s // 2 + k * (n // 2) for s, k, n in zip(self.a.shape[:-1], self.stride[0], self.b.shape[1:], strict=True)
        ]
        w = np.pad(w, [(0, 2 * before + 1 - n) for before, n in zip(reach, w.shape, strict=True)])
        return np.asarray(w, self.a.dtype)

    def bound(self) -> float:
        """How far `run` and `run_merged` may be from each other.

        |x * a| <= |a|_1 |x| (Young), so y, its error (C eps of that), and the merged filter (|a|_1 |b|) are bounded.
        To the errors of the first convolution, which the second passes on times |b|, of the second and of the merged
        one comes the rounding of the merged filter.
        """
        return (3 * C + 1) * eps(self.x.dtype) * norm(self.x) * norm1(self.a) * norm(self.b)

    def with_margin(self, margin: list[int]) -> Cascade:
        """The same filters on x with zeros around it."""
        return replace(self, x=np.pad(self.x, [(0, 0), *((n, n) for n in margin)]))


@st.composite
def cascades(draw: st.DrawFn, boundary: str = "periodic", strides: tuple[int, ...] = (1, 2, 3)) -> Cascade:
    m = draw(st.sampled_from([2, 1, 3]))

    def per_axis(*choices: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.sampled_from(choices), min_size=m, max_size=m)))

    sizes = (3, 2, 4, 1, 5) if m < 3 else (2, 3, 1)
    stride = per_axis(*strides), per_axis(*strides)
    periods = per_axis(*((3, 2, 4, 1, 5) if m < 3 else (2, 1, 3)))
    # the second convolution finds a period of the first one's result only where strides divide the length
    lengths = tuple(k * n for k, n in zip(stride[0], periods, strict=True)) if boundary == "periodic" else periods
    k, seed, dtype = draw(st.integers(1, 3)), draw(SEEDS), draw(st.sampled_from(DTYPES))
    return Cascade(
        noise(seed, (2, *lengths), dtype),
        noise(seed + 1, (*per_axis(*sizes), k), dtype),
        noise(seed + 2, (k, *per_axis(*sizes)), dtype),
        boundary,
        stride,
        (draw(st.sampled_from(METHODS)), draw(st.sampled_from(METHODS))),
    )


@given(cascades(), ENGINES)
def test_two_periodic_convolutions_are_one(cascade: Cascade, constants: dict[str, int]) -> None:
    with tuned(**constants):
        assert largest(cascade.run() - cascade.run_merged(cascade.merged())) <= cascade.bound()


@given(cascades(boundary="zero"))
def test_two_convolutions_with_zeros_are_one_inside(cascade: Cascade) -> None:
    """Zeros as wide as the first filter reaches keep all of the result that the second one reads."""
    inside = cascade.with_margin([s // 2 for s in cascade.a.shape[:-1]])
    assert largest(inside.run() - inside.run_merged(inside.merged())) <= inside.bound()


def example(sizes: tuple[int, int], boundary: str = "periodic", stride: int = 1) -> Cascade:
    x, a, b = noise(0, (2, 12), "float64"), noise(1, (sizes[0], 2), "float64"), noise(2, (2, sizes[1]), "float64")
    return Cascade(x, a, b, boundary, ((stride,), (1,)))


def test_filters_are_merged_about_their_middles() -> None:
    """Two of even length reach to the left by one sample more than one filter of their full length would."""
    for sizes in ((3, 3), (3, 4), (4, 3)):
        cascade = example(sizes)
        assert largest(cascade.run() - cascade.run_merged(cascade.products())) <= cascade.bound()
    even = example((4, 2))
    moved = even.run_merged(even.products())
    assert largest(even.run() - moved) > 0.1
    assert largest(even.run() - translate(moved, -1, 1, boundary="periodic")) <= even.bound()


def test_strides_spread_the_second_filter_out() -> None:
    cascade = example((3, 3), stride=2)
    assert largest(cascade.run() - cascade.run_merged(cascade.merged())) <= cascade.bound()
    together = replace(cascade, stride=((1,), (1,))).merged()
    assert largest(cascade.run() - cascade.run_merged(together)) > 0.1


def test_two_convolutions_with_zeros_are_not_one() -> None:
    """At the ends the second finds zeros where the result of the first goes on; a margin too narrow shows as well."""
    cascade = example((5, 3), "zero")
    for margin in (0, 1):
        narrow = cascade.with_margin([margin])
        assert largest(narrow.run() - narrow.run_merged(narrow.merged())) > 1e-3 > 1e3 * narrow.bound()
    wide_enough = cascade.with_margin([2])
    assert largest(wide_enough.run() - wide_enough.run_merged(wide_enough.merged())) <= wide_enough.bound()


def in_turn(cascade: Cascade, *filters: NDArray) -> NDArray:
    """The first filters of both, one after the other."""
    y = cascade.x
    for w in filters:
        y = convolve(y, w, cascade.axes, boundary=cascade.boundary, method=cascade.method[0])
    return y


def order_matters(cascade: Cascade) -> tuple[float, float]:
    """How far both orders are from each other, and may be: four convolutions, errors as in `Cascade.bound`."""
    a, b = cascade.a[..., 0], cascade.b[0]
    bound = 2 * C * eps(cascade.x.dtype) * norm(cascade.x) * (norm1(a) * norm(b) + norm1(b) * norm(a))
    return largest(in_turn(cascade, a, b) - in_turn(cascade, b, a)), bound


@given(cascades(strides=(1,)))
def test_periodic_convolutions_commute(cascade: Cascade) -> None:
    error, bound = order_matters(cascade)
    assert error <= bound


@given(cascades(boundary="zero", strides=(1,)))
def test_convolutions_with_zeros_commute_inside(cascade: Cascade) -> None:
    reach = [max(s, n) // 2 for s, n in zip(cascade.a.shape[:-1], cascade.b.shape[1:], strict=True)]
    error, bound = order_matters(cascade.with_margin(reach))
    assert error <= bound


def test_order_matters_with_zeros_and_where_something_stands_between() -> None:
    assert order_matters(example((5, 3), "zero"))[0] > 0.1
    assert order_matters(example((5, 3), "zero").with_margin([1]))[0] > 1e-3
    cascade = example((5, 3))
    a, b = cascade.a[..., 0], cascade.b[0]
    first, then = (elu(in_turn(cascade, w)) for w in (a, b))
    assert largest(in_turn(replace(cascade, x=first), b) - in_turn(replace(cascade, x=then), a)) > 0.1


# Parseval: a spectrum holds its signal's products.


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[Any, ...], ...]:
    """Lengths, kernel sizes, strides and boundaries of 1 to 3 transformed axes."""
    m = draw(st.integers(1, 3))
    tops = (range(1, 8), range(1, 10), range(1, 4), BOUNDARIES)
    each = [draw(st.lists(st.sampled_from(choices), min_size=m, max_size=m)) for choices in tops]
    return tuple(map(tuple, each))


def points(grid: tuple[tuple[Any, ...], ...], transform: Any) -> int:
    """Samples on the padded grid: the number of frequencies, and the factor by which energy grows."""
    if isinstance(transform, LibraryFFT):
        return math.prod(transform.padded)
    return math.prod(padded_length(*axis) for axis in zip(*grid, strict=True))


def pair_weights(grid: tuple[tuple[Any, ...], ...], transform: Any) -> NDArray:
    """How many frequencies of the whole spectrum each kept one stands for.

    Of a real signal, f along the last axis stands for -f too, unless that is f itself. Folded, f is all f + a L / r,
    and -f one of them where 2 f = 0 modulo L / r.
    """
    last = [values[-1] for values in grid]
    if isinstance(transform, LibraryFFT):
        length, kept = transform.padded[-1], np.arange(transform.spectrum_shape[-1])
        f = np.broadcast_to(kept, transform.spectrum_shape).ravel()  # the last axis runs fastest
    else:
        length = padded_length(*last)
        length //= last[2] if length % last[2] == 0 else 1
        f = np.repeat(np.arange(length // 2 + 1), transform.frequencies // (length // 2 + 1))  # and here slowest
    return np.where(2 * f % length == 0, 1.0, 2.0)


def gram(transform: Any, x: NDArray, weights: NDArray | float) -> NDArray:
    """Products of the spectra of all columns of x, (columns, columns)."""
    spectrum = wide(transform.analyze(np, x)).reshape(transform.frequencies, -1, x.shape[1])
    weighted = spectrum * np.broadcast_to(weights, transform.frequencies)[:, None, None]
    products = np.einsum("fai,faj->ij", spectrum.conj(), weighted)
    return np.asarray(products if np.iscomplexobj(x) else products.real)  # -f would bring the conjugate


@given(grids(), st.sampled_from([MatrixDFT, LibraryFFT]), st.sampled_from(DTYPES), SEEDS)
def test_parseval(grid: tuple[tuple[Any, ...], ...], kind: Any, dtype: str, seed: int) -> None:
    real = dtype.startswith("float")
    transform = kind(*grid, real)
    x = noise(seed, (math.prod(grid[0]), 3), dtype)
    weights = pair_weights(grid, transform) if real else np.ones(transform.frequencies)
    factor = points(grid, transform)
    assert weights.sum() * transform.aliases == factor  # every frequency counts once
    expected = factor * wide(x).conj().T @ wide(x)
    # either factor of a product is off by C eps of its norm, sqrt(factor) |x|
    assert largest(gram(transform, x, weights) - expected) <= 2 * C * eps(dtype) * factor * norm(x) ** 2


@pytest.mark.parametrize("kind", [MatrixDFT, LibraryFFT])
@pytest.mark.parametrize(("n", "stride"), [(7, 1), (8, 1), (12, 2)])
def test_parseval_notices_pairs_counted_once_or_twice(kind: Any, n: int, stride: int) -> None:
    grid = ((3, n), (2, 3), (1, stride), ("periodic", "periodic"))
    transform, x = kind(*grid, True), noise(0, (3 * n, 1), "float64")
    energy = points(grid, transform) * norm(x) ** 2
    assert abs(gram(transform, x, pair_weights(grid, transform)).item() / energy - 1) <= 2 * C * eps("float64")
    for wrong in (1.0, 2.0):
        assert abs(gram(transform, x, wrong).item() / energy - 1) > 0.01


@st.composite
def signals(draw: st.DrawFn) -> NDArray:
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    return noise(draw(SEEDS), tuple(shape), draw(st.sampled_from(DTYPES)))


def autocorrelation(x: NDArray, w: NDArray, boundary: str = "periodic", method: str = "fft") -> tuple[NDArray, Any]:
    """x convolved with w, and where lag zero is: of w = x reversed, tap t meets x[n-1-t] at i = n-1 - n // 2."""
    return convolve(x, w, range(x.ndim), boundary=boundary, method=method), tuple(n - 1 - n // 2 for n in x.shape)


@given(signals(), st.sampled_from(BOUNDARIES), st.sampled_from(METHODS), ENGINES)
def test_autocorrelation_at_lag_zero_is_the_energy(
    x: NDArray, boundary: str, method: str, constants: dict[str, int]
) -> None:
    with tuned(**constants):
        y, zero = autocorrelation(x, np.flip(x).conj(), boundary, method)
    energy, tolerance = norm(x) ** 2, C * eps(x.dtype)
    assert abs(wide(y)[zero] - energy) <= tolerance * energy
    assert largest(wide(y)) <= (1 + tolerance) * energy  # Cauchy-Schwarz: no lag has more


def test_autocorrelation_needs_reversal_conjugation_and_lag_zero() -> None:
    x = noise(0, (6, 5), "complex128")
    right, zero = autocorrelation(x, np.flip(x).conj())
    energy = norm(x) ** 2
    assert abs(right[zero] - energy) <= C * eps("float64") * energy
    for w in (np.flip(x), x.conj(), np.roll(np.flip(x).conj(), 1)):
        assert abs(autocorrelation(x, w)[0][zero] - energy) > 0.1 * energy
    assert (np.delete(np.abs(right), np.ravel_multi_index(zero, x.shape)) < 0.9 * energy).all()


# Zero boundaries are covariant to translations of what has room to move.


@dataclass(frozen=True)
class Inside:
    """A signal with zeros around it, as wide as a filter reaches and a translation moves."""

    x: NDArray
    w: NDArray
    stride: tuple[int, ...]
    steps: tuple[int, ...]
    method: str

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(self.x.ndim))

    @property
    def shift(self) -> tuple[int, ...]:
        return tuple(r * k for r, k in zip(self.stride, self.steps, strict=True))

    def convolve(self, x: NDArray) -> NDArray:
        return np.asarray(convolve(x, self.w, self.axes, boundary="zero", stride=self.stride, method=self.method))

    def check(self) -> None:
        assert_translation_covariant(
            self.convolve, self.x, self.axes, stride=self.stride, boundary="zero", shift=self.shift
        )


@st.composite
def insides(draw: st.DrawFn) -> Inside:
    m = draw(st.sampled_from([1, 2, 3]))

    def per_axis(*choices: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.sampled_from(choices), min_size=m, max_size=m)))

    lengths, sizes = per_axis(3, 2, 1, 4), per_axis(*((3, 2, 5, 4, 1) if m < 3 else (3, 2, 1)))
    stride, steps = per_axis(1, 2) if m == 3 else per_axis(1, 2, 3), per_axis(1, -1, 2) if m < 3 else per_axis(1, -1)
    seed, dtype = draw(SEEDS), draw(st.sampled_from(DTYPES))
    margin = [s // 2 + r * abs(k) for s, r, k in zip(sizes, stride, steps, strict=True)]
    x = np.pad(noise(seed, lengths, dtype), [(n, n) for n in margin])
    return Inside(x, noise(seed + 1, (*sizes, 2), dtype), stride, steps, draw(st.sampled_from(METHODS)))


@given(insides())
def test_zero_boundary_is_covariant_inside(case: Inside) -> None:
    case.check()


@given(insides())
def test_zero_boundary_is_covariant_inside_to_the_last_bit(case: Inside) -> None:
    """Sums of small integers are exact: nothing is compared within a tolerance, and nothing is left out."""
    x, w = (np.round(3 * a.real.astype(np.float64)) for a in (case.x, case.w))
    case = replace(case, x=x, w=w, method="direct")
    moved = case.convolve(translate(x, case.shift, case.axes, boundary="zero"))
    assert np.array_equal(moved, translate(case.convolve(x), case.steps, case.axes, boundary="zero"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [2, -2])
def test_zero_boundary_is_not_covariant_where_something_leaves(method: str, steps: int) -> None:
    x, w = noise(0, (9,), "float64"), noise(1, (3,), "float64")
    for margin in range(4):
        case = Inside(np.pad(x, margin), w, (1,), (steps,), method)
        if margin >= abs(steps):
            case.check()
            continue
        with pytest.raises(AssertionError, match=f"not covariant to translations: translating x by {steps} along"):
            case.check()
