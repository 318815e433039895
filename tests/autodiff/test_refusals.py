"""What derivatives refuse: one line that says what was given. New functions add their rows here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.special

import hcnn_core
from autodiff import (
    check_grads,
    checkpoint,
    elementwise_grad,
    grad,
    hessian,
    hessian_vector_product,
    jacobian,
    jvp,
    vjp,
)
from autodiff.pytree import tree_unflatten
from autodiff.scipy import signal
from tests.autodiff.test_functional import Layer
from tests.autodiff.test_jacobians import loss
from tests.autodiff.test_pytree import TREE
from tests.autodiff.test_tape import cube

X = np.random.default_rng(0).standard_normal((3, 4))
INPUT, THREE, Z = X.T, np.array([0.5, 1.5, 2.5]), np.array([1 + 2j])
OBJECT, REAL = r"dtype object.*make them floats|unsupported operand", "second derivatives are by real arrays, not by"


def square(z: Any) -> Any:
    return np.sum(np.real(z * np.conj(z)))


TYPES: list[tuple[Callable[[], Any], str]] = [
    (lambda: grad(np.sum)(np.arange(3)), r"argument 0 has dtype int64: convert it to a float or complex array"),
    (lambda: grad(lambda x, y: y, 1)(1.0, 2), r"argument 1 has type int: convert"),
    (lambda: grad(lambda p: p["a"][1])({"a": (1.0, "x")}), r"argument 0\['a'\]\[1\] has type str: convert"),
    (lambda: grad(lambda p: p.b)(Layer(1.0, 2)), r"argument 0\.b has type int: convert"),
    (lambda: grad(lambda x: x)(np.ones(3)), r"a scalar output, not shape \(3,\): sum it, or use vjp"),
    (lambda: grad(lambda x: x * 1j)(1.0), r"a real output, not a complex one: take its real part"),
    (lambda: grad(lambda x: None)(1.0), r"returns a real scalar, not NoneType"),
    (lambda: grad(lambda x: (x, x))(1.0), r"returns a real scalar, not tuple"),
    (lambda: grad(lambda x: x, has_aux=True)(1.0), r"a function that returns a pair \(value, aux\), not Traced"),
    (lambda: grad(lambda x: x, 1)(1.0), r"argnum is 1, and the call has 1 positional arguments"),
    (lambda: grad(lambda x: x)(x=1.0), r"argnum is 0, and the call has 0 positional arguments"),
    (
        lambda: vjp(np.sin, np.ones(3))[1](np.ones(3) * 1j),
        r"a cotangent has dtype complex128 for an output of dtype float64",
    ),
    (
        lambda: check_grads(np.sin)(*(INPUT.astype(np.float32),)),
        "needs float64 or complex128, and argument 0 has float32",
    ),
    (lambda: check_grads(lambda x, n: x)(*(1.0, 2)), "needs float64 or complex128, and argument 1 has int"),
    (
        lambda: check_grads(lambda x: x.astype(np.float32))(*(INPUT,)),
        "needs float64 or complex128, and the output has float32",
    ),
    (lambda: check_grads(lambda x: np.argmax(x))(*(INPUT,)), "needs float64 or complex128, and the output has int64"),
    (lambda: jacobian(np.argmax)(X), "one float or complex array, not dtype int64"),
    (lambda: jacobian(lambda x: (x, x))(X), "one float or complex array, not tuple"),
    (lambda: jacobian(np.sin, 1)(X), "argnum is 1, and the call has 1 positional"),
    (lambda: jacobian(np.add, (0, 1))(X, X), r"argnum is \(0, 1\): give one integer"),
    (lambda: hessian(lambda x: x)(X), "scalar output"),
    (lambda: hessian(lambda p: np.sum(p["a"]))({"a": X}), "by one float array, not a dict"),
    (lambda: elementwise_grad(lambda x: 1j * x)(X), "complex output by a real argument"),
    (lambda: jvp(np.argmax, (X,), (X,)), "jvp needs a function that returns .*arrays, not dtype int64"),
    (lambda: jvp(np.sin, (X,), (X * 1j,)), "a tangent is complex for a real argument"),
    (lambda: jacobian(np.add, 1)(X, 3), "argument 1 has type int"),
    (lambda: hessian(lambda a, b: a @ b, 1)(X[0], 3), "argument 1 has type int"),
    (lambda: hessian_vector_product(loss)(X), "1 positional arguments: .* and then the vector"),
    (lambda: grad(lambda x: np.sum(Fraction(1, 2) * x))(THREE), OBJECT),
    (lambda: grad(lambda x: np.sum(x * Fraction(1, 2)))(THREE), OBJECT),
    (lambda: grad(lambda x: x[0] * Decimal(2))(THREE), OBJECT),
    (lambda: grad(lambda x: np.sum(x * np.array([1, 2, 3], object)))(THREE), OBJECT),
    (lambda: grad(lambda x: np.sum(x * [Fraction(1, 2), 1, 2]))(THREE), OBJECT),
    (lambda: grad(lambda x: checkpoint(lambda y: np.sum(y).item())(x))(THREE), r"item\(\) of a traced value"),
    (lambda: vjp(lambda x: checkpoint(lambda y: OrderedDict(h=y))(x), THREE), "returned OrderedDict; a primitive"),
    (lambda: vjp(lambda x: OrderedDict(h=2 * x), THREE), "the function returned OrderedDict: give dicts"),
    (lambda: grad(lambda x: np.sum(cube()(x)))(X), r"cube has no derivative: give it one with autodiff\.defvjp"),
    (lambda: hessian(square)(Z), REAL + " one of complex128"),
    (lambda: hessian_vector_product(square)(Z, Z), REAL + " one of complex128"),
    (lambda: hessian(np.sum)(), "argnum is"),
    (lambda: hessian_vector_product(np.sum, 1)(THREE, THREE), "argnum is"),
    (lambda: grad(lambda z: np.real(scipy.special.psi(z)))(1 + 1j), "derivative of digamma, takes real numbers"),
    (
        lambda: hcnn_core.normalize_filters_vjp(
            1j * np.ones((3, 2)), np.ones(2), np.ones((2, 3)), np.ones(3), np.eye(3), epsilon=0.1
        ),
        "g_filters has dtype complex128; this function takes float32 or float64",
    ),
]

VALUES: list[tuple[Callable[[], Any], str]] = [
    (lambda: vjp(np.sin, np.ones(3))[1](np.ones(4)), r"a cotangent has shape \(4,\) for an output of shape \(3,\)"),
    (lambda: vjp(np.sin, np.ones(3))[1](1.0), r"a cotangent has type float for an output of shape \(3,\)"),
    (lambda: vjp(np.sin, np.ones(3))[1]([np.ones(3)]), r"a cotangent has type list for an output of shape \(3,\)"),
    (lambda: jvp(np.sin, (X,), (X[0],)), r"tangent has shape \(4,\) for an argument of shape \(3, 4\)"),
    (lambda: jvp(np.sin, (X,), ()), "0 tangents for 1 arguments"),
    (lambda: jvp(np.sin, (2.0,), (None,)), "a tangent has type NoneType for an argument of shape"),
    (lambda: hessian_vector_product(loss)(X, X[0]), r"vector has shape \(4,\) for an argument"),
    (lambda: vjp(lambda x: {"a": x}, THREE)[1]({"b": THREE}), "trees of different structure"),
    (lambda: tree_unflatten(TREE, [1, 2, 3]), "3 leaves for a tree with 4"),
    (lambda: tree_unflatten(TREE, [1, 2, 3, 4, 5]), "5 leaves for a tree with 4"),
    (lambda: vjp(lambda x: np.take_along_axis(x, THREE > 0, 0), THREE), "an array of integers with 1 axes"),
    (lambda: signal.fftconvolve(X, X[0]), "have 2 and 1 axes"),
    (lambda: signal.fftconvolve(X, X, "half"), "mode is 'half'; choose"),
    (lambda: signal.fftconvolve(X[:, :2], X[:2], "valid"), "neither of the lengths"),
    (lambda: signal.fftconvolve(X, X[:0]), "nothing to convolve"),
    (lambda: signal.fftconvolve(X, X, axes=(1, -1)), "names an axis twice"),
    (lambda: signal.convolve(X[0, :0], X[0]), "nothing to convolve"),
    (lambda: signal.convolve(X, X, "half"), "mode is 'half'; choose"),
    (lambda: signal.convolve(X, X[0]), "2 and 1 axes; without axes="),
]

WITHOUT_A_RULE: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: np.polyfit(x[0], x[1], 1), r"numpy\.polyfit has no derivative here.*autodiff\.primitive.*defvjp"),
    (np.linalg.tensorinv, r"numpy\.linalg\.tensorinv has no derivative here"),
    (np.linalg.svd, r"3 by 4 takes full_matrices=False"),
    (lambda x: np.quantile(x, 0.5, method="higher"), r"the method 'linear', not 'higher'"),
    (lambda x: np.gradient(x, [1.0, 2.0, 4.0], axis=0), r"numpy\.gradient on traced values takes one number"),
    (np.arctan2.reduce, r"numpy\.arctan2\.reduce has no derivative here"),
    (lambda x: np.add.reduceat(x, [0, 1]), r"numpy\.add\.reduceat has no derivative here"),
    (lambda x: np.add.reduce(x), r"numpy\.add\.reduce has no derivative here"),
    (np.spacing, r"numpy\.spacing has no derivative here"),
    (lambda x: np.frompyfunc(abs, 1, 1)(x), r"has no derivative here"),
    (lambda x: np.exp(x, where=X > 0), r"numpy\.exp on traced values does not take where"),
    (lambda x: np.var(x, mean=X), r"numpy\.var on traced values does not take mean"),
    (lambda x: np.prod(x, where=X), r"where has dtype float64; give booleans"),
    (lambda x: np.cumsum(a=x), r"cumsum got a traced value as keyword 'a': pass it by position"),
    (lambda x: np.sign(x + 1j), r"numpy\.sign of complex traced values"),
    (lambda x: np.pad(x, 1, mode="linear_ramp"), r"no mode 'linear_ramp': use constant, edge"),
    (lambda x: x.reshape(2, 6, order="A"), r"the order 'C' or 'F', not 'A'"),
    (lambda x: x.ravel("K"), r"the order 'C' or 'F', not 'K'"),
    (lambda x: x.var(mean=X), r"numpy\.var on traced values does not take mean"),
    (lambda x: x.astype(int, casting="safe"), r"numpy\.ndarray\.astype .* not take casting; it takes dtype, copy"),
]

OF_OTHER_SHAPES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: np.tensordot(x, x, 1), r"shapes \(3, 4\) and \(3, 4\) over axes"),
    (lambda x: np.split(x, 2), r"array split does not result in an equal division"),
    (lambda x: np.einsum("ij,jk", x), r"1 operands for the 2 terms of 'ij,jk'"),
    (lambda x: np.take(x, [0], axis=2), r"axis 2 is out of bounds"),
    (lambda x: np.linalg.norm(x, 5), r"the order 'fro', 'nuc', 1, 2, inf or their negatives, not 5"),
    (lambda x: np.linalg.norm(x[None], "fro"), r"order 'fro' is that of vectors or matrices, not of 3 axes"),
    (lambda x: np.linalg.eigh(x, "X"), r"UPLO is 'X'; it is 'L' or 'U'"),
    (lambda x: np.average(x, 1, weights=[1.0, 2.0]), r"weights of the shape of a, \(3, 4\)"),
    (lambda x: np.max(x, where=X > 0), r"numpy\.max with where= needs initial="),
    (lambda x: np.sum(x[0], where=X > 0), r"input operand has more dimensions than allowed"),
    (lambda x: np.mean(x[:1], where=X > 0), r"could not be broadcast"),
    (lambda x: np.quantile(x, 1.5), r"quantiles lie from 0 to 1"),
    (lambda x: np.array([x, x[0]], like=x), r"parts of shapes \[\(3, 4\), \(4,\)\] do not make one array"),
    (lambda x: np.array([[x[0], x[1]], [x[0]]], like=x), r"parts of shapes \[\(1, 4\), \(2, 4\)\]"),
    (lambda x: np.cross(x, x), r"vectors of length 3, not 4 and 4"),
    (lambda x: np.diag(x[None]), r"1 or 2 axes, not 3"),
    (lambda x: np.take(np.sum(x), [0], axis=1), r"axis 1 is out of bounds"),
    (lambda x: np.gradient(x[:1]), r"of order 1 needs 2 elements along axis 0"),
    (lambda x: np.fft.fft(x, 0), r"a transform of 0 points"),
    (lambda x: np.array_split(x, 0), r"number sections must be larger than 0"),
    (lambda x: np.repeat(x, 2, axis=-3), r"axis -3 is out of bounds"),
]

TYPES += [(lambda call=call: vjp(call, X), message) for call, message in WITHOUT_A_RULE]  # type: ignore[misc]
VALUES += [(lambda call=call: vjp(call, X), message) for call, message in OF_OTHER_SHAPES]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [(error, *row) for error, rows in ((ValueError, VALUES), (TypeError, TYPES)) for row in rows],
)
def test_wrong_arguments_are_refused_in_one_line(error: type[Exception], call: Callable[[], Any], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
