"""One filter by a kernel of its own: on the processor against the definition, compiled, chosen."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from autodiff import convolve_elu, vjp
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x
from hcnn_core._engines.cuda import launch as _cuda
from hcnn_core._engines.cuda import single
from hcnn_core._engines.cuda.single import Axis, SinglePlan, _sizes, tiles_for
from hcnn_core._problem import make_problem
from hcnn_core._tuning import current, tuned
from tests.core.oracle import Problem, assert_close, noise, norm, poisoned_memory, wide
from tests.gpu.host import DEVICES
from tests.gpu.test_compilation import REGISTERS, SCALARS, nvrtc, resources

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Any, dict[str, Any]]] = {
    "lines": ((5, 300), (5,), 1, {"boundary": "zero"}),
    "columns": ((300, 5), (14,), 0, {"boundary": "periodic"}),
    "planes": ((3, 9, 30), (3, 5), (1, 2), {"boundary": ("zero", "periodic")}),
    "planes with strides": ((7, 5, 30), (4, 5), (2, 0), {"boundary": "zero", "stride": (3, 2)}),
    "volumes": ((4, 5, 30, 2), (3, 3, 2), (0, 1, 2), {"boundary": "periodic", "stride": (2, 1, 3)}),
    "strides that do not divide": ((2, 5, 3, 7), (3, 2), (3, 1), {"boundary": "periodic", "stride": (2, 3)}),
    "a far stride": ((2, 40), (9,), 1, {"boundary": "zero", "stride": 7}),
    "four axes": ((4, 5, 6, 7), (3, 2, 3, 2), (0, 1, 2, 3), {"boundary": "zero", "stride": (1, 2, 1, 2)}),
    "six axes": ((3, 3, 4, 3, 4, 3), (2, 3, 2, 3, 2, 2), (5, 4, 3, 2, 1, 0), {"boundary": "zero"}),
    "taps beyond every sample": ((2, 7), (40,), 1, {"boundary": "zero"}),
    "taps around several periods": ((2, 7), (40,), 1, {"boundary": "periodic"}),
    "channels and filters of one": ((1, 6, 1, 8), (1, 3, 1), 3, {"boundary": "zero", "sum_axes": 2}),
}
LAYOUTS = {
    "C": lambda a: a,
    "F": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
}
METHOD: dict[str, Any] = {"method": "direct"}


def of_case(name: str, dtype: str = "float32") -> Problem:
    x_shape, w_shape, axes, options = CASES[name]
    return Problem(noise(0, x_shape, dtype), noise(1, w_shape, dtype), axes, {**options, **METHOD})


@pytest.mark.parametrize("name", CASES)
def test_maps_are_their_definitions(kernels_on_host: list[str], name: str) -> None:
    """In one layout each, the next case in the next; with sums shared out among blocks, and by one."""
    number = list(CASES).index(name)
    problem = of_case(name, "float64" if number % 5 == 4 else "float32")
    lay = list(LAYOUTS.values())[number % 3]
    g = noise(2, problem.y_shape, problem.x.dtype.name)
    with poisoned_memory(), tuned(device_blocks=1 + 63 * (number % 2)):
        y = problem.run(convolve, lay(problem.x), lay(problem.w))
        x_cotangent = problem.run(convolve_vjp_x, lay(g), problem.x, lay(problem.w))
        w_cotangent = problem.run(convolve_vjp_w, lay(g), lay(problem.x), problem.w)
    assert {"single", "single_taps", "add_terms"} == set(kernels_on_host)
    assert_close(y, problem.convolution(), problem.x, problem.w)
    assert_close(x_cotangent, problem.transpose_x(g), g, problem.w)
    assert_close(w_cotangent, problem.transpose_w(g), g, problem.x)


@pytest.mark.usefixtures("kernels_on_host")
def test_an_elu_and_its_cotangents() -> None:
    problem = of_case("planes")
    bias = noise(3, (30,), "float32")
    y, pullback = vjp(
        lambda x, w, b: convolve_elu(x, w, b, problem.axes, **problem.options), problem.x, problem.w, bias
    )
    c = problem.convolution() + wide(bias)
    assert np.abs(y - np.where(c > 0, c, np.expm1(np.minimum(c, 0)))).max() < 1e-5 * norm(problem.x) * norm(problem.w)
    g = noise(4, y.shape, "float32")
    inner = wide(g) * np.where(c > 0, 1, np.exp(np.minimum(c, 0)))
    for found, expected in zip(
        pullback(g), (problem.transpose_x(inner), problem.transpose_w(inner), inner.sum(axis=(0, 1))), strict=True
    ):
        assert np.abs(found - expected).max() < 1e-5 * norm(g) * (norm(problem.x) + norm(problem.w))


@pytest.mark.usefixtures("kernels_on_host")
@pytest.mark.parametrize("stride", [1, 2])
def test_an_infinite_sample_reaches_the_results_whose_taps_read_it(stride: int) -> None:
    x, w = np.zeros(20, np.float32), np.ones(5, np.float32)
    x[-1] = np.inf
    y = convolve(x, w, 0, boundary="zero", stride=stride, **METHOD)
    assert np.array_equal(np.isfinite(y), stride * np.arange(y.size) < 17)
    g = np.ones(y.size, np.float32)
    found = convolve_vjp_w(g, x, w, 0, boundary="zero", stride=stride, **METHOD)
    with np.errstate(invalid="ignore"):
        assert not np.isnan(found).any()
        assert np.array_equal(
            np.isinf(found), np.isinf(Problem(x, w, 0, {"boundary": "zero", "stride": stride}).transpose_w(g))
        )


def variants() -> list[tuple[str, str, int]]:
    """Kernels of some sizes, with their names and the bytes of shared memory they take."""
    found = []
    for x_shape, w_shape, stride in (
        ((4096, 4096), (5, 5), 1),
        ((4096, 4096), (31, 1), 2),
        ((256, 256, 256), (9, 9, 9), 1),
        ((8, 8, 8, 8, 8, 8), (3, 3, 3, 3, 3, 3), 1),
        ((1 << 20,), (1001,), 1),
        ((4096, 4096), (7, 7), 5),
    ):
        axes = tuple(range(len(x_shape)))
        plan = SinglePlan(make_problem(x_shape, w_shape, axes, boundary="periodic", stride=stride), current())
        for dtype, item in (("float32", 4), ("float64", 8)):
            tiles = tiles_for(tuple(plan.along), item)
            assert tiles is not None
            for kernel, name in (("SINGLE_FORWARD", "single"), ("SINGLE_TAPS", "single_taps")):
                found.append((name, _cuda.source(dtype, _sizes(tiles, kernel, item)), tiles.shared(item)))
    return found


def test_kernels_compile_without_spills_and_fit_every_device() -> None:
    for name, text, shared in variants():
        registers, kept = resources(name, text)
        assert registers <= REGISTERS and kept <= 4 * SCALARS, f"{name}: {registers} registers, {kept} bytes of memory"
        assert shared <= min(single.SHARED, *(device.shared for device in DEVICES.values()))


@pytest.mark.parametrize("architecture", ["sm_75", "sm_120"])
def test_nvrtc_compiles_for_other_architectures(architecture: str) -> None:
    """The oldest and the newest: no text has an architecture's own instructions, or asks which one it is for."""
    for _, text, _ in variants()[::5]:
        assert not {"asm", "__CUDA_ARCH__"} & set(re.findall(r"\w+", text))
        assert nvrtc(text, architecture)[0]


def test_tiles_fill_a_block_and_leave_no_shared_memory_unasked() -> None:
    tiles = tiles_for((Axis(4096, 4096), Axis(4096, 4096, 31, first=-15)), 4)
    assert tiles is not None and np.prod(tiles.units) == single.THREADS and tiles.results > 1
    assert tiles_for((Axis(9000, 9000, 9000), Axis(9000, 9000, 9000)), 4) is None  # the samples of a tap fit no block
    assert not SinglePlan.supports(make_problem((1 << 30,), (3,), 0, boundary="zero"), current())  # beyond 32 bits
    many = make_problem((4,) * 6, (99,) * 6, range(6), boundary="zero")
    assert not SinglePlan.supports(many, current())  # more taps outside a tile than a grid has rows
