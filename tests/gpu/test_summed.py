"""Convolutions with summed channels on tensor cores, from tiles of samples, against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hcnn_core import convolve, convolve_elu, convolve_vjp_w, convolve_vjp_x, precision
from hcnn_core._engines.cuda import summed as _summed
from hcnn_core._engines.cuda import tensor_plan as _tensor_plan
from hcnn_core._tuning import tuned
from tests.core.oracle import C, Problem, eps, noise, norm, poisoned_memory, wide
from tests.gpu.host import exact_noise

pytestmark = pytest.mark.usefixtures("kernels_on_host")

PROBLEMS: dict[str, tuple[Any, ...]] = {
    "of an image": ((12, 5, 6, 20), (20, 3, 3, 40), (1, 2), {"sum_axes": 3, "boundary": "zero"}),
    "that subsamples": ((9, 7, 6, 10), (10, 3, 3, 17), (1, 2), {"sum_axes": 3, "boundary": "zero", "stride": 2}),
    "of one tap in four": ((8, 5, 4, 18), (18, 1, 1, 6), (1, 2), {"sum_axes": 3, "boundary": "zero", "stride": 2}),
    "periodic": ((13, 9, 11), (9, 5, 3), (2,), {"sum_axes": 1, "boundary": "periodic"}),
    "of three axes": (
        (8, 16, 3, 4, 5), (16, 3, 2, 3, 16), (2, 3, 4), {"sum_axes": 1, "boundary": ("zero", "periodic", "zero")},
    ),
}  # fmt: skip


def of(name: str) -> tuple[Problem, dict[str, Any]]:
    """Samples as layers of a network leave them, the batch last in memory."""
    x_shape, w_shape, axes, options = PROBLEMS[name]
    options = {**options, "method": "direct"}
    x = np.moveaxis(exact_noise(0, (*x_shape[1:], x_shape[0])), -1, 0)
    return Problem(x, exact_noise(1, w_shape), axes, options), options


@pytest.mark.parametrize(("name", "large"), [*((name, False) for name in PROBLEMS), ("of an image", True)])
def test_results_and_cotangents(kernels_on_host: list[str], name: str, large: bool) -> None:
    problem, options = of(name)
    x, w, g = problem.x, problem.w, exact_noise(2, problem.y_shape)
    bias = noise(3, w.shape[-1:], "float32") if w.ndim == len(problem.axes) + 2 else np.zeros((), np.float32)
    c = problem.convolution() + wide(bias)
    with pytest.MonkeyPatch.context() as patch, precision("tf32"), poisoned_memory(), tuned(device_blocks=4):
        patch.setattr(_tensor_plan, "SLOWER", 0)  # as if it paid for arrays so small
        if large or "stride" in options:
            patch.setattr(_summed, "FEWEST_BLOCKS", 1)  # large blocks
        y = problem.run(convolve, x, w)
        of_x = problem.run(convolve_vjp_x, g, x, w)
        of_w = problem.run(convolve_vjp_w, g, x, w)
        z = convolve_elu(x, w, bias, problem.axes, **options)
    assert set(kernels_on_host) <= {"summed", "summed_taps", "add_terms"}
    unit = C * eps("float32")
    assert np.abs(y - problem.convolution()).max() <= unit * norm(x) * norm(w)
    assert np.abs(of_x - problem.transpose_x(g)).max() <= unit * norm(g) * norm(w)
    assert np.abs(of_w - problem.transpose_w(g)).max() <= unit * norm(g) * norm(x)
    for one, other in ((of_x, x), (of_w, w)):  # the dot test
        assert abs(np.vdot(wide(y), wide(g)) - np.vdot(wide(one), wide(other))) <= unit * norm(x) * norm(w) * norm(g)
    exact = np.where(c > 0, c, np.expm1(np.minimum(c, 0)))
    assert np.abs(z - exact).max() <= unit * (norm(x) * norm(w) + norm(bias))
