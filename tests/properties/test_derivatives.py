"""Derivatives on the tape: transposes of linearisations; symmetric Hessians."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import autodiff
import hcnn_core as hc
from autodiff import grad, tree_leaves, tree_unflatten, vjp
from autodiff.tape import Primitive
from hcnn_core.testing import assert_adjoint
from tests.core.oracle import (
    DTYPES,
    NDArray,
    noise,
)
from tests.properties.derivatives import REAL, Case, cases, direction
from tests.properties.networks import KINDS, small_network, stages

# Every derivative on the tape is the transpose of the linearisation, which is written out.


EVERY = pytest.mark.parametrize(("dtype", "name"), [(dtype, name) for dtype in DTYPES for name in cases(dtype)])


def test_the_table_names_every_primitive() -> None:
    named = {name.partition(",")[0] for name in cases("float64")}
    known = {value.__name__ for value in vars(autodiff.primitives).values() if isinstance(value, Primitive)}
    assert known | {"cross_entropy", "elu", "relu"} == named  # functions of a primitive


def pull(case: Case) -> Callable[[NDArray], NDArray]:
    """From a cotangent of the result to that of the argument."""
    pullback = vjp(case.at, case.x)[1]
    return lambda g: pullback(g)[0]


def push(case: Case) -> Callable[[NDArray], NDArray]:
    """The derivative along a direction as the tape has it: the transpose of the pullback, which is linear."""
    y, pullback = vjp(case.at, case.x)
    transpose = vjp(lambda g: pullback(g)[0], np.ones_like(y))[1]
    return lambda d: transpose(d)[0]


@EVERY
def test_adjoints(dtype: str, name: str) -> None:
    case = cases(dtype)[name]
    assert pull(case)(np.asarray(case.at(case.x))).dtype == push(case)(case.x).dtype == dtype
    assert_adjoint(case.tangent, pull(case), direction(case))
    assert_adjoint(push(case), pull(case), direction(case))


@pytest.mark.parametrize(("dtype", "name"), [(d, n) for d in DTYPES if d not in REAL for n in cases(d)])
def test_hilbert_adjoints_conjugate(dtype: str, name: str) -> None:
    case = cases(dtype)[name]
    transpose = pull(case)
    assert_adjoint(case.tangent, lambda g: transpose(g.conj()).conj(), direction(case), conjugate=True)
    if name.startswith("convolve"):  # the others multiply by real numbers
        with pytest.raises(AssertionError, match="adjoint is not the adjoint of op"):
            assert_adjoint(case.tangent, transpose, direction(case), conjugate=True)


def test_a_real_signal_and_complex_filters() -> None:
    """The result, seen as pairs of reals, is linear in the reals: the cotangent of x is a real part."""
    x, w = noise(0, (2, 6), "float64"), noise(1, (3, 2), "complex128")

    def parts(x: Any) -> Any:
        y = autodiff.convolve(x, w, 1, boundary="zero")
        return np.stack([np.real(y), np.imag(y)])

    case = Case(parts, (x,), 0)
    assert_adjoint(parts, pull(case), x)
    assert_adjoint(push(case), pull(case), x)
    with pytest.raises(AssertionError, match="adjoint is not the adjoint of op"):
        assert_adjoint(parts, lambda g: hc.convolve_vjp_x(g[0] + 1j * g[1], x, w, 1, boundary="zero").real, x)


# Hessians are symmetric. Fields that are no gradients have others, and so do wrong derivatives of right gradients.


def flattened(fun: Callable[..., Any], *point: Any) -> tuple[Callable[[Any], Any], NDArray]:
    """A function of pytrees as one of a vector, and the vector of this point."""
    shapes = [np.shape(leaf) for leaf in tree_leaves(point)]
    ends = np.cumsum([0, *map(math.prod, shapes)]).tolist()

    def of_vector(vector: Any) -> Any:
        leaves = [np.reshape(vector[a:b], shape) for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]
        return fun(*tree_unflatten(point, leaves))

    return of_vector, np.concatenate([np.ravel(leaf) for leaf in tree_leaves(point)])


def assert_symmetric(gradient: Callable[[Any], Any], point: NDArray, stages: int = 1) -> None:
    """<H u, v> = <u, H v>, where H u is the gradient of <gradient, u>."""
    pullback = vjp(gradient, point)[1]
    assert_adjoint(lambda u: pullback(u)[0], lambda v: pullback(v)[0], noise(8, point.shape, "float64"), stages=stages)


X, W, BIAS = noise(20, (2, 4, 5), "float64"), noise(21, (3, 2, 3), "float64"), noise(22, (3,), "float64")
G = noise(23, (2, 2, 5, 3), "float64")
FILTERS = noise(24, (4, 9), "float64")
STRIDED: Any = {"boundary": ("periodic", "zero"), "stride": (2, 1)}


def strided(x: Any, w: Any) -> Any:
    return autodiff.convolve(x, w, (1, 2), **STRIDED)


def rectified(x: Any, w: Any, bias: Any) -> Any:
    return autodiff.elu(strided(x, w), bias=bias)


def normalised(x: Any, h: Any) -> Any:
    """Mean over deviation of some filters' responses, as in Eq. (8)."""
    mean, covariance = autodiff.patch_moments(x, (1, 2), 3, boundary="zero")
    return np.sum((h @ mean) ** 3 / np.sqrt(np.sum((h @ covariance) * h, axis=1) + 1e-5))


def power(x: Any, y: Any, w: Any, v: Any) -> Any:
    """Of a complex convolution, whose parts are the arguments."""
    z = autodiff.convolve(x + 1j * y, w + 1j * v, (1, 2), **STRIDED)
    return np.sum(np.real(z * np.conj(z)) ** 2)


COMPOSITIONS: dict[str, tuple[Callable[..., Any], tuple[NDArray, ...]]] = {
    "convolve": (lambda x, w: np.sum(np.tanh(autodiff.convolve(x, w, (1, 2), **STRIDED))), (X, W)),
    "convolve_vjp_x": (
        lambda g, w: np.sum(np.tanh(autodiff.convolve_vjp_x(g, X.shape, w, (1, 2), **STRIDED))),
        (G, W),
    ),
    "convolve_vjp_w": (
        lambda g, x: np.sum(np.tanh(autodiff.convolve_vjp_w(g, x, W.shape, (1, 2), **STRIDED))),
        (G, X),
    ),
    "complex": (power, (X, noise(25, X.shape, "float64"), W, noise(26, W.shape, "float64"))),
    "convolve_elu": (lambda *p: np.sum(autodiff.convolve_elu(*p, (1, 2), **STRIDED) ** 3), (X, W, BIAS)),
    "elu": (lambda *p: np.sum(rectified(*p) ** 3), (X, W, BIAS)),
    "elu_vjp": (lambda g, *p: np.sum(np.tanh(autodiff.elu_vjp(g, rectified(*p)))), (G, X, W, BIAS)),
    "relu": (
        lambda x, w, bias: np.sum(autodiff.relu(strided(x, w), bias=bias) ** 3),
        (X, W, BIAS),
    ),
    "patch_moments": (normalised, (X, FILTERS)),
    "normalize_elu": (
        lambda x, w, shift, scale: sum(
            np.sum(part**3)
            for part in autodiff.normalize_elu(
                autodiff.convolve(x, w, (1, 2), **STRIDED), shift, scale, scale * shift, epsilon=0.1
            )
        ),
        (X, W, BIAS, np.square(BIAS) + 1),
    ),
    "normalize_elu_marginal": (
        lambda x, w, shift, scale: sum(
            np.sum(part**3)
            for part in autodiff.normalize_elu_marginal(
                autodiff.convolve(x, w, (1, 2), **STRIDED), shift, scale, scale * shift, 1, epsilon=0.1
            )
        ),
        (X, W, BIAS, np.square(BIAS) + 1),
    ),
    "batch_normalize": (
        lambda x, w, scale: sum(
            np.sum(part**3)
            for part in autodiff.batch_normalize(
                autodiff.convolve(x, w, (1, 2), **STRIDED), scale, scale**2, epsilon=0.1
            )
        ),
        (X, W, BIAS),
    ),
    "max_pool": (lambda x, w: np.sum(autodiff.max_pool(strided(x, w), (1, 2), 2, stride=1) ** 3), (X, W)),
    "mean_pool": (lambda x, w: np.sum(autodiff.mean_pool(strided(x, w), 2, 3, stride=2, padding=1) ** 3), (X, W)),
    "marginal": (
        lambda x: np.sum(autodiff.marginal(autodiff.translate(x, 1, 2, boundary="zero") * x, 1, reduction="mean") ** 3),
        (X,),
    ),
    "log_softmax": (lambda *p: np.sum(autodiff.log_softmax(rectified(*p)) ** 2), (X, W, BIAS)),
    "cross_entropy": (
        lambda *p: autodiff.cross_entropy(autodiff.marginal(rectified(*p), (1, 2)), np.array([2, 0])),
        (X, W, BIAS),
    ),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_hessians_of_compositions_are_symmetric(name: str) -> None:
    """Up to three functions that mix elements follow one another, forward and back, and each of these again."""
    fun, point = COMPOSITIONS[name]
    vector_fun, vector = flattened(fun, *point)
    assert_symmetric(grad(vector_fun), vector, stages=3 * 4)


@KINDS
def test_hessian_of_a_network_is_symmetric(settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(0), **settings)
    vector_fun, vector = flattened(lambda p: autodiff.cross_entropy(network(p, x)[0], labels), parameters)
    assert_symmetric(grad(vector_fun), vector, stages=4 * stages(network))
