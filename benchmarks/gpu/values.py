"""The card and its driver, and values of each new kernel at one small problem: `python -m benchmarks.gpu.values`.

Each line has a kernel, its precision, the largest difference from NumPy in double precision, relative to the largest
number, and whether that is rounding.
"""

from __future__ import annotations

from train.commands.process import prepare

prepare()  # before NumPy is loaded, as the command line of training does

import shutil
import subprocess
import sys
from typing import Any

import numpy as np

from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, precision
from hcnn_core._engines.cuda.plan import CudaPlan
from hcnn_core.backend import get_namespace, to_numpy

PROBLEMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "implicit": ((8, 6, 5, 8, 16), (3, 3, 7, 11, 16), (1, 2, 3, 4), {"stride": (2, 1, 2, 2)}),
    "implicit, an odd batch": ((5, 6, 5, 4, 12), (3, 3, 5, 5, 3), (1, 2, 3, 4), {"stride": (1, 1, 2, 2)}),
    "summed": ((8, 9, 10, 20), (20, 3, 3, 24), (1, 2), {"sum_axes": 3, "method": "direct"}),
    "single": ((5, 40, 50), (5, 7), (1, 2), {"method": "direct"}),
}
"""Shapes of x and of filters, axes and options, at the zero boundary."""

ROUNDING = {"float32": 1e-5, "tf32x3": 1e-5, "tf32": 4e-3}


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
    card()
    cupy, rng, wrong = get_namespace("cupy"), np.random.default_rng(0), 0
    CudaPlan.slides = lambda self, passes: passes and self._implicit is not None  # type: ignore[method-assign]
    for name, (shape, taps, axes, options) in PROBLEMS.items():
        options = {"boundary": "zero", **options}
        x, w = rng.standard_normal(shape, np.float32), rng.standard_normal(taps, np.float32)
        y = convolve(x.astype(float), w.astype(float), axes, **options)
        g = rng.standard_normal(y.shape, np.float32)
        for products in ("float32",) if name == "single" else ("tf32", "tf32x3"):
            for what, work, arguments in (
                ("result", convolve, (x, w)),
                ("x's cotangent", convolve_vjp_x, (g, x, w)),
                ("w's cotangent", convolve_vjp_w, (g, x, w)),
            ):
                exact = work(*(a.astype(float) for a in arguments), axes, **options)
                with precision(products):
                    found = to_numpy(work(*map(cupy.asarray, arguments), axes, **options))
                apart = float(np.abs(found - exact).max() / np.abs(exact).max())
                right = apart < ROUNDING[products]  # not so of NaN
                wrong += not right
                print(f"{name}, {products}, {what}: {apart:.1e}{'' if right else ', WRONG'}", flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
