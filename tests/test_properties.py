"""Properties of the whole: derivatives on the tape, Eq. (8) as a factorisation, batches, and every array library."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import autodiff
import hcnn_core as hc
from autodiff import grad, primitive, tree_leaves, tree_map, tree_unflatten, value_and_grad, vjp
from autodiff.primitives import patch_covariance, patch_filter
from autodiff.tape import Primitive
from hcnn_core._tuning import tuned
from hcnn_core.backend import get_namespace
from hcnn_core.marginals import REDUCTIONS
from hcnn_core.testing import assert_adjoint, assert_linear, assert_translation_covariant, rounding_bound
from tests.core.oracle import (
    BOUNDARIES,
    DTYPES,
    ENGINES,
    SEEDS,
    C,
    NDArray,
    Problem,
    eps,
    noise,
    norm,
    problems,
    wide,
)
from tests.remote import Remote, put, take
from train.config import make_config
from train.network import Network, merge_factors

REAL = ("float32", "float64")


def largest(array: NDArray) -> float:
    return float(np.abs(array).max())


# Every derivative on the tape is the transpose of the linearisation, which is written out.


@dataclass(frozen=True)
class Case:
    """A function of arrays, which of them to differentiate by, and the derivative along a direction in plain NumPy."""

    fun: Callable[..., Any]
    operands: tuple[NDArray, ...]
    argnum: int
    along: Callable[[NDArray], NDArray] | None = None
    """None where the function is linear in this argument, and so its own derivative."""

    @property
    def x(self) -> NDArray:
        return self.operands[self.argnum]

    def at(self, x: Any) -> Any:
        return self.fun(*self.operands[: self.argnum], x, *self.operands[self.argnum + 1 :])

    def tangent(self, d: NDArray) -> NDArray:
        return np.asarray(self.at(d) if self.along is None else self.along(d), self.x.dtype)


def multilinear(name: str, fun: Callable[..., Any], *operands: NDArray) -> dict[str, Case]:
    return {f"{name}, argument {i}": Case(fun, operands, i) for i in range(len(operands))}


def convolutions(dtype: str) -> dict[str, Case]:
    x, w = noise(0, (2, 5, 6, 3), dtype), noise(1, (3, 2, 3, 2), dtype)
    axes = (2, 1)
    options: dict[str, Any] = {"sum_axes": 3, "boundary": ("periodic", "zero"), "stride": (1, 2)}
    g = noise(2, hc.convolve(x, w, axes, **options).shape, dtype)
    return {
        **multilinear("convolve", lambda x, w: autodiff.convolve(x, w, axes, **options), x, w),
        **multilinear("convolve_vjp_x", lambda g, w: autodiff.convolve_vjp_x(g, x.shape, w, axes, **options), g, w),
        **multilinear("convolve_vjp_w", lambda g, x: autodiff.convolve_vjp_w(g, x, w.shape, axes, **options), g, x),
    }


def permutations_and_sums(dtype: str) -> dict[str, Case]:
    x, y = noise(0, (4, 3, 5), dtype), noise(1, (3,), dtype)
    found = multilinear("translate", lambda x: autodiff.translate(x, (1, -2), (0, 2), boundary=("zero", "periodic")), x)
    for reduction in REDUCTIONS:
        option = {"reduction": reduction}
        found |= multilinear(f"marginal, {reduction}", lambda x, o=option: autodiff.marginal(x, (0, 2), **o), x)
        found |= multilinear(
            f"marginal_vjp, {reduction}", lambda g, o=option: autodiff.marginal_vjp(g, (4, 3, 5), (0, 2), **o), y
        )
    return found


def biased_elu(x: Any, bias: Any) -> Any:
    return autodiff.elu(x, bias=bias)


def rectifiers(dtype: str) -> dict[str, Case]:
    x, bias, g = noise(0, (4, 3, 5), dtype), noise(1, (3, 1), dtype), noise(2, (4, 3, 5), dtype)
    c = x + bias
    slope = np.where(c > 0, 1, np.exp(c))
    biased, cotangent = (x, bias), (g, hc.elu(c))
    return {
        "elu": Case(autodiff.elu, (c,), 0, lambda d: slope * d),
        "elu, argument 0": Case(biased_elu, biased, 0, lambda d: slope * d),
        "elu, argument 1": Case(biased_elu, biased, 1, lambda d: slope * d),
        "elu_vjp, argument 0": Case(autodiff.elu_vjp, cotangent, 0, lambda d: slope * d),
        "elu_vjp, argument 1": Case(autodiff.elu_vjp, cotangent, 1, lambda d: g * (c < 0) * d),
    }


def layers(dtype: str) -> dict[str, Case]:
    x, w, bias = noise(0, (2, 5, 6, 3), dtype), noise(1, (3, 2, 3, 2), dtype), noise(2, (2,), dtype)
    axes = (2, 1)
    options: dict[str, Any] = {"sum_axes": 3, "boundary": ("periodic", "zero"), "stride": (1, 2)}
    c = hc.convolve(wide(x), wide(w), axes, **options) + bias
    slope = np.where(c > 0, 1, np.exp(c))
    along = (
        lambda d: slope * hc.convolve(d, w, axes, **options),
        lambda d: slope * hc.convolve(x, d, axes, **options),
        lambda d: slope * d,
    )
    fun = functools.partial(autodiff.convolve_elu, axes=axes, **options)
    return {f"convolve_elu, argument {i}": Case(fun, (x, w, bias), i, f) for i, f in enumerate(along)}


def factored_layers(dtype: str) -> dict[str, Case]:
    x, h, shift = noise(0, (2, 4, 17, 6, 5), dtype), noise(1, (3, 2, 3), dtype), noise(2, (3,), dtype)
    g, bias = noise(3, (3, 3, 4, 2), dtype), noise(4, (2,), dtype)
    boundary, stride = ("periodic", "zero", "zero", "periodic"), (1, 1, 2, 1)
    first: dict[str, Any] = {"axes": (1, 2), "boundary": boundary[:2]}
    second: dict[str, Any] = {"axes": (3, 4), "boundary": boundary[2:], "stride": stride[2:], "sum_axes": 5}
    inner = hc.convolve(wide(x), wide(h), **first) + shift
    z = hc.elu(inner)
    outer = hc.convolve(z, wide(g), **second) + bias
    slopes = [np.where(c > 0, 1, np.exp(c)) for c in (inner, outer)]

    def through(d: NDArray) -> NDArray:
        return slopes[1] * hc.convolve(slopes[0] * d, g, **second)

    along = (
        lambda d: through(hc.convolve(d, h, **first)),
        lambda d: through(hc.convolve(x, d, **first)),
        lambda d: through(np.broadcast_to(d, inner.shape)),
        lambda d: slopes[1] * hc.convolve(z, d, **second),
        lambda d: slopes[1] * d,
    )
    fun = functools.partial(autodiff.factored_layer, h_axes=(1, 2), g_axes=(3, 4), boundary=boundary, stride=stride)
    return {f"factored_layer, argument {i}": Case(fun, (x, h, shift, g, bias), i, f) for i, f in enumerate(along)}


def patches(x: NDArray, boundary: str) -> NDArray:
    """The 3 x 3 patches of x, (positions, 9): a tap alone, convolved with x, is x translated."""
    taps = np.eye(9).reshape(3, 3, 9)
    return np.reshape(hc.convolve(wide(x), taps, (1, 2), boundary=boundary, method="direct"), (-1, 9))


def moments(dtype: str, boundary: str) -> dict[str, Case]:
    x, y = noise(0, (3, 4, 5, 2), dtype), noise(1, (3, 4, 5, 2), dtype)
    c, m = noise(2, (9,), dtype), noise(3, (9, 9), dtype)
    options: dict[str, Any] = {"axes": (1, 2), "kernel_size": 3, "boundary": boundary}
    centred = patches(x, boundary) - patches(x, boundary).mean(0)

    def both(x: Any) -> Any:
        mean, covariance = autodiff.patch_moments(x, **options)
        return np.concatenate([mean, np.reshape(covariance, (-1,))])

    def both_along(d: NDArray) -> NDArray:
        rows = patches(d, boundary)
        half = rows.T @ centred / len(rows)
        return np.concatenate([rows.mean(0), (half + half.T).ravel()])

    def filtered(c: Any, m: Any, x: Any) -> Any:
        return patch_filter(c, m, x, **options)

    return {
        f"patch_moments, {boundary}": Case(both, (x,), 0, both_along),
        **multilinear(f"patch_covariance, {boundary}", lambda x, y: patch_covariance(x, y, **options), x, y),
        f"patch_filter, {boundary}, argument 0": Case(filtered, (c, m, x), 0, lambda d: filtered(d, 0 * m, x)),
        f"patch_filter, {boundary}, argument 1": Case(filtered, (c, m, x), 1, lambda d: filtered(0 * c, d, x)),
        f"patch_filter, {boundary}, argument 2": Case(filtered, (c, m, x), 2, lambda d: filtered(0 * c, m, d)),
    }


def normalizations(dtype: str) -> dict[str, Case]:
    y, shift = noise(0, (3, 4, 2, 5), dtype), noise(1, (2, 1), dtype)
    scale, bias = 1 + noise(2, (5,), dtype) ** 2, noise(3, (5,), dtype)
    epsilon, everywhere = 0.1, (0, 1, 2)
    centred = wide(y) + shift - (wide(y) + shift).mean(everywhere)
    inverse = 1 / np.sqrt(centred.var(everywhere) + epsilon)
    normal = centred * inverse
    c = scale * normal + bias
    slope = np.where(c > 0, 1, np.exp(c))

    def all_results(*operands: Any) -> Any:
        ans, mean, variance = autodiff.normalize_elu(*operands, epsilon=epsilon)
        return np.concatenate([np.reshape(ans, (-1,)), mean, variance])

    def along_y(d: NDArray) -> NDArray:
        d = np.broadcast_to(d, y.shape)
        mean, variance = d.mean(everywhere), 2 * (centred * d).mean(everywhere)
        of_normal = (d - mean) * inverse - normal * inverse**2 * variance / 2
        return np.concatenate([(slope * scale * of_normal).ravel(), mean, variance])

    def along_c(d: NDArray) -> NDArray:
        return np.concatenate([(slope * d).ravel(), np.zeros(10)])

    along = (along_y, along_y, lambda d: along_c(normal * d), along_c)
    return {
        f"normalize_elu, argument {i}": Case(all_results, (y, shift, scale, bias), i, f) for i, f in enumerate(along)
    }


def losses(dtype: str) -> dict[str, Case]:
    x, labels = noise(0, (4, 5), dtype), np.array([4, 0, 2, 2])
    p = scipy.special.softmax(wide(x), axis=-1)
    target = 0.9 * np.eye(5)[labels] + 0.1 / 5
    loss = functools.partial(autodiff.cross_entropy, label_smoothing=0.1)
    return {
        "log_softmax": Case(autodiff.log_softmax, (x,), 0, lambda d: d - np.sum(p * d, axis=-1, keepdims=True)),
        "cross_entropy": Case(loss, (x, labels), 0, lambda d: np.sum((p - target) * d) / len(labels)),
    }


@functools.cache
def cases(dtype: str) -> dict[str, Case]:
    """Everything in autodiff.primitives, by each argument."""
    found = {**convolutions(dtype), **permutations_and_sums(dtype)}
    if dtype in REAL:
        found |= {
            **rectifiers(dtype),
            **layers(dtype),
            **factored_layers(dtype),
            **moments(dtype, "zero"),
            **moments(dtype, "periodic"),
            **normalizations(dtype),
            **losses(dtype),
        }
    return found


EVERY = pytest.mark.parametrize(("dtype", "name"), [(dtype, name) for dtype in DTYPES for name in cases(dtype)])


def test_the_table_names_every_primitive() -> None:
    named = {name.partition(",")[0] for name in cases("float64")}
    known = {value.__name__ for value in vars(autodiff.primitives).values() if isinstance(value, Primitive)}
    assert known | {"cross_entropy"} == named


def direction(case: Case) -> NDArray:
    return noise(9, case.x.shape, str(case.x.dtype))


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


MISTAKES: dict[str, Callable[[NDArray, int], NDArray]] = {
    "another sign": lambda g, place: -g,
    "twice": lambda g, place: 2 * g,
    "one element forgotten": lambda g, place: np.where(np.arange(g.size).reshape(g.shape) == place, 0, g),
    "one sample off": lambda g, place: np.roll(g, 1),
    "conjugated": lambda g, place: np.conj(g),
}


@EVERY
def test_the_dot_test_notices_mistakes(dtype: str, name: str) -> None:
    case = cases(dtype)[name]
    transpose, x = pull(case), direction(case)
    y = noise(10, np.shape(case.at(case.x)), dtype)
    cotangent = transpose(y)
    place = int(np.argmax(np.abs(cotangent * x)))  # the element that counts most, whichever rounding would prefer
    changes = [change for change in MISTAKES.values() if not np.allclose(change(cotangent, place), cotangent)]
    assert len(changes) >= (3 if dtype in REAL else 4)  # nothing to conjugate, nothing that depends on the place
    for change in changes:
        with pytest.raises(AssertionError, match="adjoint is not the adjoint of op"):
            assert_adjoint(case.tangent, lambda g, change=change: change(transpose(g), place), x, y)


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


@given(problems(max_axes=3), SEEDS, ENGINES)
def test_convolution_on_the_tape(problem: Problem, seed: int, constants: dict[str, int]) -> None:
    x, w, dtype = problem.x, problem.w, str(problem.x.dtype)
    d_x, d_w = noise(seed, x.shape, dtype), noise(seed + 1, w.shape, dtype)
    with tuned(**constants):
        y, pullback = vjp(lambda x, w: problem.run(autodiff.convolve, x, w), x, w)
        g = noise(seed + 2, y.shape, dtype)
        g_x, g_w = pullback(g)
        (pushed,) = vjp(pullback, g)[1]((d_x, d_w))
    tangent = wide(problem.run(hc.convolve, d_x, w)) + problem.run(hc.convolve, x, d_w)
    # two convolutions, each C eps off, whichever way they are computed
    bound = 2 * C * eps(dtype) * (norm(d_x) * norm(w) + norm(x) * norm(d_w))
    assert largest(pushed - tangent) <= bound
    pulled = np.sum(wide(g_x) * d_x) + np.sum(wide(g_w) * d_w)
    assert abs(np.sum(wide(g) * tangent) - pulled) <= bound * norm(g)


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


def rectified(x: Any, w: Any, bias: Any) -> Any:
    return autodiff.elu(autodiff.convolve(x, w, (1, 2), **STRIDED), bias=bias)


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


def small_network(
    rng: np.random.Generator, dtype: str = "float64", **changes: Any
) -> tuple[Network, Any, NDArray, NDArray]:
    """A network of four layers, its weights, four images and their labels."""
    settings = {"depth": 5, "width": 4, "factors": 3, "attribute_kernel": (3, 5), "strided_layers": (4,)}
    network = Network(make_config("hcnn", {**settings, "dtype": dtype, **changes}), image_size=6, classes=3)
    parameters = network.initialize(rng)
    for weights in parameters.values():
        if "bias" in weights:
            weights["bias"] += rng.standard_normal(weights["bias"].shape).astype(dtype)
    return network, parameters, rng.standard_normal((4, 6, 6, 3)).astype(dtype), np.array([0, 2, 1, 2])


def stages(network: Network) -> int:
    """Sums that follow one another: convolutions, moments, and the marginals of the head."""
    return sum(1 + bool(layer.factors) + layer.nonlinear for layer in network.table) + 1


KINDS = pytest.mark.parametrize(
    "settings",
    [
        {"boundary": "zero"},
        {"boundary": "periodic", "head": "sum"},
        {"boundary": "zero", "nonlinear_factors": True},
        {"boundary": "periodic", "nonlinear_factors": True, "reduction": "sum"},
    ],
    ids=["plain, zero", "plain, periodic", "plus, zero", "plus, periodic"],
)


@KINDS
def test_hessian_of_a_network_is_symmetric(settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(0), **settings)
    vector_fun, vector = flattened(lambda p: autodiff.cross_entropy(network(p, x)[0], labels), parameters)
    assert_symmetric(grad(vector_fun), vector, stages=4 * stages(network))


def test_symmetry_notices_what_is_no_gradient() -> None:
    wrong = primitive(lambda x: x**3)
    autodiff.defvjp(wrong, lambda ans, x: lambda g: 3 * np.square(x[::-1]) * g)
    twice = primitive(lambda x: x**2)  # right once, wrong where its derivative is differentiated
    derivative = primitive(lambda g, x: 2 * g * x)
    autodiff.defvjp(twice, lambda ans, x: lambda g: derivative(g, x))
    autodiff.defvjp(
        derivative, lambda ans, g, x: lambda h: 2 * h * x, lambda ans, g, x: lambda h: 2 * np.roll(h, 1) * g
    )

    def fun(power: Any) -> Callable[[Any], Any]:
        return lambda x: np.sum(np.tanh(autodiff.convolve(power(x), W[0, :, 0], 0, boundary="periodic")))

    x = X[0, 0]
    assert_symmetric(grad(fun(lambda x: x**3)), x, stages=3 * 4)
    for mistaken in (wrong, twice):
        with pytest.raises(AssertionError, match="adjoint is not the adjoint of op"):
            assert_symmetric(grad(fun(mistaken)), x, stages=3 * 4)


# Eq. (8): nine separable terms are every filter, fewer are not.


def factor(w: NDArray, count: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Factors h (Q, 3, 3) and g (Q, s1, s2, K) whose merged filter is w, or as near to w as Q < 9 terms come.

    Of w = U S V^T, as a matrix (9, s1 s2 K), h_q is a column of U and g_q a row of U^T w = S V^T, the leading ones.
    More than nine are U O and O^T U^T w for any O (9, Q) with O O^T = 1. Merging divides by sigma_q = |h_q|.
    """
    matrix = w.reshape(9, -1)
    u = np.linalg.svd(matrix)[0][:, : min(count, 9)]
    mix = np.linalg.qr(rng.standard_normal((count, 9)))[0].T.astype(w.dtype) if count > 9 else np.eye(count)
    h = (u @ mix).T
    g = np.linalg.norm(h, axis=1, keepdims=True) * (h @ matrix)
    return h.astype(w.dtype).reshape(-1, 3, 3), g.astype(w.dtype).reshape(-1, *w.shape[2:])


def merge(h: NDArray, g: NDArray, boundary: str = "zero") -> tuple[NDArray, NDArray]:
    """The merged filter and its shift for patches that need no normalisation: mean 0, covariance 1."""
    mean, covariance = np.zeros(9, h.dtype), np.eye(9, dtype=h.dtype)
    w, shift = merge_factors(h, g, mean, covariance, lengths=(4, 8), stride=(2, 2), boundary=boundary, epsilon=0)
    return w, shift


FACTORED = 3 * C
"""How far merged factors may be from their filter, in eps |w|: C each for the decomposition, which is backward stable,
for its products, and for merging them. In double precision that is 1.3e-14, so 1e-12 leaves room for rounding alone."""


@st.composite
def filters(draw: st.DrawFn) -> NDArray:
    """Filters (3, 3, s1, s2, K), some of fewer than nine columns and so of a lower rank."""
    sizes = draw(st.tuples(st.integers(1, 7), st.integers(1, 11), st.integers(1, 3)))
    return noise(draw(SEEDS), (3, 3, *sizes), draw(st.sampled_from(REAL)))


@given(filters(), st.sampled_from([9, 10, 16, 32]), SEEDS)
def test_nine_terms_are_every_filter(w: NDArray, count: int, seed: int) -> None:
    h, g = factor(w, count, np.random.default_rng(seed))
    merged, shift = merge(h, g)
    assert h.shape[0] == g.shape[0] == count and merged.dtype == w.dtype and merged.shape == w.shape
    assert norm(wide(merged) - w) <= FACTORED * eps(w.dtype) * norm(w)
    assert FACTORED * eps("float64") < 1e-12
    assert not shift.any()


@given(st.integers(1, 8), SEEDS)
def test_fewer_terms_miss_what_they_discard(count: int, seed: int) -> None:
    """Eckart and Young: the best Q terms are off by the singular values left out, and other terms by no less."""
    w = noise(seed, (3, 3, 3, 4, 2), "float64")
    rng = np.random.default_rng(seed)
    discarded = np.linalg.svd(w.reshape(9, -1), compute_uv=False)[count:]
    rounding = FACTORED * eps("float64") * norm(w)
    error = norm(merge(*factor(w, count, rng))[0] - w)
    assert abs(error - norm(discarded)) <= rounding
    assert error > 1e6 * rounding
    h = rng.standard_normal((count, 9))
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    g = np.linalg.lstsq(h.T, w.reshape(9, -1), rcond=None)[0]
    assert norm(merge(h.reshape(-1, 3, 3), g.reshape(-1, *w.shape[2:]))[0] - w) >= error - rounding


def third_layer(w: NDArray, boundary: str, *, plus: bool, offset: float) -> Callable[[NDArray], NDArray]:
    """x_3 of x_2, (N, u, u, v1, v2) -> (N, u, u, v1', v2', K), with the factors of w and `offset` as its bias."""
    changes = {"depth": 4, "width": 4, "factors": 12, "attribute_kernel": w.shape[2:4], "dtype": "float64"}
    config = make_config("hcnn", {**changes, "boundary": boundary, "nonlinear_factors": plus, "epsilon": 0.0})
    network = Network(config, image_size=6, classes=w.shape[-1])
    h, g = factor(w, config.factors, np.random.default_rng(0))
    parameters = {"layer03": {"h": h, "g": g, "bias": np.full(w.shape[-1], offset)}}
    plain = {"layer03": (np.zeros(9), np.eye(9))}
    return lambda x: next(network.trace(parameters, x, plain, after=2))[1]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_plain_layer_is_every_convolution_and_the_plus_layer_is_not(boundary: str) -> None:
    x, w = noise(30, (2, 6, 6, 2, 4), "float64"), noise(31, (3, 3, 3, 5, 4), "float64")
    expected = hc.convolve(x, w, (1, 2, 3, 4), boundary=boundary, stride=(1, 1, 2, 2))
    # rho keeps distances or shrinks them; one convolution with w, one with a filter that is not quite w
    bound = (2 * C + FACTORED) * eps("float64") * norm(x) * norm(w)
    plain, plus = (third_layer(w, boundary, plus=p, offset=0.0) for p in (False, True))
    assert largest(plain(x) - hc.elu(expected)) <= bound
    assert largest(plus(x) - hc.elu(expected)) > 0.1

    # above its kink rho is the identity, and the plain layer a convolution; (+) has another rho inside
    offset = 8 * norm(x) * norm(w)
    plain, plus = (third_layer(w, boundary, plus=p, offset=offset) for p in (False, True))
    assert_linear(lambda x: plain(x) - offset, x)
    with pytest.raises(AssertionError, match="op is not linear"):
        assert_linear(lambda x: plus(x) - offset, x)


# The order of a batch does not matter.

ORDER = np.array([2, 0, 3, 1])


def each_in_its_unit(units: Any, results: Any) -> NDArray:
    """Arrays of many sizes as one vector: each divided by the largest element of its unit."""
    pairs = zip(tree_leaves(results), tree_leaves(units), strict=True)
    return np.concatenate([np.ravel(result) / (largest(unit) or 1.0) for result, unit in pairs])


def training_step(network: Network, parameters: Any, x: Any, labels: Any) -> dict[str, Any]:
    """What a batch, normalised by its own moments, gives."""

    def loss(parameters: Any) -> Any:
        logits, moments = network(parameters, x)
        return autodiff.cross_entropy(logits, labels), {"logits": logits, "moments": moments}

    (value, results), gradients = value_and_grad(loss, has_aux=True)(parameters)
    return {**results, "loss": value, "gradients": gradients}


def effect_of_order(
    step: Callable[[NDArray, NDArray], dict[str, Any]], x: NDArray, labels: NDArray, stages: int
) -> tuple[float, float]:
    """How far a step, its logits put back in order, is from the same on reordered images, and may be."""
    units = step(x, labels)
    reordered = step(x[ORDER], labels[ORDER])
    expected = {**units, "logits": units["logits"][ORDER]}
    error = largest(each_in_its_unit(units, reordered) - each_in_its_unit(units, expected))
    return error, rounding_bound(lambda x: each_in_its_unit(units, step(x, labels)), x, stages=stages)


@KINDS
def test_the_order_of_images_does_not_matter_in_training(settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(1), **settings)
    error, bound = effect_of_order(
        lambda x, labels: training_step(network, parameters, x, labels), x, labels, 2 * stages(network)
    )
    assert error <= bound


@KINDS
def test_the_order_of_images_does_not_matter_in_evaluation(settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(2), **settings)
    _, seen = network(parameters, noise(40, x.shape, "float64"))

    def logits(x: NDArray) -> NDArray:
        return np.asarray(network(parameters, x, seen)[0])

    error, bound = effect_of_order(lambda x, _: {"logits": logits(x)}, x, labels, stages(network))
    assert error <= bound
    assert_translation_covariant(logits, x, 0, stages=stages(network))  # from image to image


def test_what_depends_on_the_order_is_noticed() -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(3), boundary="zero")
    scale = np.linspace(0.99, 1.01, len(x)).reshape(-1, 1, 1, 1)

    def by_index(x: NDArray, labels: NDArray) -> dict[str, Any]:
        return training_step(network, parameters, x * scale, labels)

    def by_the_first(x: NDArray, labels: NDArray) -> dict[str, Any]:
        return {"logits": network(parameters, x, network(parameters, x[:1])[1])[0]}

    for step in (by_index, by_the_first):
        error, bound = effect_of_order(step, x, labels, 2 * stages(network))
        assert error > 1e-4 > 1e3 * bound
    with pytest.raises(AssertionError, match="op is not covariant to translations"):
        assert_translation_covariant(lambda x: by_the_first(x, labels)["logits"], x, 0, stages=stages(network))


# The tape and the network on arrays of every library.


@dataclass(frozen=True)
class Library:
    """An array library: how trees of arrays get there and back, and the type of its arrays."""

    put: Callable[[Any], Any]
    take: Callable[[Any], Any]
    kind: type


def on_gpu() -> Library:
    cupy = get_namespace("cupy")
    return Library(
        lambda tree: tree_map(cupy.asarray, tree),
        lambda tree: tree_map(cupy.asnumpy, tree),
        cupy.ndarray,
    )


@pytest.fixture(params=["stand-in", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(put, take, Remote) if request.param == "stand-in" else on_gpu()


def assert_same(library: Library, function: Callable[..., Any], x: NDArray, *others: Any, stages: int = 1) -> None:
    """The same values from the library as from NumPy, in the library's own arrays of the same dtypes and shapes."""
    expected, found = function(x, *others), function(library.put(x), *library.put(others))
    pairs: Any = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    for one, other in pairs:
        assert isinstance(one, library.kind) and (one.dtype, one.shape) == (other.dtype, np.shape(other))
    error = each_in_its_unit(expected, tree_map(lambda a, b: a - b, library.take(found), expected))
    bound = rounding_bound(lambda x: each_in_its_unit(expected, function(x, *others)), x, stages=stages)
    assert largest(error) <= bound


@pytest.mark.parametrize(("dtype", "name"), [(d, n) for d in ("float32", "complex64") for n in cases(d)])
def test_derivatives_in_every_library(library: Library, dtype: str, name: str) -> None:
    """Value, transposed derivative and derivative; what other tests hold for them on NumPy holds elsewhere."""
    case = cases(dtype)[name]

    def all_three(x: Any, others: Any, d: Any, g: Any) -> Any:
        y, pullback = vjp(lambda x: case.fun(*others[: case.argnum], x, *others[case.argnum :]), x)
        return [y, pullback(g)[0], vjp(lambda g: pullback(g)[0], g)[1](d)[0]]

    others = case.operands[: case.argnum] + case.operands[case.argnum + 1 :]
    assert_same(library, all_three, case.x, others, direction(case), noise(10, np.shape(case.at(case.x)), dtype))


@KINDS
@pytest.mark.parametrize("dtype", REAL)
def test_training_in_every_library(library: Library, dtype: str, settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(4), dtype, **settings)

    def step(x: Any, parameters: Any, labels: Any) -> Any:
        return training_step(network, parameters, x, labels)

    assert_same(library, step, x, parameters, labels, stages=2 * stages(network))


@KINDS
@pytest.mark.parametrize("dtype", REAL)
def test_evaluation_in_every_library(library: Library, dtype: str, settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(5), dtype, **settings)
    _, seen = network(parameters, noise(50, x.shape, dtype))

    def evaluation(x: Any, parameters: Any, seen: Any, labels: Any) -> Any:
        logits, _ = network(parameters, x, seen)
        return [logits, hc.cross_entropy(logits, labels)]

    assert_same(library, evaluation, x, parameters, seen, labels, stages=stages(network))


def test_the_comparison_of_libraries_notices_differences() -> None:
    """A thousand roundings, another dtype, and an array that came back."""
    here = Library(put, take, Remote)
    x = noise(0, (4, 5), "float32")
    assert_same(here, np.tanh, x)
    for change in (lambda y: y * (1 + 1e-4), lambda y: y.astype("float64"), take):
        with pytest.raises(AssertionError):
            assert_same(here, lambda x, change=change: change(np.tanh(x)) if isinstance(x, Remote) else np.tanh(x), x)


def test_the_stand_in_refuses_what_cupy_refuses() -> None:
    x = put(np.ones((2, 3)))
    with pytest.raises(TypeError, match="implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError, match="a NumPy array among arrays of another device"):
        np.concatenate([x, np.ones((2, 3))])
    with pytest.raises(TypeError, match="a NumPy array among arrays of another device"):
        autodiff.elu(x) * np.ones(3)
    with pytest.raises(TypeError, match="arrays of NumPy and tests in one call"):
        autodiff.convolve(x, np.ones(3), 1, boundary="zero")
