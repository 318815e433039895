"""The assertions for any operator: wrong ones fail by far, and messages say why."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage

from hcnn_core import elu, marginal
from hcnn_core.testing import (
    Deviation,
    assert_adjoint,
    assert_linear,
    assert_translation_covariant,
    assert_translation_invariant,
    covariance_deviations,
    rounding_bound,
)
from tests.core.operators import REAL, SHAPE, changed, excess, filtered, periodic, transposed
from tests.core.oracle import NDArray, eps, noise, norm

# Wrong operators: each is off by `excess` times the bound.


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
    op, transpose = periodic(w)
    _, hilbert = periodic(w.conj())
    far = 1e-4 / eps(dtype)
    assert_adjoint(op, transpose, x)
    assert_adjoint(op, hilbert, x, conjugate=True)
    assert excess(assert_adjoint, op, transpose, x, conjugate=True) > far
    with pytest.raises(AssertionError, match=r"should be <x, adjoint\(y\)> by conjugate=False"):
        assert_adjoint(op, hilbert, x)
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
    x, at = noise(0, (64,), dtype), (5,)
    precision: dict[str, Any] = {"stages": stages}
    wrong = functools.partial(changed, np.copy, at=at)
    bound = rounding_bound(np.copy, x, **precision)
    checks: list[tuple[Callable[[Any], None], float]] = [
        (lambda op: assert_translation_covariant(op, x, 0, **precision), bound),
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
        assert_linear(lambda y: y if y[0] == 1 else y + bad, x)


def test_edges_of_what_an_operator_is_defined_on() -> None:
    x = np.array([0.0, 1.0, 4.0, 9.0])
    with np.errstate(invalid="ignore"):
        assert_translation_covariant(np.sqrt, x, 0)  # half of the noise at 0 shows what the rest cannot
        with pytest.raises(ValueError, match=r"op\(x\) is finite, but not with noise of .*; give an array further"):
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
        assert_linear(lambda x: x + 1, np.ones(2, "float32"))
    assert str(caught.value).startswith(
        "op is not linear: op(0.75 x + -1.25 y) should be 0.75 op(x) + -1.25 op(y): off by 1.5 at index ("
    )
    assert str(caught.value).endswith(" (float32)")
    with pytest.raises(AssertionError) as caught:
        assert_adjoint(np.copy, lambda y: 2j * y, np.ones(2) + 0j, np.ones(2) + 0j)
    assert str(caught.value).startswith(
        "adjoint is not the adjoint of op: <op(x), y> should be <x, adjoint(y)> by conjugate=False: off by 4.47 "
        "(2+0j instead of 0+4j), where rounding explains "
    )


def test_places_are_those_in_the_whole_result() -> None:
    x = np.zeros((3, 12))
    x[:, 4:8] = 1
    for shift, place in ((2, 5), (-2, 5)):
        op = changed(np.copy, at=(1, place), by=0.25)
        (found,) = covariance_deviations(op, x, 1, boundary="zero", shift=shift)
        assert found.index in {(1, place), (1, place + shift)} and not found.holds
        assert found.error == 0.25 and {found.actual, found.expected} in ({0, 0.25}, {1, 1.25})
        assert found.claim == f"translating x by {shift} along axis 1 should translate op(x) by {shift} along axis 1"


def test_deviations_that_hold() -> None:
    for error, holds in ((0.5, True), (1.0, True), (1.5, False), (math.nan, False), (math.inf, False)):
        assert Deviation("c", error, 1.0, (), 0, 0, "float64").holds is holds
    found = list(covariance_deviations(filtered, noise(0, SHAPE, "float32"), (1, 2)))
    assert all(d.holds and d.dtype == "float32" and 0 <= d.error < d.bound for d in found)
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
