"""The assertions for any operator: which arrays they take, and what they refuse."""

from __future__ import annotations

import doctest
import sys
import types
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

from hcnn_core import convolve, convolve_vjp_x, elu, marginal, translate
from hcnn_core.testing import (
    assert_adjoint,
    assert_linear,
    assert_translation_covariant,
    assert_translation_invariant,
    assertions,
    covariance_deviations,
    rounding_bound,
)
from tests.core.operators import SHAPE, excess, filtered, transposed
from tests.core.oracle import NDArray, noise

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
    assert_linear(negated_in_place, x)
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
        ({"out_axes": 2}, ValueError, "out_axes names axis 2 of an array with 2 axes"),
        ({"out_axes": (0, 1)}, ValueError, "out_axes names 2 axes, in_axes 1; each becomes one of op"),
        ({"in_axes": (0, 1), "out_axes": (1, 1)}, ValueError, r"out_axes is \(1, 1\); an axis is named twice"),
        ({"out_axes": 1.5}, TypeError, "out_axes holds 1.5; give integers"),
        ({"out_axes": 0}, ValueError, r"its axis 0 has length 4, and axis 1 of x, of length 6 at stride 1, would"),
        ({"stride": 4}, ValueError, "stride 4 does not divide the 6 samples of axis 1; no periodic translation of op"),
        ({"stride": 2}, ValueError, r"op returned shape \(4, 6\); its axis 1 has length 6, .* become 3"),
        ({"boundary": "reflect"}, ValueError, "boundary is 'reflect'; choose 'periodic' or 'zero'"),
        ({"stride": 2, "shift": 3}, ValueError, "shift 3 along axis 1 is no multiple of stride 2; only such"),
        ({"shift": 0}, ValueError, r"shift \(0,\) along axes \(1,\), of length \(6,\), is the identity"),
        ({"shift": 6, "boundary": "zero"}, ValueError, "shift 6 leaves nothing of the 6 samples of axis 1 to compare"),
        ({"stages": 0}, ValueError, "stages is 0; an operator has at least 1"),
        ({"stages": 1.5}, TypeError, "stages is 1.5; give an integer"),
        ({"x": X.astype(int)}, TypeError, "x has dtype int64; give real or complex floating-point numbers"),
        ({"x": X.tolist()}, TypeError, "x is a builtins.list that cannot be .*: it has neither __array__"),
        ({"x": 1.0}, ValueError, "in_axes names axis 1 of an array with 0 axes; none can be named"),
        ({"x": np.ma.masked_less(X, 0)}, TypeError, "x is a numpy.ma.MaskedArray that .*: it has a mask; x.filled"),
        ({"x": np.ones((4, 0))}, ValueError, r"x has shape \(4, 0\); with no element there is nothing to test"),
        ({"x": np.full((4, 6), np.nan)}, ValueError, r"x is nan at index \(0, 0\); give finite numbers"),
        ({"x": np.ones((4, 1))}, ValueError, r"axes \(1,\) have \(1,\) samples at stride \(1,\): " + IDENTITY),
        ({"op": raising}, ValueError, r"op raised KeyError on an array of shape \(4, 6\), float64: 'no such.*thing'$"),
        ({"op": lambda x: None}, TypeError, "the result of op is a builtins.NoneType that cannot be brought"),
        ({"op": lambda x: 3}, TypeError, "the result of op has dtype int64; give real or complex"),
        ({"op": lambda x: x[:, 1:]}, ValueError, r"op returned shape \(4, 5\); its axis 1 has length 5, .* become 6"),
        ({"op": lambda x: x[:0]}, ValueError, r"op\(x\) has shape \(0, 6\); with no element there is nothing to test"),
        ({"op": np.sum}, ValueError, "out_axes names axis 1 of an array with 0 axes; none can be named"),
        ({"op": growing()}, ValueError, r"op returned shapes \(4, 6, 1\) and \(4, 6, 2\) for arrays of one shape"),
    ],
)
def test_what_cannot_be_tested_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"op": np.copy, "x": X, "in_axes": 1, **change}
    op, x, in_axes = (arguments.pop(name) for name in ("op", "x", "in_axes"))
    with pytest.raises(error, match=message) as caught:
        assert_translation_covariant(op, x, in_axes, **arguments)
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
