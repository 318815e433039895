"""Filters that slide along attributes, multiplied by tensor cores without a transform, against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodiff
from autodiff import vjp
from autodiff.primitives import convolve_and_parts as ad_convolve_and_parts
from autodiff.tape import getval
from hcnn_core import convolve, convolve_elu, convolve_elu_marginal, convolve_vjp_w, convolve_vjp_x, precision
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core._engines.devices import CUPY, Request
from hcnn_core._problem import make_problem
from hcnn_core._tuning import current, tuned
from hcnn_core.convolution import convolve_and_parts
from hcnn_core.normalization import normalized_and_moments
from tests.core.oracle import C, Problem, eps, noise, norm, poisoned_memory, wide
from tests.gpu.host import DEVICES, exact_noise

pytestmark = pytest.mark.usefixtures("kernels_on_host")

FFT = ("direct", "direct", "fft", "fft")
PROBLEMS: dict[str, tuple[Any, ...]] = {
    "of a layer": ((3, 4, 5, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), {"stride": (1, 1, 2, 2), "boundary": "zero"}),
    "that subsamples space": (
        (10, 4, 6, 8, 16), (3, 3, 7, 11, 10), (1, 2, 3, 4), {"stride": (2, 2, 2, 2), "boundary": "zero"},
    ),
    "periodic": ((5, 4, 4, 8, 16), (3, 3, 5, 7, 16), (1, 2, 3, 4), {"stride": (1, 2, 2, 2), "boundary": "periodic"}),
    "of few attributes": ((70, 3, 2, 5), (3, 1, 3, 20), (1, 2, 3), {"boundary": "zero", "stride": (1, 1, 2)}),
    "of many attributes": ((2, 3, 5, 20), (3, 3, 5, 3), (1, 2, 3), {"boundary": ("periodic", "zero", "zero")}),
}  # fmt: skip
ROUNDED = 2.0**-10
"""Relative error of a product of operands that TensorFloat-32 has to round."""


def of(name: str) -> tuple[Problem, dict[str, Any]]:
    x_shape, w_shape, axes, options = PROBLEMS[name]
    ways = ("direct",) * (len(axes) - 2) + ("fft", "fft") if len(x_shape) - len(axes) == 1 and len(axes) > 2 else ()
    if len(axes) == 3:
        ways = ("direct", "direct", "fft") if name == "of few attributes" else ("direct", "fft", "fft")
    x, w = exact_noise(0, x_shape), exact_noise(1, w_shape)
    options = {**options, "method": ways}
    return Problem(x, w, axes, options), options


@pytest.mark.parametrize("name", PROBLEMS)
def test_results(kernels_on_host: list[str], name: str) -> None:
    problem, _ = of(name)
    with precision("tf32"), poisoned_memory():
        y = problem.run(convolve, problem.x, problem.w)
    assert kernels_on_host == ["implicit"]
    expected = problem.convolution()
    assert np.abs(y - expected).max() <= C * eps("float32") * norm(problem.x) * norm(problem.w)


@pytest.mark.parametrize("name", PROBLEMS)
def test_layers_and_their_marginals(kernels_on_host: list[str], name: str) -> None:
    problem, options = of(name)
    bias = noise(2, problem.w.shape[-1:], "float32")
    c = problem.convolution() + wide(bias)
    y = np.where(c > 0, c, np.expm1(np.minimum(c, 0)))
    size = C * eps("float32") * (norm(problem.x) * norm(problem.w) + norm(bias))
    for axis in problem.axes:
        kernels_on_host.clear()
        with precision("tf32"), poisoned_memory():
            found, total = convolve_elu_marginal(problem.x, problem.w, bias, problem.axes, axis, **options)
        assert np.abs(found - y).max() <= size
        assert np.abs(total - y.sum(axis=axis)).max() <= size * y.shape[axis]
        assert set(kernels_on_host) <= {"implicit", "add_terms"}
    with precision("tf32"):
        assert np.abs(convolve_elu(problem.x, problem.w, bias, problem.axes, **options) - y).max() <= size


@pytest.mark.parametrize("name", PROBLEMS)
def test_moments_of_results(kernels_on_host: list[str], name: str) -> None:
    """Made on the way, 64 positions at a time, they are those of y to the last digit, far from zero too."""
    problem, options = of(name)
    x, epsilon = problem.x + np.float32(100), 0.1
    shift, scale, bias = (noise(i, problem.w.shape[-1:], "float32") for i in (2, 3, 4))
    with precision("tf32"), poisoned_memory():
        y, parts = convolve_and_parts(x, problem.w, problem.axes, **options)
        found = normalized_and_moments(y, shift, scale, bias, epsilon=epsilon, parts=parts)
    assert kernels_on_host == ["implicit", "join_parts", "channel_moments", "normalize_rows"]
    assert parts is not None and np.all(np.isfinite(parts))
    with poisoned_memory():
        expected = normalized_and_moments(y, shift, scale, bias, epsilon=epsilon)
    assert "row_sums" in kernels_on_host
    z = wide(y) + wide(shift)
    exact = np.stack([f(z, axis=tuple(range(z.ndim - 1))) for f in (np.mean, np.var)])
    for moments in (found[3], expected[3]):
        assert np.all(np.abs(moments[0] - exact[0]) <= C * eps("float32") * np.sqrt(exact[1]))
        assert np.all(np.abs(moments[1] - exact[1]) <= C * eps("float32") * exact[1])
    assert np.abs(found[0] - expected[0]).max() <= C * eps("float32") * np.abs(expected[0]).max()
    y, parts = convolve_and_parts(x, problem.w, problem.axes, **options)
    assert parts is None and np.array_equal(y, convolve(x, problem.w, problem.axes, **options))


def test_cotangents_where_moments_are_made_on_the_way(kernels_on_host: list[str]) -> None:
    """They are those of a convolution, then a normalisation; y is read for its moments on neither way."""
    problem, options = of("of a layer")
    shift, scale, bias = (noise(i, problem.w.shape[-1:], "float32") for i in (2, 3, 4))

    def layer(x: Any, w: Any, *others: Any, on_the_way: bool) -> Any:
        y, parts = ad_convolve_and_parts(x, w, problem.axes, **options)
        return autodiff.normalize_elu_marginal(
            y, *others, 3, epsilon=0.1, **({"parts": getval(parts)} if on_the_way else {})
        )[0]

    found = []
    for on_the_way in (True, False):
        kernels_on_host.clear()
        with precision("tf32"), poisoned_memory():
            total, pullback = vjp(
                lambda *a, way=on_the_way: layer(*a, on_the_way=way), problem.x, problem.w, shift, scale, bias
            )
            found.append((total, *pullback(g := noise(5, total.shape, "float32"))))
        assert ("row_sums" in kernels_on_host, "join_parts" in kernels_on_host) == (not on_the_way, on_the_way)
    for one, other in zip(*found, strict=True):  # that of the shift is 0 but for rounding
        assert np.abs(one - other).max() <= ROUNDED * (norm(g) + norm(other))


@pytest.mark.parametrize("name", PROBLEMS)
def test_adjoints(kernels_on_host: list[str], name: str) -> None:
    problem, _ = of(name)
    g = exact_noise(2, problem.y_shape)
    for device in ("H100", "RTX 3090"):
        kernels_on_host.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_cuda, "device_limits", lambda device=device: DEVICES[device])
            with precision("tf32"), poisoned_memory(), tuned(device_blocks=24):
                of_x = problem.run(convolve_vjp_x, g, problem.x, problem.w)
                of_w = problem.run(convolve_vjp_w, g, problem.x, problem.w)
        directly = set(kernels_on_host) <= {"implicit", "implicit_taps", "add_terms"}
        assert directly == (device == "H100" or name != "of many attributes")  # which a smaller device has no room for
        unit = C * eps("float32") * norm(g)
        assert np.abs(of_x - problem.transpose_x(g)).max() <= unit * norm(problem.w)
        assert np.abs(of_w - problem.transpose_w(g)).max() <= unit * norm(problem.x)


def test_the_cotangent_of_a_marginal_after_an_elu(kernels_on_host: list[str]) -> None:
    problem, options = of("of a layer")
    bias = noise(2, problem.w.shape[-1:], "float32")
    layer = lambda *a: autodiff.convolve_elu(*a, problem.axes, **options)  # noqa: E731
    c = problem.convolution() + wide(bias)
    full = noise(3, problem.y_shape, "float32")
    with precision("tf32"), poisoned_memory():
        _, pullback = vjp(layer, problem.x, problem.w, bias)
        for g in (full, np.broadcast_to(full[:, :, :, :1], full.shape), np.broadcast_to(full[..., :1, :], full.shape)):
            kernels_on_host.clear()
            of_x, of_w, of_bias = pullback(g)
            assert set(kernels_on_host) == {"extend", "implicit", "implicit_taps", "add_terms"}
            inner = wide(g) * np.where(c > 0, 1, np.exp(np.minimum(c, 0)))
            scale = ROUNDED * norm(g) * (1 + norm(problem.x) * norm(problem.w) + norm(bias))
            assert np.abs(of_x - problem.transpose_x(inner)).max() <= scale * norm(problem.w)
            assert np.abs(of_w - problem.transpose_w(inner)).max() <= scale * norm(problem.x)
            assert np.abs(of_bias - inner.reshape(-1, bias.size).sum(axis=0)).max() <= scale * g.size / bias.size


@pytest.mark.parametrize(
    ("boundary", "device", "products", "directly"),
    [
        ("zero", "H100", "tf32", True),
        ("zero", "RTX 3090", "tf32", True),
        ("zero", "H100", "float32", False),
        ("periodic", "H100", "tf32", True),
    ],
)
def test_the_choice_for_a_layer_of_the_paper(boundary: str, device: str, products: str, directly: bool) -> None:
    options: dict[str, Any] = {"stride": (1, 1, 2, 2), "boundary": boundary, "method": FFT}
    problem = make_problem((100, 32, 32, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), **options)
    limits = DEVICES[device] if products == "tf32" else None
    choice = CUPY.by_axis(FFT, Request(problem, True, ((), problem.batch_axes), CUPY, current(), limits))
    assert choice.engine.__name__ == ("TensorPlan" if directly else "CudaPlan")


def test_float64_and_several_channels_go_by_spectra(kernels_on_host: list[str]) -> None:
    problem, options = of("of few attributes")
    with precision("tf32"):
        convolve(wide(problem.x), wide(problem.w), problem.axes, **options)
        x, w = noise(0, (9, 3, 2, 5), "float32"), noise(1, (9, 3, 1, 3, 2), "float32")
        convolve(x, w, (1, 2, 3), sum_axes=0, **options)
    assert "map_rows" in kernels_on_host and "implicit" not in kernels_on_host
