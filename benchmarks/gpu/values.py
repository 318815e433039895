"""The card and its driver, and values of each new kernel at one small problem: `python -m benchmarks.gpu.values`.

Each line has a kernel, its precision, the largest difference from NumPy in double precision, relative to the largest
number, and whether that is rounding. The last line says how many are wrong. `values card` prints the card alone.
"""

from __future__ import annotations

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import autodiff
from autodiff import tree_leaves, tree_map
from autodiff.primitives import rectified_and_moments
from benchmarks.gpu.stages import reported, usable_cupy, without_numba
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, precision
from hcnn_core._engines.cuda.tensor_plan import TensorPlan, kernels_of
from hcnn_core.backend import to_numpy

SLIDING = "direct", "direct", "fft", "fft"
LAYER = (8, 6, 5, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4)

PROBLEMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "implicit": (*LAYER, {"stride": (1, 1, 2, 2), "method": SLIDING}),
    "implicit, strides of 2": (*LAYER, {"stride": (2, 2, 2, 2), "method": SLIDING}),
    "implicit once more": (*LAYER, {"stride": (1, 1, 2, 2), "method": SLIDING}),
    "implicit, an odd batch": ((5, 6, 5, 4, 12), (3, 3, 5, 5, 3), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}),
    "summed": ((8, 9, 10, 20), (20, 3, 3, 24), (1, 2), {"sum_axes": 3, "method": "direct"}),
    "single": ((5, 40, 50), (5, 7), (1, 2), {"method": "direct"}),
}
"""Shapes of x and of filters, axes and options, at the zero boundary.

The first three are in the order of a training step: the function of the first kernel is then asked for less shared
memory, and for as much again.
"""

OTHERS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "gram, spread": (lambda x: autodiff.patch_moments(x, (0, 1), (3, 3), boundary="zero"), ((9, 10, 64),)),
    "normalize_rows with ELU": (
        lambda y, *a: autodiff.normalize_elu(np.moveaxis(y, 1, -1), *a, epsilon=0.1),
        ((4, 16, 9, 10, 8), (4, 1, 1, 1, 16), (16,), (16,)),
    ),
    "normalize_rows with ReLU": (
        lambda y, *a: rectified_and_moments(np.moveaxis(y, 1, -1), *a, epsilon=0.1)[:3],
        ((4, 16, 9, 10, 8), (16,), (16,), (4, 9, 10, 8, 16)),
    ),
    "add_terms": (lambda x: autodiff.marginal(x, 1), ((3, 1000, 40),)),
}
"""What else has kernels that no card has met: functions of arrays of these shapes, whose cotangents are taken too."""

ROUNDING = {"float32": 1e-5, "tf32": 4e-3}


def card() -> None:
    """Print the card, its clocks and its driver, and the versions of what runs here."""
    if tool := shutil.which("nvidia-smi"):
        asked = "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.limit"
        print(subprocess.run([tool, asked, "--format=csv"], capture_output=True, text=True).stdout.strip())
    import cupy

    versions = {"CUDA": cupy.cuda.runtime.runtimeGetVersion(), "driver": cupy.cuda.runtime.driverGetVersion()}
    print({"Python": sys.version.split()[0], "NumPy": np.__version__, "CuPy": cupy.__version__, **versions})


def main() -> None:
    """Print the card and all differences; the status is 1 if one is no rounding."""
    cupy, wrong = usable_cupy(), 0
    card()
    if sys.argv[1:] == ["card"]:
        return
    TensorPlan.supports = staticmethod(lambda a, *_: kernels_of(a) is not None)  # type: ignore[assignment]
    with without_numba():
        for what, products, compare in itertools.chain(convolutions(cupy), others(cupy)):
            right = False
            with reported(what):
                apart = np.max([np.abs(found - exact).max() / np.abs(exact).max() for found, exact in compare()])
                right = bool(apart < ROUNDING[products])  # not so of NaN
                print(f"{what}: {apart:.1e}{'' if right else ', WRONG'}", flush=True)
            wrong += not right
    print(f"values: {wrong} wrong")
    raise SystemExit(1 if wrong else 0)


Compared = tuple[str, str, Callable[[], list[tuple[Any, Any]]]]
"""What is compared, the precision of products, and what finds arrays here, each with NumPy's in double precision."""


def convolutions(cupy: Any) -> Iterator[Compared]:
    """Results and cotangents of each problem."""
    rng = np.random.default_rng(0)
    for name, (shape, taps, axes, options) in PROBLEMS.items():
        options = {"boundary": "zero", **options}
        x, w = rng.standard_normal(shape, np.float32), rng.standard_normal(taps, np.float32)
        y = convolve(x.astype(float), w.astype(float), axes, **options)
        g = rng.standard_normal(y.shape, np.float32)
        products = "float32" if name == "single" else "tf32"
        for what, work, arguments in (
            ("result", convolve, (x, w)),
            ("x's cotangent", convolve_vjp_x, (g, x, w)),
            ("w's cotangent", convolve_vjp_w, (g, x, w)),
        ):
            taken = partial(work, axes=axes, **options)
            yield f"{name}, {products}, {what}", products, partial(_called, cupy, taken, arguments, products)


def _called(cupy: Any, work: Callable[..., Any], arguments: Any, products: str) -> list[tuple[Any, Any]]:
    exact = work(*(a.astype(float) for a in arguments))
    with precision(products):
        return [(to_numpy(work(*map(cupy.asarray, arguments))), exact)]


def others(cupy: Any) -> Iterator[Compared]:
    """Results and cotangents of the other functions."""
    rng = np.random.default_rng(0)
    for name, (function, shapes) in OTHERS.items():
        yield name, "float32", partial(_differentiated, cupy, function, shapes, rng)


def _differentiated(cupy: Any, function: Callable[..., Any], shapes: Any, rng: Any) -> list[tuple[Any, Any]]:
    arrays = [rng.standard_normal(shape, np.float32) for shape in shapes]
    exact, pullback = autodiff.vjp(function, *(a.astype(float) for a in arrays))
    found, pullback_here = autodiff.vjp(function, *map(cupy.asarray, arrays))
    g = tree_map(lambda a: rng.standard_normal(a.shape, np.float32), exact)
    cotangents = pullback(tree_map(lambda a: a.astype(float), g)), pullback_here(tree_map(cupy.asarray, g))
    every = zip(tree_leaves((found, cotangents[1])), tree_leaves((exact, cotangents[0])), strict=True)
    return [(to_numpy(one), other) for one, other in every]


if __name__ == "__main__":
    main()
