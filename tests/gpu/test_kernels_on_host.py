"""The CUDA kernels' arithmetic and indexing, on the processor, against the definition of a convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodiff import convolve_elu, convolve_elu_marginal, cross_entropy, value_and_grad, vjp
from hcnn_core import (
    convolve,
    convolve_vjp_w,
    convolve_vjp_x,
    matmul,
    normalize_filters,
    patch_moments,
    patch_moments_vjp,
    precision,
    wisdom,
)
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core._engines.cuda import matmul as _cuda_products
from hcnn_core._engines.generic import elementwise
from hcnn_core._tuning import tuned
from hcnn_core.backend import _memory_order, joined
from hcnn_core.updates import Term, weighted_sums
from tests.core.oracle import C, Problem, assert_close, assert_maps, eps, noise, norm, poisoned_memory, problems, wide
from tests.gpu.host import compiled_part

pytestmark = pytest.mark.usefixtures("kernels_on_host")

REAL = ("float32", "float64")

few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""Each example compiles kernels of its own, a second each."""


@pytest.mark.slow
@few
@given(problems(dtypes=REAL), st.integers(0, 99))
def test_maps_are_their_definitions(problem: Problem, seed: int) -> None:
    g = noise(seed, problem.y_shape, problem.x.dtype.name)
    with poisoned_memory():
        assert_maps(problem, g)


def test_measured_plans_of_a_gpu(kernels_on_host: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each choice is run with the kernels, and the fastest of them is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, w = noise(0, (3, 20), "float32"), noise(1, (5, 2), "float32")
    g = noise(2, (3, 20, 2), "float32")
    problem = Problem(x, w, (1,), {"boundary": "zero", "method": "measure"})
    assert_close(problem.run(convolve, x, w), problem.convolution(), x, w)
    assert_close(problem.run(convolve_vjp_x, g, x, w), problem.transpose_x(g), g, w)
    of_y, of_x = sorted(wisdom().splitlines()[2:], reverse=True)
    assert all("CudaPlan direct " in line and "CudaPlan fft " in line for line in (of_y, of_x))
    launched = len(kernels_on_host)
    problem.run(convolve, x, w)
    assert 0 < len(kernels_on_host) - launched < 6  # one plan's
    with precision("tf32"):
        problem.run(convolve, x, w)
    assert len(wisdom().splitlines()) == 5 and "y float32 by products of tf32 " in wisdom()


UNITS = {"float32": eps("float32"), "tf32": 2.0**-10}
"""Relative error of a product of two rounded operands."""


@few
@given(st.data(), st.sampled_from(REAL), st.integers(0, 99))
def test_patch_moments_are_their_definitions(data: st.DataObject, dtype: str, seed: int) -> None:
    lengths, sizes = data.draw(st.sampled_from([((5,), (3,)), ((4, 5), (3, 3)), ((3, 6), (2, 4)), ((2, 2), (3, 3))]))
    boundary = data.draw(st.sampled_from(["zero", "periodic", ("zero", "periodic")[: len(lengths)]]))
    lead, trail = data.draw(st.tuples(st.integers(1, 3), st.sampled_from([1, 7, 40])))
    x = noise(seed, (lead, *lengths, trail), dtype) + np.asarray(data.draw(st.sampled_from([0, 3])), dtype)
    axes = tuple(range(1, 1 + len(lengths)))
    taps = int(np.prod(sizes))
    g_mean, g_covariance = noise(seed + 1, (taps,), dtype), noise(seed + 2, (taps, taps), dtype)
    ones = np.eye(taps).reshape(*sizes, taps)
    patches = Problem(wide(x), ones, axes, {"boundary": boundary})
    rows = np.moveaxis(patches.convolution(), -1, 0).reshape(taps, -1)
    with poisoned_memory():
        mean, covariance = patch_moments(x, axes, sizes, boundary=boundary)
        cotangent = patch_moments_vjp(g_mean, g_covariance, x, axes, sizes, boundary=boundary)
    size = C * eps(dtype) * np.abs(rows).max()
    assert np.abs(mean - rows.mean(axis=1)).max() <= size
    assert np.abs(covariance - np.cov(rows, bias=True)).max() <= size * np.abs(rows).max()
    centred = rows - rows.mean(axis=1, keepdims=True)
    shares = (g_mean[:, None] + wide(g_covariance + g_covariance.T) @ centred) / rows.shape[1]
    expected = patches.transpose_x(np.moveaxis(shares.reshape(taps, *x.shape), 0, -1))
    assert np.abs(cotangent - expected).max() <= size * taps * (norm(g_mean) + norm(g_covariance) * np.abs(rows).max())


@few
@given(st.tuples(*[st.integers(1, 70)] * 3), st.sampled_from(REAL), st.integers(0, 99), st.data())
def test_matrix_products(kernels_on_host: list[str], lengths: Any, dtype: str, seed: int, data: st.DataObject) -> None:
    """Of matrices, transposed or cut out of larger ones, and vectors."""
    m, depth, n = lengths

    def operand(seed: int, shape: tuple[int, int]) -> Any:
        kind = data.draw(st.sampled_from(["plain", "transposed", "every second"]))
        if kind == "transposed":
            return noise(seed, shape[::-1], dtype).T
        return (
            noise(seed, (shape[0], 2 * shape[1]), dtype)[:, ::2]
            if kind == "every second"
            else noise(seed, shape, dtype)
        )

    a, b = operand(seed, (m, depth)), operand(seed + 1, (depth, n))
    a, b = (a[0] if m == 1 and seed % 2 else a), (b[:, 0] if n == 1 and seed % 3 else b)
    kernels_on_host.clear()
    with poisoned_memory():
        y = matmul(a, b)
    assert kernels_on_host == ["multiply"]
    assert_close(y, wide(a) @ wide(b), a, b)


def test_a_change_to_kernels_that_macros_leave_out_makes_no_other_library() -> None:
    text = _cuda.source("float32", {"SIDE": 16})
    part = compiled_part(text)
    assert compiled_part(text.replace("cross_entropy(", "entropy(")) == part
    assert compiled_part(text.replace("multiply(", "product(")) != part


def test_what_is_left_to_cublas() -> None:
    """Batches, large products, other dtypes, more columns than a grid has blocks, and what is no product at all."""
    shapes = {((3, 4), (4,)): True, ((5_000_000, 2), (2, 3)): True, ((1, 1), (1, 5_000_000)): False}
    shapes |= {
        ((3, 0), (0, 4)): False,
        ((2, 3, 4), (4, 5)): False,
        ((3, 4), (5, 4)): False,
        ((999, 999), (999, 99)): False,
    }
    for (a, b), expected in shapes.items():
        x, y = (np.broadcast_to(np.float32(1), shape) for shape in (a, b))
        assert _cuda_products.supports(x, y) is expected
    assert not _cuda_products.supports(np.ones((2, 2), complex), np.ones((2, 2), complex))
    assert not _cuda_products.supports(np.ones((2, 2)), np.ones((2, 2), "float32"))


def test_joined_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory_order, "library_of", lambda array: "cupy")
    parts = [noise(i, (2, n, 3), "float32") for i, n in enumerate((4, 1, 2))]
    for axis in (1, -2):
        assert np.array_equal(joined(parts, axis), np.concatenate(parts, axis))
    with pytest.raises(ValueError, match=r"cannot be joined along axis 0"):
        joined([np.zeros((2, 3)), np.zeros((2, 1))], 0)


LAYER: dict[str, Any] = {"boundary": "zero", "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")}
LAYERS = {
    "of the network": ((5, 9, 7, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), LAYER),
    "on a periodic grid": ((5, 8, 8, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), {**LAYER, "boundary": "periodic"}),
    "that subsamples space": ((5, 9, 7, 4, 8), (3, 3, 3, 5, 5), (1, 2, 3, 4), {**LAYER, "stride": 2}),
    "along attributes alone": (
        (2, 3, 5, 4, 6, 4),
        (4, 5, 3, 5),
        (3, 4),
        {**LAYER, "sum_axes": 5, "stride": 2, "method": "fft"},
    ),
    "of colours": ((3, 9, 7, 3), (3, 3, 3, 20), (1, 2), {"boundary": "zero", "sum_axes": 3, "method": "direct"}),
}


@pytest.mark.lot
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("dtype", "varying"), [("float32", False), ("float32", True), ("float64", True)])
def test_layers_and_their_gradients(kernels_on_host: list[str], layer: str, dtype: str, varying: bool) -> None:
    """With ELU on the way, and a bias that is the same everywhere or not, several chunks of positions at a time."""
    x_shape, w_shape, axes, options = LAYERS[layer]
    x, w = noise(0, x_shape, dtype), noise(1, w_shape, dtype)
    problem = Problem(x, w, axes, options)
    bias = noise(2, problem.y_shape[-3:] if varying else problem.y_shape[-1:], dtype)
    g = noise(3, problem.y_shape, dtype)
    with pytest.MonkeyPatch.context() as patch, tuned(device_spectrum_elements=20_000), poisoned_memory():
        if not varying:
            patch.setattr(elementwise, "elu", None)  # it comes on the way
        y, pullback = vjp(lambda x, w, bias: convolve_elu(x, w, bias, axes, **options), x, w, bias)
        g_x, g_w, g_bias = pullback(g)
    assert {"apply", "correlate"} <= set(kernels_on_host)
    c = problem.convolution() + wide(bias)
    scale = C * eps(dtype) * (norm(x) * norm(w) + norm(bias))
    assert np.abs(y - np.where(c > 0, c, np.expm1(np.minimum(c, 0)))).max() <= scale
    inner = wide(g) * np.where(c > 0, 1, np.exp(np.minimum(c, 0)))
    bound = eps(dtype) * norm(g) * C * (1 + norm(x) * norm(w) + norm(bias))
    assert np.abs(g_x - problem.transpose_x(inner)).max() <= bound * norm(w)
    assert np.abs(g_w - problem.transpose_w(inner)).max() <= bound * norm(x)
    summed = inner.reshape(-1, *bias.shape).sum(axis=0)
    assert g_bias.shape == bias.shape and np.abs(g_bias - summed).max() <= bound * np.sqrt(g.size / bias.size)


def test_a_tuning_cuts_spectra_into_pieces(kernels_on_host: list[str]) -> None:
    x_shape, w_shape, axes, options = next(iter(LAYERS.values()))
    x, w = noise(0, x_shape, "float32"), noise(1, w_shape, "float32")
    whole = convolve(x, w, axes, **options)
    assert kernels_on_host.count("apply") == 1
    kernels_on_host.clear()
    with tuned(device_spectrum_elements=20_000), poisoned_memory():
        assert np.array_equal(convolve(x, w, axes, **options), whole)
    assert kernels_on_host.count("apply") > 1


def test_a_tuning_sets_the_sizes_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of layers, patches, filters, the loss and updates: results are those of the default, to rounding."""
    threads: dict[str, int] = {}
    launch = _cuda.launch

    def watched(name: str, dtype: str, sizes: Any, grid: Any, count: int, *others: Any) -> None:
        threads[name] = count
        launch(name, dtype, sizes, grid, count, *others)

    monkeypatch.setattr(_cuda, "launch", watched)
    x_shape, w_shape, axes, options = LAYERS["of the network"]
    x, w, bias = noise(0, x_shape, "float64"), noise(1, w_shape, "float64"), noise(2, w_shape[-1:], "float64")
    h, mean, covariance = noise(3, (5, 3, 3), "float64"), noise(4, (9,), "float64"), np.eye(9)
    logits, labels = noise(5, (300, 7), "float64"), np.arange(300) % 7

    def work() -> list[Any]:
        y, pullback = vjp(lambda *a: convolve_elu(*a, axes, **options), x, w, bias)
        updated = weighted_sums([[Term(x, 0.5)], [Term(w, 2.0)]])
        loss, gradient = value_and_grad(lambda a: cross_entropy(a, labels))(logits)
        moments = patch_moments(x, (1, 2), (3, 3), boundary="zero")
        filters = normalize_filters(h, mean, covariance, epsilon=1e-5)
        return [y, *pullback(y), *updated, loss, gradient, *moments, *filters]

    expected, usual = work(), dict(threads)
    sizes = {"device_threads": 64, "device_filter_threads": 32, "device_map_threads": 64}
    with tuned(**sizes, device_sum_positions=2, device_update_blocks=2), poisoned_memory():
        found = work()
    register_tiles = {"apply", "correlate", "multiply"}
    assert {name for name in threads if threads[name] == usual[name]} == register_tiles
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, x, w)


@pytest.mark.lot
@pytest.mark.parametrize(
    ("layer", "axis"), [(layer, a) for n, layer in enumerate(LAYERS) for a in ((1, -2), (3, -1))[n % 2]]
)
def test_marginals_on_the_way(kernels_on_host: list[str], layer: str, axis: int) -> None:
    """The result of a layer and its sum over any axis, and their cotangents together."""
    x_shape, w_shape, axes, options = LAYERS[layer]
    x, w, bias = noise(0, x_shape, "float32"), noise(1, w_shape, "float32"), noise(2, w_shape[-1:], "float32")
    with tuned(device_spectrum_elements=20_000), poisoned_memory():
        (y, total), pullback = vjp(lambda *a: convolve_elu_marginal(*a, axes, axis, **options), x, w, bias)
        expected, separate = vjp(lambda *a: convolve_elu(*a, axes, **options), x, w, bias)
        g = noise(3, y.shape, "float32"), noise(4, total.shape, "float32")
        found, wanted = pullback(g), separate(g[0] + np.expand_dims(g[1], axis))
    assert np.array_equal(y, expected)
    assert_close(total, wide(y).sum(axis=axis), y)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("layer", ["of the network", "on a periodic grid"])
def test_errors_of_each_precision(kernels_on_host: list[str], layer: str) -> None:
    """Products of TensorFloat-32 are far less exact than those of float32."""
    x_shape, w_shape, axes, options = LAYERS[layer]
    x, w = noise(0, x_shape, "float32"), noise(1, w_shape, "float32")
    problem = Problem(x, w, axes, options)
    g = noise(3, problem.y_shape, "float32")
    exact = problem.convolution(), problem.transpose_x(g), problem.transpose_w(g)
    error = {}
    for name in UNITS:
        with precision(name), poisoned_memory():
            found = (
                convolve(x, w, axes, **options),
                convolve_vjp_x(g, x, w, axes, **options),
                convolve_vjp_w(g, x, w, axes, **options),
            )
        error[name] = [np.abs(one - other).max() / np.abs(other).max() for one, other in zip(found, exact, strict=True)]
    assert {"implicit", "implicit_taps"} <= set(kernels_on_host)
    for plain, rounded in zip(error["float32"], error["tf32"], strict=True):
        assert 20 * plain < rounded < UNITS["tf32"]
