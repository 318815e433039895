"""`hcnn_core.jax.convolve`: values, derivatives of every order in both modes, and the transformations of JAX."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import hcnn_core
from hcnn_core._problem import make_problem
from tests.core.oracle import Problem, assert_close, noise, problems

jax = pytest.importorskip("jax")
from jax import lax  # noqa: E402
from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import hcnn_core.jax  # noqa: E402
from hcnn_core.jax import convolve  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((2, 6, 3, 5)), RNG.standard_normal((3, 3, 2, 4))
OPTIONS: dict[str, Any] = {"axes": (1, 3), "boundary": ("periodic", "zero"), "sum_axes": 2, "stride": (2, 1)}
layer = partial(convolve, **OPTIONS)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@settings(max_examples=15)
@given(problems(max_axes=3))
def test_values_and_gradients_are_those_of_arrays(problem: Problem) -> None:
    x, w = (np.ascontiguousarray(a) for a in (problem.x, problem.w))
    y, back = jax.vjp(lambda x, w: problem.run(convolve, x, w), x, w)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, problem.run(hcnn_core.convolve, x, w))
    h = np.full(y.shape, 1.5, y.dtype)
    of_x, of_w = back(h)
    np.testing.assert_array_equal(of_x, problem.run(hcnn_core.convolve_vjp_x, h, x.shape, w))
    np.testing.assert_array_equal(of_w, problem.run(hcnn_core.convolve_vjp_w, h, x, w.shape))


@pytest.mark.parametrize("phase", [1.0, np.exp(1j)])
def test_derivatives_of_both_orders_and_modes_by_finite_differences(phase: Any) -> None:
    check_grads(layer, (jnp.asarray(phase * X), jnp.asarray(W)), order=2, modes=["fwd", "rev"])


def test_compiled_functions_and_both_jacobians() -> None:
    np.testing.assert_array_equal(jax.jit(layer)(X, W), hcnn_core.convolve(X, W, **OPTIONS))
    for argument in (0, 1):
        close(jax.jacfwd(layer, argument)(X, W), jax.jit(jax.jacrev(layer, argument))(X, W))
    tangent = RNG.standard_normal(W.shape)
    close(jax.jvp(partial(layer, X), (W,), (tangent,))[1], layer(X, tangent))


@pytest.mark.parametrize("at", [(1, None), (None, 3), (1, 3)], ids=["x", "w", "both"])
def test_mapping_any_operand(at: tuple[int | None, int | None]) -> None:
    x, w = (a if d is None else np.stack([a, 2 * a, -a], d) for a, d in zip((X, W), at, strict=True))

    def one(i: int) -> tuple[Any, Any]:
        return X if at[0] is None else x.take(i, at[0]), W if at[1] is None else w.take(i, at[1])

    def gradients(x: Any, w: Any) -> Any:
        return jax.grad(lambda x, w: jnp.sum(layer(x, w) ** 3), (0, 1))(x, w)

    def forward_mode(x: Any, w: Any) -> Any:
        return jax.jvp(layer, (x, w), (x, w))

    for function in (layer, gradients, forward_mode):
        found, rows = jax.vmap(function, at)(x, w), [function(*one(i)) for i in range(3)]
        jax.tree.map(close, found, jax.tree.map(lambda *results: jnp.stack(results), *rows))


@pytest.mark.parametrize(
    ("m", "stride", "dtype"),
    [(1, 1, "float64"), (2, 2, "float64"), (3, 1, "float64"), (4, 2, "float64"), (4, 1, "float32")],
)
def test_lax_has_the_same_values_and_gradients(m: int, stride: int, dtype: str) -> None:
    """Which does not flip filters, and pads an even kernel size s by s // 2 - 1 in front and s // 2 behind."""
    sizes = (3, 4, 2, 5)[:m]
    x, w = noise(0, (2, 3, 7, 5, 4, 6)[: m + 2], dtype), noise(1, (3, *sizes, 4), dtype)
    axes = tuple(range(2, m + 2))

    def ours(x: Any, w: Any) -> Any:
        return jnp.moveaxis(convolve(x, w, axes, boundary="zero", sum_axes=1, stride=stride), -1, 1)

    def theirs(x: Any, w: Any) -> Any:
        kernel = jnp.moveaxis(jnp.flip(w, range(1, m + 1)), -1, 0)
        return lax.conv_general_dilated(x, kernel, (stride,) * m, [(s - 1 - s // 2, s // 2) for s in sizes])

    (y, back), (expected, their_back) = jax.vjp(ours, x, w), jax.vjp(theirs, x, w)
    assert_close(np.asarray(y), np.asarray(expected), x, w)
    h = noise(2, y.shape, dtype)
    for found, wanted, operand in zip(back(h), their_back(h), (w, x), strict=True):
        assert_close(np.asarray(found), np.asarray(wanted), h, operand)


def test_single_precision_and_promotion() -> None:
    x, w = jnp.asarray(X, "float32"), jnp.asarray(W, "float32")
    assert layer(x, w).dtype == jnp.float32
    assert layer(x, W).dtype == jnp.float64
    assert jax.grad(lambda x: jnp.sum(layer(x, W)))(x).dtype == jnp.float32


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("kind", ["int32", "uint8", "bool"])
def test_integers_are_computed_in_double_precision_where_it_is_on(kind: str, wide: bool) -> None:
    x, w = np.arange(7).astype(kind), np.array([1, 0, 1]).astype(kind)
    with jax.enable_x64(wide):
        y = jax.jit(partial(convolve, axes=0, boundary="zero"))(x, w)
        assert y.dtype == ("float64" if wide else "float32")
        np.testing.assert_allclose(y, hcnn_core.convolve(x, w, 0, boundary="zero"), rtol=1e-6)
        assert convolve(x, np.ones(3, "float32"), 0, boundary="zero").dtype == y.dtype


def test_arrays_without_elements() -> None:
    assert jax.jit(layer)(X[:0], W).shape == (0, 3, 5, 4)


def test_arrays_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    right = hcnn_core.jax.derivative

    def spy(role: Any, problem: Any, *arrays: Any) -> Any:
        seen.extend(a.__array_interface__["data"][0] for a in arrays)
        return right(role, problem, *arrays)

    monkeypatch.setattr(hcnn_core.jax, "derivative", spy)
    x, w = jnp.asarray(X), jnp.asarray(W)
    layer(x, w).block_until_ready()
    assert seen == [x.unsafe_buffer_pointer(), w.unsafe_buffer_pointer()]


@pytest.mark.parametrize("wrapped", [lambda f: f, jax.jit], ids=["", "jit"])
def test_bad_input_gets_one_line(wrapped: Any) -> None:
    for x, w, options, kind, message in [
        (
            np.ones(5, "float16"),
            np.ones(3),
            {},
            TypeError,
            "x has dtype float16; convert it to one of float32, float64",
        ),
        (np.ones(5), jnp.ones(3, "bfloat16"), {}, TypeError, "w has dtype bfloat16; convert it to one of"),
        (np.ones(5), np.ones(3), {"boundary": "wrap"}, ValueError, "boundary is 'wrap'; its name here is 'periodic'"),
    ]:
        function = wrapped(partial(convolve, **{"axes": 0, "boundary": "zero", **options}))
        with pytest.raises(kind, match=message) as caught:
            function(x, w)
        assert "\n" not in str(caught.value)


ON_DEVICES = """
from functools import partial

import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from hcnn_core.jax import convolve

jax.config.update("jax_enable_x64", True)
layer = lambda x, w: convolve(x, w, (1, 2), boundary="periodic")
by_image = lambda x, w: jax.vmap(lambda x: convolve(x, w, (0, 1), boundary="periodic"))(x)


def cubes(function, x, w):
    return (function(x, w) ** 3).sum()


def assert_close(found, expected, dtype):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype == dtype and np.abs(a - b).max() <= 50 * np.finfo(dtype).eps * np.abs(b).max()


def check(devices):
    rng = np.random.default_rng(0)
    mesh = Mesh(np.array(devices), ("batch",))
    on_shards = partial(jax.shard_map, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"))
    for dtype in ("float32", "float64"):
        x, w = rng.standard_normal((4, 6, 5)).astype(dtype), rng.standard_normal((3, 2, 4)).astype(dtype)
        of_both, hessian = jax.grad(partial(cubes, layer), (0, 1))(x, w), jax.hessian(partial(cubes, layer), 1)(x, w)
        tangent = jax.jvp(partial(cubes, layer), (x, w), (x, w))
        for function in (on_shards(layer), on_shards(by_image), on_shards(layer, check_vma=False)):
            assert_close(function(x, w), layer(x, w), dtype)
            loss = partial(cubes, function)
            for wrapped in (lambda f: f, jax.jit):
                assert_close(wrapped(jax.grad(loss, 1))(x, w), of_both[1], dtype)
                assert_close(wrapped(jax.grad(loss, (0, 1)))(x, w), of_both, dtype)
            assert_close(jax.hessian(loss, 1)(x, w), hessian, dtype)
            assert_close(jax.jvp(loss, (x, w), (x, w)), tangent, dtype)
        total = on_shards(lambda x, w: jax.lax.psum(cubes(layer, x, w), "batch"), out_specs=P())
        assert_close(jax.grad(total, (0, 1))(x, w), of_both, dtype)
        inside = on_shards(jax.grad(partial(cubes, layer), 1), out_specs=P())  # JAX sums over the devices
        assert_close(inside(x, w), of_both[1], dtype)
        parts = x.reshape(len(devices), -1, 6, 5)
        mapped = jax.pmap(layer, in_axes=(0, None), devices=devices)
        assert_close(jax.grad(partial(cubes, mapped), 1)(parts, w), of_both[1], dtype)
        mapped = jax.pmap(jax.grad(partial(cubes, layer), 1), in_axes=(0, None), devices=devices)
        assert_close(mapped(parts, w).sum(0), of_both[1], dtype)
        with jax.disable_jit():
            assert_close(jax.grad(partial(cubes, layer), (0, 1))(x, w), of_both, dtype)

    explicit = jax.make_mesh((len(devices),), ("rows",), axis_types=(AxisType.Explicit,), devices=devices)
    with jax.set_mesh(explicit):
        placed = jax.device_put(x, NamedSharding(explicit, P("rows")))
        of_placed = jax.grad(partial(cubes, layer), (0, 1))(placed, jnp.asarray(w))
        assert jax.typeof(of_placed[0]) == jax.typeof(placed)
        assert_close(of_placed, of_both, dtype)
        twice = lambda x: (jax.grad(partial(cubes, layer))(x, w) ** 2).sum()
        assert_close(jax.grad(twice)(placed), jax.grad(twice)(jnp.asarray(x)), dtype)

    both = jax.make_mesh((1, len(devices)), ("rows", "columns"), (AxisType.Explicit,) * 2, devices=devices)
    filters = jnp.asarray(w)
    for spec in (P("columns"), P(("rows", "columns")), P("columns", "rows")):
        outside = jax.device_put(x, NamedSharding(both, spec))  # of set_mesh
        for function in (layer, jax.jit(layer), by_image):
            assert_close(function(outside, filters), layer(x, w), dtype)
        assert_close(jax.jit(jax.grad(partial(cubes, layer), (0, 1)))(outside, filters), of_both, dtype)
        (y, back), (h, right) = (jax.vjp(layer, signal, filters) for signal in (outside, jnp.asarray(x)))
        assert_close(back(y), right(h), dtype)

    shards, whole = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())
    for function in (layer, on_shards(layer)):
        y = jax.jit(function)(jax.device_put(x, shards), jax.device_put(w, whole))
        print(y.sharding.is_equivalent_to(shards, y.ndim))


assert len(jax.devices()) == 4
check(jax.devices()[:1])
check(jax.devices())
"""


def test_arrays_on_one_device_and_on_four() -> None:
    """A compiler that splits arrays gathers them for the call; shard_map leaves each device its own."""
    count = "--xla_force_host_platform_device_count=4"
    flags = {"XLA_FLAGS": count, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_DEVICES], env={**os.environ, **flags}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "False", "True"]


@contextlib.contextmanager
def standing_in(seen: list[Any], device: int, stream: Any) -> Iterator[Any]:
    seen.append((device, stream.__cuda_stream__()))
    yield np


def test_buffers_on_a_gpu_go_through_cupy_on_the_stream_of_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a GPU, with NumPy in CuPy's place."""
    seen: list[Any] = []
    monkeypatch.setattr(hcnn_core.jax, "cuda_stream", partial(standing_in, seen))
    axes, options = OPTIONS["axes"], {key: value for key, value in OPTIONS.items() if key != "axes"}
    problem = make_problem(X.shape, W.shape, axes, **options, method="auto")
    out = np.empty(problem.y_shape)
    hcnn_core.jax.on_gpu(SimpleNamespace(stream=77), out, X, W, role="y", problem=problem)
    np.testing.assert_array_equal(out, hcnn_core.convolve(X, W, **OPTIONS))
    assert seen == [(0, (0, 77))]
