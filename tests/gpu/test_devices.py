"""Kernels fit the shared memory of every device, and where they do not, one line says what convolves instead."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from autodiff import convolve_elu_marginal, cross_entropy, value_and_grad, vjp
from hcnn_core import convolve, patch_moments, precision
from hcnn_core.backend import DeviceLimits
from tests.core.oracle import C, Problem, eps, noise, norm, poisoned_memory, wide
from tests.gpu.host import DEVICES, in_place_of_cupy, scripted
from tests.gpu.requirements import required
from train.config import PRESETS, make_config
from train.networks.registry import build

LAYER = (
    (3, 5, 4, 8, 16), (3, 3, 7, 11, 4), (1, 2, 3, 4),
    {"boundary": "zero", "stride": (1, 1, 2, 2), "method": ("direct", "direct", "fft", "fft")},
)  # fmt: skip
"""Arrays, axes and options of a layer that needs 120 KiB in float64, and in float32 with wide tiles."""

HIERARCHICAL = [name for name in PRESETS if make_config(name).architecture == "hcnn"]
"""Presets with attributes; other networks convolve space alone, tap by tap."""

SMALL = DeviceLimits(48 << 10, 24 << 10, (8, 6))
"""Of no device: too little for the layer in either dtype."""


def gradient(preset: str, boundary: str, side: int) -> None:
    """What a step launches but for the descent, on one image; nothing is computed where kernels do nothing."""
    network = build(make_config(preset, {"boundary": boundary}), side)
    parameters = network.initialize(np.random.default_rng(0))
    x = np.zeros((1, side, side, 3), np.float32)
    with np.errstate(all="ignore"):
        value_and_grad(lambda p: cross_entropy(network(p, x)[0], np.zeros(1, int)))(parameters)


@pytest.mark.lot
@pytest.mark.parametrize("preset", HIERARCHICAL)
@pytest.mark.parametrize("boundary", ["zero", "periodic"])
@pytest.mark.parametrize("side", [32, 128])
def test_every_preset_fits_every_device(preset: str, boundary: str, side: int) -> None:
    """In float32, with what each device has for a block; warnings, which are errors here, would tell of another way."""
    asked: dict[str, list[tuple[int, int]]] = {}
    for device, limits in DEVICES.items():
        launched = asked[device] = []

        def kernel(name: str, dtype: str, sizes: Any, shared: int = 0, launched: Any = launched) -> Any:
            launched.append((dict(sizes).get("MAP_TILE", 0), shared))
            return lambda *arguments, **options: None

        with in_place_of_cupy(kernel, limits):
            gradient(preset, boundary, side)
        assert launched and all(shared <= limits.shared for _, shared in launched), device
    assert {tile for tile, _ in asked["H100"]} <= {0, 64}  # the widest, where there is room
    assert len({len(launched) for launched in asked.values()}) == 1


def error_of_layer(dtype: str) -> float:
    """Largest error of the layer, its marginal and its gradients, in units of what rounding may make."""
    x_shape, w_shape, axes, options = LAYER
    x, w, bias = noise(0, x_shape, dtype), noise(1, w_shape, dtype), noise(2, w_shape[-1:], dtype)
    problem = Problem(x, w, axes, options)
    g, g_sum = noise(3, problem.y_shape, dtype), noise(4, problem.y_shape[:4] + problem.y_shape[5:], dtype)
    with poisoned_memory():
        (y, total), pullback = vjp(lambda *a: convolve_elu_marginal(*a, axes, 4, **options), x, w, bias)
        g_x, g_w, g_bias = pullback((g, g_sum))
    c = problem.convolution() + wide(bias)
    answer = np.where(c > 0, c, np.expm1(np.minimum(c, 0)))
    inner = (wide(g) + np.expand_dims(wide(g_sum), 4)) * np.where(c > 0, 1, np.exp(np.minimum(c, 0)))
    scale, each = norm(x) * norm(w) + norm(bias), norm(inner) * (1 + norm(x) * norm(w) + norm(bias))
    errors = {
        "y": np.abs(y - answer).max() / scale,
        "total": np.abs(total - answer.sum(axis=4)).max() / (scale * answer.shape[4]),
        "x": np.abs(g_x - problem.transpose_x(inner)).max() / (each * norm(w)),
        "w": np.abs(g_w - problem.transpose_w(inner)).max() / (each * norm(x)),
        "bias": np.abs(g_bias - inner.reshape(-1, bias.size).sum(axis=0)).max() / (each * np.sqrt(g.size)),
    }
    return float(max(errors.values())) / (C * eps(dtype))


@pytest.mark.parametrize("device", ["T4", "H100"])
def test_tiles_of_each_width_are_right(compiled_kernels: Any, device: str) -> None:
    """A layer by narrow tiles, and by wide ones."""
    tiles = set()

    def kernel(name: str, dtype: str, sizes: Any, shared: int = 0) -> Any:
        tiles.add(dict(sizes).get("MAP_TILE"))
        return compiled_kernels(name, dtype, sizes, shared)

    with in_place_of_cupy(kernel, DEVICES[device]):
        assert error_of_layer("float32") <= 1
    assert max(tiles - {None}) == 64 and (32 in tiles) == (device == "T4")


@pytest.mark.parametrize(
    ("dtype", "limits", "kib"),
    [("float32", SMALL, (60, 48)), ("float64", SMALL, (120, 48)), ("float64", DEVICES["RTX 3090"], (120, 99))],
)
def test_one_line_says_when_nothing_fits(
    compiled_kernels: Any, dtype: str, limits: DeviceLimits, kib: tuple[int, int]
) -> None:
    launched = []

    def kernel(name: str, *others: Any) -> Any:
        launched.append(name)
        return compiled_kernels(name, *others)

    with in_place_of_cupy(kernel, limits), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once for a place, as Python does
        assert error_of_layer(dtype) <= 1
    assert {"extend", "apply", "correlate"} <= set(launched) and "map_rows" not in launched
    (warning,) = {str(w.message) for w in caught}
    assert warning == (
        f"a DFT of this size in {dtype} needs {kib[0]} KiB of shared memory, and a block of this device has {kib[1]} "
        "KiB: taps are added up instead, which may be slower"
    )


def test_moments_in_float64_fit_small_devices(compiled_kernels: Any) -> None:
    """Products of patches by fewer threads, and as many positions as there are at most."""
    asked = []

    def kernel(name: str, dtype: str, sizes: Any, shared: int = 0) -> Any:
        asked.append(shared)
        return compiled_kernels(name, dtype, sizes, shared)

    x = noise(0, (1, 128, 128, 2), "float64")
    with in_place_of_cupy(kernel, DEVICES["T4"]):
        mean, covariance = patch_moments(x, (1, 2), (3, 3), boundary="zero")
    assert 0 < max(asked) <= DEVICES["T4"].shared
    rows = Problem(x, np.eye(9).reshape(3, 3, 9), (1, 2), {"boundary": "zero"}).convolution().reshape(-1, 9)
    assert np.abs(mean - rows.mean(axis=0)).max() <= C * eps("float64")
    assert np.abs(covariance - np.cov(rows.T, bias=True)).max() <= C * eps("float64") * np.abs(rows).max() ** 2


def test_a_device_without_such_tensor_cores_is_told(compiled_kernels: Any) -> None:
    x, w = noise(0, (2, 5), "float32"), noise(1, (3, 2), "float32")
    with in_place_of_cupy(compiled_kernels, DEVICES["T4"]), precision("tf32"):
        with pytest.raises(RuntimeError, match=r"compute capability 8\.0 .* has 7\.5: choose precision 'float32'"):
            convolve(x, w, (1,), boundary="zero", method="direct")
        wide_result = convolve(wide(x), wide(w), (1,), boundary="zero", method="direct")  # not asked for
    assert np.isfinite(wide_result).all()


def test_limits_are_those_of_the_device() -> None:
    """As CuPy tells them, on the stand-in for the driver."""
    required("cupy")
    for device, limits in DEVICES.items():
        done = scripted("print(device_limits())", device)
        assert done.stdout.strip() == repr(limits), done.stderr
