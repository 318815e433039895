"""The assertions for any operator: right ones pass, within bounds that are derived."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve, convolve_vjp_x, elu, patch_moments
from hcnn_core.testing import (
    assert_adjoint,
    assert_linear,
    assert_translation_covariant,
    assert_translation_invariant,
    covariance_deviations,
    rounding_bound,
)
from hcnn_core.testing.assertions import ROUNDINGS
from tests.core.operators import REAL, changed, excess, periodic
from tests.core.oracle import BOUNDARIES, DTYPES, METHODS, SEEDS, NDArray, eps, noise, norm

PATTERNS = ("dense", "impulse", "constant", "few", "offset", "spike", "wide")


def signal(pattern: str, seed: int, shape: tuple[int, ...], dtype: str, exponent: int = 0) -> NDArray:
    """Noise, or what rounds differently: mostly zeros, nearly equal numbers, numbers of very different sizes."""
    rng = np.random.default_rng(seed)
    x = np.array(noise(seed, shape, "complex128" if dtype.startswith("complex") else "float64"))
    place = np.zeros(shape, bool)
    place.flat[rng.integers(x.size)] = True
    if pattern == "impulse":
        x[~place] = 0
    elif pattern == "constant":
        x[...] = x.flat[0]
    elif pattern == "few":
        x[rng.random(shape) > 0.1] = 0
    elif pattern == "offset":
        x = x / 1e4 + 1
    elif pattern == "spike":
        x[place] *= 1e4
    elif pattern == "wide":
        x *= 10.0 ** rng.uniform(-6, 6, shape)
    return np.asarray(x * 10.0**exponent, dtype)


# Right operators.


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[NDArray, NDArray, dict[str, Any]]:
    """A signal (samples, one or two axes whose lengths their strides divide), filters of any size, and options."""
    m = draw(st.sampled_from([1, 2]))
    stride = tuple(draw(st.lists(st.sampled_from([1, 2, 3]), min_size=m, max_size=m)))
    lengths = tuple(r * draw(st.integers(2, 12 if m == 1 else 4)) for r in stride)
    kernel_size = tuple(draw(st.lists(st.integers(1, 40 if m == 1 else 9), min_size=m, max_size=m)))
    out = draw(st.sampled_from([(), (2,)]))
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(SEEDS)
    x = signal(draw(st.sampled_from(PATTERNS)), seed, (2, *lengths), dtype, draw(st.integers(-6, 6)))
    w = noise(seed + 1, (*kernel_size, *out), dtype)
    if draw(st.booleans()):
        w = w - w.mean(tuple(range(m)), keepdims=True)  # on a constant nothing but rounding errors is left
    return x, w, {"axes": tuple(range(1, m + 1)), "stride": stride, "method": draw(st.sampled_from(METHODS))}


@given(convolutions())
def test_convolutions_are_covariant(case: tuple[NDArray, NDArray, dict[str, Any]]) -> None:
    x, w, options = case
    assert_translation_covariant(
        lambda x: convolve(x, w, boundary="periodic", **options), x, options["axes"], None, options["stride"]
    )


@given(convolutions(), st.sampled_from(BOUNDARIES))
def test_convolutions_are_linear_and_have_their_adjoints(
    case: tuple[NDArray, NDArray, dict[str, Any]], boundary: str
) -> None:
    x, w, options = case

    def op(x: NDArray) -> Any:
        return convolve(x, w, boundary=boundary, **options)

    assert_linear(op, x)
    assert_adjoint(op, lambda y: convolve_vjp_x(y, x.shape, w, boundary=boundary, **options), x)
    assert_adjoint(
        op, lambda y: convolve_vjp_x(y, x.shape, w.conj(), boundary=boundary, **options), x, op(x), conjugate=True
    )


@given(convolutions(), st.tuples(st.integers(-2, 2), st.integers(-2, 2)))
def test_convolutions_with_zeros_are_covariant_where_there_is_room(
    case: tuple[NDArray, NDArray, dict[str, Any]], steps: tuple[int, ...]
) -> None:
    x, w, options = case
    stride = options["stride"]
    steps = steps[: len(stride)] if any(steps[: len(stride)]) else (1,) * len(stride)
    sizes = w.shape[: len(stride)]
    margin = [2 * r + s for r, s in zip(stride, sizes, strict=True)]
    x = np.pad(x, [(0, 0), *((m, m) for m in margin)])

    def op(x: NDArray) -> Any:
        return convolve(x, w, boundary="zero", **options)

    moves = {"stride": stride, "boundary": "zero"}
    assert_translation_covariant(op, x, options["axes"], **moves)
    shift = [k * r for k, r in zip(steps, stride, strict=True)]
    assert_translation_covariant(op, x, options["axes"], shift=shift, **moves)
    assert_translation_invariant(lambda x: np.max(np.abs(op(x))), x, options["axes"], shift=shift, **moves)


def test_what_zeros_fill_up_is_not_compared() -> None:
    """An operator need not return zeros for zeros."""
    x = noise(0, (4, 9), "float64")
    assert_translation_covariant(np.cos, x, (0, 1), boundary="zero")
    assert_translation_covariant(lambda x: np.cos(x[:, ::3]), x, (0, 1), None, (1, 3), boundary=("periodic", "zero"))
    assert excess(assert_translation_covariant, lambda x: np.cos(x + np.arange(9)), x, 1, boundary="zero") > 1e10


def wrap(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[[NDArray], Any]:
    return lambda x: function(x, *args, mode="wrap", **options)


def normalized(x: NDArray) -> Any:
    return (x - x.mean()) / np.sqrt(x.var() + x.dtype.type(1e-5))


PLANE = (6, 8)
COVARIANT: dict[str, Callable[[NDArray], Any]] = {
    "identity": lambda x: x,
    "gaussian": wrap(scipy.ndimage.gaussian_filter, 1),
    "running mean": wrap(scipy.ndimage.uniform_filter, 3),
    "median": wrap(scipy.ndimage.median_filter, 3),
    "maximum": wrap(scipy.ndimage.maximum_filter, 3),
    "edges": wrap(scipy.ndimage.sobel, 0),
    "spline": lambda x: scipy.ndimage.spline_filter(x, mode="grid-wrap"),
    "whitened": lambda x: scipy.fft.ifft2(scipy.fft.fft2(x) / (1 + np.abs(scipy.fft.fft2(x)) ** 2)),
    "normalized": normalized,
    "saturated": np.tanh,
    "root": lambda x: np.sqrt(np.abs(scipy.fft.ifft2(scipy.fft.fft2(x)))),
    "logarithm": lambda x: np.log(np.abs(x) + x.dtype.type(1e-3)),
    "softmax": lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
}
INVARIANT: dict[str, Callable[[NDArray], Any]] = {
    "mean": np.mean,
    "maximum": np.max,
    "norm": np.linalg.norm,
    "sorted": lambda x: np.sort(x, axis=None),
    "power spectrum": lambda x: np.abs(scipy.fft.fft2(x)),
    "autocorrelation": lambda x: scipy.fft.ifft2(np.abs(scipy.fft.fft2(x)) ** 2).real,
    "moments": lambda x: patch_moments(x, (0, 1), 3, boundary="periodic")[1],
}


@pytest.mark.parametrize("exponent", [-6, 0, 6])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_operators_of_others(pattern: str, dtype: str, exponent: int) -> None:
    x = signal(pattern, 0, PLANE, dtype, exponent)
    for op in COVARIANT.values():
        assert_translation_covariant(op, x, (0, 1))
    for op in INVARIANT.values():
        assert_translation_invariant(op, x, (0, 1))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_operators(dtype: str, pattern: str) -> None:
    x = signal(pattern, 0, PLANE, dtype)
    for op in (np.abs, np.angle, np.conj, lambda x: scipy.fft.ifft2(scipy.fft.fft2(x)) * x):
        assert_translation_covariant(op, x, (0, 1))
    assert_linear(scipy.fft.fft2, x)
    assert_adjoint(scipy.fft.fft2, scipy.fft.fft2, x)
    assert_adjoint(scipy.fft.fft2, lambda y: scipy.fft.ifft2(y, norm="forward"), x, conjugate=True)


@pytest.mark.parametrize("conjugate", [False, True])
def test_adjoints_between_real_and_complex_arrays(conjugate: bool) -> None:
    """Linear in the reals alone: real parts of the products are equal, imaginary ones need not be."""
    x, y = noise(0, (8,), "float64"), noise(1, (5,), "complex128")

    def transpose(y: NDArray) -> Any:
        y = y if conjugate else y.conj()
        return scipy.fft.irfft(np.concatenate([y[:1], y[1:-1] / 2, y[-1:]]), norm="forward")

    assert_adjoint(scipy.fft.rfft, transpose, x, conjugate=conjugate)
    assert_adjoint(transpose, scipy.fft.rfft, y, conjugate=conjugate)
    assert excess(assert_adjoint, scipy.fft.rfft, lambda y: 2 * transpose(y), x, conjugate=conjugate) > 1e10


def test_a_wrong_factor_is_found_where_the_operator_takes_away_the_mean() -> None:
    """Rounding errors of the mean are far above the product then, and a wrong adjoint has larger ones."""
    x, w = 1e6 + noise(0, (300,), "float32"), np.array([-1, 1], "float32")
    op, adjoint = periodic(w)
    assert_adjoint(op, adjoint, x)
    for y in (None, noise(1, (300,), "float32")):
        with pytest.raises(AssertionError, match="where x is noise: off by"):
            assert_adjoint(op, lambda y: 1e6 * adjoint(y), x, y)


def test_axes_of_the_result_may_have_other_places() -> None:
    x, w = noise(0, (4, 3, 6), "float64"), noise(1, (3, 3, 2), "float64")

    def op(x: NDArray) -> Any:
        return np.moveaxis(convolve(x, w, (2,), boundary="periodic", sum_axes=1, stride=2), 1, 0)

    assert_translation_covariant(op, x, (2, 0), (0, 1), (2, 1))
    assert_translation_covariant(op, x, [-1, 0], np.array([0, 1]), np.array([2, 1]))
    assert_translation_covariant(op, x, -1, np.int64(0), 2)
    with pytest.raises(ValueError, match="its axis 1 has length 4, and axis 2 of x, of length 6 at stride 2, would be"):
        assert_translation_covariant(op, x, (2, 0), (1, 0), (2, 1))


def test_invariance_to_multiples_of_a_stride_that_divides_nothing() -> None:
    x = noise(0, (5,), "float64")
    assert_translation_invariant(np.sum, x, 0, 2)
    assert_translation_invariant(np.sum, x, 0, 7, shift=14)
    assert len(list(covariance_deviations(np.sum, x, 0, (), 7))) == 2  # forth and back by 7 = 2 modulo 5


# The bound.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 2, 500])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_bound_of_a_matrix(dtype: str, outputs: int, scale: float) -> None:
    """What is derived: 2 * 20 eps (|a| |x| + max |y|), as far as the largest of some random numbers is known."""
    x, matrix = np.asarray(noise(0, (40,), dtype) * scale, dtype), noise(1, (outputs, 40), dtype)
    y = matrix @ x
    row = max(map(norm, matrix))
    derived = 2 * ROUNDINGS * eps(dtype) * (norm(x) * row + np.max(np.abs(y)))
    bound = rounding_bound(lambda x: matrix @ x, x)
    assert derived / 3 < bound < derived * (3 if outputs < 10 else math.sqrt(2 * math.log(outputs)) + 1)
    assert rounding_bound(lambda x: matrix @ x, x, y) == bound


def test_bound_grows_with_stages_and_precision() -> None:
    x, w = noise(0, (40,), "float32"), noise(1, (5,), "float32")
    op, _ = periodic(w)
    bound = rounding_bound(op, x)
    assert rounding_bound(op, x, stages=3) == pytest.approx(3 * bound)
    assert rounding_bound(op, x.astype("float64")) == pytest.approx(2**-29 * bound, rel=0.5)
    assert rounding_bound(lambda x: op(x.astype("float64")), x) == pytest.approx(bound, rel=0.5)  # the coarser of two


def test_bound_holds_the_errors_of_what_cancels() -> None:
    """Nothing in op(x) tells how large an intermediate result was; its rounding errors do."""
    x, gain = noise(0, (64,), "float64"), np.logspace(3, -3, 33)

    def blurred_and_restored(x: NDArray) -> Any:
        blurred = scipy.fft.irfft(scipy.fft.rfft(x) * gain)
        return scipy.fft.irfft(scipy.fft.rfft(blurred) / gain)

    largest = max(d.error for d in covariance_deviations(blurred_and_restored, x, 0))
    without = rounding_bound(np.copy, x)
    assert 10 * without < largest < rounding_bound(blurred_and_restored, x) < 1e4 * without
    assert_linear(blurred_and_restored, x)
    assert_adjoint(blurred_and_restored, np.copy, x)


def test_half_the_digits_are_granted() -> None:
    """Where elu has made -1 of large numbers, the errors that others leave there are not in its derivative."""
    x, filters = 1e5 * noise(0, (2, 3), "float32"), (noise(3, (1,), "float32"), noise(4, (1,), "float32"))

    def network(x: NDArray) -> Any:
        return functools.reduce(lambda x, w: elu(convolve(x, w, 1, boundary="periodic", method="fft")), filters, x)

    largest = max(d.error for d in covariance_deviations(network, x, 1, stages=2))
    assert 1e3 * eps("float32") < largest  # all of it from the spectra of the first layer
    assert_translation_covariant(network, x, 1, stages=2)


def test_chance_excuses_nothing() -> None:
    rng, x = np.random.default_rng(0), noise(0, (64,), "float32")

    def dropout(x: NDArray) -> Any:
        return x * (rng.random(x.shape) < 0.9)

    def jitter(x: NDArray) -> Any:
        return x * (1 + 0.1 * rng.standard_normal(x.shape)).astype(x.dtype)

    with pytest.raises(AssertionError, match=r"explains .* \(float32; noise of one eps moves op\(x\) by \d"):
        assert_translation_covariant(dropout, x, 0)
    with pytest.raises(AssertionError, match=r"noise of one eps moves op\(x\) by \d"):
        assert_adjoint(dropout, abs, x)
    assert excess(assert_translation_covariant, dropout, x, 0, stages=10) > 2
    for op in (dropout, jitter):
        assert excess(assert_translation_covariant, op, x, 0) > 5
        assert excess(assert_translation_invariant, lambda x, op=op: np.sort(op(x)), x, 0) > 2
        assert excess(assert_linear, op, x) > 2
        assert excess(assert_adjoint, op, abs, x) > 2


def test_operators_that_jump_at_x_excuse_nothing() -> None:
    """Noise breaks the ties of a constant, and so moves op(x) by as much as the mistake does."""
    x = np.ones(16)
    first = np.arange(16) == 0

    def op(x: NDArray) -> Any:
        return np.where((x == x.max()) & first, 0, x)

    assert excess(assert_translation_covariant, op, x, 0) > 5
    assert excess(assert_adjoint, np.copy, lambda y: np.where(y == y.max(), 0, y), x, x) > 5


def test_single_precision_notices_mistakes_in_large_arrays() -> None:
    x, w = noise(0, (100_000,), "float32"), noise(1, (7,), "float32")
    op, adjoint = periodic(w)
    assert_translation_covariant(op, x, 0, shift=1)
    assert_adjoint(op, adjoint, x)
    assert excess(assert_translation_covariant, changed(op, at=(5,), by=0.1), x, 0, shift=1) > 5
    assert excess(assert_adjoint, op, lambda y: np.roll(adjoint(y), 1), x) > 5
