"""One result on every array library: array-api-strict on its second device stands in for CuPy.

Its arrays refuse to become NumPy's, to mix with another device's, and to take NumPy's scalars, which is what fails
on CuPy. The same comparison runs on CuPy where there is a GPU.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

import hcnn_core
from hcnn_core import (
    adamw_update,
    batch_normalize,
    batch_normalize_vjp,
    convolve,
    convolve_elu,
    convolve_vjp_w,
    convolve_vjp_x,
    correlate,
    correlate_vjp_w,
    correlate_vjp_x,
    cross_entropy,
    elu,
    elu_vjp,
    factored,
    factored_layer,
    log_softmax,
    marginal,
    marginal_vjp,
    matmul,
    max_pool,
    mean_pool,
    mean_pool_vjp,
    muon_update_all,
    normalize_elu,
    normalize_elu_vjp,
    normalize_filters,
    normalize_filters_vjp,
    patch_moments,
    patch_moments_vjp,
    relu,
    relu_vjp,
    sgd_update_all,
    translate,
    translate_vjp,
)
from hcnn_core import backend as _backend
from hcnn_core._tuning import Tuning, tuned
from hcnn_core.backend import array_namespace, get_namespace, to_numpy
from hcnn_core.pooling import make_windows, maxima_and_taps, picked_samples_vjp
from tests.core.oracle import BOUNDARIES, DTYPES, EXTENSIONS, C, NDArray, Problem, eps, noise, norm, wide

DEVICE = array_api_strict.Device("device1")


@dataclass(frozen=True)
class Library:
    """An array library: how arrays get there and back, and whether one is there."""

    put: Callable[[NDArray], Any]
    take: Callable[[Any], NDArray]
    holds: Callable[[Any], bool]


def strict_to_numpy(array: Any) -> NDArray:
    return np.asarray(array_api_strict.asarray(array, device=array_api_strict.Device("CPU_DEVICE")))


def strict() -> Library:
    return Library(
        lambda a: array_api_strict.asarray(a, device=DEVICE),
        strict_to_numpy,
        lambda a: isinstance(a, type(array_api_strict.asarray(0))) and a.device == DEVICE,
    )


def on_gpu() -> Library:
    cupy = get_namespace("cupy")
    return Library(cupy.asarray, cupy.asnumpy, lambda a: isinstance(a, cupy.ndarray))


@pytest.fixture(params=["strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request: pytest.FixtureRequest) -> Library:
    return {"strict": strict, "cupy": on_gpu}[request.param]()


def assert_parity(
    library: Library, function: Callable[..., Any], *operands: NDArray, scale: float | Sequence[float] | None = None
) -> None:
    """The same values from the library as from NumPy, in the library's own arrays, its operands unchanged.

    The scale of rounding errors is that of all results, or there is one for each; without it, the operands' product.
    """
    arrays = [library.put(a) for a in operands]
    expected, actual = function(*operands), function(*arrays)
    if not isinstance(expected, tuple):
        expected, actual = (expected,), (actual,)
    if scale is None:
        scale = functools.reduce(lambda s, a: s * norm(a), operands, 1.0)
    scales = scale if isinstance(scale, Sequence) else [scale] * len(expected)
    for one, other, factor in zip(expected, actual, scales, strict=True):
        assert library.holds(other)
        found = library.take(other)
        assert found.dtype == one.dtype and found.shape == np.shape(one)
        if found.size:
            assert np.abs(wide(found) - wide(np.asarray(one))).max() <= 2 * C * eps(one.dtype) * factor
    for array, before in zip(arrays, operands, strict=True):
        assert np.array_equal(library.take(array), before)


def assert_maps_parity(library: Library, problem: Problem) -> None:
    """A convolution and both of its cotangents."""
    x, w, g = problem.x, problem.w, noise(2, problem.y_shape, str(problem.x.dtype))
    assert_parity(library, lambda x, w: problem.run(convolve, x, w), x, w)
    assert_parity(library, lambda g, w: problem.run(convolve_vjp_x, g, x.shape, w), g, w)
    assert_parity(library, lambda g, x: problem.run(convolve_vjp_w, g, x, w.shape), g, x)


METHODS = ("direct", "fft", ("direct", "fft"), "auto")


@pytest.mark.parametrize("limit", [Tuning().matrix_macs, 0], ids=["matrices", "library"])
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolution(library: Library, dtype: str, boundary: str, method: Any, limit: int) -> None:
    x, w = noise(0, (3, 5, 6, 2), dtype), noise(1, (2, 3, 8, 3), dtype)
    options = {"boundary": boundary, "stride": (1, 2), "sum_axes": 3, "method": method}
    with tuned(matrix_macs=limit):
        assert_maps_parity(library, Problem(x, w, (1, 2), options))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("axes", [(1,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_direct_convolution_of_long_rows(library: Library, boundary: str, axes: tuple[int, ...], stride: int) -> None:
    x, w = noise(0, (20, 9, 8, 7), "float32"), noise(1, (*(3, 4, 2)[: len(axes)], 2), "float32")
    options = {"boundary": boundary, "stride": stride, "method": "direct"}
    assert_maps_parity(library, Problem(x, w, axes, options))


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("boundary", [("reflect", "mirror"), ("nearest", "reflect"), ("mirror", "zero")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_boundaries_that_no_engine_knows(library: Library, dtype: str, boundary: Any, method: str) -> None:
    x, w, bias = noise(0, (3, 5, 6, 2), dtype), noise(1, (2, 3, 8, 3), dtype), noise(3, (3,), dtype)
    options = {"boundary": boundary, "stride": (1, 2), "sum_axes": 3, "method": method}
    problem = Problem(x, w, (1, 2), options)
    g = noise(2, problem.y_shape, dtype)
    assert_maps_parity(library, problem)
    assert_parity(library, lambda x, w: problem.run(correlate, x, w), x, w)
    assert_parity(library, lambda g, w: problem.run(correlate_vjp_x, g, x.shape, w), g, w)
    if dtype.startswith("float"):
        assert_parity(
            library, lambda x, w, b: problem.run(convolve_elu, x, w, b), x, w, bias,
            scale=norm(x) * norm(w) + norm(bias),
        )  # fmt: skip


def without_doubles(device: str) -> Library:
    place = array_api_strict.Device(device)
    put = lambda a: array_api_strict.asarray(a, device=place)  # noqa: E731
    return Library(put, strict_to_numpy, lambda a: a.device == place)


@pytest.mark.parametrize("device", ["no_float64", "no_x64"])
def test_devices_without_double_precision(device: str) -> None:
    """Every function that sums in double precision elsewhere; a GPU of Apple's has none."""
    library = without_doubles(device)
    x, g, k, e = noise(0, (4, 6, 3), "float32"), noise(1, (4, 6, 3), "float32"), noise(2, (3,), "float32"), 1e-3
    size = norm(x) * norm(g)
    assert_parity(library, lambda x, k: batch_normalize(x, k, k, epsilon=e), x, k, scale=size)
    assert_parity(library, lambda x, k: normalize_elu(x, k, k, k, epsilon=e), x, k, scale=size)
    assert_parity(library, lambda g, x, k: normalized_vjp(batch_normalize_vjp, g, k, x, k, k), g, x, k, scale=size**2)
    assert_parity(library, lambda g, x, k: normalized_vjp(normalize_elu_vjp, g, k, x, k, k, k), g, x, k, scale=size**2)
    where: Any = (1, 2), (3, 2)
    assert_parity(library, lambda x: patch_moments(x, *where, boundary="zero"), x)
    mean, covariance = noise(3, (6,), "float32"), noise(4, (6, 6), "float32")
    pull = lambda m, c, x: patch_moments_vjp(m, c, x, *where, boundary="zero")  # noqa: E731
    assert_parity(library, pull, mean, covariance, x, scale=norm(x) * norm(covariance) + norm(mean))
    logits, labels = noise(5, (4, 3), "float32"), np.array([0, 2, 1, 1], np.int32)
    for smoothing in (0.0, 0.1):
        assert_parity(library, lambda z, n, s=smoothing: cross_entropy(z, n, label_smoothing=s), logits, labels)
    assert_parity(library, log_softmax, logits)


def normalized_vjp(vjp: Callable[..., Any], g: Any, k: Any, y: Any, *rest: Any) -> Any:
    """A pullback of a normalisation with the moments that its forward pass returns."""
    from hcnn_core.normalization import batch_normalized_and_moments

    moments = batch_normalized_and_moments(y if len(rest) == 2 else y + rest[0], *rest[-2:], epsilon=1e-3)[-1]
    return vjp(g, k, k, y, *rest, moments, epsilon=1e-3)


def test_convolution_of_nothing(library: Library) -> None:
    x, w = np.ones((0, 4), np.float32), np.ones((3, 2), np.float32)
    assert_parity(library, lambda x, w: convolve(x, w, 0, boundary="zero"), x, w)
    assert_parity(library, lambda g, w: convolve_vjp_x(g, (0, 4), w, 0, boundary="zero"), np.ones((0, 4, 2), "f4"), w)
    assert_parity(library, lambda g, x: convolve_vjp_w(g, x, (3, 2), 0, boundary="zero"), np.ones((0, 4, 2), "f4"), x)


def test_convolution_of_mixed_dtypes(library: Library) -> None:
    x, w = noise(0, (4, 5), "float32"), noise(1, (3, 2), "complex128")
    assert_parity(library, lambda x, w: convolve(x, w, 1, boundary="periodic"), x, w)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("axes", "kernel_size"), [((1,), 3), ((2, 1), (2, 3)), ((0, 1, 2), 2)])
def test_moments(library: Library, dtype: str, boundary: str, axes: tuple[int, ...], kernel_size: Any) -> None:
    x = noise(0, (4, 6, 5), dtype) + np.asarray(3, dtype)
    taps = np.prod(kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * len(axes))
    g_mean, g_covariance = noise(1, (taps,), dtype), noise(2, (taps, taps), dtype)
    options: dict[str, Any] = {"boundary": boundary}
    assert_parity(library, lambda x: patch_moments(x, axes, kernel_size, **options), x, scale=np.square(x).mean())
    assert_parity(
        library,
        lambda m, c, x: patch_moments_vjp(m, c, x, axes, kernel_size, **options),
        g_mean,
        g_covariance,
        x,
        scale=(norm(g_mean) + norm(g_covariance) * norm(x)) * taps / x.size,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pointwise(library: Library, dtype: str) -> None:
    x, bias = noise(0, (4, 6, 5), dtype), noise(1, (6, 1), dtype)
    assert_parity(library, elu, x, scale=1.0)
    assert_parity(library, lambda x, bias: elu(x, bias=bias), x, bias, scale=1.0)
    assert_parity(library, elu_vjp, x, elu(x), scale=1.0)
    assert_parity(library, elu_vjp, bias, elu(x), scale=1.0)
    assert_parity(library, relu, x, scale=1.0)
    assert_parity(library, lambda x, bias: relu(x, bias=bias), x, bias, scale=1.0)
    assert_parity(library, relu_vjp, bias, relu(x), scale=1.0)
    assert_parity(library, elu_vjp, x.astype("float64"), elu(x).astype("float32"), scale=1.0)
    w, bias = noise(2, (3, 2), dtype), noise(3, (2,), dtype)
    assert_parity(
        library, lambda x, w, b: convolve_elu(x, w, b, 1, boundary="zero"), x, w, bias, scale=norm(x) * norm(w)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalization(library: Library, dtype: str) -> None:
    y, shift, g = (noise(i, shape, dtype) for i, shape in enumerate(((7, 5, 4), (5, 1), (7, 5, 4))))
    scale, bias, *of_moments = noise(3, (4, 4), dtype)
    given = y, shift, scale, bias
    assert_parity(library, functools.partial(normalize_elu, epsilon=0.1), *given, scale=10.0)
    moments = np.stack(normalize_elu(*given, epsilon=0.1)[1:])
    adjoint = functools.partial(normalize_elu_vjp, epsilon=0.1)
    assert_parity(library, adjoint, g, *of_moments, *given, moments, scale=100.0)
    given = y, scale, bias
    assert_parity(library, functools.partial(batch_normalize, epsilon=0.1), *given, scale=10.0)
    moments = np.stack(batch_normalize(*given, epsilon=0.1)[1:])
    adjoint = functools.partial(batch_normalize_vjp, epsilon=0.1)
    assert_parity(library, adjoint, g, *of_moments, *given, moments, scale=100.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pooling(library: Library, dtype: str) -> None:
    """In the memory order of the arguments, too."""
    x = noise(0, (3, 7, 2, 6), dtype).transpose(0, 1, 3, 2)
    options: dict[str, Any] = {"axes": (1, 2), "kernel_size": (3, 2), "stride": 2, "padding": (1, 0)}
    g = noise(1, mean_pool(x, **options).shape, dtype)
    assert_parity(library, lambda x: max_pool(x, **options), x, scale=1.0)
    ((axis, window),) = make_windows(x.shape, 1, 3, 2, 1)
    taps = lambda x: maxima_and_taps(x, axis, window)[1]  # noqa: E731
    of_one = noise(1, (3, window.out_length, 6, 2), dtype)
    assert_parity(library, lambda g, x: picked_samples_vjp(g, taps(x), axis, window), of_one, x, scale=1.0)
    assert_parity(library, lambda x: mean_pool(x, **options), x, scale=1.0)
    assert_parity(library, lambda g: mean_pool_vjp(g, x.shape, **options), g, scale=1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("tile", "width"), [(1, 2), (1 << 25, 17)])  # few positions, since each is a tile
def test_factored_layers(library: Library, dtype: str, tile: int, width: int) -> None:
    """As NumPy's, in tiles or whole, and so is the way back."""
    with tuned(expansion_elements=tile):
        check_factored_layers(library, dtype, width)


def check_factored_layers(library: Library, dtype: str, width: int = 17) -> None:
    x, shift, bias = noise(0, (3, 4, width, 6, 8), dtype), noise(2, (4,), dtype), noise(4, (2,), dtype)
    h, g = noise(1, (3, 3, 4), dtype), noise(3, (4, 3, 5, 2), dtype)
    options: dict[str, Any] = {"h_axes": (1, 2), "g_axes": (3, 4), "boundary": "zero", "stride": (1, 1, 2, 2)}
    five = (x, h, shift, g, bias)
    scale = (norm(x) * norm(h) + norm(shift) * x.size**0.5) * norm(g)
    assert_parity(library, functools.partial(factored_layer, **options), *five, scale=scale)
    y = factored_layer(*five, **options)
    c = noise(5, y.shape, dtype)
    scales = [norm(c) * (1 + scale) * (1 + norm(a)) for a in five]
    assert_parity(library, functools.partial(factored.factored_adjoints, **options), c, y, *five, scale=scales)


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "bool"])
@pytest.mark.parametrize("boundary", [*EXTENSIONS, ("zero", "periodic"), ("mirror", "zero")])
def test_translations(library: Library, dtype: str, boundary: Any) -> None:
    x = (10 * noise(0, (4, 6, 5), "float64")).astype(dtype)
    expected = translate(x, (2, -1), (2, 0), boundary=boundary)
    moved = translate(library.put(x), (2, -1), (2, 0), boundary=boundary)
    assert library.holds(moved) and np.array_equal(library.take(moved), expected)
    if dtype in DTYPES:
        assert_parity(library, lambda g: translate_vjp(g, (2, -1), (2, 0), boundary=boundary), x)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_marginals(library: Library, dtype: str, reduction: str) -> None:
    x = noise(0, (4, 6, 5), dtype)
    assert_parity(library, lambda x: marginal(x, (0, 2), reduction=reduction), x)
    assert_parity(library, lambda g: marginal_vjp(g, x.shape, (0, 2), reduction=reduction), x[0, :, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels_dtype", ["uint8", "int64"])
def test_loss(library: Library, dtype: str, labels_dtype: str) -> None:
    x, labels = noise(0, (4, 6), dtype), np.array([5, 0, 2, 2], labels_dtype)
    assert_parity(library, log_softmax, x, scale=1.0)
    for smoothing in (0, 0.1):
        loss = functools.partial(cross_entropy, label_smoothing=smoothing)
        assert_parity(library, loss, x, labels, scale=1.0)


def test_label_out_of_range_is_never_a_loss(library: Library) -> None:
    with np.errstate(invalid="ignore"):  # the stand-in divides as NumPy does
        loss = cross_entropy(library.put(np.zeros((2, 3))), library.put(np.array([0, 3])))
    assert np.isnan(library.take(loss))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("told", ["numbers", "arrays without axes"])
def test_steps_of_descent(library: Library, dtype: str, told: str) -> None:
    """Muon's iterations, and a root that is at least 1, carry roundings of the arrays on to the weights."""
    w, g, v, square = (noise(k, (4, 3), dtype) for k in range(4))
    square = 1 + square**2
    numbers = [np.asarray(number, dtype) for number in (0.1, 3)]
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decays": [0.01]}

    def number(array: Any) -> Any:
        return float(array) if told == "numbers" else array

    def sgd(w: Any, g: Any, v: Any, r: Any) -> Any:
        return tuple(one for (one,) in sgd_update_all([w], [g], [v], rate=number(r), **options))

    def muon(w: Any, g: Any, v: Any, r: Any) -> Any:
        return tuple(one for (one,) in muon_update_all([w], [g], [v], rate=number(r), **options, row_axes=[None]))

    scale = 10 * norm(w)
    for step in (sgd, muon):
        assert_parity(library, step, w, g, v, numbers[0], scale=scale)
    assert_parity(
        library, lambda w, g, v, s, r, t: adamw_update(w, g, v, s, rate=number(r), step=number(t), weight_decay=0.1),
        w, g, v, square, *numbers, scale=scale,
    )  # fmt: skip


# Which library arrays belong to, and what is refused.


@pytest.mark.parametrize(
    "arrays", [(), (np.ones(2),), (1.0, [2.0], (3.0,), np.float32(1)), (np.ones(2, int), True), ([[1], [2]],)]
)
def test_numpy_and_python_values_are_numpys(arrays: tuple[Any, ...]) -> None:
    assert array_namespace(*arrays) is np


def test_namespace_of_arrays_that_name_it() -> None:
    assert array_namespace(array_api_strict.asarray(1.0)) is array_api_strict
    assert array_namespace(array_api_strict.asarray(1.0), array_api_strict.ones(2, device=DEVICE)) is array_api_strict


def fake_cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An array of a type that says it is CuPy's, and the module it names."""
    module = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", module)
    kind = type("ndarray", (), {"__module__": "cupy", "get": lambda self: np.ones(2)})
    return kind()


def test_cupys_arrays_are_found_without_importing_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    array = fake_cupy(monkeypatch)
    assert array_namespace(array, array) is sys.modules["cupy"]
    assert to_numpy(array).tolist() == [1, 1]


CURE = (
    "arrays of CuPy and NumPy in one call: move them to one device first, "
    r"with cupy.asarray\(x\) to the GPU or cupy.asnumpy\(x\) to the host"
)


def test_mixing_cupy_and_numpy_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    array = fake_cupy(monkeypatch)
    for mixed in ((array, np.ones(2)), (np.ones(2), array)):
        with pytest.raises(TypeError, match=CURE):
            array_namespace(*mixed)
        with pytest.raises(TypeError, match=CURE):
            convolve(*mixed, 0, boundary="zero")


MIXED: dict[str, Callable[[Any, Any], Any]] = {
    "convolve": lambda a, b: convolve(a, b, 0, boundary="zero"),
    "convolve_vjp_x": lambda a, b: convolve_vjp_x(a, (2,), b, 0, boundary="zero"),
    "convolve_vjp_w": lambda a, b: convolve_vjp_w(a, b, (2,), 0, boundary="zero"),
    "convolve_elu": lambda a, b: convolve_elu(a, b, a, 0, boundary="zero"),
    "convolve_elu, its bias": lambda a, b: convolve_elu(a, a, b, 0, boundary="zero"),
    "factored_layer": lambda a, b: factored_layer(a, a, a, b, a, 0, 1, boundary="zero"),
    "elu": lambda a, b: elu(a, bias=b),
    "elu_vjp": elu_vjp,
    "relu": lambda a, b: relu(a, bias=b),
    "matmul": matmul,
    "cross_entropy": cross_entropy,
    "patch_moments_vjp": lambda a, b: patch_moments_vjp(a, a, b, 0, 1, boundary="zero"),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixing_libraries_is_refused_everywhere(name: str) -> None:
    one, other = np.ones(2), array_api_strict.ones(2)
    for mixed in ((one, other), (other, one)):
        with pytest.raises(
            TypeError, match="arrays of NumPy and array_api_strict in one call: make them arrays of one library"
        ):
            MIXED[name](*mixed)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MIXED)
def test_mixing_with_cupy_is_refused_everywhere(name: str) -> None:
    gpu = on_gpu().put(np.ones(2))
    for mixed in ((np.ones(2), gpu), (gpu, np.ones(2))):
        with pytest.raises(TypeError, match=CURE):
            MIXED[name](*mixed)


FOREIGN = type("Tensor", (), {"__module__": "torch", "shape": (2,), "__array__": lambda self: np.ones(2)})
TRACED = type("Traced", (), {"__module__": "autodiff.tape", "shape": (2,)})

MERGING: dict[str, Any] = {"lengths": (2,), "stride": 1, "boundary": "zero", "epsilon": 0.1}

ONE_ARRAY: dict[str, Callable[[Any], Any]] = {
    "convolve": lambda a: convolve(a, np.ones(2), 0, boundary="zero"),
    "convolve_vjp_x": lambda a: convolve_vjp_x(a, (2,), np.ones(2), 0, boundary="zero"),
    "convolve_vjp_w": lambda a: convolve_vjp_w(np.ones(2), a, (2,), 0, boundary="zero"),
    "correlate": lambda a: correlate(a, np.ones(2), 0, boundary="zero"),
    "correlate_vjp_x": lambda a: correlate_vjp_x(a, (2,), np.ones(2), 0, boundary="zero"),
    "correlate_vjp_w": lambda a: correlate_vjp_w(np.ones(2), a, (2,), 0, boundary="zero"),
    "elu": elu,
    "elu_vjp": lambda a: elu_vjp(np.ones(2), a),
    "translate": lambda a: translate(a, 1, 0, boundary="zero"),
    "patch_moments": lambda a: patch_moments(a, 0, 1, boundary="zero"),
    "patch_moments_vjp": lambda a: patch_moments_vjp(np.ones(1), np.ones((1, 1)), a, 0, 1, boundary="zero"),
    "convolve_elu": lambda a: convolve_elu(a, a, a, 0, boundary="zero"),
    "convolve_elu_marginal": lambda a: hcnn_core.convolve_elu_marginal(a, a, a, 0, 0, boundary="zero"),
    "factored_layer": lambda a: factored_layer(a, a, a, a, a, 0, 1, boundary="zero"),
    "marginal": lambda a: marginal(a, 0),
    "marginal_vjp": lambda a: marginal_vjp(a, (2, 3), 1),
    "log_softmax": log_softmax,
    "merge_factors": lambda a: hcnn_core.merge_factors(a, a, a, a, a, **MERGING),
    "merge_factors_vjp": lambda a: hcnn_core.merge_factors_vjp(a, a, a, a, a, a, a, **MERGING),
    "normalize_filters": lambda a: normalize_filters(a, np.ones(2), np.ones((2, 2)), epsilon=0.1),
    "normalize_filters_vjp": lambda a: normalize_filters_vjp(
        a, np.ones(1), np.ones((1, 2)), np.ones(2), np.ones((2, 2)), epsilon=0.1
    ),
    "matmul": lambda a: matmul(a, np.ones(2)),
    "normalize_elu": lambda a: hcnn_core.normalize_elu(a, a, a, a, epsilon=0.1),
    "normalize_elu_marginal": lambda a: hcnn_core.normalize_elu_marginal(a, a, a, a, 0, epsilon=0.1),
    "normalize_elu_vjp": lambda a: hcnn_core.normalize_elu_vjp(a, a, a, a, a, a, a, a, epsilon=0.1),
    "cross_entropy": lambda a: cross_entropy(a, [0, 1]),
    "relu": hcnn_core.relu,
    "relu_vjp": lambda a: hcnn_core.relu_vjp(np.ones(2), a),
    "batch_normalize": lambda a: hcnn_core.batch_normalize(a, a, a, epsilon=0.1),
    "batch_normalize_vjp": lambda a: hcnn_core.batch_normalize_vjp(a, a, a, a, a, a, a, epsilon=0.1),
    "max_pool": lambda a: hcnn_core.max_pool(a, 0, 2),
    "mean_pool": lambda a: hcnn_core.mean_pool(a, 0, 2),
    "mean_pool_vjp": lambda a: hcnn_core.mean_pool_vjp(a, (2,), 0, 2),
    "translate_vjp": lambda a: hcnn_core.translate_vjp(a, 1, 0, boundary="zero"),
    "linear_operator": lambda a: hcnn_core.linear_operator(a, (2,), 0, boundary="zero"),
    "explain": lambda a: hcnn_core.explain(a, a, 0, boundary="zero"),
    "sgd_update_all": lambda a: hcnn_core.sgd_update_all([a], [a], [a], rate=0.1, weight_decays=[0.0]),
    "muon_update_all": lambda a: hcnn_core.muon_update_all(
        [a], [a], [a], rate=0.1, weight_decays=[0.0], row_axes=[None]
    ),
    "adamw_update": lambda a: hcnn_core.adamw_update(a, a, a, a, rate=0.1, step=1),
}


UNITED = np.ones(2).view(type("Quantity", (np.ndarray,), {"units": "m"}))


def test_the_tables_name_every_public_function() -> None:
    assert set(ONE_ARRAY) == set(hcnn_core.__all__) - {
        "planning",
        "precision",
        "Shard",
        "wisdom",
    }  # which take no array


@pytest.mark.parametrize("name", ONE_ARRAY)
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (FOREIGN(), "expected a NumPy or CuPy array, got torch.Tensor$"),
        (TRACED(), "got autodiff.Traced; traced values want the function of the same name in autodiff"),
        (None, "expected a NumPy or CuPy array, got builtins.NoneType"),
        ("x", "expected a NumPy or CuPy array, got builtins.str"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), r"expected an array without a mask.*x.filled\(0\) decides for zeros"),
        (UNITED, r"expected an array without a unit, got .*Quantity; np\.asarray\(x\) leaves it out"),
    ],
    ids=["foreign", "traced", "None", "text", "masked", "united"],
)
def test_what_is_no_array_is_refused_everywhere(name: str, array: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ONE_ARRAY[name](array)


def test_subclasses_of_numpys_array_are_plain_arrays() -> None:
    array = np.eye(3).view(type("Named", (np.ndarray,), {}))
    assert type(convolve(array, np.ones(2), 0, boundary="zero")) is np.ndarray
    assert type(elu(array)) is np.ndarray
    assert type(translate(array, 1, 0, boundary="zero")) is np.ndarray


# Backends by name.


@pytest.mark.parametrize("backend", ["torch", "", "NumPy"])
def test_backends_of_another_name_are_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=f"backend is '{backend}'; choose 'auto', 'numpy' or 'cupy'"):
        get_namespace(backend)


def test_numpy_by_name() -> None:
    assert get_namespace("numpy") is np


def cupy_that(**behaviour: Any) -> types.ModuleType:
    """A module in CuPy's place: a driver, one device and memory, unless told otherwise."""
    module = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: behaviour.get("devices", 1),
    )
    if "driver" in behaviour:
        runtime.driverGetVersion = _raising(behaviour["driver"])
    module.cuda = types.SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    module.zeros = _raising(behaviour["memory"]) if "memory" in behaviour else np.zeros  # type: ignore[attr-defined]
    module.arange = _raising(behaviour["compiler"]) if "compiler" in behaviour else np.arange  # type: ignore[attr-defined]
    return module


def _raising(message: str) -> Callable[..., Any]:
    def fail(*args: Any) -> Any:
        raise RuntimeError(message)

    return fail


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "CuPy is not installed: install the extra cuda12 or cuda13"),
        (cupy_that(driver="no libcuda"), r"CuPy found no usable CUDA driver \(no libcuda\): install NVIDIA's driver"),
        (cupy_that(devices=0), "CuPy found no CUDA device: this machine shows no NVIDIA GPU"),
        (cupy_that(memory="out of memory"), r"CuPy cannot use the CUDA device \(out of memory\)"),
        (
            cupy_that(compiler="no libnvrtc.so\nsearched in"),
            r"CuPy cannot compile kernels \(no libnvrtc.so\): install the extra cuda13, which brings NVRTC and",
        ),
    ],
    ids=["not installed", "no driver", "no device", "no memory", "no compiler"],
)
def test_what_cupy_lacks_is_named(module: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", module)
    with pytest.raises(RuntimeError, match=message):
        get_namespace("cupy")
    assert get_namespace("auto") is np


def test_a_gpu_is_preferred_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = cupy_that()
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert get_namespace("cupy") is module and get_namespace("auto") is module


# The names used of a namespace exist in each of them.

SOURCES = sorted(Path(hcnn_core.__file__).parent.rglob("*.py"))
ROOTS = {"xp": "", "fft": "fft."}  # variables that hold a namespace, and where it lies in the library


def calls(sources: Iterable[Path]) -> Iterator[tuple[str, frozenset[str]]]:
    """Every name of a namespace that modules use, and the keywords it is called with."""
    for path in sources:
        tree = ast.parse(path.read_text("utf-8"))
        keywords = {
            node.func: frozenset(k.arg for k in node.keywords if k.arg)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
        }
        inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node not in inner:
                chain = ast.unparse(node).split(".")
                if chain[0] in ROOTS and chain[1] != "__name__":
                    yield ROOTS[chain[0]] + ".".join(chain[1:]), keywords.get(node, frozenset())


USED = sorted({(name, tuple(sorted(keywords))) for name, keywords in calls(SOURCES)})
OFF_GPU = sorted({(n, tuple(sorted(k))) for n, k in calls(p for p in SOURCES if p.parent.name != "cuda")})


def missing(module: Any, name: str, keywords: tuple[str, ...]) -> str | None:
    """What of a call a module lacks."""
    try:
        function = functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        return name
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None  # a type, or a function in C that does not say
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or "out" in keywords:
        return None
    return next((f"{name}({keyword}=)" for keyword in keywords if keyword not in parameters), None)


def test_the_names_are_found() -> None:
    names = {name for name, _ in USED}
    assert {"permute_dims", "matmul", "fft.irfft", "float64"} <= names
    assert ("asarray", ("copy",)) in USED
    assert missing(np, "permutate", ()) == "permutate" and missing(np, "roll", ("along",)) == "roll(along=)"


@pytest.mark.parametrize("module", [np, array_api_strict], ids=["numpy", "array_api_strict"])
def test_every_name_exists(module: Any) -> None:
    used = [call for call in OFF_GPU if module is np or not call[0].startswith("lib.")]  # asked for by hasattr
    assert [name for name in (missing(module, *call) for call in used) if name] == []


def test_every_name_exists_in_cupy() -> None:
    with warnings.catch_warnings(action="ignore"):  # what CuPy has to say of a missing toolkit
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    assert [name for name in (missing(cupy, *call) for call in USED) if name] == []
    assert cupy.ndarray.__module__ == "cupy"  # by which its arrays are known


def test_the_fft_of_a_namespace() -> None:
    assert _backend.fft_namespace(array_api_strict) is array_api_strict.fft
    assert _backend.fft_namespace(np).rfft(np.ones(4, np.float32)).dtype == np.complex64  # numpy.fft once widened


def test_a_cupy_that_fails_on_import_leaves_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "cupy":
                raise FileNotFoundError("no folder for kernels")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    assert get_namespace("auto") is np
    with pytest.raises(RuntimeError, match="cannot be imported"):
        get_namespace("cupy")
