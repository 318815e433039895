"""Coefficients of `convolve`'s cost model, and where it chooses wrongly: `python -m benchmarks.convolve_costs`.

Coefficients are medians of several sizes, in seconds per unit, to be copied to hcnn_core/_costs.py. The table times
every method that "auto" chooses between, alternating, and shows what its choice cost against the best of them.
"""

from train._process import prepare

prepare()  # before NumPy is loaded

import argparse  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import scipy.fft  # noqa: E402

from benchmarks.step import processor  # noqa: E402
from hcnn_core import _costs, convolve  # noqa: E402
from hcnn_core._geometry import make_geometry  # noqa: E402
from hcnn_core._parallel import worker_count  # noqa: E402
from hcnn_core._products import by_columns  # noqa: E402
from train.run import versions  # noqa: E402

CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]] = [
    # name, x, axes, kernel, new filters
    ("1 signal, 4096 x 9", (4096,), (0,), (9,), 1),
    ("1 signal, 100000 x 129", (100_000,), (0,), (129,), 1),
    ("64 signals, 512 x 33", (64, 512), (1,), (33,), 1),
    ("image 256 x 256, 3 x 3", (256, 256), (0, 1), (3, 3), 1),
    ("image 256 x 256, 15 x 15", (256, 256), (0, 1), (15, 15), 1),
    ("8 images, 3 x 3, 16 filters", (8, 64, 64), (1, 2), (3, 3), 16),
    ("volume 48^3, 5^3", (48, 48, 48), (0, 1, 2), (5, 5, 5), 1),
    ("4-D 16^4, 3^4", (16, 16, 16, 16), (0, 1, 2, 3), (3, 3, 3, 3), 1),
    ("layer, 8 images", (8, 32, 32, 8, 16), (1, 2, 3, 4), (3, 3, 7, 11), 16),
    ("attributes alone, 8 images", (8, 16, 16, 8, 16), (3, 4), (7, 11), 16),
]


def median_seconds(function: Callable[[], Any], rounds: int = 7) -> float:
    """Median time of a call, after one to warm up."""
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def coefficients(rng: np.random.Generator) -> dict[str, float]:
    """Seconds per multiply-add, copied element, FFT point, gathered tap, and change to spectra and back."""
    macs, copies, points = [], [], []
    for rows, columns, count in ((32, 72, 51_200), (16, 64, 51_200), (144, 128, 51_200)):
        a, b = rng.random((rows, columns), np.float32), rng.random((columns, count), np.float32)
        out = np.empty((rows, count), np.float32)

        def multiply(part: slice, a: Any = a, b: Any = b, out: Any = out) -> None:
            np.matmul(a, b[:, part], out=out[:, part])

        seconds = median_seconds(lambda f=multiply, c=columns: by_columns(np, f, 51_200, c))  # type: ignore[misc]
        macs.append(seconds / (rows * columns * count))
    for run in (32, 512, 8192):
        x, y = rng.random((2**21 // run, run + 7), np.float32), np.empty((2**21 // run, run), np.float32)
        copies.append(median_seconds(lambda x=x, y=y, n=run: np.copyto(y, x[:, 3 : 3 + n])) / y.size)  # type: ignore[misc]
    for n, lines in ((256, 256), (1024, 64), (65_536, 4)):
        x = rng.random((n, lines), np.float32)
        seconds = median_seconds(lambda x=x, n=n: scipy.fft.irfft(scipy.fft.rfft(x, axis=0), n=n, axis=0))  # type: ignore[misc]
        points.append(seconds / 2 / (n * lines * np.log2(n)))
    tiny, cube = rng.random((4, 4, 4), np.float32), np.ones((3, 3, 3), np.float32)

    def call(kernel: Any, axes: tuple[int, ...], method: str) -> float:
        return median_seconds(lambda: convolve(tiny, kernel, axes, boundary="zero", method=method), rounds=51)

    return {
        "SECONDS_PER_MAC": statistics.median(macs),
        "SECONDS_PER_COPY": statistics.median(copies),
        "SECONDS_PER_FFT_POINT": statistics.median(points),
        "SECONDS_PER_TAP": (call(cube, (0, 1, 2), "direct") - call(cube[:1, :1, :1], (0, 1, 2), "direct"))
        / (cube.size - 1),
        "SECONDS_PER_TRANSFORM": call(cube[0, 0], (2,), "fft") - call(cube[0, 0, :1], (2,), "direct"),
    }


def regret(rng: np.random.Generator, case: Sequence[Any], boundary: str) -> dict[str, Any]:
    """Time of every choice of methods for a case, and of the one that the model makes."""
    name, shape, axes, kernel, filters = case
    x = rng.standard_normal(shape, np.float32)
    w = rng.standard_normal((*kernel, *([filters] if filters > 1 else [])), np.float32)
    geometry = make_geometry(shape, w.shape, axes, boundary=boundary, sum_axes=(), stride=1, method="auto")
    chosen = _costs.choose_methods(geometry, True)
    # taps are interchangeable among axes alike in length and kernel: one of each kind is timed
    kinds = {}
    for methods in itertools.product(("direct", "fft"), repeat=len(axes)):
        kinds.setdefault(tuple(sorted(zip(geometry.lengths, kernel, methods, strict=True))), methods)
    options = list(dict.fromkeys([chosen, *kinds.values()]))
    limit = 20 * min(_costs.estimate_seconds(geometry, methods, True) for methods in options)
    options = [m for m in options if _costs.estimate_seconds(geometry, m, True) < limit]
    times: dict[tuple[str, ...], list[float]] = {methods: [] for methods in options}
    for index in range(4):
        for methods in options:
            began = time.perf_counter()
            convolve(x, w, axes, boundary=boundary, method=methods)
            if index:
                times[methods].append(time.perf_counter() - began)
    medians = {methods: statistics.median(values) for methods, values in times.items()}
    best = min(medians, key=lambda methods: medians[methods])
    return {
        "case": name,
        "boundary": boundary,
        "chosen": "+".join(chosen),
        "chosen_ms": 1e3 * medians[chosen],
        "best": "+".join(best),
        "best_ms": 1e3 * medians[best],
        "regret": medians[chosen] / medians[best],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{processor()}, {worker_count()} threads, {versions('numpy')}\n")
    measured = coefficients(rng)
    for name, value in measured.items():
        print(f"{name} = {value:.2g}  # in use: {getattr(_costs, name):.2g}")
    print(f"\n{'case':30s} {'boundary':9s} {'chosen':34s} {'ms':>8s}  {'best':34s} {'ms':>8s} {'ratio':>6s}")
    rows = [regret(rng, case, boundary) for case in CASES for boundary in ("periodic", "zero")]
    for row in rows:
        print(
            f"{row['case']:30s} {row['boundary']:9s} {row['chosen']:34s} {row['chosen_ms']:8.2f}  "
            f"{row['best']:34s} {row['best_ms']:8.2f} {row['regret']:6.2f}"
        )
    ratios = [row["regret"] for row in rows]
    print(f"\nmedian ratio {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")
    if options.json:
        record = {"processor": processor(), "versions": versions("numpy"), "coefficients": measured, "cases": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
