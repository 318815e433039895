"""Products and bytes of each stage of a layer against what the machine can do: `python -m benchmarks.roofline`.

It measures a plain layer of 32 x 32 pixels, K = 16, Q = 32, and a (+) layer, forward and backward. Multiply-adds are
those that the convolutions and patch moments carry out; an addition in a DFT counts as one. Bytes are those of arrays
too large for a cache, each read or written once per stage. The roofs come from `benchmarks.ceilings`: matrix products
and copies on all threads.
"""

from train.commands.process import prepare

prepare()  # before NumPy is loaded

import argparse
import contextlib
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import ceilings
from benchmarks.layer import plan_macs, step_macs
from benchmarks.machine import describe_machine
from hcnn_core import convolve_elu, factored_layer, marginal, patch_moments, patch_moments_vjp
from hcnn_core._engines.cpu.factored import FactoredPlan
from hcnn_core._engines.cpu.plan import CpuPlan
from hcnn_core._engines.cpu.winograd import WinogradProducts
from hcnn_core._engines.planner import make_factored_plan, make_plan
from hcnn_core._problem import make_problem
from hcnn_core.convolution import convolve_cotangents
from hcnn_core.factored import _arguments, factored_adjoints

AXES = (1, 2, 3, 4)
STRIDE = (1, 1, 2, 2)
KERNEL = (3, 3, 7, 11)
FACTORS = 32
Array = np.ndarray[Any, Any]


def operands(images: int) -> tuple[Array, Array, Array]:
    """Input after the marginal, filters and bias, in the layout that layers leave."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 16, 32, 32, images), np.float32).transpose(4, 2, 3, 0, 1)
    return x, rng.standard_normal((*KERNEL, 16), np.float32), rng.standard_normal((4, 8, 16), np.float32)


def measure(boundary: str, images: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds, multiply-adds and bytes of each stage."""
    x, w, bias = operands(images)
    options: dict[str, Any] = {"boundary": boundary, "stride": STRIDE}
    y = convolve_elu(x, w, bias, AXES, **options)
    m = marginal(y, 3, reduction="mean")
    g = np.broadcast_to(np.ones_like(m)[:, :, :, None], y.shape)
    moments = patch_moments(x, (1, 2), 3, boundary=boundary)
    problem = make_problem(x.shape, w.shape, AXES, sum_axes=(), method="auto", **options)
    plan = make_plan(problem, True, x)
    assert isinstance(plan, CpuPlan)
    analysis, products, synthesis = plan_macs(plan)
    spectrum = plan.transform.frequencies * plan.transform.aliases * plan.transform.planes * x.size // 128 * x.itemsize
    cotangent = plan.transform.frequencies * plan.transform.planes * 16 * x.size // 128 * x.itemsize
    whole: dict[str, tuple[Callable[[], Any], int, int]] = {
        "patch moments": (lambda: patch_moments(x, (1, 2), 3, boundary=boundary), 27 * x.size, 2 * x.nbytes),
        "patch moments, backward": (
            lambda: patch_moments_vjp(*moments, x, (1, 2), 3, boundary=boundary),
            25 * x.size,
            3 * x.nbytes,
        ),
        "convolution and ELU": (
            lambda: convolve_elu(x, w, bias, AXES, **options),
            analysis + products + synthesis,
            x.nbytes + 2 * spectrum + y.nbytes,
        ),
        "marginal": (lambda: marginal(y, 3, reduction="mean"), y.size, y.nbytes + m.nbytes),
        "backward": (
            lambda: convolve_cotangents(g, x, w, AXES, ans=y, **options),
            2 * analysis + 2 * products + synthesis,
            m.nbytes + y.nbytes + 2 * cotangent + x.nbytes + 2 * spectrum + 2 * spectrum + x.nbytes,
        ),
    }
    parts = {
        "backward: ELU, to spectra": (CpuPlan, ("_cotangent",), synthesis, m.nbytes + y.nbytes + cotangent),
        "backward: of x and w": (WinogradProducts, ("adjoints",), 2 * products, cotangent + 2 * spectrum),
        "backward: spectra of x": (CpuPlan, ("_spectrum",), analysis, x.nbytes + spectrum),
        "backward: spectra to x": (CpuPlan, ("_samples", "_add_samples"), analysis, x.nbytes + spectrum),
    }
    times: dict[str, list[float]] = {name: [] for name in (*whole, *parts)}
    for index in range(rounds + 1):
        for name, (run, _, _) in whole.items():
            if name == "backward":
                continue
            began = time.perf_counter()
            run()
            if index:
                times[name].append(time.perf_counter() - began)
        spent = dict.fromkeys(parts, 0.0)
        with contextlib.ExitStack() as stack:
            for name, (owner, methods, _, _) in parts.items():
                for method in methods:
                    stack.enter_context(mock.patch.object(owner, method, _timed(getattr(owner, method), spent, name)))
            began = time.perf_counter()
            whole["backward"][0]()
            elapsed = time.perf_counter() - began
        if index:
            times["backward"].append(elapsed)
            for name, seconds in spent.items():
                times[name].append(seconds)
    work = {name: (macs, size) for name, (_, macs, size) in whole.items()}
    work |= {name: (macs, size) for name, (_, _, macs, size) in parts.items()}
    return _rows(boundary, images, times, work)


def measure_plus(boundary: str, images: int, rounds: int) -> list[dict[str, Any]]:
    """The same of a (+) layer without its moments, whose Q copies stay in cache."""
    x, _, _ = operands(images)
    rng = np.random.default_rng(1)
    h, shift = rng.standard_normal((3, 3, FACTORS), np.float32) / 3, np.zeros(FACTORS, np.float32)
    g, bias = rng.standard_normal((FACTORS, 7, 11, 16), np.float32) / 40, np.zeros(16, np.float32)
    five, axes = (x, h, shift, g, bias), (AXES[:2], AXES[2:])
    options: dict[str, Any] = {"boundary": boundary, "stride": STRIDE}
    y = factored_layer(*five, *axes, **options)
    cotangent = np.ones_like(y)
    problems = _arguments(*five, *axes, boundary, STRIDE)[2:]
    plan = make_factored_plan(*problems, x, bias)
    assert isinstance(plan, FactoredPlan)
    runs: dict[str, Callable[[], Any]] = {
        "(+) layer": functools.partial(factored_layer, *five, *axes, **options),
        "(+) layer, backward": functools.partial(factored_adjoints, cotangent, y, *five, *axes, **options),
    }
    moved = (x.nbytes + y.nbytes, 2 * (x.nbytes + y.nbytes))
    work = dict(zip(runs, zip(step_macs(plan), moved, strict=True), strict=True))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if index:
                times[name].append(time.perf_counter() - began)
    return _rows(boundary, images, times, work)


def _rows(
    boundary: str, images: int, times: dict[str, list[float]], work: dict[str, tuple[int, int]]
) -> list[dict[str, Any]]:
    return [
        {
            "boundary": boundary,
            "stage": name,
            "seconds": seconds,
            "ms_per_image": 1e3 * statistics.median(seconds) / images,
            "gflops": 2e-9 * work[name][0] / statistics.median(seconds),
            "gbs": 1e-9 * work[name][1] / statistics.median(seconds),
            "flops_per_byte": 2 * work[name][0] / work[name][1],
        }
        for name, seconds in times.items()
    ]


def _timed(method: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - began

    return timed


def lines(record: dict[str, Any]) -> list[str]:
    """The figures as text."""
    roof, copy = record["sgemm_gflops"], record["copy_gbs"]
    result = [f"roofs: {roof:.0f} GFLOP/s of sgemm, {copy:.1f} GB/s of copies, {record['threads']} threads", ""]
    result.append(
        f"{'boundary':9s} {'stage':28s} {'ms/image':>9s} {'GFLOP/s':>8s} {'GB/s':>6s} {'flop/byte':>9s} {'of roof':>8s}"
    )
    plain: dict[str, list[tuple[float, float]]] = {}
    for row in record["stages"]:
        reached = row["gflops"] / min(roof, copy * row["flops_per_byte"])
        result.append(
            f"{row['boundary']:9s} {row['stage']:28s} {row['ms_per_image']:9.3f} {row['gflops']:8.1f} "
            f"{row['gbs']:6.1f} {row['flops_per_byte']:9.1f} {100 * reached:5.0f} %"
        )
        if not row["stage"].startswith(("backward:", "(+)")):  # which are parts of others, and another layer
            plain.setdefault(row["boundary"], []).append((row["ms_per_image"], row["ms_per_image"] * reached))
    result.append("")
    for boundary, stages in plain.items():
        taken, least = map(sum, zip(*stages, strict=True))
        result.append(f"{boundary}: a plain layer's stages take {taken:.3f} ms an image, at their roofs {least:.3f}")
    return result


def draw(record: dict[str, Any], path: Path) -> None:
    """Stages under the two roofs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    roof, copy = record["sgemm_gflops"], record["copy_gbs"]
    figure, panels = pyplot.subplots(1, 2, figsize=(14, 6), sharey=True, layout="constrained")
    for panel, boundary in zip(panels, ("periodic", "zero"), strict=True):
        intensity = np.geomspace(0.2, 400, 200)
        panel.loglog(intensity, np.minimum(roof, copy * intensity), color="black", linewidth=1)
        panel.text(390, roof * 1.05, f"sgemm {roof:.0f} GFLOP/s", ha="right", va="bottom", fontsize=9)
        panel.text(1, copy * 1.1, f"copies {copy:.0f} GB/s", ha="right", va="bottom", fontsize=9)
        rows = [row for row in record["stages"] if row["boundary"] == boundary]
        for index, row in enumerate(rows):
            part = row["stage"].startswith("backward:")
            marker = "os^Dvph*X<>8dP"[index % 14]
            label = f"{row['stage']}, {row['ms_per_image']:.2f} ms"
            style = {"color": f"C{index % 10}", "fillstyle": "none" if part else "full", "markersize": 9}
            panel.plot(row["flops_per_byte"], row["gflops"], marker, label=label, **style)
        panel.set(
            xlabel="floating-point operations per byte of memory", title=f"{boundary} boundary", ylim=(1, 2 * roof)
        )
        panel.grid(True, which="major", alpha=0.3)
        panel.legend(fontsize=8, loc="lower right", title="stage, time per image", title_fontsize=8)
    panels[0].set_ylabel("GFLOP/s")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/roofline"), help="folder for the figures and the picture"
    )
    options = parser.parse_args()
    if options.images < 16 or options.rounds < 1:
        parser.error("give 16 images or more, and a round")
    machine = describe_machine()
    threads = machine["threads"]
    found = ceilings.measure()
    key = f"_{min(2, threads)}"
    record: dict[str, Any] = {
        "machine": machine,
        "threads": threads,
        "images": options.images,
        "sgemm_gflops": found[f"sgemm_gflops{key}"],
        "copy_gbs": found[f"copy_gbs{key}"],
        "ceilings": found,
        "stages": [
            row
            for b in ("periodic", "zero")
            for row in (*measure(b, options.images, options.rounds), *measure_plus(b, options.images, options.rounds))
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines(record))
    print(text)
    (options.out / "roofline.txt").write_text(text + "\n", encoding="utf-8")
    (options.out / "roofline.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(record, options.out / "roofline.png")


if __name__ == "__main__":
    main()
