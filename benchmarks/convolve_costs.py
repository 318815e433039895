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
from hcnn_core._taps import GatheredTaps, Taps  # noqa: E402
from hcnn_core._transforms import MatrixDFT  # noqa: E402
from train.run import versions  # noqa: E402

Array = np.ndarray[Any, Any]

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
    """Seconds per multiply-add, of one filter, of DFT matrices, per copied element, FFT point, line, and transform."""

    def seconds(x: Array, w: Array, axes: tuple[int, ...], method: str, rounds: int = 7) -> float:
        return median_seconds(lambda: convolve(x, w, axes, boundary="zero", method=method), rounds)

    def per_mac(filters: int) -> float:
        x, few, many = (rng.random((64, 4096), np.float32), *(rng.random((n, filters), np.float32) for n in (9, 65)))
        return (seconds(x, many, (1,), "direct") - seconds(x, few, (1,), "direct")) / (56 * filters * x.size)

    matrices, copies, points = [], [], []
    for n in (8, 16, 32):
        transform = MatrixDFT((n,), (5,), (1,), ("zero",), True)
        x = rng.random((n, 51_200), np.float32)
        elapsed = median_seconds(lambda t=transform, x=x: t.analyze(np, x))  # type: ignore[misc]
        matrices.append(elapsed / (transform.analysis_macs * x.shape[1]))
    for run in (32, 512, 8192):
        x, y = rng.random((2**21 // run, run + 7), np.float32), np.empty((2**21 // run, run), np.float32)
        copies.append(median_seconds(lambda x=x, y=y, n=run: np.copyto(y, x[:, 3 : 3 + n])) / y.size)  # type: ignore[misc]
    for n, lines in ((256, 256), (1024, 64), (65_536, 4)):
        x = rng.random((n, lines), np.float32)
        elapsed = median_seconds(lambda x=x, n=n: scipy.fft.irfft(scipy.fft.rfft(x, axis=0), n=n, axis=0))  # type: ignore[misc]
        points.append(elapsed / 2 / (n * lines * np.log2(n)))
    calls = []
    for shape in ((64, 512), (256, 256), (64, 64, 64), (16, 16, 16, 16)):
        x = rng.random(shape, np.float32)
        elapsed = median_seconds(lambda x=x: scipy.fft.irfftn(scipy.fft.rfftn(x), x.shape))  # type: ignore[misc]
        calls.append(elapsed / 2 / (x.ndim * x.size))
    line, lines = rng.random(4096, np.float32), rng.random((16, 4096), np.float32)
    lone = median_seconds(lambda: scipy.fft.rfft(line), 51) / (median_seconds(lambda: scipy.fft.rfft(lines), 51) / 16)
    x = (rng.random((64, 1, 16, 16, 16), np.float32) + 1j).astype(np.complex64)
    gather = GatheredTaps(Taps((16, 16), (16, 16), (3, 3), (1, 1), (False, False), 16, False))
    gathered = median_seconds(lambda: gather._gather(np, x, 0, 16)) / (9 * x.size)
    short, long = rng.random((20_000, 4, 16), np.float32), rng.random((80, 1000, 16), np.float32)
    tiny, taps, two = rng.random((4, 4, 4), np.float32), np.ones(3, np.float32), np.ones((3, 2), np.float32)
    few = rng.random(512, np.float32)
    return {
        "SECONDS_PER_MAC": per_mac(32),
        "FEWEST_ROWS": per_mac(1) / per_mac(32),
        "SECONDS_PER_DFT_MAC": statistics.median(matrices),
        "SECONDS_PER_COPY": statistics.median(copies),
        "SECONDS_PER_FFT_POINT": statistics.median(points),
        "SECONDS_PER_LINE": (seconds(short, taps[None], (1, 2), "direct") - seconds(long, taps[None], (1, 2), "direct"))
        / (20_000 * 4),
        "SECONDS_PER_TRANSFORM": seconds(tiny, two, (2,), "fft", 51) - seconds(tiny, two[:1], (2,), "direct", 51),
        "SECONDS_PER_LIBRARY": seconds(few, two, (0,), "fft", 51) - seconds(few, two[:1], (0,), "direct", 51),
        "SECONDS_PER_GATHERED": gathered,
        "SECONDS_PER_CALL": seconds(tiny, taps, (2,), "fft", 51) - seconds(tiny, taps[:1], (2,), "direct", 51),
        "SECONDS_PER_PASS": statistics.median(calls),
        "LONE_LINES": lone,
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
