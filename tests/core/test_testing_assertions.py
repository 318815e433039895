"""The assertions for any operator: right ones pass, wrong ones fail by far, what cannot be tested is refused."""

from __future__ import annotations

import doctest
import functools
import math
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve, convolve_vjp_x, elu, marginal, patch_moments, translate
from hcnn_core.backend import get_namespace
from hcnn_core.testing import (
    Deviation,
    assert_adjoint,
    assert_linear,
    assert_translation_covariant,
    assert_translation_invariant,
    assertions,
    covariance_deviations,
    rounding_bound,
)
from hcnn_core.testing.assertions import ROUNDINGS
from tests.core.oracle import BOUNDARIES, DTYPES, METHODS, SEEDS, NDArray, eps, noise, norm

REAL = ("float32", "float64")
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


@given(convolutions(), SEEDS, st.sampled_from([1, 2]))
def test_networks_are_covariant_and_their_marginals_invariant(
    case: tuple[NDArray, NDArray, dict[str, Any]], seed: int, layers: int
) -> None:
    x, w, options = case
    x, axes, stride = np.asarray(x.real), options["axes"], options["stride"]
    # Where elu leaves -1 of them, constants hide all noise, and what else is large half the digits of a 1 or more.
    most = 1.0 if np.ptp(x) == 0 else float(eps(x.dtype) ** -0.5)
    x = x * x.dtype.type(most / max(most, np.max(np.abs(x))))
    first, second = (noise(seed + i, w.shape[: len(axes)], str(x.dtype)) for i in range(2))

    def network(x: NDArray) -> Any:
        x = elu(convolve(x, first, boundary="periodic", **options))
        return elu(convolve(x, second, axes, boundary="periodic", method=options["method"])) if layers == 2 else x

    assert_translation_covariant(network, x, axes, None, stride, stages=layers)
    assert_translation_invariant(lambda x: marginal(network(x), axes), x, axes, stride, stages=layers + 1)


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

    def op(x: NDArray) -> Any:
        return convolve(x, w, 0, boundary="periodic")

    bound = rounding_bound(op, x)
    assert rounding_bound(op, x, stages=3) == pytest.approx(3 * bound)
    assert rounding_bound(op, x, eps=2**-10) == pytest.approx(2**13 * bound, rel=0.5)
    assert rounding_bound(op, x.astype("float64")) == pytest.approx(2**-29 * bound, rel=0.5)
    assert rounding_bound(lambda x: op(x.astype("float64")), x) == pytest.approx(bound, rel=0.5)  # the coarser of two
    assert rounding_bound(lambda x: op(x.astype("float32")), x.astype("float64"), eps=2**-23) > bound / 2


@pytest.mark.parametrize("exponent", [-800, 0, 800])
def test_bound_of_numbers_whose_squares_are_none(exponent: int) -> None:
    x = noise(0, (40,), "float64")
    bound = rounding_bound(lambda x: 3 * x, x)
    assert rounding_bound(lambda x: 3 * x, x * 2.0**exponent) == pytest.approx(bound * 2.0**exponent, rel=1e-6)


def test_bound_is_that_of_the_derivative_at_x() -> None:
    """Near 1e4 a normalisation multiplies errors by 1e4 / std(x), on a tanh of huge numbers there are none left."""
    x = noise(0, (64,), "float64")
    far = rounding_bound(normalized, x + 1e4)
    assert 1e-14 * norm(x + 1e4) < far < 1e-13 * norm(x + 1e4)
    assert rounding_bound(np.tanh, 1e6 * (1 + x**2)) == 2 * ROUNDINGS * eps("float64")


def test_bound_where_the_result_cancels() -> None:
    """Of a constant, filters of mean zero leave errors alone: less than half the digits, all of them from |a| |x|."""
    x, w = np.ones(64, "float32"), noise(0, (5,), "float32")
    w -= w.mean()

    def op(x: NDArray) -> Any:
        return convolve(x, w, 0, boundary="periodic")

    unit = eps("float32") * norm(x) * norm(w)
    assert np.max(np.abs(op(x))) < unit
    assert 2 * ROUNDINGS * unit < rounding_bound(op, x) < 8 * ROUNDINGS * unit


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
    with pytest.raises(AssertionError, match=r"noise of one eps moves op\(y\) by \d"):
        assert_linear(dropout, 0 * x, x)
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

    def op(x: NDArray) -> Any:
        return convolve(x, w, 0, boundary="periodic")

    def adjoint(y: NDArray) -> Any:
        return convolve_vjp_x(y, x.shape, w, 0, boundary="periodic")

    assert_translation_covariant(op, x, 0, shift=1)
    assert_adjoint(op, adjoint, x)
    assert excess(assert_translation_covariant, changed(op, at=(5,), by=0.1), x, 0, shift=1) > 5
    assert excess(assert_adjoint, op, lambda y: np.roll(adjoint(y), 1), x) > 5


# Wrong operators: each is off by `excess` times the bound.


def excess(assertion: Callable[..., None], *arguments: Any, **options: Any) -> float:
    """The error in units of the bound, as the one line of the failure says it."""
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments, **options)
    line = str(caught.value)
    pattern = r": off by (\S+)[^\n]* instead of [^\n]*, where rounding explains (\S+) \([\w .-]+(; noise [^\n]*)?\)\Z"
    found = re.search(pattern, line)
    assert found, line
    return float(found[1]) / float(found[2])


def changed(op: Callable[[Any], Any], *, at: tuple[int, ...], by: float) -> Callable[[Any], Any]:
    """An operator with one element changed."""

    def other(x: Any) -> Any:
        y = np.array(op(x))
        y[at] += by
        return y

    return other


SHAPE = (2, 8, 8)
FILTER = noise(1, (3, 4), "float64")


def filtered(x: NDArray, **options: Any) -> Any:
    options = {"axes": (1, 2), "boundary": "periodic", **options}
    return convolve(x, FILTER.astype(x.dtype), **options)


def circular_of_other_length(x: NDArray, length: int) -> Any:
    """A convolution by spectra of zero-padded signals, cut to their length."""
    w = np.ones(3, x.dtype)
    y = scipy.fft.irfft(scipy.fft.rfft(x, length, axis=2) * scipy.fft.rfft(w, length), length, axis=2)
    return y[..., : x.shape[2]]


NOT_COVARIANT: dict[str, tuple[Callable[[NDArray], Any], dict[str, Any]]] = {
    "bias by position": (lambda x: filtered(x) + np.linspace(0, 1, 8, dtype=x.dtype), {}),
    "gain by position": (lambda x: filtered(x) * np.linspace(1, 2, 8, dtype=x.dtype)[:, None], {}),
    "normalised by position": (lambda x: x / np.sqrt(np.mean(x**2, 0) + 1)[:, :1], {}),
    "zeros at one end": (lambda x: filtered(x, boundary=("periodic", "zero")), {}),
    "reflected at one end": (lambda x: scipy.ndimage.gaussian_filter1d(x, 1, 2, mode="reflect"), {}),
    "a period too long": (lambda x: circular_of_other_length(x, 9), {}),
    "no period at all": (lambda x: circular_of_other_length(x, 16), {}),
    "stride 2 claimed to be 1": (lambda x: np.repeat(filtered(x, stride=(1, 2)), 2, 2), {}),
    "stride 4 claimed to be 2": (lambda x: np.repeat(filtered(x, stride=(1, 4)), 2, 2), {"stride": (1, 2)}),
    "an offset that alternates": (lambda x: filtered(x) * np.tile([1, 2], 4).astype(x.dtype), {}),
    "axes exchanged": (lambda x: filtered(x).swapaxes(1, 2), {}),
    "out_axes exchanged": (filtered, {"out_axes": (2, 1)}),
    "backwards": (lambda x: filtered(x)[:, ::-1], {}),
    "a single element": (changed(filtered, at=(1, 2, 3), by=0.1), {}),
    "always the same": (lambda x: np.arange(64, dtype=x.dtype).reshape(1, 8, 8), {}),
    "sorted": (lambda x: np.sort(x, 2), {}),
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", NOT_COVARIANT)
def test_operators_that_are_not_covariant(name: str, dtype: str) -> None:
    op, options = NOT_COVARIANT[name]
    x = noise(0, SHAPE, dtype)
    assert excess(assert_translation_covariant, op, x, (1, 2), **options) > 1e-5 / eps(dtype)
    assert_translation_covariant(filtered, x, (1, 2))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", ["zeros at one end", "gain by position"])
def test_every_axis_and_every_shift_is_tried(name: str, dtype: str) -> None:
    """Each of these is covariant along one axis, so that translations along the other one alone find nothing."""
    op, x = NOT_COVARIANT[name][0], noise(0, SHAPE, dtype)
    good, bad = (1, 2) if name == "zeros at one end" else (2, 1)
    assert_translation_covariant(op, x, good)
    assert excess(assert_translation_covariant, op, x, bad) > 1e-5 / eps(dtype)
    tried = [d.claim for d in covariance_deviations(filtered, x, (1, 2))]
    along = "translating x by {0} should translate op(x) by {0}"
    axes = [f"{k} along axis {a}" for k in (1, -1, 4) for a in (1, 2)]
    assert sorted(tried) == sorted(along.format(by) for by in [*axes, "1 along axis 1 and 1 along axis 2"])


SUBSAMPLED = functools.partial(filtered, stride=2)
NOT_INVARIANT: dict[str, tuple[Callable[[NDArray], Any], int]] = {
    "subsampled by 2": (lambda x: elu(SUBSAMPLED(x)).sum((1, 2)), 1),
    "subsampled by 4, claimed 2": (lambda x: elu(SUBSAMPLED(SUBSAMPLED(x))).sum((1, 2)), 2),
    "subsampled without a filter": (lambda x: x[:, ::2].sum(), 1),
    "weighted by position": (lambda x: np.sum(x * np.linspace(0, 1, 8, dtype=x.dtype)), 1),
    "zeros at one end": (lambda x: filtered(x, boundary=("periodic", "zero")).sum((1, 2)), 1),
    "one axis left": (lambda x: filtered(x).sum(1), 1),
    "a single element": (lambda x: x.sum() + x[0, 1, 2] / 10, 1),
    "the spectrum with its phase": (lambda x: scipy.fft.fft2(x), 1),
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", NOT_INVARIANT)
def test_operators_that_are_not_invariant(name: str, dtype: str) -> None:
    op, stride = NOT_INVARIANT[name]
    assert excess(assert_translation_invariant, op, noise(0, SHAPE, dtype), (1, 2), stride) > 1e-5 / eps(dtype)


@pytest.mark.parametrize("dtype", REAL)
def test_invariance_is_to_multiples_of_what_is_subsampled(dtype: str) -> None:
    x = noise(0, SHAPE, dtype)
    for times in (1, 2):

        def op(x: NDArray, times: int = times) -> Any:
            return marginal(elu(SUBSAMPLED(x) if times == 1 else SUBSAMPLED(SUBSAMPLED(x))), (1, 2))

        assert_translation_invariant(op, x, (1, 2), 2**times, stages=times)
        assert_translation_invariant(op, x, (1, 2), shift=2**times, stages=times)
        assert excess(assert_translation_invariant, op, x, (1, 2), shift=2 ** (times - 1), stages=times) > 1e3


def transposed(y: NDArray, **options: Any) -> Any:
    options = {"axes": (1, 2), "boundary": "periodic", **options}
    return convolve_vjp_x(y, SHAPE, FILTER.astype(y.dtype), **options)


NOT_ADJOINT: dict[str, tuple[Callable[[NDArray], Any], Callable[[NDArray], Any]]] = {
    "a convolution instead of a correlation": (filtered, filtered),
    "one sample off": (filtered, lambda y: np.roll(transposed(y), 1, 2)),
    "one sample off the other way": (filtered, lambda y: np.roll(transposed(y), -1, 1)),
    "another boundary": (filtered, lambda y: transposed(y, boundary="zero")),
    "filter turned by the even half": (
        lambda x: scipy.ndimage.convolve1d(x, [1, 2, 3, 4], 1, mode="wrap"),
        lambda y: scipy.ndimage.convolve1d(y, [4, 3, 2, 1], 1, mode="wrap"),
    ),
    "an offset of the stride": (lambda x: x[:, 1::2], lambda y: np.stack([y, 0 * y], 2).reshape(SHAPE)),
    "twice": (filtered, lambda y: 2 * transposed(y)),
    "another sign": (filtered, lambda y: -transposed(y)),
    "nothing": (filtered, np.zeros_like),
    "a constant too much": (filtered, lambda y: transposed(y) + y.dtype.type(1)),
    "op with a constant": (lambda x: filtered(x) + x.dtype.type(1), transposed),
    "a single element": (filtered, changed(transposed, at=(1, 2, 3), by=1)),
    "an element forgotten": (filtered, lambda y: transposed(np.where(np.arange(8) == 3, 0, y))),
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", NOT_ADJOINT)
def test_operators_that_are_not_adjoint(name: str, dtype: str) -> None:
    op, adjoint = NOT_ADJOINT[name]
    x = noise(0, SHAPE, dtype)
    assert excess(assert_adjoint, op, adjoint, x) > 1e-5 / eps(dtype)
    assert_adjoint(filtered, transposed, x)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_conjugates_that_are_missing_or_too_many(dtype: str) -> None:
    x, w = noise(0, (12,), dtype), noise(1, (5,), dtype)

    def op(x: NDArray) -> Any:
        return convolve(x, w, 0, boundary="periodic")

    def transpose(y: NDArray) -> Any:
        return convolve_vjp_x(y, x.shape, w, 0, boundary="periodic")

    def hilbert(y: NDArray) -> Any:
        return convolve_vjp_x(y, x.shape, w.conj(), 0, boundary="periodic")

    far = 1e-4 / eps(dtype)
    assert_adjoint(op, transpose, x)
    assert_adjoint(op, hilbert, x, conjugate=True)
    assert excess(assert_adjoint, op, transpose, x, conjugate=True) > far
    assert excess(assert_adjoint, op, hilbert, x) > far
    assert excess(assert_adjoint, op, lambda y: transpose(y).conj(), x) > far
    assert excess(assert_adjoint, op, lambda y: hilbert(y.conj()), x, conjugate=True) > far
    assert excess(assert_adjoint, op, lambda y: hilbert(y).real, x, conjugate=True) > far


NOT_LINEAR: dict[str, Callable[[NDArray], Any]] = {
    "a constant too much": lambda x: filtered(x) + x.dtype.type(1),
    "ReLU": lambda x: np.maximum(filtered(x), 0),
    "elu": lambda x: elu(filtered(x)),
    "absolute values": np.abs,
    "squares": np.square,
    "nearly linear": lambda x: np.tanh(x / 10),
    "cut off": lambda x: np.clip(x, -2, 2),
    "normalised": lambda x: x / np.linalg.norm(x),
    "a single element": changed(filtered, at=(1, 2, 3), by=0.1),
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", NOT_LINEAR)
def test_operators_that_are_not_linear(name: str, dtype: str) -> None:
    assert excess(assert_linear, NOT_LINEAR[name], noise(0, SHAPE, dtype)) > 1e-5 / eps(dtype)


def test_linear_in_the_reals_is_not_linear_in_the_complex_numbers() -> None:
    x = noise(0, (12,), "complex128")
    for op in (np.conj, np.real, np.imag):
        assert excess(assert_linear, op, x) > 1e10
    assert_linear(np.real, x.real)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("stages", [1, 3])
def test_errors_just_within_and_just_above_the_bound(dtype: str, stages: int) -> None:
    x, at = noise(0, (64,), dtype).astype("float64"), (5,)
    precision: dict[str, Any] = {"stages": stages, "eps": eps(dtype)}
    wrong = functools.partial(changed, np.copy, at=at)
    bound = rounding_bound(np.copy, x, **precision)
    checks: list[tuple[Callable[[Any], None], float]] = [
        (lambda op: assert_translation_covariant(op, x, 0, **precision), bound),
        (lambda op: assert_linear(op, x, x, **precision), bound * (0.75 + 1.25) / (0.75 + 1.25 - 0.5)),
        (lambda op: assert_adjoint(np.copy, op, x, x, **precision), bound * norm(x) / abs(x[at])),
    ]
    for check, allowed in checks:
        check(wrong(by=0.9 * allowed))
        with pytest.raises(AssertionError, match="off by"):
            check(wrong(by=1.1 * allowed))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_results_that_are_not_finite(bad: float) -> None:
    x = np.array([1.0, -2.0, 3.0, -4.0])
    always = changed(np.copy, at=(2,), by=bad)
    line = rf"op\(x\) is {bad} at index \(2,\), though its argument is finite: nothing can be compared"
    for check in (
        lambda: assert_translation_covariant(always, x, 0),
        lambda: assert_translation_invariant(always, x, 0),
        lambda: assert_linear(always, x),
        lambda: assert_adjoint(always, np.copy, x),
        lambda: rounding_bound(always, x),
    ):
        with pytest.raises(AssertionError, match=line):
            check()
    with pytest.raises(AssertionError, match=rf"adjoint\(y\) is {bad} at index \(2,\), though"):
        assert_adjoint(np.copy, always, x)

    def sometimes(x: NDArray) -> Any:
        return x if x[0] > 0 else np.where(x == 3, bad, x)

    found = rf"off by {bad} at index \(3,\) \({bad} instead of 3\), where rounding explains"
    with pytest.raises(AssertionError, match=found):
        assert_translation_covariant(sometimes, x, 0)
    with pytest.raises(AssertionError, match=r"op\(y\) is"):
        assert_linear(lambda y: y if y[0] == 1 else y + bad, x, -x)
    with pytest.raises(AssertionError, match=f"op is not linear.*off by {bad}"):
        assert_linear(lambda y: y + bad if abs(y[0]) < 0.6 else y, x, x)


def test_edges_of_what_an_operator_is_defined_on() -> None:
    x = np.array([0.0, 1.0, 4.0, 9.0])
    with np.errstate(invalid="ignore"):
        assert_translation_covariant(np.sqrt, x, 0)  # half of the noise at 0 shows what the rest cannot
        with pytest.raises(
            ValueError, match=r"op\(x\) is finite, but not with noise of .*; give an array further inside"
        ):
            assert_translation_invariant(lambda y: np.sum(np.where(np.isin(y, x), y, np.nan)), x, 0)


# Messages.


def test_lines_say_what_where_and_how_much() -> None:
    x = np.arange(1.0, 9.0)

    def op(x: NDArray) -> Any:
        return x[::2] + np.array([0, 0, 0.5, 0])

    with pytest.raises(AssertionError) as caught:
        assert_translation_covariant(op, x, 0, None, 2)
    line = str(caught.value)
    assert line.startswith(
        "op is not covariant to translations: translating x by 2 along axis 0 should translate op(x) by 1 along "
        "axis 0: off by 0.5 at index (2,) (3.5 instead of 3), where rounding explains "
    )
    assert re.fullmatch(r"\d\.\d+e-1[34] \(float64\)", line.partition("explains ")[2])

    with pytest.raises(AssertionError) as caught:
        assert_translation_invariant(lambda x: x[0, 0], np.eye(3), (0, 1), shift=(0, -1))
    assert str(caught.value).startswith(
        "op is not invariant to translations: translating x by -1 along axis 1 should leave op(x) as it is: off by 1 "
        "(0 instead of 1), where rounding explains "
    )
    with pytest.raises(AssertionError) as caught:
        assert_linear(lambda x: x + 1, np.ones(2, "float32"), np.ones(2, "float32"))
    assert str(caught.value).startswith(
        "op is not linear: op(0.75 x + -1.25 y) should be 0.75 op(x) + -1.25 op(y): off by 1.5 at index (0,) "
        "(0.5 instead of -1), where rounding explains "
    )
    assert str(caught.value).endswith(" (float32)")
    with pytest.raises(AssertionError) as caught:
        assert_adjoint(np.copy, lambda y: 2j * y, np.ones(2) + 0j, np.ones(2) + 0j, eps=2**-10)
    assert str(caught.value).startswith(
        "adjoint is not the adjoint of op: <op(x), y> should be <x, adjoint(y)>: off by 4.47 (2+0j instead of 0+4j), "
        "where rounding explains "
    )
    assert str(caught.value).endswith(" (eps 0.000977)")


def test_places_are_those_in_the_whole_result() -> None:
    x = np.zeros((3, 12))
    x[:, 4:8] = 1
    for shift, place in ((2, 5), (-2, 5)):
        op = changed(np.copy, at=(1, place), by=0.25)
        (found,) = covariance_deviations(op, x, 1, boundary="zero", shift=shift)
        assert found.index in {(1, place), (1, place + shift)} and not found.holds
        assert found.error == 0.25 and {found.found, found.expected} in ({0, 0.25}, {1, 1.25})
        assert found.claim == f"translating x by {shift} along axis 1 should translate op(x) by {shift} along axis 1"


def test_deviations_that_hold() -> None:
    for error, holds in ((0.5, True), (1.0, True), (1.5, False), (math.nan, False), (math.inf, False)):
        assert Deviation("c", error, 1.0, (), 0, 0, "float64").holds is holds
    found = list(covariance_deviations(filtered, noise(0, SHAPE, "float32"), (1, 2)))
    assert all(d.holds and d.dtype == "float32" and 0 <= d.error < d.bound for d in found)
    assert {d.dtype for d in covariance_deviations(np.copy, np.ones(3), 0, eps=1e-3)} == {"eps 0.001"}
    mixed = covariance_deviations(lambda x: x.astype("float64"), np.ones(3, "float32"), 0)
    assert {d.dtype for d in mixed} == {"float32"}  # whose eps the bound is made of


def test_samples_that_are_pushed_out_are_named() -> None:
    x = np.ones(8)
    for shift in (1, -1):
        line = f"translating x by {shift} along axis 0, which pushes samples out that are not zero, should leave"
        with pytest.raises(AssertionError, match=line):
            assert_translation_invariant(np.sum, x, 0, boundary="zero", shift=shift)
    padded = np.pad(x, 2)
    assert_translation_invariant(np.sum, padded, 0, boundary="zero")
    with pytest.raises(AssertionError, match="translating x by 1 along axis 0 should leave"):
        assert_translation_invariant(lambda x: x[2], padded, 0, boundary="zero")


# Arrays of other libraries.


class Tensor:
    """Like a framework's tensor: NumPy cannot have it while it records gradients, or from another device."""

    def __init__(self, data: Any, device: str = "cpu", grad: bool = False) -> None:
        self.data, self.device, self.grad = np.asarray(data), device, grad
        self.shape, self.dtype = self.data.shape, self.data.dtype

    def detach(self) -> Tensor:
        return Tensor(self.data, self.device)

    def cpu(self) -> Tensor:
        return Tensor(self.data, "cpu", self.grad)

    def to(self, device: str) -> Tensor:
        return Tensor(self.data, device, self.grad)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray:
        if self.grad or self.device != "cpu":
            raise RuntimeError("can't convert\n   this tensor")
        return self.data


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module with such tensors, as if imported."""
    module = types.ModuleType("framework")
    monkeypatch.setattr(Tensor, "__module__", "framework.tensors")
    module.from_dlpack = Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "framework", module)
    return module


def test_tensors_with_gradients_on_a_device(framework: types.ModuleType) -> None:
    seen = []

    def op(x: Tensor) -> Tensor:
        seen.append((type(x), x.device, x.dtype))
        return Tensor(filtered(x.data), "gpu", grad=True)

    def adjoint(y: Tensor) -> Tensor:
        return Tensor(transposed(y.data), "gpu", grad=True)

    x = Tensor(noise(0, SHAPE, "float32"), "gpu", grad=True)
    assert_translation_covariant(op, x, (1, 2))
    assert_translation_invariant(lambda x: op(x).data.sum((1, 2)), x, (1, 2))
    assert_linear(op, x)
    assert_adjoint(op, adjoint, x)
    assert_adjoint(op, adjoint, x, Tensor(noise(1, SHAPE, "float32"), "gpu", grad=True))
    assert set(seen) == {(Tensor, "gpu", np.dtype("float32"))}
    assert excess(assert_translation_covariant, lambda x: Tensor(np.sort(x.data)), x, 2) > 1e3


def test_tensors_of_a_library_without_exchange(framework: types.ModuleType) -> None:
    del framework.from_dlpack
    message = (
        "no framework.tensors.Tensor can be made of NumPy's arrays: it has no __array_namespace__, and framework no"
    )
    with pytest.raises(TypeError, match=message):
        assert_translation_covariant(lambda x: x, Tensor(np.ones(3)), 0)


class Exchanged:
    """An array with __dlpack__ alone."""

    def __init__(self, data: NDArray) -> None:
        self.data = data

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()


def test_results_that_are_exchanged() -> None:
    x = noise(0, SHAPE, "float64")
    assert_translation_covariant(lambda x: Exchanged(filtered(x)), x, (1, 2))
    assert excess(assert_translation_covariant, lambda x: Exchanged(np.sort(x)), x, 2) > 1e10
    message = (
        r"no tests\..*Exchanged can be made of NumPy's arrays: it has no __array_namespace__, and tests no from_dlpack"
    )
    with pytest.raises(TypeError, match=message):
        assert_linear(lambda x: x, Exchanged(x))


DEVICE = array_api_strict.Device("device1")


def test_array_api_libraries_on_a_device_of_their_own() -> None:
    xp = array_api_strict
    x = xp.asarray(noise(0, (4, 6), "float32"), device=DEVICE)
    w = xp.asarray(noise(1, (3,), "float32"), device=DEVICE)
    seen = set()

    def op(x: Any) -> Any:
        seen.add((type(x), x.device, x.dtype))
        return convolve(x, w, 1, boundary="periodic")

    def adjoint(y: Any) -> Any:
        return convolve_vjp_x(y, (4, 6), w, 1, boundary="periodic")

    assert_translation_covariant(op, x, 1)
    assert_translation_invariant(lambda x: marginal(elu(op(x)), 1), x, 1, stages=2)
    assert_linear(op, x)
    assert_adjoint(op, adjoint, x)
    assert_adjoint(op, adjoint, x, x)
    assert rounding_bound(op, x) == rounding_bound(op, x, np.from_dlpack(op(x)))
    assert seen == {(type(x), DEVICE, xp.float32)}
    assert excess(assert_translation_covariant, lambda x: convolve(x, w, 1, boundary="zero"), x, 1) > 1e3
    host = noise(0, (4, 6), "float32")
    assert_translation_covariant(lambda x: op(xp.asarray(x, device=DEVICE)), host, 1)  # there, but not back


@pytest.mark.gpu
def test_arrays_on_a_gpu() -> None:
    cupy: Any = get_namespace("cupy")
    x, w = cupy.asarray(noise(0, (4, 6), "float32")), cupy.asarray(noise(1, (3,), "float32"))
    seen = set()

    def op(x: Any) -> Any:
        seen.add(type(x))
        return convolve(x, w, 1, boundary="periodic")

    assert_translation_covariant(op, x, 1)
    assert_linear(op, x)
    assert_adjoint(op, lambda y: convolve_vjp_x(y, (4, 6), w, 1, boundary="periodic"), x)
    assert seen == {cupy.ndarray}
    assert excess(assert_translation_covariant, lambda x: convolve(x, w, 1, boundary="zero"), x, 1) > 1e3


# What operators may do to arrays.


def test_arguments_are_not_changed_and_never_shared() -> None:
    x, y = noise(0, SHAPE, "float64"), noise(1, SHAPE, "float64")
    kept = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False

    def negated_in_place(x: NDArray) -> NDArray:
        assert x.flags.writeable and x.flags.c_contiguous
        x *= -1
        return x

    assert_translation_covariant(negated_in_place, x, (1, 2))
    assert_translation_covariant(negated_in_place, np.asfortranarray(x)[::-1], (1, 2))
    assert_translation_invariant(lambda x: negated_in_place(x).sum(), x, (1, 2))
    assert_linear(negated_in_place, x, y)
    assert_adjoint(negated_in_place, negated_in_place, x, y)
    assert np.array_equal(x, kept[0]) and np.array_equal(y, kept[1])


def test_results_in_memory_that_is_used_again() -> None:
    x, memory = noise(0, (8,), "float64"), np.empty(8)

    def into_memory(values: NDArray) -> NDArray:
        memory[:] = values
        return memory

    assert_translation_covariant(into_memory, x, 0)
    assert excess(assert_translation_invariant, into_memory, x, 0) > 1e10
    assert excess(assert_linear, lambda x: into_memory(np.abs(x)), x) > 1e10


def test_numbers_of_every_kind_are_results() -> None:
    x = noise(0, (8,), "float64")
    for kind in (float, complex, np.float32, np.asarray, lambda value: np.asarray(value, np.longdouble)):
        assert_translation_invariant(lambda x, kind=kind: kind(np.sum(x)), x, 0)
    assert_linear(lambda x: 3 * x, 2.0)
    assert_linear(lambda x: 3 * x, np.float32(2))
    assert_adjoint(lambda x: 3 * x, lambda y: 3 * y, 1j)


@pytest.mark.parametrize("op", [lambda x: 0 * x, lambda x: x])
def test_zeros(op: Callable[[Any], Any]) -> None:
    for x in (np.zeros((3, 4)), np.ones((3, 4))):
        assert_translation_covariant(op, x, (0, 1))
        assert_translation_invariant(lambda x: np.sum(op(x)), x, (0, 1))
        assert_linear(op, x)
        assert_adjoint(op, op, x)
    assert rounding_bound(op, np.zeros(3)) == 0
    assert excess(assert_translation_covariant, lambda x: x + np.arange(4), np.zeros((3, 4)), 1) > 1e10


def test_half_precision() -> None:
    x = noise(0, (30,), "float64").astype("float16")
    assert_translation_covariant(lambda x: x + np.roll(x, 1), x, 0)
    assert excess(assert_translation_covariant, lambda x: x + np.arange(30, dtype=x.dtype), x, 0) > 2


def test_operators_in_coarser_arithmetic() -> None:
    x, w = noise(0, (32,), "float64"), noise(1, (5,), "float32")

    def op(x: NDArray) -> Any:
        return convolve(x.astype("float32"), w, 0, boundary="periodic", method="fft").astype("float64")

    assert excess(assert_translation_covariant, op, x, 0) > 1e3
    assert_translation_covariant(op, x, 0, eps=eps("float32"))
    assert_linear(op, x, eps=eps("float32"))
    assert excess(assert_translation_covariant, lambda x: op(x) + np.arange(32), x, 0, eps=eps("float32")) > 1e3


# What cannot be tested.

X = np.ones((4, 6))
IDENTITY = "every translation is the identity, so that nothing can be tested"


def raising(x: Any) -> Any:
    raise KeyError("no such\n   thing")


def growing() -> Callable[[NDArray], NDArray]:
    calls: list[int] = []
    return lambda x: calls.append(1) or np.ones((4, 6, len(calls)))  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"in_axes": 2}, ValueError, "in_axes names axis 2 of an array with 2 axes; use -2 to 1"),
        ({"in_axes": (1, -1)}, ValueError, r"in_axes is \(1, -1\); an axis is named twice"),
        ({"in_axes": ()}, ValueError, "in_axes names no axis; translations are along at least one"),
        ({"in_axes": 1.0}, TypeError, "in_axes is 1.0; give an integer, or one per axis"),
        ({"in_axes": None}, TypeError, "in_axes is None; give an integer"),
        ({"out_axes": 2}, ValueError, "out_axes names axis 2 of an array with 2 axes"),
        ({"out_axes": (0, 1)}, ValueError, "out_axes names 2 axes, in_axes 1; each becomes one of op"),
        ({"in_axes": (0, 1), "out_axes": (1, 1)}, ValueError, r"out_axes is \(1, 1\); an axis is named twice"),
        ({"in_axes": (0, 1), "out_axes": 1}, ValueError, "out_axes names 1 axes, in_axes 2"),
        ({"out_axes": 1.5}, TypeError, "out_axes holds 1.5; give integers"),
        ({"out_axes": "v"}, TypeError, "out_axes holds 'v'; give integers"),
        ({"out_axes": 0}, ValueError, r"its axis 0 has length 4, and axis 1 of x, of length 6 at stride 1, would"),
        ({"stride": 4}, ValueError, "stride 4 does not divide the 6 samples of axis 1; no periodic translation of op"),
        ({"stride": 0}, ValueError, "stride holds 0; give 1 or more"),
        ({"stride": (1, 1)}, ValueError, "stride has 2 entries for 1 axes"),
        ({"stride": 1.5}, TypeError, "stride is 1.5; give an integer"),
        ({"stride": 2}, ValueError, r"op returned shape \(4, 6\); its axis 1 has length 6, .* become 3"),
        ({"boundary": "reflect"}, ValueError, "boundary is 'reflect'; choose 'periodic' or 'zero'"),
        ({"boundary": None}, TypeError, "boundary is None; give 'periodic' or 'zero'"),
        ({"stride": 2, "shift": 3}, ValueError, "shift 3 along axis 1 is no multiple of stride 2; only such"),
        ({"shift": 0}, ValueError, r"shift \(0,\) along axes \(1,\), of length \(6,\), is the identity"),
        ({"shift": -12}, ValueError, r"shift \(-12,\) along axes \(1,\), of length \(6,\), is the identity"),
        ({"shift": 1.5}, TypeError, "shift is 1.5; give an integer"),
        ({"shift": (1, 1)}, ValueError, "shift has 2 entries for 1 axes"),
        ({"shift": 6, "boundary": "zero"}, ValueError, "shift 6 leaves nothing of the 6 samples of axis 1 to compare"),
        ({"stages": 0}, ValueError, "stages is 0; an operator has at least 1"),
        ({"stages": -1}, ValueError, "stages is -1; an operator has at least 1"),
        ({"stages": 1.5}, TypeError, "stages is 1.5; give an integer"),
        ({"eps": -1e-3}, ValueError, "eps is -0.001; a relative precision is between 0 and 1, as"),
        ({"eps": 0}, ValueError, "eps is 0; a relative precision is between 0 and 1"),
        ({"eps": math.nan}, ValueError, "eps is nan; a relative precision is between 0 and 1"),
        ({"eps": math.inf}, ValueError, "eps is inf; a relative precision is between 0 and 1"),
        ({"eps": "float32"}, TypeError, r"eps is 'float32'; give a number, as 2\*\*-10 for TF32"),
        ({"x": X.astype(int)}, TypeError, "x has dtype int64; give real or complex floating-point numbers"),
        ({"x": X.astype(object)}, TypeError, "x has dtype object; give real or complex floating-point numbers"),
        ({"x": X.tolist()}, TypeError, "x is a builtins.list that cannot be .*: it has neither __array__"),
        ({"x": None}, TypeError, "x is a builtins.NoneType that cannot be brought to NumPy"),
        ({"x": 1.0}, ValueError, "in_axes names axis 1 of an array with 0 axes; none can be named"),
        ({"x": True}, TypeError, "x has dtype bool; give real or complex"),
        ({"x": np.ma.masked_less(X, 0)}, TypeError, "x is a numpy.ma.MaskedArray that .*: it has a mask; x.filled"),
        ({"x": np.ones((4, 0))}, ValueError, r"x has shape \(4, 0\); with no element there is nothing to test"),
        ({"x": np.full((4, 6), np.nan)}, ValueError, r"x is nan at index \(0, 0\); give finite numbers"),
        ({"x": np.diag([1, np.inf])}, ValueError, r"x is inf at index \(1, 1\); give finite numbers"),
        ({"x": np.ones((4, 1))}, ValueError, r"axes \(1,\) have \(1,\) samples at stride \(1,\): " + IDENTITY),
        ({"x": np.ones((1, 1)), "in_axes": (0, 1)}, ValueError, r"axes \(0, 1\) have \(1, 1\) samples"),
        ({"op": raising}, ValueError, r"op raised KeyError on an array of shape \(4, 6\), float64: 'no such.*thing'$"),
        ({"op": lambda x: None}, TypeError, "the result of op is a builtins.NoneType that cannot be brought"),
        ({"op": np.ndarray.tolist}, TypeError, "the result of op is a builtins.list that cannot be brought to NumPy"),
        ({"op": lambda x: (x, x)}, TypeError, "the result of op is a builtins.tuple that cannot be brought to NumPy"),
        ({"op": lambda x: 3}, TypeError, "the result of op has dtype int64; give real or complex"),
        ({"op": lambda x: x > 0}, TypeError, "the result of op has dtype bool; give real or complex"),
        ({"op": lambda x: x[:, :0]}, ValueError, r"op returned shape \(4, 0\); its axis 1 has length 0"),
        ({"op": lambda x: x[:, 1:]}, ValueError, r"op returned shape \(4, 5\); its axis 1 has length 5, .* become 6"),
        ({"op": lambda x: x[:0]}, ValueError, r"op\(x\) has shape \(0, 6\); with no element there is nothing to test"),
        ({"op": np.sum}, ValueError, "out_axes names axis 1 of an array with 0 axes; none can be named"),
        ({"op": growing()}, ValueError, r"op returned shapes \(4, 6, 1\) and \(4, 6, 2\) for arrays of one shape"),
        ({"op": 3}, ValueError, r"op raised TypeError on an array of shape \(4, 6\), float64: 'int' object is not"),
    ],
)
def test_what_cannot_be_tested_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"op": np.copy, "x": X, "in_axes": 1, **change}
    op, x, in_axes = (arguments.pop(name) for name in ("op", "x", "in_axes"))
    with pytest.raises(error, match=message) as caught:
        assert_translation_covariant(op, x, in_axes, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.sum, X, 2), {}, ValueError, "^axes names axis 2 of an array with 2 axes; use -2 to 1"),
        ((np.sum, X, (0, 0)), {}, ValueError, r"^axes is \(0, 0\); an axis is named twice"),
        ((np.sum, X, ()), {}, ValueError, "^axes names no axis; translations are along at least one"),
        ((np.sum, X, 0, 4), {}, ValueError, r"axes \(0,\) have \(4,\) samples at stride \(4,\): " + IDENTITY),
        ((np.sum, X, 0, 4, "zero"), {}, ValueError, r"axes \(0,\) have \(4,\) samples at stride \(4,\): " + IDENTITY),
        ((np.sum, X, 0, 2), {"shift": 1}, ValueError, "shift 1 along axis 0 is no multiple of stride 2"),
        ((np.sum, X, 0, 2), {"shift": 8}, ValueError, "is the identity"),
        ((np.sum, X[:0], 0), {}, ValueError, r"x has shape \(0, 6\); with no element there is nothing to test"),
        ((lambda x: x[:0], X, 0), {}, ValueError, r"op\(x\) has shape \(0, 6\); with no element there is nothing"),
        ((np.sum, X, 0), {"stages": 0}, ValueError, "stages is 0; an operator has at least 1"),
        ((np.sum, X, 0), {"eps": math.nan}, ValueError, "eps is nan; a relative precision is between 0 and 1"),
        ((growing(), X, 0), {}, ValueError, r"op returned shapes \(4, 6, 1\) and \(4, 6, 2\) for arrays of one shape"),
    ],
)
def test_invariance_that_cannot_be_tested(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        assert_translation_invariant(*arguments, **options)


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: assert_linear(np.copy, X, X[0]), ValueError, r"other has shape \(6,\), float64; x has \(4, 6\)"),
        (lambda: assert_linear(np.copy, X, X + 1j), ValueError, r"other has shape \(4, 6\), complex128; x has"),
        (lambda: assert_linear(np.copy, X, X.astype("f4")), ValueError, r"other has shape \(4, 6\), float32; x has"),
        (lambda: assert_linear(np.copy, X, X.astype(int)), TypeError, "other has dtype int64; give real or complex"),
        (lambda: assert_linear(np.copy, X, X * np.nan), ValueError, r"other is nan at index \(0, 0\); give finite"),
        (lambda: assert_linear(raising, X), ValueError, "op raised KeyError on an array"),
        (lambda: assert_linear(growing(), X), ValueError, r"op returned shapes \(4, 6, 1\) and \(4, 6, 2\) for arrays"),
        (lambda: assert_linear(np.copy, X, stages=0), ValueError, "stages is 0; an operator has at least 1"),
        (lambda: assert_linear(np.copy, X, eps=2), ValueError, "eps is 2; a relative precision is between 0 and 1"),
        (lambda: assert_adjoint(np.copy, np.copy, X, X[0]), ValueError, r"y has shape \(6,\); op\(x\) has \(4, 6\)"),
        (lambda: assert_adjoint(np.copy, np.copy, X, X * np.inf), ValueError, r"y is inf at index \(0, 0\); give"),
        (lambda: assert_adjoint(np.copy, np.copy, X, [1.0]), TypeError, "y is a builtins.list that cannot be brought"),
        (lambda: assert_adjoint(np.copy, np.ravel, X), ValueError, r"adjoint\(y\) has shape \(24,\); x has \(4, 6\)"),
        (lambda: assert_adjoint(np.copy, raising, X), ValueError, "adjoint raised KeyError on an array of shape"),
        (lambda: assert_adjoint(np.copy, lambda y: 3, X), TypeError, "the result of adjoint has dtype int64; give"),
        (lambda: assert_adjoint(growing(), np.copy, X), ValueError, r"op returned shapes \(4, 6, 1\) and|has shape"),
        (lambda: assert_adjoint(np.copy, np.copy, X, stages=0), ValueError, "stages is 0; an operator has at least 1"),
        (lambda: assert_adjoint(np.copy, np.copy, X, eps=math.nan), ValueError, "eps is nan; a relative precision"),
        (lambda: rounding_bound(np.copy, X[:0]), ValueError, r"x has shape \(0, 6\); with no element there is nothing"),
        (lambda: rounding_bound(np.copy, X, stages=0), ValueError, "stages is 0; an operator has at least 1"),
        (lambda: rounding_bound(np.copy, X, eps=-1), ValueError, "eps is -1; a relative precision is between 0 and 1"),
        (lambda: rounding_bound(np.copy, X, X[0]), ValueError, r"y has shape \(6,\); op\(x\) has \(4, 6\)"),
        (lambda: rounding_bound(np.copy, X, [1.0]), TypeError, "y is a builtins.list that cannot be brought to NumPy"),
    ],
)
def test_other_assertions_that_cannot_be_made(check: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        check()
    assert "\n" not in str(caught.value)


def test_tensors_that_cannot_be_brought_back(framework: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "cpu", lambda self: self)
    with pytest.raises(TypeError, match=r"the result of op is a framework.*Tensor that .*: can't convert this tensor$"):
        assert_translation_covariant(lambda x: Tensor(x, "gpu"), X, 0)
    monkeypatch.setattr(framework, "from_dlpack", raising)
    with pytest.raises(TypeError, match=r"Tensor can be made of NumPy's arrays: 'no such.*thing'"):
        assert_translation_covariant(lambda x: x, Tensor(X), 0)


def test_docstring_examples_hold() -> None:
    found = doctest.testmod(assertions)
    assert found.attempted > 0 and found.failed == 0


def test_translations_are_those_of_the_package() -> None:
    """`shift` means the same as in `translate`: the image moves to larger indices."""
    x = noise(0, (8,), "float64")
    seen: list[NDArray] = []
    list(covariance_deviations(lambda x: seen.append(x) or x, x, 0, shift=3))  # type: ignore[func-returns-value]
    assert np.array_equal(seen[-1], translate(x, 3, 0, boundary="periodic")) and np.array_equal(seen[0], x)
